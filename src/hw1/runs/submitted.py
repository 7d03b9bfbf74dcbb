"""What commands have handed to a cluster's queue: jobs by their numbers, in JSON beside a sweep's record. No torch.

A command that has left, or was killed, is followed by another one that finds its jobs here. What the queue says of them
is asked of Slurm's `sacct`; what a job came to stands in its run's folder, as of any other run. Pickles are not read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hw1.bounds import special
from hw1.inside import is_name, is_private
from hw1.records import FORMAT, read_record, write_record

PENDING, ACTIVE, UNKNOWN, _ENDED = "PENDING", "RUNNING", "UNKNOWN", "COMPLETED"
UNREACHED = "UNREACHED"  # nobody answered: a job counts as live until somebody says otherwise
LIVE = frozenset(
    {PENDING, ACTIVE, UNREACHED, "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "COMPLETING", "CONFIGURING", "SUSPENDED"}
    | {"RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
_REMEDIES = {
    "TIMEOUT": "; give it more time (hydra.launcher.timeout_min)",
    "OUT_OF_MEMORY": "; give it more memory (hydra.launcher.mem_gb)",
}
_ORDER = re.compile(r"(\.[\w-]+)-(?:train|measure|pieces-\d+)\.json")
_JOB = re.compile(r"\d+(_\d+)?")
_RANGE = re.compile(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]")
_UNSEEN = 3600.0  # seconds for which a job counts as queued that the accounting does not know (yet)
_TAIL = 8192  # bytes of a log in which its last line is looked for


@dataclass(frozen=True)
class Submitted:
    """A job in the queue.

    Attributes:
        run: the name of its run's folder.
        job: its number in the queue, `12` or, in an array, `12_3`.
        number: of the job in its submission.
        folder: the engine's private one, with its logs.
        file: the JSON that tells of the submission.
        order: the file in which it reads what its command asked for.
        at: Unix time.
    """

    run: str
    job: str
    number: int
    folder: Path
    file: Path
    order: Path
    at: float

    @property
    def outcome(self) -> Path:
        """What the job writes when it has ended."""
        return self.folder / f"{self.number}.json"

    @property
    def failure(self) -> str:
        """Why it has failed, where it says so itself, and its log is this user's own; else ""."""
        if is_private(self.folder):
            with suppress(OSError, ValueError):
                record = read_record(self.outcome)
                return "" if record.get("lost") else " ".join(str(record.get("error", "")).split())
        return ""

    def died(self, state: str) -> str:
        """Why its run has no result, in one line, where it has ended."""
        if said := self.failure:
            return f"job {self.job}: {said}"
        last = self.last_line()
        said = f": {last}" if last else "; its log is empty"
        return f"job {self.job} ended as {state}{said}{_REMEDIES.get(state, '')}"

    def last_line(self) -> str:
        """The last line of its log that says something; "" where there is none, or it is not this user's own."""
        if not is_private(self.folder):
            return ""
        names = (f"{self.job}_0_log.err", f"{self.job}_0_log.out")
        return next(filter(None, (last_line(self.folder / name) for name in names)), "")


@dataclass(frozen=True)
class Place:
    """What the queue says of a job: its state, as Slurm names it, and the nodes that it is on."""

    state: str = UNKNOWN
    nodes: str = ""

    @property
    def live(self) -> bool:
        """Whether it waits or works."""
        return self.state in LIVE


class Left(BaseException):
    """All jobs are submitted, and the command is to leave: no failure, which a launcher's error would be.

    Attributes:
        jobs: one for each run.
        new: the numbers of those that were not in the queue before.
    """

    def __init__(self, jobs: Sequence[Submitted], new: Collection[str]) -> None:
        super().__init__(f"{len(jobs)} jobs")
        self.jobs, self.new = jobs, new

    def told(self, sweep: Path) -> str:
        """The answer of the command: JSON."""
        at = places(job.job for job in self.jobs)
        jobs = [
            {
                "job": job.job,
                "run": job.run,
                "state": at[job.job].state if job.job in at else PENDING,
                "new": job.job in self.new,
            }
            for job in self.jobs
        ]
        return json.dumps({"sweep": str(sweep), "jobs": jobs}, indent=1)


def last_line(log: Path) -> str:
    """The last line of a log that says something; "" where there is none."""
    with suppress(OSError):
        if special(log.stat().st_mode):  # a pipe, say, whose reader waits
            return ""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def write_submitted(sweep: Path, folder: Path, jobs: Iterable[tuple[str, str, int, Path]]) -> list[Submitted]:
    """Tell of a submission.

    Args:
        sweep: its folder.
        folder: the engine's.
        jobs: (name of the run's folder, number in the queue, number in the submission, order) of each.
    """
    file, now = sweep / f"submitted-{folder.name}.json", time.time()
    found = [Submitted(run, job, number, folder, file, order, now) for run, job, number, order in jobs]
    entries = [{"run": one.run, "job": one.job, "number": one.number, "order": one.order.name} for one in found]
    write_record(file, {"format": FORMAT, "engine": "slurm", "folder": str(folder), "at": now, "jobs": entries})
    return found


