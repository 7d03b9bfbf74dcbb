"""`hydra/launcher=ray`: the parallel launcher on Ray, a cluster of its own on this machine or one that is there.

Hydra's own Ray launcher leaves its cluster to the interpreter's end, and ends with the first job that is lost.

Hydra imports this file at every start: it stays free of torch, and of Ray.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from hw1.machine import SERVER
from hw1.settings import ConfigError, RunSettings
from hw1.workers import SAVING, WorkerLostError
from hydra_plugins.hw1_launcher.elsewhere import job_of, place
from hydra_plugins.hw1_launcher.launcher import ParallelLauncher, ParallelLauncherConf, Share, on_gpu

_GIB = 2**30
_STORE = 0.1  # GiB of a cluster's own object store: jobs pass settings and a few numbers
_NAME = "hw1-ray-"  # that the name of a cluster's folder begins with
_LONGEST = 40  # letters of the folder of a cluster: the names of its sockets have 60 more, and may have 107
_MISSING = 'hydra/launcher: got ray, expected a launcher whose package is installed: pip install "hw1[ray]"'
# Ray's own variables: it reports no use, and its workers are as urgent as other launchers' (by default of nice 15).
_OF_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_worker_niceness": "0"}
_REACHED = 10.0  # seconds, within which a cluster that is there answers
_PATIENCE = 2.0  # seconds of saving, after which a line says so
_POLL = 1.0  # seconds between two looks at whether a signal has come


@dataclass
class RayLauncherConf(ParallelLauncherConf):
    """Settings of the launcher beside those of the parallel one.

    Attributes:
        address: of a cluster that is there, as `auto` or `10.0.0.1:6379`; null for one of this command's own.
        object_store_memory: GiB of the own cluster's object store; null for 0.1. One that is there has its own.
    """

    _target_: str = "hydra_plugins.hw1_launcher.ray_launcher.RayLauncher"
    address: str | None = None
    object_store_memory: float | None = None


ConfigStore.instance().store(group="hydra/launcher/settings", name="ray", node=RayLauncherConf, provider="hw1")


class RayLauncher(ParallelLauncher):
    """As the parallel launcher; on a cluster that is there, as many jobs at a time as it has room for.

    There, a job needs the output, the data and the code at the same paths as here, and nothing else.

    Raises:
        ConfigError: Ray is not installed.
        ValueError: a setting cannot be used.
    """

    _draws = False
    _alone = SERVER

    def __init__(
        self, address: str | None = None, object_store_memory: float | None = None, **of_every_launcher: Any
    ) -> None:
        super().__init__(**of_every_launcher)
        if find_spec("ray") is None:
            raise ConfigError(_MISSING)
        if object_store_memory is not None and address is not None:
            raise ConfigError(
                f"hydra.launcher.object_store_memory: got {object_store_memory} with hydra.launcher.address={address}, "
                "expected null: a cluster that is there has its own"
            )
        if object_store_memory is not None and object_store_memory < 0.075:
            raise ConfigError(
                f"hydra.launcher.object_store_memory: got {object_store_memory}, expected GiB from 0.075, or null"
            )
        self._address, self._store = address, object_store_memory or _STORE

    def prepare(self, runs: Sequence[RunSettings]) -> None:
        """Reach the cluster that is there, while nothing has been written yet; one of its own starts with its work."""
        if not self._stays(self.count(runs)):
            self._connect() if self._address is not None else _ray(own=True)

    def _counted(self, runs: Sequence[RunSettings], jobs: int) -> tuple[int, str]:
        if self._address is not None and self._workers is None:
            return max(1, jobs), ""  # Ray itself begins what there is room for
        return super()._counted(runs, jobs)

    def _memory_of(self, runs: Sequence[RunSettings], workers: int) -> float | None:
        if self._address is not None:  # what is free here says nothing of its machines
            return self._memory
        return super()._memory_of(runs, workers)

    def _stays(self, workers: int) -> bool:
        return self._address is None and super()._stays(workers)

    def _spread(
        self, work: Callable[[Any], bytes], jobs: Sequence[Any], share: Share
    ) -> Generator[tuple[int, Any], None, None]:
        with self._cluster(share) as ray:
            remote = ray.remote(job_of(place()))
            task = remote.options(**self._needs(share))
            given, waiting = ray.put(work), list(enumerate(jobs))[::-1]
            at: dict[Any, int] = {}
            try:
                while waiting or at:
                    while waiting and len(at) < share.workers:
                        position, job = waiting.pop()
                        at[task.remote(given, job)] = position
                    ended, _ = ray.wait(list(at), timeout=_POLL)
                    for one in ended:
                        yield at.pop(one), _result(ray, one)
            finally:
                _end(ray, list(at))

    def _needs(self, share: Share) -> dict[str, Any]:
        """What Ray is told that a job takes."""
        needs: dict[str, Any] = {"num_cpus": share.threads, "max_retries": 0, "memory": int(share.memory)}
        if self._address is None:
            needs["memory"] = 0  # the number of workers is counted by it
        if share.gpus:
            each = len(share.gpus[0].split(","))
            needs["num_gpus"] = each if each > 1 else 1 / self._per_gpu  # Ray shares out parts of one GPU alone
        return needs

    def _gpus(self, runs: Sequence[RunSettings]) -> list[str]:
        """On a cluster that is there, Ray knows its GPUs."""
        if self._address is None:
            seen = super()._gpus(runs)
            return seen[: len(seen) // self._per_gpu] if any("," in one for one in seen) else seen  # see `_needs`
        devices = [run.trainer.get("devices", 1) for run in runs if on_gpu(run)]
        numbers = [number for number in devices if type(number) is int]
        return [",".join(map(str, range(max(numbers))))] if numbers else []

    @contextlib.contextmanager
    def _cluster(self, share: Share) -> Iterator[Any]:
        """Ray, connected; a cluster of its own has ended behind it, with all its processes and files."""
        ray = _ray(own=self._address is None)
        if self._address is not None or ray.is_initialized():
            yield self._connect()
            return
        seen = {name for one in share.gpus for name in one.split(",")}
        with _short_folder() as folder:
            try:
                _init(
                    ray,
                    address="local",
                    num_cpus=share.workers * share.threads,
                    num_gpus=len(seen),
                    object_store_memory=int(self._store * _GIB),
                    _temp_dir=folder,
                )
                yield ray
            finally:
                with _terminated_later():
                    ray.shutdown()

    def _connect(self) -> Any:
        ray = _ray(own=False)
        if not ray.is_initialized():
            try:
                _reach(self._address)
                _init(ray, address=self._address)
            except (ConnectionError, OSError, ValueError, RuntimeError) as error:
                said = " ".join(str(error).split())
                raise ConfigError(
                    f"hydra.launcher.address: got {self._address}, expected a Ray cluster that answers: {said}"
                ) from error
        return ray


def _ray(own: bool) -> Any:
    """Ray itself, which reads its variables when it is imported.

    Args:
        own: whether for a cluster of this command's own: its ports are open to the network, so it gets a token of its
            own, unless the user has said how Ray is to know its users.
    """
    if own and "ray" not in sys.modules:
        for name, value in _OF_RAY.items():
            os.environ.setdefault(name, value)
        if not any(name.startswith("RAY_AUTH_") for name in os.environ):
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        return import_module("ray")
    except ImportError as error:  # of what Ray itself needs
        raise ConfigError(f"{_MISSING} ({error})") from error


def _reach(address: str | None) -> None:
    """Ask whether there is anything at an address: Ray itself tries for many minutes.

    Raises:
        OSError: there is not.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_REACHED).close()


