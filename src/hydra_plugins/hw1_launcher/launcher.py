"""`hydra/launcher=parallel`: a job on every core, the longest first; one job alone stays in this process.

Hydra imports this file at every start: it stays free of torch.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from omegaconf import open_dict

from hw1.machine import allot, cores, free_memory, gpus, room
from hw1.settings import RunSettings
from hw1.settings.processes import processes_here
from hw1.workers import WorkerLostError, portable, spread, start_server, tell
from hydra_plugins.hw1_launcher.screen import Screen

_GIB = 2**30
_STEP = 64  # a step costs as much as so many examples besides its own
_EXAMPLES = 60_000  # of a data set that is used whole


@dataclass
class ParallelLauncherConf:
    """Settings of the launchers that have processes of their own.

    Attributes:
        workers: number of processes; null for as many as there are cores for the runs' threads, and memory; of runs
            on GPUs as many as there are GPUs, times `runs_per_gpu`.
        memory_per_worker: GiB that a run takes, to which its measures then keep; null for the peak of a CNN on MNIST
            with its measures, and more for networks of a million parameters.
        threads_per_worker: cores that a run takes; null for its trainer.threads, of each of its processes.
        runs_per_gpu: runs that share a GPU.
    """

    _target_: str = "hydra_plugins.hw1_launcher.launcher.ParallelLauncher"
    workers: int | None = None
    memory_per_worker: float | None = None
    threads_per_worker: int | None = None
    runs_per_gpu: int = 1


ConfigStore.instance().store(group="hydra/launcher", name="parallel", node=ParallelLauncherConf, provider="hw1")


@dataclass(frozen=True)
class Share:
    """What the processes of a launch get.

    Attributes:
        workers: number of processes.
        threads: cores that each takes.
        gpus: what each sees, as CUDA_VISIBLE_DEVICES, again from the first where there are more processes; empty where
            each sees what this process does.
        memory: bytes that each takes.
    """

    workers: int
    threads: int
    gpus: Sequence[str]
    memory: float


class ParallelLauncher(BasicLauncher):
    """Each job is what it is under Hydra's basic launcher, in a process of its own: its number, folder, log and result.

    A job whose process is killed is named when the others have ended; from then on, no job runs in this process.

    Raises:
        ValueError: a setting cannot be used.
    """

    _draws = True  # whether workers tell how far they are
    _alone = 0.0  # bytes that a worker takes besides, where it shares none with others

    def __init__(
        self,
        workers: int | None,
        memory_per_worker: float | None,
        threads_per_worker: int | None = None,
        runs_per_gpu: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("workers", workers), ("threads_per_worker", threads_per_worker)):
            if value is not None and value < 1:
                raise ValueError(f"hydra.launcher.{name}: got {value}, expected a positive integer or null")
        if memory_per_worker is not None and not memory_per_worker > 0:
            raise ValueError(f"hydra.launcher.memory_per_worker: got {memory_per_worker}, expected GiB above 0")
        if runs_per_gpu < 1:
            raise ValueError(f"hydra.launcher.runs_per_gpu: got {runs_per_gpu}, expected a positive integer")
        self._workers, self._memory = workers, None if memory_per_worker is None else memory_per_worker * _GIB
        self._threads, self._per_gpu = threads_per_worker, runs_per_gpu
        self._expected: Sequence[RunSettings] = ()
        self._lost = False

    def expect(self, runs: Sequence[RunSettings]) -> None:
        """What is known of the jobs that are launched next, in their order."""
        self._expected = list(runs)

    @property
    def workers(self) -> int | None:
        """The number of processes that was asked for; None for as many as there is room for."""
        return self._workers

    def prepare(self, runs: Sequence[RunSettings]) -> None:
        """Begin what takes seconds before several of these runs can be launched, while the caller checks them."""
        if self.count(runs) > 1:
            start_server()

    def count(self, runs: Sequence[RunSettings]) -> int:
        """The number of processes that these runs get."""
        return self._counted(runs, len(runs))[0]

    def _counted(self, runs: Sequence[RunSettings], jobs: int) -> tuple[int, str]:
        """(number of processes, what to say of it)."""
        if self._workers is not None or jobs < 2:
            return max(1, min(self._workers or 1, jobs)), ""
        if any(on_gpu(run) for run in runs):
            wanted = 1 if _processes(runs) > 1 else min(jobs, len(self._gpus(runs)) or self._per_gpu)
        else:
            wanted = max(1, min(jobs, cores() // self._cores_of(runs)))
        each = self._each(runs)
        fit = room(wanted, each)
        return fit, "" if fit == wanted else (
            f"hydra/launcher: {fit} of {wanted} runs at a time: {free_memory() / _GIB:.1f} GiB of memory are free, and "
            f"each takes up to {each / _GIB:.3g} (hydra.launcher.memory_per_worker)"
        )

    def _gpus(self, runs: Sequence[RunSettings]) -> list[str]:
        return gpus_seen(runs, gpus(), self._per_gpu)

    def _cores_of(self, runs: Sequence[RunSettings]) -> int:
        """Cores that each of these runs takes, in all its processes."""
        return self._threads or max((run.threads * processes_here(run) for run in runs), default=1)

    def _stays(self, workers: int) -> bool:
        """Whether jobs run in this process."""
        return workers == 1 and not self._lost

    def _each(self, runs: Sequence[RunSettings]) -> float:
        """Bytes that each of these runs takes, in all its processes, as said or as estimated."""
        if self._memory is not None:
            return self._memory
        from hw1.measures.needs import largest

        return (largest(runs) + self._alone) * _processes(runs)

    def _memory_of(self, runs: Sequence[RunSettings], workers: int) -> float | None:
        """Bytes that a worker keeps to: as said, or its part of what is free where that is less than it takes."""
        if self._memory is None and workers * self._each(runs) > (free := free_memory()):
            return free / workers
        return self._memory

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; their results in the order in which they were given.

        Raises:
            WorkerLostError: processes were killed; all other jobs have ended, or wait for another launch.
        """
        runs, self._expected = self._expected, ()
        workers, said = self._counted(runs, len(job_overrides))
        if said:
            print(said, file=sys.stderr, flush=True)
        if self._stays(workers):
            allot(self._memory_of(runs, 1))
            return super().launch(job_overrides, initial_job_idx)
        import cloudpickle

        setup_globals()
        assert self.config is not None
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        jobs = [(initial_job_idx + number, list(words)) for number, words in enumerate(job_overrides)]
        lengths = [length(run) for run in runs] if len(runs) == len(jobs) else [0.0] * len(jobs)
        order = sorted(range(len(jobs)), key=lambda number: -lengths[number])
        told = sys.stderr.isatty() or not self._draws  # else a process says by itself what takes long
        memory = self._memory_of(runs, workers)
        state = (self.hydra_context, self.config, self.task_function, Singleton.get_state(), told, memory)
        work = functools.partial(_run, cloudpickle.dumps(state))
        results: dict[int, JobReturn] = {}
        lost: list[WorkerLostError] = []
        share = Share(workers, self._cores_of(runs), self._gpus(runs), self._each(runs))
        with contextlib.closing(self._spread(work, [jobs[number] for number in order], share)) as done:
            for position, result in done:
                if isinstance(result, WorkerLostError):
                    lost.append(result)
                elif isinstance(result, Exception):
                    raise result
                else:
                    results[order[position]] = cloudpickle.loads(result)
        if lost:
            self._lost = True
            raise lost[0]
        return [results[number] for number in range(len(jobs))]

    def _spread(
        self, work: Callable[[Any], bytes], jobs: Sequence[Any], share: Share
    ) -> Generator[tuple[int, Any], None, None]:
        """`work(job)` of every job, as `hw1.workers.spread`."""
        environments = [{"CUDA_VISIBLE_DEVICES": seen} for seen in share.gpus]
        with Screen() as screen:
            yield from spread(work, jobs, share.workers, environments=environments, line=screen.line, told=screen.told)


