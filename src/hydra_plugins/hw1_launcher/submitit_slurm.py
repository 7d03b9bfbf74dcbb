"""`hydra/launcher=submitit_slurm`: runs are jobs of a Slurm cluster, alike ones in an array; the command may leave.

Hydra imports this file at every start: it stays free of torch, and of submitit.
"""

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

from hw1.lease import hold
from hw1.machine import seconds_said
from hw1.runs.order import read_order
from hw1.runs.submitted import (
    UNKNOWN,
    UNREACHED,
    Left,
    Place,
    Submitted,
    live_jobs,
    places,
    submitted_below,
    write_submitted,
)
from hw1.settings import ConfigError, RunSettings
from hw1.settings.processes import nodes
from hw1.terminal import say
from hw1.words import count
from hydra_plugins.hw1_launcher.submitit_jobs import (
    PYTHON,
    Job,
    SubmititLauncher,
    came_to,
    path_for_jobs,
    place_of,
    returned,
    tell,
)

SECONDS = "HW1_QUEUE_SECONDS"  # between two questions to Slurm
_LARGEST = 1000  # jobs of an array: a cluster's MaxArraySize is 1001 unless it says otherwise
_POLL = 0.5
_TOGETHER = ("--kill-on-bad-exit=1", "--wait=60")
_GONE = 3600.0  # seconds for which Slurm may tell nothing of a job


