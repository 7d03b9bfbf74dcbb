"""`hydra/launcher=joblib`: the parallel launcher on joblib's processes (loky), which import torch anew.

Hydra's own joblib launcher names no killed worker, and what it has begun goes on when its command is ended.

Hydra imports this file at every start: it stays free of torch.
"""

import contextlib
import os
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from pathlib import Path
from types import FrameType
from typing import Any

from hw1 import preemption
from hw1.machine import SERVER
from hw1.settings import RunSettings
from hw1.workers import SAVING, WorkerLostError, kept, portable
from hydra_plugins.hw1_launcher.launcher import ParallelLauncher, Share

_POLL = 0.2  # seconds between two looks at whether the command still lives
_PATIENCE = 2.0  # seconds of saving, after which a line says so


class JoblibLauncher(ParallelLauncher):
    """As the parallel launcher, but that joblib ends all workers where one is killed: what they were at goes on later.

    Nothing is pickled into a file of the output; what it shares is in memory.
    """

    _draws = False
    _alone = SERVER

    def prepare(self, runs: Sequence[RunSettings]) -> None:
        """Nothing: joblib starts its processes when it has work."""

    def _spread(
        self, work: Callable[[Any], bytes], jobs: Sequence[Any], share: Share
    ) -> Generator[tuple[int, Any], None, None]:
        from joblib.externals.loky import ProcessPoolExecutor

        waiting, at = list(enumerate(jobs))[::-1], dict[Future[Any], int]()
        places = [share.gpus[number % len(share.gpus)] for number in range(share.workers)] if share.gpus else []
        with tempfile.TemporaryDirectory(prefix="hw1-gpus-") if share.gpus else contextlib.nullcontext("") as folder:
            executor = ProcessPoolExecutor(
                share.workers, initializer=_settle, initargs=(Path(folder), places, os.getpid())
            )
            try:
                while waiting or at:
                    with _unheard():
                        while waiting and len(at) < share.workers:  # none waits in a process that could begin it later
                            position, job = waiting.pop()
                            at[executor.submit(_job, work, job)] = position
                    for one in wait(at, return_when=FIRST_COMPLETED).done:
                        yield at.pop(one), one.result()
            except BrokenExecutor as error:
                yield -1, WorkerLostError(_death(str(error)))
            finally:
                try:
                    _save(executor, at)
                finally:
                    with warnings.catch_warnings():
                        warnings.filterwarnings("ignore", "Failed to kill subprocesses")  # where there is no pgrep
                        executor.shutdown(kill_workers=True)


def _save(executor: Any, at: Mapping[Future[Any], int]) -> None:
    """Have what is at work save what it has; the processes live on, as joblib ends all where one has ended."""
    if all(one.done() for one in at):
        return
    for process in list((executor._processes or {}).values()):
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGTERM)
    if wait(at, timeout=_PATIENCE).not_done:
        print("saving what has been trained; Ctrl-C again ends at once", file=sys.stderr, flush=True)
        wait(at, timeout=SAVING - _PATIENCE)


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


@contextlib.contextmanager
def _unheard() -> Generator[None, None, None]:
    """What is started inside never gets Ctrl-C, which goes to all processes of a terminal."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Inside a worker


_PLACE, _WORKING = "place", "working"  # in `kept`: what keeps this process's place at a GPU; whether it is at a job


def _job(work: Callable[[Any], bytes], job: Any) -> Any:
    kept[_WORKING] = True
    try:
        return work(job)
    except SystemExit:  # by SIGTERM; what it was at is saved
        return WorkerLostError("a worker process was asked to end by SIGTERM")
    except Exception as error:  # it is the caller's to judge
        return portable(error)
    finally:
        kept[_WORKING] = False


def _end_job(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends what is at work, and not the process: joblib would kill those that are still saving."""
    if kept.get(_WORKING):
        raise SystemExit(128 + number)


def _settle(folder: Path, gpus: Sequence[str], parent: int) -> None:
    """Begin: end with the command, and take a place at a GPU, which the system gives back when this process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_job)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    from filelock import FileLock, Timeout

    for number, seen in enumerate(gpus):
        place = kept[_PLACE] = FileLock(folder / f"gpu-{number}")
        with contextlib.suppress(Timeout):
            place.acquire(timeout=0)
            os.environ["CUDA_VISIBLE_DEVICES"] = seen  # before anything of this process has asked CUDA
            return


def _watch(parent: int) -> None:
    """End this process when the one that started it has ended, however it did."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    last = time.monotonic() + SAVING
    if preemption.is_listening():
        os.kill(os.getpid(), signal.SIGTERM)
    while preemption.is_listening() and time.monotonic() < last:
        time.sleep(_POLL)
    os._exit(1)
