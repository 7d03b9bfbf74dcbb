"""Folders for the runs of a sweep, and launching them: what a launcher loses is launched again.

Hydra imports this file at every start: it stays free of torch.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hw1.command import quoted
from hw1.explaining import explain
from hw1.files import remove_left_below
from hw1.lease import HeldError, LostError, hold
from hw1.records import FORMAT, write_record
from hw1.runs import Run, asks_in, ended, is_complete, runs_by_key
from hw1.runs.changed import changed, set_aside
from hw1.runs.measured import Measured, write_measured
from hw1.runs.order import count_end, counter_of, remove_orders, write_orders
from hw1.settings import ConfigError
from hw1.terminal import say
from hw1.words import count
from hydra_plugins.hw1_sweeper.fetching import fetch
from hydra_plugins.hw1_sweeper.plan import Job


def launch(launcher: Any, jobs: list[Job], file: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """Launch; after a launcher's error, those that had not started, then each that was in flight alone.

    Returns:
        {folder's name: why} of the runs that another command took over.

    Args:
        launcher: Hydra's, or our own.
        jobs: what is launched.
        file: of the record; what jobs read of it stands beside it meanwhile.
        record: of the command.

    Raises:
        ConfigError: nothing was launched: data that jobs measure by are not to be had, or the launcher cannot begin.
    """
    trained = set(record.get("trained", ()))
    fetch(job for job in jobs if job.folder.name not in trained)
    batches = [jobs] if jobs else []
    orders = write_orders(file, record, len(jobs), workers_of(launcher, jobs) or 1) if jobs else {}
    try:
        return _launch(launcher, batches, orders, record)
    finally:
        if not getattr(launcher, "left", False):  # jobs stay in a queue, and will read them
            remove_orders(orders.values())


def workers_of(launcher: Any, jobs: Sequence[Job]) -> int | None:
    """How many of these jobs a launcher has at work at a time; None where it does not say."""
    counted = getattr(launcher, "count", None)
    return None if counted is None else int(counted([job.settings for job in jobs]))


def _launch(
    launcher: Any, batches: list[list[Job]], orders: Mapping[bool, Path], record: Mapping[str, Any]
) -> dict[str, str]:
    trained = set(record.get("trained", ()))
    taken_over: dict[str, str] = {}
    while batches:
        batch = batches.pop(0)
        before = {job.key: _stamp(job.folder / "config.yaml") for job in batch}  # every run begins by writing it
        if (expect := getattr(launcher, "expect", None)) is not None:  # our own begins with the longest
            expect([job.settings for job in batch])
        try:
            results = launcher.launch(
                [_words(job, orders[job.folder.name in trained]) for job in batch], initial_job_idx=0
            )
        except ConfigError:  # it cannot begin at all
            raise
        except Exception as error:  # a launcher's own: a killed worker, a lost node
            lost = [job for job in batch if not ended(job.folder, record)]
            started = [job for job in lost if _stamp(job.folder / "config.yaml") != before[job.key]]
            waiting = [job for job in lost if job not in started]
            if len(batch) == 1 or not lost:
                for job in lost:
                    _record_failure(job, error, record)
                    count_end(counter_of(orders[True]))
                continue
            say(f"launcher: {explain(error)}; going on with {count(len(lost), 'run')}", file=sys.stderr)
            alone = lost if waiting == batch else started  # no run started: not even a smaller batch will
            batches += ([waiting] if waiting and waiting != batch else []) + [[job] for job in alone]
            continue
        for job, result in zip(batch, results, strict=True):
            raised = result._return_value
            if isinstance(raised, LostError):
                taken_over[job.folder.name] = str(raised)
            elif isinstance(raised, Exception) and not ended(job.folder, record):
                _record_failure(job, raised, record)
                count_end(counter_of(orders[True]))
    return taken_over


def _words(job: Job, file: Path) -> list[str]:
    subdir = str(job.folder.relative_to(job.folder.parent.parent))
    return [*job.overrides, *job.pins, f"hydra.sweep.subdir={quoted(subdir)}", f"sweep={quoted(str(file))}"]


def interrupted(record: Mapping[str, Any]) -> NoReturn:
    """Leave a sweep that the user interrupted."""
    say(f"{record['name']}: interrupted; the same command goes on from the last checkpoints", file=sys.stderr)
    sys.exit(130)


class folder_errors:
    """Errors of making the output folder, which name the key that chose it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, IsADirectoryError):  # where a file is to stand, in a folder that is there
            return
        if isinstance(error, OSError):
            raise ConfigError(
                f"output: got a folder that cannot be made: {error.strerror}: {error.filename}; expected a folder, or "
                "a path where one can be made"
            ) from error


def allot(base: Path, jobs: Sequence[Job], rerun: bool = False) -> list[Job]:
    """Make the folders of runs under one lease; returns those that are still to train.

    A run is found by its key; the slug is the first command's. Another command may have finished some by now. With
    `rerun`, runs whose code has changed make way.
    """
    todo = []
    with folder_errors():
        base.mkdir(parents=True, exist_ok=True)
        with hold(base):
            remove_left_below(base)
            there = runs_by_key(base / "runs")
            for job in jobs:
                job.folder = there.get(job.key, job.folder)
            if rerun and (others := changed(begun(jobs))):
                say(set_aside(others, base))
            for job in jobs:
                if not is_complete(job.folder):
                    job.folder.mkdir(parents=True, exist_ok=True)
                    _forget_failure(job.folder)
                    todo.append(job)
    return todo


def _forget_failure(folder: Path) -> None:
    """Remove the result of a failed attempt, which is tried again; not under the hands of a process that is at it."""
    if (folder / "result.json").exists():
        with contextlib.suppress(HeldError), hold(folder, 0):
            if not is_complete(folder):  # it may be by now
                (folder / "result.json").unlink(missing_ok=True)


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes where a file is written again, whatever the clock says; None where there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _record_failure(job: Job, error: Exception, record: Mapping[str, Any]) -> None:
    """A job that never came to fit, or took its worker with it, says so in its own folder, unless another is at it."""
    try:
        lease = hold(job.folder, 0)
    except HeldError:
        return
    with lease:
        _record_held_failure(job, explain(error), record)


def _record_held_failure(job: Job, text: str, record: Mapping[str, Any]) -> None:
    if is_complete(job.folder):
        for ask in asks_in(record):
            if not ask.file(job.folder).exists():
                write_measured(ask.file(job.folder), Measured(ask.name, "", error=text), {})
        return
    result = {"status": "failed", "key": job.key, "name": job.settings.name, "overrides": job.overrides}
    write_record(job.folder / "result.json", {"format": FORMAT, **result, "seed": job.settings.seed, "error": text})


def begun(jobs: Iterable[Job]) -> Iterator[Run]:
    """The runs of jobs that have ever begun; each holds its result for as long as it is kept."""
    for job in jobs:
        with contextlib.suppress(FileNotFoundError):
            yield Run(job.folder, job.settings)
