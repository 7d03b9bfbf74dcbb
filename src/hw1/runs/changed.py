"""Runs that were trained with other code of the user's own, or other data, than today's; moving them away. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path

from hw1.lease import HeldError, hold
from hw1.runs.mending import copied
from hw1.runs.run import Run
from hw1.settings import ConfigError
from hw1.settings.code import code_of, source_of
from hw1.training.contents import begun as begun_in
from hw1.training.examples import Today, source_node, today

TRAINING = "add --rerun to train them again, or --keep to take them as they are"
_DATA = "dataset:"
READING = "run their command with --rerun to train them again, or add --keep to take them as they are"


def changed(runs: Iterable[Run]) -> list[Run]:
    """Those of the runs that were trained with other code or on other data than today's.

    Compared are runs that have weights, finished or interrupted, and whose code was recorded. One that failed before
    its first checkpoint begins anew, with today's. Data that are no longer here are not compared.
    """
    known: dict[str, Today | None] = {}
    return [run for run in runs if _differences(run, known)]


def refuse_changed(runs: Iterable[Run], remedy: str) -> None:
    """Refuse runs that were trained with other code or on other data than today's, see `changed`.

    Raises:
        ConfigError: there are some; one line a module or source of data, which ends with the remedy.
    """
    found: dict[str, list[str]] = {}
    known: dict[str, Today | None] = {}
    for run in runs:
        for said in _differences(run, known):
            found.setdefault(said, []).append(run.path.name)
    lines = []
    for said, names in found.items():
        shown = ", ".join(names if len(names) < 5 else [*names[:3], "..."])
        those = f"{len(names)} of these runs {'was' if len(names) == 1 else 'were'} trained ({shown})"
        lines.append(f"{said} {those}: {'restore it, or ' if said.startswith(_DATA) else ''}{remedy}")
    if lines:
        raise ConfigError("\n".join(lines))


def set_aside(runs: Collection[Run], base: Path) -> str:
    """Move runs out of `runs/`; returns where to, in a line.

    Args:
        runs: of one experiment.
        base: its folder, which the caller holds.

    Raises:
        ConfigError: a process is at work on one of them; none was moved.
    """
    with ExitStack() as held:
        for run in runs:
            try:
                held.enter_context(hold(run.path, 0))
            except HeldError:
                raise ConfigError(f"{run.path}: a command is at work on it; try --rerun when it has ended") from None
        moved = [_free(base / "replaced" / run.path.name) for run in runs]
        for run, folder in zip(runs, moved, strict=True):
            folder.parent.mkdir(exist_ok=True)
            run.path.rename(folder)
    return f"moved to {base / 'replaced'}: {', '.join(folder.name for folder in moved)}"


def _differences(run: Run, known: dict[str, Today | None]) -> list[str]:
    """What has become of each module, and of the data, since the run was trained.

    Args:
        run: finished or interrupted, or neither.
        known: what data are today, by their node: asked once.
    """
    if run.is_complete():
        result = run.result
        begun = result if "settings" in result else begun_in(run.path) or {}
        before, data = begun.get("code"), result.get("dataset", {}).get("sha256")
    elif (run.path / "checkpoints" / "last.ckpt").exists():  # it would go on from there
        begun = begun_in(run.path) or copied(run.path) or {}
        before, data = begun.get("code"), begun.get("data")
    else:
        return []
    return [*_other_code(run, before), *_other_data(run, data, known)]


def _other_data(run: Run, before: str | None, known: dict[str, Today | None]) -> list[str]:
    if before is None:
        return []
    node = str(source_node(run.settings.dataset))
    if node not in known:  # of a stranger's result nothing is built
        known[node] = today(run.settings.dataset, known_only=bool(run.why_not_own))
    now = known[node]
    if now is None or now.identity == before:
        return []
    ended = run.result if run.is_complete() else {}
    name = ended.get("dataset", {}).get("name", run.settings.dataset.get("_target_"))
    files = f" ({now.files[0]}{f' and {len(now.files) - 1} more' if now.files[1:] else ''})" if now.files else ""
    return [f"{_DATA} {name}{files} has changed since"]


def _other_code(run: Run, before: dict[str, str] | None) -> list[str]:
    if before is None:
        return []
    now = code_of(run.settings.plain)
    found = []
    for name in sorted({*before, *now}):
        module = f"{name} ({source_of(name)})"
        if name not in now:
            found.append(f"{name} is no longer found, or no longer imported, since")
        elif name not in before:
            found.append(f"{module} is imported, which it was not when")
        elif before[name] != now[name]:
            found.append(f"{module} has changed since")
    return found


def _free(folder: Path) -> Path:
    """A path that is not taken: `folder`, or it with a number behind."""
    names = itertools.chain([folder.name], (f"{folder.name}_{i}" for i in itertools.count(2)))
    return next(path for name in names if not (path := folder.with_name(name)).exists())
