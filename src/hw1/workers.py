"""Processes that share out work. No torch.

The processes are forked from a server that has imported torch once (where there is none, Windows: each imports it).
Each has a pipe of its own to this process, so that one that is killed takes nothing with it but what it was at:
concurrent.futures and loky then end all others, and have no way for what a worker tells while it works. Pickles travel
between these processes alone; none is read from a file.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from hw1 import preemption

# Modules that the server imports before it forks: names, so that nothing is imported here.
PRELOADED = [
    *("hw1.training.fit", "hw1.measures.take", "hw1.measures.sharpness", "hw1.measures.sensitivity"),
    *("hw1.job", "hw1.landscape", "hw1.studies", "hydra.core.utils", "torch.utils.tensorboard", "pandas"),
]
_GRACE = 2.0  # seconds from a request to end to the end; what hw1 writes is whole or absent
SAVING = 20.0  # seconds in which a job saves what it has, before it is ended

Line = Callable[[str, str], None]  # ("stdout" or "stderr", a line without its end)
Told = Callable[[int, Any], None]  # (number of the item, what its worker told; None when it has ended)


class WorkerLostError(RuntimeError):
    """A worker process ended before its work did: it was killed, or the machine had no memory left for it."""


def spread(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    workers: int,
    *,
    environments: Sequence[Mapping[str, str]] = (),
    line: Line | None = None,
    told: Told | None = None,
    until: Connection | None = None,
    saving: float = SAVING,
) -> Generator[tuple[int, Any], None, None]:
    """`function(item)` of every item, in processes: (number of the item, result) as they end, begun in their order.

    However the iteration ends, by an exception or Ctrl-C too, the processes have ended behind it; close it to end early
    (`contextlib.closing`). They end by themselves where this process is killed. A job in one (`hw1.preemption`) first
    saves what it has.

    Args:
        function: of a module, or a `partial` of one; pickled, as items and results are.
        items: what it is called with.
        workers: number of processes, at most.
        environments: variables of each process beside those of this one; the first has the first, and so on, again
            from the first where there are more processes.
        line: gets what they print, line by line; printed where there is none.
        told: gets what `tell` was given in a worker.
        until: from the moment when something can be read there, it ends early: by it another thread ends it.
        saving: seconds that processes which are at work when it ends early have to save what they are at.

    Yields:
        The result; the exception that the function raised; WorkerLostError where the worker was killed.
    """
    said = line or _print
    heard = told or (lambda number, message: None)
    what = pickle.dumps(function)
    waiting, busy, made = list(range(len(items)))[::-1], list[_Worker](), list[_Worker]()
    places = list(range(workers))[::-1]
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                place = places.pop()
                made.append(_Worker(what, place, environments[place % len(environments)] if environments else {}))
                busy.append(made[-1])
                made[-1].begin(waiting[-1], items)
                waiting.pop()
            ends = [] if until is None else [until]
            wait([*(source for worker in busy for source in (worker.connection, worker.process.sentinel)), *ends])
            if until is not None and until.poll():
                return
            for worker in list(busy):
                for kind, *content in worker.messages():
                    if kind == "line":
                        said(*content)
                    elif kind == "told":
                        heard(worker.number, *content)
                    else:  # the item has ended
                        number, (result,) = worker.number, content
                        heard(number, None)
                        if kind == "done" and waiting:
                            worker.begin(waiting.pop(), items)
                        else:
                            busy.remove(worker)
                            places.append(worker.place)
                            worker.connection.close()  # one that lives takes this for its end
                        yield number, result
    finally:
        for worker in busy:
            worker.process.terminate()
        _join(made, saving if busy else _GRACE)


def tell(message: Any) -> None:
    """In a worker: give `message` to the `told` of the process that spreads the work; elsewhere nothing."""
    if _send is not None:
        _send("told", message)


class _Worker:
    """A process and the item that it is at."""

    def __init__(self, function: bytes, place: int, environment: Mapping[str, str]) -> None:
        self.number, self.place = -1, place
        served = "forkserver" in multiprocessing.get_all_start_methods()
        method = "forkserver" if served else "spawn"
        context: Any = multiprocessing.get_context(method)
        start_server()
        self.connection, other = context.Pipe()
        # No daemon: those may have no children, and a DataLoader has.
        self.process = context.Process(target=_serve, args=(other, {**os.environ, **environment}, os.getcwd()))
        with _default(method):
            self.process.start()
        other.close()
        self._send(function)

    def begin(self, number: int, items: Sequence[Any]) -> None:
        """Start on an item."""
        self.number = number
        self._send(pickle.dumps(items[number]))

    def _send(self, pickled: bytes) -> None:
        with contextlib.suppress(OSError):  # it is dead: `messages` says so
            self.connection.send_bytes(pickled)

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """What it has sent by now; ("lost", error) once it is dead."""
        try:
            while self.connection.poll():
                yield self.connection.recv()
                if self.connection.closed:
                    return
        except (EOFError, OSError):
            self.process.join(_GRACE)
        if not self.process.is_alive():
            yield "lost", WorkerLostError(_death(self.process.exitcode))


@contextlib.contextmanager
def _default(method: str) -> Iterator[None]:
    """Inside, `method` starts processes by default, where it was one that others do not know: loky's, under joblib.

    A process takes its parent's default over when it begins.
    """
    before = multiprocessing.get_start_method(allow_none=True)
    if before in (None, "fork", "spawn", "forkserver"):
        yield
        return
    multiprocessing.set_start_method(method, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"a worker process ended by exit code {code}"
    memory = "; is there enough memory?" if code == -9 else ""
    return f"a worker process was killed by {signal.Signals(-code).name}{memory}"


def start_server() -> None:
    """Start the server that workers are forked from, unless it runs; does not wait until it has imported torch."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # which lets SIGTERM through again when it has started, in Python 3.11
    forkserver.set_forkserver_preload(PRELOADED)
    # Ctrl-C goes to all processes of a terminal, but is this one's affair: the server and what it forks never see it.
    # An engine's signals go to all processes of a job: the server, which knows how workers end, does not see them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, *preemption.signals()])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _join(workers: Sequence[_Worker], seconds: float) -> None:
    """Wait until they have ended; kill those that do not, or all where Ctrl-C comes once more."""
    begun, said = time.monotonic(), False
    try:
        while (waited := time.monotonic() - begun) < seconds and any(worker.process.is_alive() for worker in workers):
            if waited > _GRACE and not said:
                said = True
                print("saving what has been trained; Ctrl-C again ends at once", file=sys.stderr, flush=True)
            wait([worker.process.sentinel for worker in workers if worker.process.is_alive()], min(seconds, _GRACE) / 4)
    finally:
        for worker in workers:
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join()
            worker.connection.close()


