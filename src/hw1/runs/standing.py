"""How runs and sweeps stand at this moment: waiting, running and how far, ended and how. Nothing is written. No torch.

A record says what its command last wrote; whether the command is still at work is told by the lease that it holds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hw1.inside import is_name, refuse_links
from hw1.lease import LEASE, is_held
from hw1.lease_file import is_here, read
from hw1.records import DamagedError, read_record
from hw1.runs.run import Run
from hw1.runs.submitted import ACTIVE, Place, Submitted, last_line
from hw1.stored_json import read_json
from hw1.training.contents import PROGRESS, RESULT, read_result

STATES = WAITING, QUEUED, RUNNING, MEASURING, COMPLETE, FAILED, INTERRUPTED, UNSTARTED, DAMAGED = (
    *("waiting", "queued", "running", "measuring", "complete", "failed", "interrupted", "unstarted", "damaged"),
)
AT_WORK = (RUNNING, MEASURING)


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        step: optimizer steps done.
        steps: steps in all, if nothing stops it early.
        epochs: epochs in all.
        first: of these, those done before this process began.
        rate: steps a second since this process began, evaluations included; NaN before the first.
        left: seconds, at that rate; NaN where it is not known.
    """

    step: int
    steps: int
    epochs: int
    first: int
    rate: float
    left: float

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.step * self.epochs // self.steps


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Attributes:
        folder: of the run.
        status: one of `STATES`.
        reason: why it failed or is damaged, in one line; "" otherwise.
        progress: of a run that trains, or where an interrupted one stopped; None where it is not known.
        run: it; None where there is none yet, or none that can be read.
        words: the overrides that made it.
        sweeps: the names of the sweeps that name it.
        worker: who is at it, or will be: a machine and process, or a cluster's job; "" for nobody.
    """

    folder: Path
    status: str
    reason: str = ""
    progress: Progress | None = None
    run: Run | None = None
    words: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = ()
    worker: str = ""

    @property
    def experiment(self) -> str:
        """The name of its experiment: that of the folder around `runs`."""
        return self.folder.parent.parent.name

    @property
    def name(self) -> str:
        """The readable part of the folder's name."""
        return self.folder.name.rpartition("-")[0] or self.folder.name