def _init(ray: Any, **settings: Any) -> None:
    """Begin or reach a cluster; signals stay what they were: Ray has SIGTERM leave by sys.exit."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **settings)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _terminated_later() -> Iterator[None]:
    """A second Ctrl-C does not leave half a cluster behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """A private folder (mode 0700) outside of the output, whose name leaves room for those of sockets.

    Those of commands that were killed go: a lock says that nobody is at them.
    """
    from filelock import FileLock, Timeout

    usual = Path(tempfile.gettempdir())
    there = usual if len(str(usual)) + len(f"/{_NAME}12345678") <= _LONGEST else Path("/tmp")
    for lock in there.glob(f"{_NAME}*/lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_NAME, dir=there))
    try:
        with FileLock(folder / "lock"):
            yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(ray: Any, jobs: Sequence[Any]) -> None:
    """Have what is at work save what it has: Ray's cancelling is Ctrl-C in a worker, which takes it for SIGTERM.

    Jobs that have ended are not cancelled: Ray ends the process where one is that it is just taking the result of
    ("Tried to complete task that was not pending", ray-project/ray#54798).
    """
    left = _at_work(ray, jobs)
    try:
        for one in left:
            ray.cancel(one)
        left = _at_work(ray, left, _PATIENCE)
        if left:
            print("saving what has been trained; Ctrl-C again ends at once", file=sys.stderr, flush=True)
            left = _at_work(ray, left, SAVING - _PATIENCE)
    finally:
        for one in _at_work(ray, left):
            ray.cancel(one, force=True)


def _at_work(ray: Any, jobs: Sequence[Any], seconds: float = 0.0) -> list[Any]:
    """Those of the jobs that have not ended within so many seconds."""
    return list(ray.wait(list(jobs), num_returns=len(jobs), timeout=seconds)[1]) if jobs else []


def _result(ray: Any, one: Any) -> Any:
    """What a job came to: pickled, the exception that it raised, or that its worker was lost."""
    try:
        lines, result = ray.get(one)
    except ray.exceptions.OutOfMemoryError:
        return WorkerLostError("a worker process was killed by Ray: is there enough memory?")
    except ray.exceptions.RayError as error:
        return WorkerLostError(_death(error))
    for stream, text in lines:
        print(text, file=getattr(sys, stream), flush=True)
    return result


def _death(error: Exception) -> str:
    said = " ".join(str(error).split())
    if "SIGKILL" in said or type(error).__name__ == "WorkerCrashedError":
        return "a worker process was killed by SIGKILL; is there enough memory?"
    return f"a worker process was lost: {type(error).__name__}: {said[:300]}"