# Inside a worker

_send: Callable[..., None] | None = None
kept: dict[str, Any] = {}  # what a launcher's workers keep: Hydra executes the launchers' own modules again at will


def _serve(connection: Connection, environment: dict[str, str], folder: str) -> None:
    """Be a worker until the connection is closed, or SIGTERM comes; a job that is at work saves what it has before."""
    global _send
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    if hasattr(signal, "pthread_sigmask"):  # the server that it is forked from does not see them
        signal.pthread_sigmask(signal.SIG_UNBLOCK, preemption.signals())
    threading.Thread(target=_watch, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    lock = threading.RLock()

    def send(*message: Any) -> None:
        # Where nobody listens any more this process is about to end; what is at work is no failure until then.
        with lock, contextlib.suppress(BrokenPipeError):
            connection.send(message)

    _send = send
    sys.stdout, sys.stderr = streams = _Lines("stdout"), _Lines("stderr")
    with contextlib.suppress(EOFError, OSError):  # the connection is closed
        function = connection.recv()
        while True:
            item = connection.recv()
            try:
                result = function(item)
            except Exception as error:  # it is the caller's to judge
                result = portable(error)
            for stream in streams:
                stream.end()
            send("done", result)


def _watch() -> None:
    """End this process when the one that started it has ended, however it did; a job saves what it has before."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if preemption.is_listening():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SAVING)
    os._exit(1)


def portable(error: Exception) -> Exception:
    """An exception that survives pickling: some are made by other arguments than they keep."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of it
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Lines(io.TextIOBase):
    """What is printed, sent by whole lines."""

    def __init__(self, name: str) -> None:
        self._name, self._rest = name, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        assert _send is not None
        for line in lines:
            _send("line", self._name, line)
        return len(text)

    def flush(self) -> None:
        """Nothing: half a line waits for its end."""

    def end(self) -> None:
        """Send what has no end."""
        if self._rest:
            self.write("\n")


def _print(stream: str, line: str) -> None:
    print(line, file=getattr(sys, stream), flush=True)
