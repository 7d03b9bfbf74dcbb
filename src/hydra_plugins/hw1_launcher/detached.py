"""`--detach`: a command that leaves when its jobs are in the queue, and one that comes back to them.

Hydra imports this file at every start: it stays free of torch.
"""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hw1 import news
from hw1.inside import is_private
from hw1.lease import is_held
from hw1.records import is_own, read_record
from hw1.runs.order import remove_orders
from hw1.runs.submitted import live_jobs, record_of, submitted_in
from hw1.settings import ConfigError

# What makes two commands ask for the same, in their records.
_SAME = ("name", "swept", "study", "measures", "budget", "search")


def refuse_detach(launcher: Any, search: bool) -> None:
    """Refuse `--detach` where nothing stays behind that would do the work.

    Raises:
        ConfigError: the launcher's jobs end with the command, or a search asks for more when some have ended.
    """
    if not hasattr(launcher, "detach"):
        raise ConfigError(
            "--detach: got a launcher whose jobs end with the command, expected hydra/launcher=submitit_slurm; "
            "leave it out"
        )
    if search:
        raise ConfigError("--detach: got it beside a search, which asks for more when trials have ended; leave it out")
    launcher.detach = True


@contextlib.contextmanager
def answering() -> Iterator[list[str]]:
    """Inside, what is printed goes to standard error; behind it, the answer that was appended to what it gives.

    Where none was, and nothing raised, nothing had to be submitted: that is the answer.
    """
    answer: list[str] = []
    sweeps: list[Path] = []
    before, news.hears = news.hears, sweeps.append
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield answer
    finally:
        news.hears = before
    if not answer:
        answer.append(json.dumps({"sweep": str(sweeps[-1]) if sweeps else None, "jobs": []}, indent=1))
    print(*answer, flush=True)


def reopened(base: Path, record: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """The sweep that an earlier command with the same words left, with its record; None where there is none.

    Args:
        base: the folder of the experiment.
        record: of this command.
    """
    for sweep in sorted({file.parent for file in base.glob("sweeps/*/submitted-*.json")}, reverse=True):
        with contextlib.suppress(OSError, ValueError):
            known = read_record(sweep / "sweep.json")
            same = all(known.get(key) == record.get(key) for key in _SAME) and _keys(known) == _keys(record)
            left = known.get("status") in ("running", "interrupted") and not is_held(sweep)
            if same and left and is_own(sweep / "sweep.json"):
                return sweep, known
    return None


def _keys(record: Mapping[str, Any]) -> list[Any]:
    return [entry.get("key") for entry in record["runs"]]


def settle(base: Path) -> None:
    """Remove what tells of submissions for sweeps that are concluded, and what their jobs read, when all have ended.

    Their pickles go, too, but not where a job ended without a word: its log stays.

    Args:
        base: the folder of the experiment.
    """
    for sweep in sorted({file.parent for file in base.glob("sweeps/*/submitted-*.json")}):
        with contextlib.suppress(OSError, ValueError):
            if read_record(sweep / "sweep.json").get("status") in ("complete", "failed"):
                _settle(sweep)


def _settle(sweep: Path) -> None:
    jobs = submitted_in(sweep)
    if not jobs or live_jobs(jobs):
        return
    for folder in {job.folder for job in jobs}:
        own = [job for job in jobs if job.folder == folder]
        if is_private(folder) and (folder / "state.pkl").is_file() and all(job.outcome.exists() for job in own):
            shutil.rmtree(folder, ignore_errors=True)
    for file in {job.file for job in jobs}:
        file.unlink(missing_ok=True)
    commands = {record_of(job.order.name) for job in jobs}  # others may be at work on the same sweep
    remove_orders([path for path in sweep.glob(".*.json") if record_of(path.name) in commands])
