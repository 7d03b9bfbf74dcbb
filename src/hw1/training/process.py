"""What a training needs of the process that it runs in: threads, torch's switches, signals, warnings, a lease."""

import functools
import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch.loggers import Logger

from hw1.lease import Lease, hold
from hw1.preemption import Preempted

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[Lease]:
    """The run's own lease; says so if another process has it."""
    said = functools.partial(log.info, "%s: another process is at it; waiting for its result", folder.name)
    with hold(folder, waits=said) as lease:
        yield lease


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Torch's thread count is `number` inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def torch_switches() -> Iterator[None]:
    """What Lightning switches for the whole process (`deterministic`, `benchmark`) is afterwards as it was before."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def interruptible() -> Iterator[None]:
    """Lightning ignores SIGINT after the first and leaves by sys.exit(1): make it a KeyboardInterrupt again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Preempted:  # no exit of Lightning's
        raise
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def closing_all(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close what a logger holds open, of those that can `close`: Lightning's `finalize` ends each of its own steps."""
    try:
        yield
    finally:
        for logger in loggers:
            if (close := getattr(logger, "close", None)) is not None:
                close()


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence what Lightning warns of and is done on purpose here, one message at a time."""
    with warnings.catch_warnings():
        # Data lie in memory as tensors: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning 2.6 asks torch 2.15's pytrees in a deprecated way.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        # hw1's own order of batches goes on where it was, see `midway`; Lightning asks for a state_dict of the loader.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")
        # Where Slurm is at hand, it would be told of processes; hw1 starts those that it needs.
        warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
        # From the first average on its own schedule stands in the place of the run's, also where that goes by steps.
        warnings.filterwarnings("ignore", message="SWA is currently only supported every epoch")
        yield
