"""Stopping a job so that it goes on later: a signal asks, the job saves what it has and ends. No torch.

A job (`hw1.job`) listens for SIGTERM and for the signal of the engine that runs it, SIGUSR2 unless
SUBMITIT_PREEMPT_SIGNAL says another. The handler does nothing but note it. Training asks after each step, a measure
before each piece (`require`), and what is at work leaves by `Preempted`, which no `except Exception` takes for a
failure. When the job has left, the signal is raised once more, for whoever handled it before: submitit requeues then,
a worker of `hw1.workers` ends, and by default the process does.

Example:
    >>> with listening():
    ...     requested()
    False
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENGINE = "SUBMITIT_PREEMPT_SIGNAL"  # in the environment: the name of the engine's signal, `USR2` say
_REQUEUED = ("SUBMITIT_EXECUTOR", "SLURM_JOB_ID")  # in the environment of a job that an engine may start again

_asked = 0  # the signal; 0 for none
_by = 0  # the process that listens; one that was forked from it does not


class Preempted(SystemExit):
    """The job was asked to stop, and what it was at goes on later: it has neither ended nor failed.

    Where nobody handles it, the process ends by exit code 128 + the signal's number, as one that the signal ended.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __reduce__(self) -> tuple[type[Preempted], tuple[int]]:
        return type(self), (self.number,)

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; it goes on from what is saved"


def signals() -> list[int]:
    """The signals that ask a job to stop.

    Raises:
        ValueError: the engine's is none.
    """
    name = os.environ.get(ENGINE, "USR2")
    engine = getattr(signal, f"SIG{name}", None)
    if engine is None:
        if name == "USR2":  # Windows
            return [signal.SIGTERM]
        raise ValueError(f"{ENGINE}: got {name!r}, expected the name of a signal, USR2 or USR1")
    return sorted({int(signal.SIGTERM), int(engine)})


def requested() -> bool:
    """Whether this job was asked to stop; cheap enough for every step."""
    return _asked != 0


def require() -> None:
    """Stop here if it was asked for.

    Raises:
        Preempted: it was.
    """
    if _asked:
        raise Preempted(_asked)


def is_listening() -> bool:
    """Whether a job is at work in this process that can be asked to stop."""
    return _by == os.getpid()


def is_requeued() -> bool:
    """Whether an engine runs this process that may start its job again when it has stopped.

    On one machine submitit does so after its own signal alone: SIGTERM comes there when the command is ended.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "local" and _asked == signal.SIGTERM:
        return False
    return any(name in os.environ for name in _REQUEUED)


def ignore() -> None:
    """In a process that serves a job: leave the signals, which go to whole groups, to the job."""
    for number in signals():
        signal.signal(number, signal.SIG_IGN)


def serve(worker: int = 0) -> None:
    """In a process that serves a job, a DataLoader's say: leave the signals to the job, and end when it has ended.

    Torch asks for the parent's number, which stays where that is a server that processes are forked from.
    """
    ignore()
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_behind, args=(parent,), daemon=True).start()


def _end_behind(process: Any) -> None:
    process.join()
    os._exit(1)


@contextmanager
def listening(interrupts: bool = False) -> Iterator[None]:
    """A job: inside, a signal makes `requested` true, and nothing else.

    Behind it the signal is raised once more where the job left by `Preempted`, or was asked by SIGTERM and had ended
    well by then. One of the engine's that came so late, or to a job that failed, is kept for the next job of this
    process: with nothing left to do, none is started again.

    Args:
        interrupts: whether this is the process of the command itself, which then ends as by Ctrl-C: KeyboardInterrupt
            is raised instead, at once where a second signal comes.

    Raises:
        Preempted: the job left by it, and the handler before did not end the process.
        KeyboardInterrupt: see `interrupts`.
        ValueError: the engine's signal is none.
    """
    global _asked, _by
    if is_listening() or threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        global _asked
        if is_listening():  # not in what was forked from the job
            if _asked and interrupts:
                _asked = 0
                raise KeyboardInterrupt
            _asked = number

    _by = os.getpid()
    left: Exception | Preempted | None = None
    try:
        for number in signals():
            before[number] = signal.signal(number, ask)
        require()  # asked at the end of the job before
        yield
    except (Preempted, Exception) as error:
        left = error
    finally:
        _by = 0
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    number = left.number if isinstance(left, Preempted) else _asked
    if isinstance(left, Preempted) or (number and interrupts) or (number == signal.SIGTERM and left is None):
        _asked = 0
        if interrupts:
            raise KeyboardInterrupt from left
        signal.raise_signal(number)
    if left is not None:
        raise left