def _processes(runs: Sequence[RunSettings]) -> int:
    """The most processes that train one of these runs."""
    return max((processes_here(run) for run in runs), default=1)


def on_gpu(run: RunSettings) -> bool:
    """Whether a run trains elsewhere than on the CPU."""
    return run.trainer.get("accelerator") != "cpu"


def gpus_seen(runs: Sequence[RunSettings], found: Sequence[str], runs_per_gpu: int) -> list[str]:
    """What each process sees of the GPUs, as CUDA_VISIBLE_DEVICES, all GPUs once before one is seen again.

    Args:
        runs: what the processes train.
        found: the GPUs of this process.
        runs_per_gpu: runs that share a GPU.

    Returns:
        As many as there are places; none where the runs use no GPU, are told which, or take all.
    """
    devices = [run.trainer.get("devices", 1) for run in runs if on_gpu(run)]
    if not devices or not found or not all(type(number) is int and 0 < number <= len(found) for number in devices):
        return []
    most = max(devices)
    shares = [",".join(found[i : i + most]) for i in range(0, len(found) - most + 1, most)]
    return shares * runs_per_gpu


def length(run: RunSettings) -> float:
    """How long a run trains, to tell which of a sweep's is the longest: in examples, with what a step costs besides."""
    examples = int(run.value("dataset.train_size") or _EXAMPLES)
    steps = math.ceil(examples / int(run.value("dataset.batch_size") or examples))
    width = run.value("model.width")
    wide = float(width) if isinstance(width, int | float) else 1.0
    return run.epochs_of(steps) * run.members * (examples * max(1.0, wide) + steps * _STEP)


@functools.lru_cache(maxsize=1)
def _state(pickled: bytes) -> Any:
    """What a worker needs once: Hydra's context and singletons, the command's settings, the task."""
    import cloudpickle
    import torch

    from hw1 import stages

    torch.set_num_threads(1)  # outside of training and measuring, which take what they are told
    context, config, task, singletons, watched, memory = cloudpickle.loads(pickled)
    allot(memory)
    setup_globals()
    Singleton.set_state(singletons)
    stages.watcher = tell if watched else None
    return context, config, task


def _run(pickled: bytes, job: tuple[int, list[str]]) -> bytes:
    """One job, in a worker: pickled, what Hydra's basic launcher has of it."""
    import cloudpickle

    context, config, task = _state(pickled)
    number, words = job
    own = context.config_loader.load_sweep_config(config, words)
    with open_dict(own):
        own.hydra.job.id = own.hydra.job.num = number
    done = run_job(
        hydra_context=context,
        task_function=task,
        config=own,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)  # closes the run's log
    if isinstance(done._return_value, Exception):
        done._return_value = portable(done._return_value)
    done.cfg = done.hydra_cfg = None  # nobody asks for them, and ten thousand take gigabytes
    return bytes(cloudpickle.dumps(done))
