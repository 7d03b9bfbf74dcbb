"""Runs that were trained with other code of the user's own than today's, and moving them out of the way. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from hw1.runs.folders import is_complete
from hw1.runs.run import Run
from hw1.settings import ConfigError
from hw1.settings.code import code_of, source_of
from hw1.training.contents import SETTINGS, stored

TRAINING = "add --rerun to train them again, or --keep to take them as they are"
READING = "run their command with --rerun to train them again, or add --keep to take them as they are"


def changed(runs: Iterable[Run]) -> list[Run]:
    """Those of the runs that were trained with other code than today's.

    Compared are runs that have weights, finished or interrupted, and whose code was recorded. One that failed before
    its first checkpoint begins anew, with today's.
    """
    return [run for run in runs if _differences(run)]


def refuse_changed(runs: Iterable[Run], remedy: str) -> None:
    """Refuse runs that were trained with other code than today's, see `changed`.

    Raises:
        ConfigError: there are some; one line a module, which ends with the remedy.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        for said in _differences(run):
            found.setdefault(said, []).append(run.path.name)
    lines = []
    for said, names in found.items():
        shown = ", ".join(names if len(names) < 5 else [*names[:3], "..."])
        lines.append(f"{said} {len(names)} of these runs {'was' if len(names) == 1 else 'were'} trained ({shown})")
    if lines:
        raise ConfigError("\n".join(f"{line}: {remedy}" for line in lines))


def set_aside(runs: Collection[Run], base: Path) -> str:
    """Move runs out of `runs/`; returns where to, in a line.

    Args:
        runs: of one experiment.
        base: its folder, whose lock the caller holds.

    Raises:
        ConfigError: a process is at work on one of them; none was moved.
    """
    with ExitStack() as held:
        for run in runs:
            try:
                held.enter_context(FileLock(run.path / ".lock").acquire(timeout=0))
            except Timeout:
                raise ConfigError(f"{run.path}: a command is at work on it; try --rerun when it has ended") from None
        moved = [_free(base / "replaced" / run.path.name) for run in runs]
        for run, folder in zip(runs, moved, strict=True):
            folder.parent.mkdir(exist_ok=True)
            run.path.rename(folder)
    return f"moved to {base / 'replaced'}: {', '.join(folder.name for folder in moved)}"


def _differences(run: Run) -> list[str]:
    """What has become of each module since the run was trained."""
    if is_complete(run.path):
        before = run.code
    elif (run.path / "checkpoints" / "last.ckpt").exists():  # it would go on from there
        before = (stored(run.path / SETTINGS) or {}).get("code")
    else:
        return []
    if before is None:
        return []
    today = code_of(run.settings.plain)
    found = []
    for name in sorted({*before, *today}):
        module = f"{name} ({source_of(name)})"
        if name not in today:
            found.append(f"{name} is no longer found, or no longer imported, since")
        elif name not in before:
            found.append(f"{module} is imported, which it was not when")
        elif before[name] != today[name]:
            found.append(f"{module} has changed since")
    return found


def _free(folder: Path) -> Path:
    """A path that is not taken: `folder`, or it with a number behind."""
    names = itertools.chain([folder.name], (f"{folder.name}_{i}" for i in itertools.count(2)))
    return next(path for name in names if not (path := folder.with_name(name)).exists())
