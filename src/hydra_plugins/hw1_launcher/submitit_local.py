"""`hydra/launcher=submitit_local`: each run in a process of submitit's on this machine, so many at a time.

Hydra imports this file at every start: it stays free of torch, and of submitit.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

from hw1 import preemption
from hw1.lease_file import has_ended, started
from hw1.machine import cores, gpus, room
from hw1.runs.submitted import last_line
from hw1.settings import RunSettings
from hw1.workers import SAVING, WorkerLostError
from hydra_plugins.hw1_launcher.launcher import length
from hydra_plugins.hw1_launcher.submitit_jobs import PYTHON, Job, SubmititLauncher, came_to, path_for_jobs, tell

_GIB = 2**30
_STARTS = 6  # of a job, by submitit's process on this machine (`Controller.run`)
_POLL = 0.1  # seconds between two looks
_GRACE = 2.0  # seconds from a request to end after which it is said what is waited for
_KILLED = "its log is empty, as of a process that SIGKILL ended; is there enough memory?"
_END = "end"  # in a submission's folder: its jobs are to end


@dataclass
class LocalJob(Job):
    """A job that ends with its command, and with submitit's process that started it, however those did.

    submitit leaves its jobs running. What reaches the command alone, SIGKILL or a signal while its jobs still import,
    is so noticed by the jobs themselves.

    Attributes:
        command: (process, when it was started) of the command.
    """

    command: tuple[int, str] = (0, "")

    def __call__(self) -> None:
        """Do it, and look out for the end of the others meanwhile."""
        threading.Thread(target=self._watch, args=(os.getppid(),), daemon=True).start()
        super().__call__()

    def _watch(self, controller: int) -> None:
        end = Path(self.folder, _END)
        while not (end.exists() or os.getppid() != controller or has_ended(*self.command)):
            time.sleep(_POLL)
        if preemption.is_listening():
            os.kill(os.getpid(), signal.SIGTERM)
            waited, last = os.getppid() == controller, time.monotonic() + SAVING
            while time.monotonic() < last and (not waited or os.getppid() == controller):  # killed: Ctrl-C once more
                time.sleep(_POLL)
        os._exit(128 + signal.SIGTERM)


class SubmititLocalLauncher(SubmititLauncher):
    """submitit starts all jobs at once; here one begins when another has ended.

    Raises:
        ValueError: a setting cannot be used.
    """

    name = "submitit_local"
    _passed = frozenset({"name", "stderr_to_stdout"})

    def __init__(self, mem_gb: float, setup: Any = None, **settings: Any) -> None:
        super().__init__(**settings)
        if self._timeouts > _STARTS - 1:
            raise ValueError(
                f"hydra.launcher.max_num_timeout: got {self._timeouts}, expected {_STARTS - 1} at most: submitit "
                "starts a job of this machine no more often; give it more time (hydra.launcher.timeout_min)"
            )
        if not mem_gb > 0:
            raise ValueError(f"hydra.launcher.mem_gb: got {mem_gb}, expected GiB above 0")
        self._memory, self._before = mem_gb * _GIB, list(setup or ())

    @property
    def workers(self) -> int | None:
        """The number of jobs at a time that was asked for; None for as many as there is room for."""
        return self._parallel

    def count(self, runs: Sequence[RunSettings]) -> int:
        """The number of these runs that are at work at a time."""
        return self._counted(runs, len(runs))

    def _counted(self, runs: Sequence[RunSettings], jobs: int) -> int:
        if self._parallel is not None:
            return max(1, min(self._parallel, jobs))
        needs = [self._needs(run) for run in runs]
        if any(number for _, number in needs):  # they would share one
            return 1
        wanted = max(1, min(jobs, cores() // max((cpus for cpus, _ in needs), default=1)))
        return room(wanted, self._memory)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; their results in the order in which they were given.

        Raises:
            WorkerLostError: processes were killed; all other jobs have ended.
        """
        runs = self._taken(len(job_overrides))
        workers = self._counted(runs, len(job_overrides))
        folder = self._new_folder()
        digest = self._write_state(folder)
        lengths = [length(run) for run in runs] or [0.0] * len(job_overrides)
        waiting = sorted(range(len(job_overrides)), key=lambda number: lengths[number])  # the longest is the last
        busy: dict[int, tuple[Any, int]] = {}
        results: dict[int, JobReturn] = {}
        lost: list[str] = []
        command = os.getpid(), started(os.getpid())
        try:
            while waiting or busy:
                while waiting and len(busy) < workers:
                    number = waiting.pop()
                    slot = min(set(range(workers)) - {slot for _, slot in busy.values()})
                    words = list(job_overrides[number])
                    job = LocalJob(str(folder), digest, number, initial_job_idx + number, words, command=command)
                    busy[number] = self._started(job, runs[number] if runs else None, slot), slot
                time.sleep(_POLL)
                for number, (process, _) in list(busy.items()):
                    if not process.done():
                        continue
                    del busy[number]
                    tell(process.paths.stdout)
                    result = came_to(folder / f"{number}.json")
                    if result is None:
                        lost.append(last_line(process.paths.stderr) or _KILLED)
                    else:
                        results[number] = result
        except BaseException:  # Ctrl-C above all
            _end(folder, [process for process, _ in busy.values()])
            raise
        if lost:
            raise WorkerLostError(f"a job of submitit ended before its run did: {lost[0]}; {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        return [results[number] for number in range(len(job_overrides))]

    def _started(self, job: Job, run: RunSettings | None, slot: int) -> Any:
        """A job that has begun, in a folder of its own: its number is a process's, of which the system reuses some."""
        import submitit

        cpus, devices = self._needs(run)
        settings = dict(self._settings)
        delay = settings.pop("signal_delay_s")  # which AutoExecutor takes for Slurm's alone
        own = Path(job.folder, f"job_{job.number}")
        own.mkdir(mode=0o700)
        executor = submitit.AutoExecutor(
            folder=own, cluster="local", local_max_num_timeout=self._timeouts, local_python=PYTHON
        )
        executor.update_parameters(
            **settings | {"cpus_per_task": cpus, "gpus_per_node": devices},
            **({"local_setup": self._before} if self._before else {}),
        )
        executor._executor.update_parameters(signal_delay_s=delay)
        if seen := _visible(devices, slot):  # submitit itself takes numbers alone, and counts from 0
            job.environment["CUDA_VISIBLE_DEVICES"] = ",".join(seen)
        variables = {"PYTHONPATH": path_for_jobs(), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(cpus)}
        with _environment(**variables), _interrupts_kept():
            return executor.submit(job)


class _environment:
    """Variables for what is started meanwhile."""

    def __init__(self, **variables: str) -> None:
        self._new, self._old = variables, {name: os.environ.get(name) for name in variables}

    def __enter__(self) -> None:
        os.environ.update(self._new)

    def __exit__(self, *error: object) -> None:
        for name, value in self._old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _visible(number: int, slot: int) -> list[str]:
    """The GPUs of a job: of those that this process sees, the next ones; none where there are not so many."""
    seen = gpus()
    return [seen[(slot * number + at) % len(seen)] for at in range(number)] if number <= len(seen) else []


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Ctrl-C goes to all processes of a terminal, but is this one's affair: what is started meanwhile never sees it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(folder: Path, jobs: Sequence[Any]) -> None:
    """End what is still at work, after it has saved what it has; Ctrl-C once more ends it at once."""
    processes = [job._process for job in jobs]
    begun, said = time.monotonic(), False
    try:
        (folder / _END).touch()
        while any(process.poll() is None for process in processes) and time.monotonic() - begun < SAVING + _GRACE:
            if time.monotonic() - begun > _GRACE and not said:
                said = True
                print("saving what has been trained; Ctrl-C again ends at once", file=sys.stderr, flush=True)
            time.sleep(_POLL)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()  # its job sees that, and ends
    shutil.rmtree(folder, ignore_errors=True)
