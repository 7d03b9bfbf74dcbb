"""`hydra/launcher=joblib`: the parallel launcher on joblib's processes (loky), which import torch anew.

Hydra's own joblib launcher names no killed worker, and what it has begun goes on when its command is ended.

Hydra imports this file at every start: it stays free of torch.
"""

import functools
import os
import re
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hw1.settings import RunSettings
from hw1.workers import WorkerLostError, portable
from hydra_plugins.hw1_launcher.launcher import ParallelLauncher, Share

_POLL = 0.2  # seconds between two looks at whether the command still lives


class JoblibLauncher(ParallelLauncher):
    """As the parallel launcher, but that joblib ends all workers where one is killed: what they were at goes on later.

    Nothing is pickled into a file of the output; joblib's own folder is a private one, and removed.
    """

    _draws = False

    def prepare(self, runs: Sequence[RunSettings]) -> None:
        """Nothing: joblib starts its processes when it has work."""

    def _spread(
        self, work: Callable[[Any], bytes], jobs: Sequence[Any], share: Share
    ) -> Generator[tuple[int, Any], None, None]:
        import joblib

        with (
            tempfile.TemporaryDirectory(prefix="hw1-joblib-") as folder,  # of mode 0700
            joblib.parallel_config("loky", inner_max_num_threads=share.threads, temp_folder=folder),
        ):
            parallel = joblib.Parallel(
                n_jobs=max(2, share.workers),  # a single job joblib would do in this process
                batch_size=1,
                pre_dispatch=share.workers,  # nothing waits in a worker that could begin it when its command has ended
                max_nbytes=None,
                return_as="generator_unordered",
            )
            do = functools.partial(_job, work, Path(folder), list(share.gpus), os.getpid())
            try:
                with _unheard():
                    done = parallel(joblib.delayed(do)(position, job) for position, job in enumerate(jobs))
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=".*tasks (have been|which were still).*")  # ended early
                    yield from done
            except BrokenExecutor as error:
                yield -1, WorkerLostError(_death(str(error)))


def _death(said: str) -> str:
    """What loky says of killed workers, as `hw1.workers` does.

    Example:
        >>> _death("The exit codes of the workers are {SIGKILL(-9)}")
        'a worker process was killed by SIGKILL; is there enough memory?'
    """
    codes = re.findall(r"(SIG\w+)\(-\d+\)", said)
    if not codes:
        return "a worker process ended"
    name = "SIGKILL" if "SIGKILL" in codes else codes[0]
    return f"a worker process was killed by {name}" + ("; is there enough memory?" if name == "SIGKILL" else "")


@contextmanager
def _unheard() -> Generator[None, None, None]:
    """What is started inside never gets Ctrl-C, which goes to all processes of a terminal: it is the command's affair."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Inside a worker


def _job(
    work: Callable[[Any], bytes], folder: Path, gpus: Sequence[str], parent: int, position: int, job: Any
) -> tuple[int, Any]:
    if os.getpid() != parent:  # joblib was told by its own variables to start no processes
        _settle(folder, tuple(gpus), parent)
    try:
        return position, work(job)
    except Exception as error:  # it is the caller's to judge
        return position, portable(error)


@functools.lru_cache(maxsize=1)
def _settle(folder: Path, gpus: tuple[str, ...], parent: int) -> Any:
    """Once a process: end with the command, and take a place at a GPU; returns what keeps the place."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    from filelock import FileLock, Timeout

    for number, seen in enumerate(gpus):
        place = FileLock(folder / f"gpu-{number}")
        try:
            place.acquire(timeout=0)
        except Timeout:
            continue
        os.environ["CUDA_VISIBLE_DEVICES"] = seen  # before anything of this process has asked CUDA
        return place
    return None


def _watch(parent: int) -> None:
    """End this process when the one that started it has ended, however it did."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
