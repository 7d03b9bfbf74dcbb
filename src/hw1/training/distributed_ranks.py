"""The processes that train one run together: started, watched and ended by the first, which alone writes.

The others are no commands: they are given the run's settings through a pipe, or on other machines by a connection
(`hw1.training.distributed_nodes`), know no sweep and no lease, and train their share of each batch in step with the
first. Whoever fails, all end: the run has failed with that reason.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from hw1 import preemption
from hw1.files import file_digest
from hw1.settings import RunSettings
from hw1.settings.code import code_of
from hw1.settings.processes import environment_of_all, is_shared, nodes, processes, processes_here
from hw1.training.checkpoint import LAST
from hw1.training.distributed_meeting import (
    ENDED,
    INTERFACE,
    MEETING,
    Shared,
    expected_warnings,
    join_others,
    leave,
    lost_connection,
    share_of,
)
from hw1.training.distributed_nodes import Node, others_of
from hw1.training.distributed_strategy import Place, SharedBatches
from hw1.training.network import interface_of
from hw1.workers import spread

_HERE = "127.0.0.1"
_CAUSE = 10.0  # seconds in which another process's failure may be heard of, where this one lost its connection
_ENDING = 20.0  # seconds in which another machine ends its processes


class RankError(RuntimeError):
    """One of the processes that train a run together failed."""


class LostNodeError(RuntimeError):
    """Another machine of a run, or what serves it there, has ended, or answers no longer."""


@contextmanager
def together(settings: RunSettings, folder: Path, resumes: bool, ended: bool) -> Iterator[SharedBatches | None]:
    """The strategy by which this process, the first, trains with others that live inside; None if it trains alone.

    Args:
        settings: of the run.
        folder: of the run.
        resumes: whether training goes on from the checkpoint there.
        ended: whether that is the end of a training.

    Raises:
        RankError: another process failed; said in one line.
        ConfigError: other machines are asked for, and do not come.
        Preempted: the job was asked to stop, while they were waited for, or while another process failed.
    """
    if not is_shared(settings):
        yield None
        return
    world, here = processes(settings), processes_here(settings)
    with others_of(settings.key, nodes(settings) - 1) as machines:
        address = machines[0].here if machines else _HERE
        own = socket.create_server((address, 0))  # by itself the store listens on every interface
        store = TCPStore(
            *(address, own.getsockname()[1], world),
            is_master=True,
            wait_for_workers=False,
            timeout=MEETING,
            master_listen_fd=own.detach(),
        )
        checkpoint = file_digest(folder / "checkpoints" / LAST) if machines and resumes else ""
        shared = Shared(
            *(settings, folder.absolute(), resumes, ended, address, store.port, checkpoint),
            *(code_of(settings.plain), os.getcwd(), environment_of_all()),
        )
        with _on(interface_of(address)), expected_warnings():
            yield from _watched(shared, store, _Others(shared, here, machines))


def _watched(shared: Shared, store: Store, others: _Others) -> Iterator[SharedBatches]:
    """The strategy, while others train, too; they have ended behind it."""
    world = processes(shared.settings)
    try:
        join = functools.partial(join_others, store, (0, world), others.check)
        yield SharedBatches(Place((0, world), processes_here(shared.settings)), join, others.check)
        store.set(ENDED, "")
        others.wait()
    except Exception as error:
        cause = others.cause(error)
        if isinstance(cause, RankError) or lost_connection(error):
            preemption.require()  # who asked this process to stop may have ended the others
        raise cause from error
    finally:
        others.end()
        leave()


class _Others:
    """The other processes: a thread of this one watches those of this machine, and one each other machine."""

    def __init__(self, shared: Shared, here: int, machines: Sequence[Node]) -> None:
        self._world = processes(shared.settings)
        self._failed: list[tuple[str, Exception]] = []  # (which, why)
        self._said: list[str] = []
        self._heard, self._end = multiprocessing.get_context("spawn").Pipe(duplex=False)
        self._machines, self._over = list(machines), False
        work: list[Callable[[], None]] = [functools.partial(self._live, shared, range(1, here))]
        for number, machine in enumerate(machines, 1):
            ranks = range(number * here, (number + 1) * here)
            work.append(functools.partial(self._listen, shared, ranks, machine))
        self._threads = [threading.Thread(target=function, daemon=True) for function in work]
        for thread in self._threads:
            thread.start()

    def _live(self, shared: Shared, ranks: range) -> None:
        try:
            work = functools.partial(share_of, shared)
            done = spread(work, ranks, len(ranks) or 1, line=self._hear, until=self._heard, saving=0.0)
            for number, result in done:
                if isinstance(result, Exception):
                    self._fail(ranks[number], result)
                    break
            done.close()  # which ends the rest
        except Exception as error:  # the thread's end would be silent
            self._fail(0, error)

    def _listen(self, shared: Shared, ranks: range, machine: Node) -> None:
        try:
            machine.connection.send(("work", shared, ranks))
            while (message := machine.connection.recv())[0] != "ended":
                if message[0] == "line":
                    self._hear(*message[1:])
                else:
                    _, rank, error = message
                    self._fail(rank, error, machine.name)
        except (EOFError, OSError):
            if not self._over:
                self._fail(ranks[0], LostNodeError("that machine has ended, or answers no longer"), machine.name)
                machine.cut()
        except Exception as error:  # an exception of a class that is not known here, say
            self._fail(ranks[0], error, machine.name)
            machine.close()

    def _fail(self, rank: int, error: Exception, machine: str = "") -> None:
        where = f", on {machine}" if machine else ""
        self._failed.append((f"process {rank} of {self._world} (from 0{where})", error))
        if dist.is_initialized() and dist.get_backend() == "nccl":
            dist.distributed_c10d._abort_process_group()  # where gloo loses a connection, nccl waits

    def _hear(self, stream: str, line: str) -> None:
        """What they print is what the first prints, too."""
        self._said = [*self._said[-20:], line]

    def check(self) -> None:
        """Raise the failure of one of them.

        Raises:
            RankError: one line.
        """
        if self._failed:
            raise self._error()

    def _error(self) -> RankError:
        which, error = self._failed[0]
        text = " ".join(str(error).split()) or type(error).__name__
        own = "" if type(error).__module__.startswith("hw1.") else f"{type(error).__name__}: "
        made = RankError(f"{which} failed: {own}{text}")
        for note in [*getattr(error, "__notes__", ()), *self._said[-5:]]:
            made.add_note(note)
        return made

    def cause(self, error: Exception) -> Exception:
        """Why all failed, as this process met `error`: it may only have lost its connection to one that did."""
        if isinstance(error, RankError):
            return error
        if lost_connection(error):
            last = time.monotonic() + _CAUSE
            while not self._failed and time.monotonic() < last and any(one.is_alive() for one in self._threads):
                time.sleep(0.05)
        return self._error() if self._failed and lost_connection(error) else error

    def wait(self) -> None:
        """Until all have ended well.

        Raises:
            RankError: one did not.
        """
        while any(thread.is_alive() for thread in self._threads):
            for thread in self._threads:
                thread.join(0.1)
            self.check()
        self.check()

    def end(self) -> None:
        """End those that live."""
        self._over = True
        here, *elsewhere = self._threads
        if here.is_alive():
            self._end.send("")
        for machine in self._machines:
            with suppress(OSError):
                machine.connection.send("end")
        here.join()
        last = time.monotonic() + _ENDING
        for thread in elsewhere:
            thread.join(max(0.0, last - time.monotonic()))
        for machine in self._machines:
            machine.close()  # which ends a thread that still listens
        self._end.close()
        self._heard.close()


@contextmanager
def _on(interface: str) -> Iterator[None]:
    """Inside, processes that begin talk through a network interface, unless the user has named one.

    Otherwise they take the one that this machine's name resolves to, which may not be its own.
    """
    if not interface or INTERFACE in os.environ:
        yield
        return
    os.environ[INTERFACE] = interface
    try:
        yield
    finally:
        os.environ.pop(INTERFACE, None)
