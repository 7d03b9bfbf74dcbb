"""What each of the processes that train one run together does: it knows its share of the run, and meets the others."""

from __future__ import annotations

import datetime
import functools
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from hw1 import preemption
from hw1.data.batches import Share
from hw1.data.downloads import JOBS, nothing_downloaded
from hw1.settings import ConfigError, RunSettings
from hw1.settings.code import code_of
from hw1.settings.processes import processes, processes_here
from hw1.training.distributed_strategy import Place, SharedBatches

INTERFACE = "GLOO_SOCKET_IFNAME"
_LONG = datetime.timedelta(days=30)  # for what the first does alone, as a measure; deaths are noticed at once
_JOINING = datetime.timedelta(minutes=1)
MEETING = datetime.timedelta(minutes=5)  # for processes that are all there
_BEGUN, ENDED = "begun", "ended"  # keys of the store


@dataclass(frozen=True)
class Shared:
    """What another process must know of the run.

    Attributes:
        settings: of the run.
        folder: of the run; it is only read.
        resumes: whether training goes on from its checkpoint.
        ended: whether that is the end of a training.
        address: at which the first process's store listens.
        port: the same.
        checkpoint: SHA-256 of the checkpoint's file, where another machine is to see the same; else "".
        code: hashes of the user's modules that it runs.
        place: the current folder of the first process.
        environment: its variables that are hw1's own.
    """

    settings: RunSettings
    folder: Path
    resumes: bool
    ended: bool
    address: str
    port: int
    checkpoint: str
    code: Mapping[str, str]
    place: str
    environment: Mapping[str, str]


def share_of(shared: Shared, rank: int) -> None:
    """Be one of the other processes: train its share of the run, and end.

    Signals that ask a job to stop go to whole groups: the first process answers them, and ends this one.
    """
    from hw1.training.distributed_share import train_share

    preemption.ignore()
    os.chdir(shared.place)
    _require_same_code(shared)
    world = processes(shared.settings)
    store = TCPStore(shared.address, shared.port, world, is_master=False, timeout=MEETING)
    join = functools.partial(join_others, store, (rank, world), lambda: None)
    strategy = SharedBatches(Place((rank, world), processes_here(shared.settings)), join)
    try:
        with expected_warnings(), nothing_downloaded(JOBS):  # as the first, which has what is needed
            train_share(shared.settings, shared.folder, strategy, (rank, world), shared.resumes, shared.ended)
        store.wait([ENDED], _LONG)  # the first may still read what this one sent
    except Exception as error:
        error.add_note(traceback.format_exc())
        raise
    finally:
        leave()


def _require_same_code(shared: Shared) -> None:
    """Refuse to train with other modules of the user's than the first process.

    Raises:
        ConfigError: one line that names the first that differs.
    """
    own = code_of(shared.settings.plain)
    if differs := [name for name in {**shared.code, **own} if shared.code.get(name) != own.get(name)]:
        raise ConfigError(
            f"{differs[0]}: got another module than the first process has, expected the same: begin `hw1 node` in the "
            "folder of the command"
        )


def join_others(store: Store, share: Share, check: Callable[[], None], backend: str, device: torch.device) -> None:
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
        timeout=_JOINING if gloo else MEETING,  # gloo takes five times as long
        device_id=device if device.type == "cuda" else None,
    )
    sys.excepthook = hook  # torch's, which names the rank, would stay for whatever this process does afterwards
    dist.set_timeout(_LONG)


def leave() -> None:
    """End what `join_others` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_connection(error: BaseException) -> bool:
    """Whether an exception is what the death of another process looks like from here."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("connection closed", "connection reset", "broken pipe", "gloo", "nccl", "socket")
    )


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence what Lightning warns of and is done on purpose, one message at a time."""
    with warnings.catch_warnings():
        # What is logged has been added up over processes already.
        warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist=True")
        yield