def submitted_in(sweep: Path) -> list[Submitted]:
    """The jobs that were submitted for a sweep and of which no command has yet said that they ended.

    What is misshapen, or names another place than a run of this experiment, is passed over.
    """
    found = []
    for file in sorted(sweep.glob("submitted-*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = read_record(file)
            folder, at = Path(str(record["folder"])), float(record["at"])
            for entry in record["jobs"]:
                run, order = entry["run"], entry["order"]
                job, number = str(entry["job"]), int(entry["number"])
                if is_name(run) and is_order(order) and _JOB.fullmatch(job) and number >= 0:
                    found.append(Submitted(run, job, number, folder, file, sweep / order, at))
    return found


def submitted_below(base: Path) -> list[Submitted]:
    """The same of all sweeps of an experiment; the later submissions last."""
    sweeps = sorted({file.parent for file in base.glob("sweeps/*/submitted-*.json")})
    return sorted((job for sweep in sweeps for job in submitted_in(sweep)), key=lambda job: job.at)


def queue_of(jobs: Sequence[Submitted]) -> dict[str, tuple[Submitted, Place]]:
    """Those that have not ended well, by their run; of several, one that is live, else the last."""
    at = {job.job: place for job, place in _placed(jobs)}
    found: dict[str, tuple[Submitted, Place]] = {}
    for job in jobs:
        place = at.get(job.job) or Place(_ENDED)
        if job.job not in at and not job.failure:
            continue
        if job.run not in found or place.live or not found[job.run][1].live:
            found[job.run] = (job, place)
    return found


def live_jobs(jobs: Sequence[Submitted]) -> dict[str, list[tuple[Submitted, Place]]]:
    """Those that wait or work, by their run, of whose measures several jobs may compute pieces."""
    found: dict[str, list[tuple[Submitted, Place]]] = {}
    for job, place in _placed(jobs):
        if place.live:
            found.setdefault(job.run, []).append((job, place))
    return found


def _placed(jobs: Sequence[Submitted]) -> list[tuple[Submitted, Place]]:
    unended = [job for job in jobs if not job.outcome.exists()]
    at = places(job.job for job in unended)
    found = []
    for job in unended:
        place = at.get(job.job, Place())
        if place.state == UNKNOWN and time.time() - job.at < _UNSEEN:  # the accounting may be late
            place = Place(PENDING)
        found.append((job, place))
    return found


def places(jobs: Iterable[str]) -> dict[str, Place]:
    """Where jobs stand, asked of Slurm in one call; what it does not know is left out.

    Where it does not answer all are `UNREACHED`; on a machine without it nothing is known.

    Args:
        jobs: their numbers.
    """
    wanted = set(jobs)
    if not wanted or shutil.which("sbatch") is None:
        return {}
    parents = ",".join(sorted({job.partition("_")[0] for job in wanted}, key=int))
    asked = ["sacct", "-X", "-n", "-P", "-o", "JobID,State,NodeList", "-j", parents]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # the daemon is busy: it will be asked again
        return dict.fromkeys(wanted, Place(UNREACHED))
    found: dict[str, Place] = {}
    for line in said.splitlines():
        name, _, rest = line.partition("|")
        state, _, nodes = rest.partition("|")
        place = Place(state.split()[0] if state.split() else UNKNOWN, "" if "assigned" in nodes else nodes.strip())
        found |= {job: place for job in numbers(name) if job in wanted}
    return found


def numbers(name: str) -> list[str]:
    """The jobs that a line of sacct is about.

    Example:
        >>> numbers("12"), numbers("12_3"), numbers("12_[4,6-7%2]"), numbers("12.batch")
        (['12'], ['12_3'], ['12_4', '12_6', '12_7'], [])
    """
    if _JOB.fullmatch(name):
        return [name]
    if (several := _RANGE.fullmatch(name)) is None:
        return []
    parts = [part.partition("-") for part in several[2].split(",") if part]
    return [f"{several[1]}_{one}" for first, _, last in parts for one in range(int(first), int(last or first) + 1)]


def is_order(name: object) -> bool:
    """Whether something is the name of an order, see `hw1.runs.order`."""
    return isinstance(name, str) and record_of(name) != ""


def record_of(order: str) -> str:
    """What the names of one command's orders have in common; "" of what is none.

    Example:
        >>> record_of(".sweep-train.json"), record_of(".sweep-pieces-3.json"), record_of("sweep.json")
        ('.sweep', '.sweep', '')
    """
    return found[1] if (found := _ORDER.fullmatch(order)) else ""