@dataclass(frozen=True)
class SweepStanding:
    """How a sweep stands.

    Attributes:
        folder: of the sweep.
        status: `running`, `complete`, `failed`, `interrupted` or `damaged`.
        record: the content of its sweep.json; {} of a damaged one.
        reason: what is damaged; "" otherwise.
    """

    folder: Path
    status: str
    record: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @cached_property
    def folders(self) -> list[Path]:
        """The folders of its runs, whether they exist or not."""
        runs = self.folder.parent.parent / "runs"
        return [runs / name for name, _ in named_runs(self.record)]

    @cached_property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The overrides of its runs, by folder; asked for each of them."""
        return dict(named_runs(self.record))


def sweep_status(folder: Path, record: Mapping[str, Any]) -> str:
    """What a sweep's record says of it, unless its lease says otherwise.

    One that a process holds is `running`; one whose record says so, and that nobody holds, is `interrupted`.
    """
    status = str(record.get("status", INTERRUPTED))
    if is_held(folder):
        return RUNNING
    return status if status != RUNNING else INTERRUPTED


def sweep_standing(folder: Path) -> SweepStanding:
    """How a sweep stands.

    Raises:
        FileNotFoundError: it has no sweep.json.
    """
    try:
        refuse_links(folder)
        record = read_record(folder / "sweep.json")
    except DamagedError as error:
        return SweepStanding(folder, DAMAGED, reason=str(error))
    if not isinstance(record.get("runs"), list):
        return SweepStanding(folder, DAMAGED, reason=f"{folder / 'sweep.json'} is not the record of a sweep")
    return SweepStanding(folder, sweep_status(folder, record), record)


def standing(
    folder: Path,
    expected: bool = False,
    busy: bool = False,
    words: tuple[str, ...] = (),
    sweeps: tuple[str, ...] = (),
    job: tuple[Submitted, Place] | None = None,
) -> Standing:
    """How a run stands.

    Args:
        folder: of the run; it need not exist.
        expected: whether a command that is at work asks for it.
        busy: whether its measures may be at work.
        words: its overrides.
        sweeps: the sweeps that name it.
        job: of a cluster, that has not said what it came to, and what the queue says of it.
    """

    def stands(status: str, reason: str = "", progress: Progress | None = None) -> Standing:
        busy = status in (QUEUED, RUNNING, MEASURING)
        return Standing(folder, status, reason, progress, run, words, sweeps, worker(folder, job) if busy else "")

    run = None
    try:
        refuse_links(folder)
        if (folder / "config.yaml").is_file():
            run = Run(folder)
            result = run.result
            run.metrics(run.count - 1)  # what cannot be read, or is not there for every member, is damaged
        else:
            result = read_result(folder) if (folder / RESULT).is_file() else {}
    except Exception as error:  # whatever a file from elsewhere makes of reading it
        run = None
        said = " ".join(str(error).split())
        return stands(DAMAGED, said if isinstance(error, ValueError) else f"{folder}: {type(error).__name__}: {said}")
    if result.get("status") == COMPLETE and run is not None:
        return stands(MEASURING if (expected or busy) and is_held(folder) else COMPLETE)
    if is_held(folder):
        return stands(RUNNING, progress=read_progress(folder, time.time()))
    if job is not None and job[1].live:
        return stands(RUNNING if job[1].state == ACTIVE else QUEUED)
    if result.get("status") == "failed":
        return stands(FAILED, _why(folder, " ".join(str(result.get("error", "")).split())))
    if job is not None:
        return stands(FAILED, job[0].died(job[1].state))
    if expected:
        return stands(WAITING)
    return stands(INTERRUPTED, progress=read_progress(folder)) if run is not None else stands(UNSTARTED)


def worker(folder: Path, job: tuple[Submitted, Place] | None = None) -> str:
    """Who holds a run, or has it in a queue."""
    if job is not None and job[1].live:
        return f"job {job[0].job}" + (f" on {job[1].nodes}" if job[1].nodes else "")
    try:
        found = read(folder / LEASE)
    except OSError:
        return ""
    if found is None or not found.pid:
        return ""
    return f"process {found.pid}" + ("" if is_here(found) else f" on {found.host}")


def _why(folder: Path, error: str) -> str:
    """Why a run failed, with the end of its log where that says more."""
    last = last_line(folder / "run.log")
    return error if not last or last in error or error in last else f"{error}; its log ends: {last}"


def read_progress(folder: Path, now: float | None = None) -> Progress | None:
    """What a training run told last; None where it told nothing that can be read.

    Args:
        folder: of the run.
        now: Unix time, of a run that is at work; None of one that is not, which has no rate.
    """
    try:
        told = read_json(folder / PROGRESS)
        step, steps, epochs, first = (int(told[name]) for name in ("step", "steps", "epochs", "first"))
        since, last = float(told["since"]), float(told["time"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if not (0 <= first <= step <= steps and steps > 0 and epochs > 0):
        return None
    rate = (step - first) / (last - since) if now is not None and step > first and last > since else math.nan
    left = max(0.0, (steps - step) / rate - max(0.0, (now or last) - last)) if rate == rate else math.nan
    return Progress(step, steps, epochs, first, rate, left)


def named_runs(record: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """(folder, overrides) of the runs that a record names.

    Left out is what is no name of a folder in `runs`: a record from elsewhere leads no reader, and no link, outside.
    """
    found = []
    for entry in record.get("runs", []):
        name = entry.get("folder") if isinstance(entry, Mapping) else None
        if is_name(name):
            words = entry.get("overrides")
            found.append((name, tuple(map(str, words)) if isinstance(words, list) else ()))
    return found


def strays(record: Mapping[str, Any]) -> list[str]:
    """What `named_runs` leaves out of a record, one line each."""
    named = {name for name, _ in named_runs(record)}
    folders = [entry.get("folder") if isinstance(entry, Mapping) else entry for entry in record.get("runs", [])]
    strayed = [folder for folder in folders if not isinstance(folder, str) or folder not in named]
    return [f"got a run {folder!r}, expected the name of a folder in runs" for folder in strayed]