class SubmititSlurmLauncher(SubmititLauncher):
    """Submits what is not in the queue yet, and waits for it and for what is.

    Attributes:
        detach: whether to leave when all is submitted.
        left: whether jobs stayed in the queue: what they read of the command stays, too.

    Raises:
        ValueError: a setting cannot be used.
    """

    name = "submitit_slurm"
    _passed = frozenset(
        {"partition", "account", "qos", "constraint", "exclude", "gres", "comment", "additional_parameters"}
        | {"cpus_per_gpu", "gpus_per_task", "mem_per_gpu", "mem_per_cpu"}
    )

    def __init__(
        self,
        mem_gb: float | None,
        name: str,
        nodes: int,
        tasks_per_node: int,
        stderr_to_stdout: bool,
        array_parallelism: int,
        setup: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(array_parallelism=array_parallelism, **settings)
        if mem_gb is not None and not mem_gb > 0:
            raise ValueError(f"hydra.launcher.mem_gb: got {mem_gb}, expected GiB above 0, or null")
        slurm = {key: self._settings[key] for key in self._settings if key != "timeout_min"}
        self._shared: dict[str, Any] = {
            "timeout_min": self._settings["timeout_min"],
            "mem_gb": mem_gb,
            "name": name,
            "nodes": nodes,
        }
        self._shared |= {"tasks_per_node": tasks_per_node, "stderr_to_stdout": stderr_to_stdout}
        self._slurm: dict[str, Any] = {f"slurm_{key}": value for key, value in slurm.items() if value is not None}
        self._before = list(setup or ())
        self.detach = self.left = False

    def _job_memory(self) -> float | None:
        return None if self._shared["mem_gb"] is None else self._shared["mem_gb"] * 2.0**30

    def ready(self, runs: Sequence[RunSettings]) -> None:
        """Refuse what cannot be launched.

        Raises:
            ConfigError: as in `SubmititLauncher`; this machine has no Slurm; several tasks are asked for;
                HW1_QUEUE_SECONDS is none.
        """
        super().ready(runs)
        _seconds()
        if missing := [name for name in ("sbatch", "srun", "sacct") if shutil.which(name) is None]:
            raise ConfigError(
                f"hydra/launcher: got {self.name} on a machine without {missing[0]}, expected one that submits to "
                "Slurm: give the command on the cluster's login node"
            )
        for key in ("nodes", "tasks_per_node"):
            if (number := self._shared[key]) != 1:
                raise ConfigError(
                    f"hydra.launcher.{key}: got {number}, expected 1: a job takes the machines that its run asks for "
                    "(trainer.num_nodes), and hw1 starts the processes itself; leave it out"
                )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs and wait for them; their results in the order in which they were given.

        Raises:
            Left: all is submitted, and the command is to leave.
            ConfigError: Slurm refused a job.
        """
        jobs, new = self._submitted(job_overrides, initial_job_idx)
        if self.detach:
            raise Left(jobs, new)
        try:
            results = self._awaited(jobs)
        except BaseException:
            numbers = " ".join(sorted({job.job.partition("_")[0] for job in jobs}, key=int))
            say(
                f"{count(len(jobs), 'job')} may still be queued or at work: the same words find them again; scancel "
                f"{numbers} ends them",
                file=sys.stderr,
            )
            raise
        self.left = False
        return results

    def _submitted(self, job_overrides: Sequence[Sequence[str]], first: int) -> tuple[list[Submitted], set[str]]:
        """The job of each run, and the numbers of those that this command submitted; the others are there already."""
        runs: Sequence[RunSettings | None] = self._taken(len(job_overrides)) or [None] * len(job_overrides)
        at = [place_of(words) for words in job_overrides]
        sweep = at[0][0].parent
        base = sweep.parent.parent
        self._refuse_inside(base.parent)
        self.left = True  # whatever comes: what is queued by now reads what this command would take away
        with hold(base):  # of two commands, one submits a run
            queued = live_jobs(submitted_below(base))
            found = {
                number: job
                for number, (order, run) in enumerate(at)
                for job, _ in queued.get(run, ())
                if _same_order(job.order, order)
            }
            self.left = bool(found)  # else nothing is queued
            new = [number for number in range(len(at)) if number not in found]
            if new:
                machines = [1 if run is None else nodes(run) for run in runs]
                alike: dict[tuple[int, int, int], list[int]] = {}
                for number in new:
                    alike.setdefault((*self._needs(runs[number]), machines[number]), []).append(number)
                folder = self._new_folder()
                digest = self._write_state(folder)
                calls = {
                    number: Job(
                        *(str(folder), digest, place, first + number, list(job_overrides[number]), machines[number])
                    )
                    for place, number in enumerate(new)
                }
                numbers: dict[int, str] = {}
                try:
                    for needs, group in alike.items():
                        for start in range(0, len(group), _LARGEST):
                            some = group[start : start + _LARGEST]
                            share = max(1, (self._parallel or 1) * len(some) // len(new))
                            ids = self._sent(folder, needs, share, [calls[number] for number in some])
                            numbers |= dict(zip(some, ids, strict=True))
                finally:  # what was submitted is told of, whatever came then
                    done = [number for number in new if number in numbers]
                    entries = [(at[n][1], numbers[n], calls[n].number, at[n][0]) for n in done]
                    if not entries:
                        shutil.rmtree(folder, ignore_errors=True)
                    else:
                        found |= dict(zip(done, write_submitted(sweep, folder, entries), strict=True))
                        self.left = True
        self.left = True
        return [found[number] for number in range(len(at))], {found[number].job for number in new}

    def _sent(self, folder: Path, needs: tuple[int, int, int], share: int, jobs: Sequence[Job]) -> list[str]:
        """Submit jobs that are alike: their numbers."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        cpus, gpus, machines = needs
        executor = submitit.AutoExecutor(
            folder=folder, cluster="slurm", slurm_max_num_timeout=self._timeouts, slurm_python=PYTHON
        )
        exports = {"PYTHONPATH": path_for_jobs(), "OMP_NUM_THREADS": str(cpus)}
        own = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
        settings = {**self._shared, "cpus_per_task": cpus, **({"gpus_per_node": gpus} if gpus else {}), **self._slurm}
        settings["nodes"] = machines
        settings |= {
            "slurm_array_parallelism": share,
            "slurm_setup": [*self._before, *own],
            # Since 22.05 srun takes nothing over of the job's. Where one process ends, those of other machines do.
            "slurm_srun_args": [f"--cpus-per-task={cpus}", *(_TOGETHER if machines > 1 else ())],
            # A node that is lost has its jobs queued again.
            "slurm_additional_parameters": {"requeue": True, **self._slurm.get("slurm_additional_parameters", {})},
        }
        try:
            executor.update_parameters(**settings)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise ConfigError(
                f"hydra/launcher: got settings that submitit refuses: {' '.join(str(error).split())}"
            ) from error
        try:
            return [job.job_id for job in executor.submit_array(list(jobs))]
        except (FailedJobError, FailedSubmissionError) as error:
            said = " ".join(str(error).split()) or "it said nothing"
            raise ConfigError(
                f"hydra/launcher: Slurm refused the jobs: {said}; expected settings that this cluster takes: "
                "hydra.launcher.partition, account, timeout_min, mem_gb"
            ) from error

    def _awaited(self, jobs: Sequence[Submitted]) -> list[JobReturn]:
        """Wait until all have ended: what each came to."""
        results: dict[int, JobReturn] = {}
        gone: dict[int, int] = {}  # how often in a row Slurm has said that one has ended
        silent = False
        at: dict[str, Place] = {}
        every, asked, begun = _seconds(), 0.0, time.monotonic()
        while len(results) < len(jobs):
            now = time.monotonic()
            left = [number for number in range(len(jobs)) if number not in results]
            for number in left:
                result = came_to(jobs[number].outcome)
                if result is not None:
                    tell(jobs[number].folder / f"{jobs[number].job}_0_log.out")
                    results[number] = result
                elif gone.get(number, 0) > 1 and now - asked > every:  # what it wrote has had time to show
                    state = at.get(jobs[number].job, Place()).state
                    results[number] = returned(RuntimeError(jobs[number].died(state)))
            if now - asked > every:
                asked = now
                at = places(jobs[number].job for number in left)
                for number in left:
                    place = at.get(jobs[number].job, Place())
                    if place.live or (place.state == UNKNOWN and now - begun < _GONE):
                        gone.pop(number, None)
                    else:
                        gone[number] = gone.get(number, 0) + 1
                if not silent and any(place.state == UNREACHED for place in at.values()):
                    silent = True
                    say(
                        "sacct does not answer: until it does, jobs that have not said what they came to count as "
                        f"queued; `sacct -j {jobs[left[0]].job}` says why",
                        file=sys.stderr,
                    )
            time.sleep(min(_POLL, every))
        return [results[number] for number in range(len(jobs))]


def _same_order(one: Path, other: Path) -> bool:
    """Whether what is in the queue does what is asked for."""
    try:
        queued, asked = read_order(one), read_order(other)
        return (queued.measures, queued.pieces) == (asked.measures, asked.pieces)
    except (OSError, ValueError, TypeError):
        return False


def _seconds() -> float:
    try:
        return seconds_said(SECONDS, 30, 0.001, 3600)
    except ValueError as error:
        raise ConfigError(str(error)) from error
