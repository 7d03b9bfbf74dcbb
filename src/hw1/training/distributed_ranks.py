"""The processes that train one run together: started, watched and ended by the first, which alone writes.

The others are no commands: they are given the run's settings through a pipe, know no sweep and no lease, and train
their share of each batch in step with the first. Whoever fails, all end: the run has failed with that reason.
"""

from __future__ import annotations

import datetime
import functools
import multiprocessing
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from hw1 import preemption
from hw1.data.batches import Share
from hw1.data.downloads import JOBS, nothing_downloaded
from hw1.settings import RunSettings
from hw1.settings.processes import is_shared, processes, processes_here
from hw1.training.distributed_strategy import Place, SharedBatches
from hw1.workers import spread

_HERE = "127.0.0.1"
_INTERFACE = "GLOO_SOCKET_IFNAME"
_LONG = datetime.timedelta(days=30)  # for what the first does alone, as a measure; deaths are noticed at once
_MEETING = datetime.timedelta(minutes=5)  # for processes that are all there
_BEGUN, _ENDED = "begun", "ended"  # keys of the store
_CAUSE = 10.0  # seconds in which another process's failure may be heard of, where this one lost its connection


class RankError(RuntimeError):
    """One of the processes that train a run together failed."""


@dataclass(frozen=True)
class Shared:
    """What another process must know of the run.

    Attributes:
        settings: of the run.
        folder: of the run; it is only read.
        resumes: whether training goes on from its checkpoint.
        ended: whether that is the end of a training.
        port: on which the first process's store listens.
    """

    settings: RunSettings
    folder: Path
    resumes: bool
    ended: bool
    port: int


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
        Preempted: the same, while this one was asked to stop.
    """
    if not is_shared(settings):
        yield None
        return
    world = processes(settings)
    own = socket.create_server((_HERE, 0))  # by itself the store listens on every interface
    store = TCPStore(
        *(_HERE, own.getsockname()[1], world),
        is_master=True,
        wait_for_workers=False,
        timeout=_MEETING,
        master_listen_fd=own.detach(),
    )
    shared = Shared(settings, folder, resumes, ended, store.port)
    with _own_interface(), _expected_warnings():
        others = _Others(shared, range(1, world))
        try:
            join = functools.partial(_join, store, (0, world), others.check)
            yield SharedBatches(Place((0, world), processes_here(settings)), join, others.check)
            store.set(_ENDED, "")
            others.wait()
        except Exception as error:
            cause = others.cause(error)
            if isinstance(cause, RankError) or _lost_connection(error):
                preemption.require()  # who asked this process to stop may have ended the others
            raise cause from error
        finally:
            others.end()
            _leave()


class _Others:
    """The other processes: a thread of this one watches them."""

    def __init__(self, shared: Shared, ranks: range) -> None:
        self._ranks, self._world = list(ranks), len(ranks) + 1
        self._failed: list[tuple[int, Exception]] = []
        self._said: list[str] = []
        self._heard, self._end = multiprocessing.get_context("spawn").Pipe(duplex=False)
        self._thread = threading.Thread(target=self._live, args=(shared,), daemon=True)
        self._thread.start()

    def _live(self, shared: Shared) -> None:
        try:
            work = functools.partial(share_of, shared)
            workers = len(self._ranks) or 1
            done = spread(work, self._ranks, workers, line=self._hear, until=self._heard, saving=0.0)
            for number, result in done:
                if isinstance(result, Exception):
                    self._failed.append((self._ranks[number], result))
                    break
            done.close()  # which ends the rest
        except Exception as error:  # the thread's end would be silent
            self._failed.append((0, error))
        if self._failed and dist.is_initialized() and dist.get_backend() == "nccl":
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
        rank, error = self._failed[0]
        text = " ".join(str(error).split()) or type(error).__name__
        own = "" if type(error).__module__.startswith("hw1.") else f"{type(error).__name__}: "
        made = RankError(f"process {rank} of {self._world} (from 0) failed: {own}{text}")
        for note in [*getattr(error, "__notes__", ()), *self._said[-5:]]:
            made.add_note(note)
        return made

    def cause(self, error: Exception) -> Exception:
        """Why all failed, as this process met `error`: it may only have lost its connection to one that did."""
        if isinstance(error, RankError):
            return error
        if _lost_connection(error):
            last = time.monotonic() + _CAUSE
            while not self._failed and time.monotonic() < last and self._thread.is_alive():
                time.sleep(0.05)
        return self._error() if self._failed and _lost_connection(error) else error

    def wait(self) -> None:
        """Until all have ended well.

        Raises:
            RankError: one did not.
        """
        self._thread.join()
        self.check()

    def end(self) -> None:
        """End those that live."""
        if self._thread.is_alive():
            self._end.send("")
            self._thread.join()
        self._end.close()
        self._heard.close()


def share_of(shared: Shared, rank: int) -> None:
    """Be one of the other processes: train its share of the run, and end.

    Signals that ask a job to stop go to whole groups: the first process answers them, and ends this one.
    """
    from hw1.training.distributed_share import train_share

    preemption.ignore()
    world = processes(shared.settings)
    store = TCPStore(_HERE, shared.port, world, is_master=False, timeout=_MEETING)
    join = functools.partial(_join, store, (rank, world), lambda: None)
    strategy = SharedBatches(Place((rank, world), processes_here(shared.settings)), join)
    try:
        with _expected_warnings(), nothing_downloaded(JOBS):  # as the first, which has what is needed
            train_share(shared.settings, shared.folder, strategy, (rank, world), shared.resumes, shared.ended)
        store.wait([_ENDED], _LONG)  # the first may still read what this one sent
    except Exception as error:
        error.add_note(traceback.format_exc())
        raise
    finally:
        _leave()


def _join(store: Store, share: Share, check: Callable[[], None], backend: str, device: torch.device) -> None:
    """Meet the other processes, when all have come so far."""
    rank, world = share
    store.set(f"{_BEGUN}/{rank}", "")
    keys = [f"{_BEGUN}/{other}" for other in range(world)]
    while not store.check(keys):
        check()
        time.sleep(0.02)
    gloo, hook = backend == "gloo", sys.excepthook
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world,
        timeout=_LONG if gloo else _MEETING,
        device_id=device if device.type == "cuda" else None,
    )
    sys.excepthook = hook  # torch's, which names the rank, would stay for whatever this process does afterwards
    if not gloo:
        dist.distributed_c10d._set_pg_timeout(_LONG)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _lost_connection(error: BaseException) -> bool:
    """Whether an exception is what the death of another process looks like from here."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("connection closed", "connection reset", "broken pipe", "gloo", "nccl", "socket")
    )


@contextmanager
def _own_interface() -> Iterator[None]:
    """Processes of one machine talk through its loopback: its name may resolve to an address that is not its own."""
    names = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"} if hasattr(socket, "if_nameindex") else set()
    if not names or _INTERFACE in os.environ:
        with nullcontext():
            yield
        return
    os.environ[_INTERFACE] = names.pop()
    try:
        yield
    finally:
        os.environ.pop(_INTERFACE, None)


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Silence what Lightning warns of and is done on purpose, one message at a time."""
    with warnings.catch_warnings():
        # What is logged has been added up over processes already.
        warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist=True")
        yield
