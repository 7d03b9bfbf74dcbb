"""`python -m hw1 clean`: what could be freed, weights before results. No torch, unless studies ask.

Nothing that a command is at work on is touched, nor anything that may belong to one that is starting. A run without its
weights stays complete: result.json keeps their hashes, so that its command finds it, and its tables are drawn again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hw1.lease import LEASE, LOCK
from hw1.measures.take import epochs_wanted
from hw1.report.removal import Plan, Removal
from hw1.runs import Ask, Run, asks_in
from hw1.runs.inventory import Experiment, Filter, inventory, selected
from hw1.runs.standing import AT_WORK, COMPLETE, DAMAGED, QUEUED, RUNNING, WAITING, Standing, SweepStanding
from hw1.runs.weights import snapshot_files
from hw1.settings import ConfigError, RunSettings
from hw1.studies.protocol import make
from hw1.terminal import size
from hw1.training.contents import RESULT
from hw1.trust import judge_measures, reading
from hw1.trust.owner import why_not_own_record
from hw1.words import count

_STARTING = 600.0  # seconds; what has changed within may belong to a command that is starting


@dataclass(frozen=True)
class Level:
    """What is to be freed; nothing set: what belongs to nothing any more.

    Attributes:
        checkpoints: checkpoints of complete runs whose end is in a snapshot too.
        keep: snapshots that complete runs keep, evenly spaced, the first and the last among them; None for all.
        weights: checkpoints and snapshots of complete runs.
        results: whole runs, complete or not, with their sweeps.
    """

    checkpoints: bool = False
    keep: int | None = None
    weights: bool = False
    results: bool = False

    @property
    def orphans(self) -> bool:
        """Whether nothing is set."""
        return self == Level()


def plan(path: Path, words: Sequence[str], level: Level) -> Plan:
    """What a cleaning would remove; nothing is removed yet.

    Args:
        path: a folder of results, an experiment, a sweep or a run.
        words: filters of runs, as for `list`.
        level: what is to be freed.

    Raises:
        ConfigError: a word is no filter, or too few snapshots are to be kept.
        FileNotFoundError: there is no such folder.
    """
    if level.keep is not None and level.keep < 2:
        raise ConfigError(f"--snapshots: got {level.keep}, expected at least 2: the first and the last")
    filters = [Filter.of(word) for word in words]
    found = inventory(path)
    chosen = {run.folder for run in selected([run for one in found for run in one.runs], filters)}
    made = Plan()
    for experiment in found:
        runs = [run for run in experiment.runs if run.folder in chosen and run.folder.exists()]
        runs = [run for run in runs if _may_be_touched(run, made)]
        if level.orphans:
            _orphans(experiment, runs, filters, path, made)
        elif level.results:
            _results(experiment, runs, filters, path, made)
        else:
            _files(experiment, runs, level, made)
    return made


def _may_be_touched(run: Standing, made: Plan) -> bool:
    if run.folder.is_symlink():
        made.leave(f"{run.folder}: a link to elsewhere: left")
    elif run.status in (*AT_WORK, WAITING, QUEUED):
        made.leave(f"{run.folder}: {run.status}: left")
    else:
        return True
    return False


def _orphans(
    experiment: Experiment, runs: Iterable[Standing], filters: Sequence[Filter], path: Path, made: Plan
) -> None:
    """Runs that no sweep names, sweeps none of whose runs is there, and runs that `--rerun` set aside."""
    if damaged := [sweep for sweep in experiment.sweeps if sweep.status == DAMAGED]:
        made.leave(f"{damaged[0].folder}: its record is damaged; which runs it names is not known: runs are left")
    else:
        for run in runs:
            if not run.sweeps and _quiet(run.folder, made):
                made.removals.append(Removal(run.folder, (), _bytes(run.folder), "no sweep names it"))
    if filters:
        return
    for sweep in experiment.sweeps:
        empty = sweep.status not in (RUNNING, DAMAGED) and not any(run.exists() for run in sweep.folders)
        if empty and _quiet(sweep.folder, made):
            page = "; its page is still there" if (sweep.folder / "report.html").exists() else ""
            why = f"a sweep none of whose runs is there{page}"
            made.removals.append(Removal(sweep.folder, (), _bytes(sweep.folder), why))
    for folder in experiment.nameless:
        if _quiet(folder, made):
            made.removals.append(Removal(folder, (), _bytes(folder), "a sweep that never began"))
    whole = experiment.folder in (path.absolute(), *path.absolute().glob("*"))
    for folder in sorted(experiment.folder.glob("replaced/*/")) if whole else []:
        if not folder.is_symlink() and _quiet(folder, made):
            made.removals.append(Removal(folder, (), _bytes(folder), "set aside by --rerun"))


def _results(
    experiment: Experiment, runs: Sequence[Standing], filters: Sequence[Filter], path: Path, made: Plan
) -> None:
    """Whole runs; of a sweep's those that no other names. And the sweeps of which nothing is left."""
    own = path.parent if path.name == "sweep.json" else path
    of_sweep = (own / "sweep.json").is_file()
    gone = set()
    for run in runs:
        others = [name for name in run.sweeps if name != own.absolute().name] if of_sweep else []
        if others:
            made.leave(f"{run.folder}: sweep {others[0]} names it too: left")
        elif run.sweeps or _quiet(run.folder, made):
            gone.add(run.folder)
            made.removals.append(Removal(run.folder, (), _bytes(run.folder), f"a run: {run.status}"))
    for sweep in experiment.sweeps:
        there = [run for run in sweep.folders if run.exists() and run not in gone]
        asked = not filters and of_sweep  # its runs may be left to other sweeps
        if sweep.status not in (RUNNING, DAMAGED) and (asked or not there):
            made.removals.append(Removal(sweep.folder, (), _bytes(sweep.folder), "a sweep of which no run is left"))


def _files(experiment: Experiment, runs: Iterable[Standing], level: Level, made: Plan) -> None:
    """Weights of complete runs."""
    needing: dict[str, str] = {}
    judged: set[str] = set()
    by_name = {sweep.folder.name: sweep for sweep in experiment.sweeps}
    for run in runs:
        if run.run is None or run.status != COMPLETE:
            continue
        if any((run.folder / part).is_symlink() for part in ("snapshots", "checkpoints", RESULT)):
            made.leave(f"{run.folder}: a link to elsewhere: left")
            continue
        # A sweep that is given by its path is not all that names the run.
        naming = [by_name[name] for name in run.sweeps if name in by_name]
        files = _chosen(run.run, naming, level, judged)
        if not files:
            continue
        if open_ := [sweep for sweep in naming if sweep.record.get("study") and sweep.status != COMPLETE]:
            made.leave(
                f"{run.folder}: the study of sweep {open_[0].folder.name} ({open_[0].status}) has still to look at its "
                "weights: left; give its command again first"
            )
            continue
        if level.keep is not None or level.weights:
            for sweep in naming:
                if sweep.folder.name not in needing:
                    needing[sweep.folder.name] = _said_of_study(sweep, experiment)
                if needing[sweep.folder.name]:
                    made.leave(needing[sweep.folder.name])
        why = "weights" if level.weights else f"{count(len(files), 'file')} of weights that it can do without"
        made.removals.append(Removal(run.folder, tuple(files), sum(file.lstat().st_size for file in files), why))


def _chosen(run: Run, naming: Sequence[SweepStanding], level: Level, judged: set[str]) -> list[Path]:
    """The files of a complete run that a level removes."""
    checkpoints = sorted((run.path / "checkpoints").glob("*.ckpt"))
    snapshots = snapshot_files(run.path)
    end = int(run.result.get("epochs", -1))
    if level.weights:
        return [*checkpoints, *(snapshots[epoch] for epoch in sorted(snapshots))]
    found = checkpoints if level.checkpoints and end in snapshots else []
    if level.keep is not None:
        epochs = sorted(snapshots)
        asks = [ask for sweep in naming for ask in asks_in(sweep.record)]
        asks += [Ask(name, node) for name, node in run.settings.measures.items()]
        for sweep in naming:
            if sweep.folder.name in judged:  # its record names all of its runs
                continue
            judged.add(sweep.folder.name)
            if why := why_not_own_record(sweep.folder / "sweep.json"):
                judge_measures({ask.name: ask.node for ask in asks_in(sweep.record)}, reading().trusted, why)
        if why := run.why_not_own:
            judge_measures(run.settings.measures, reading().trusted, why)
        kept = {end, *spaced(epochs, level.keep), *epochs_wanted(asks, run.settings)}
        found = [*found, *(snapshots[epoch] for epoch in epochs if epoch not in kept)]
    return found


def spaced(epochs: Sequence[int], number: int) -> list[int]:
    """So many of the epochs, evenly spaced by their place, the first and the last among them.

    Example:
        >>> spaced([0, 1, 2, 3, 4, 5, 6], 3), spaced([0, 1], 3), spaced([], 2)
        ([0, 3, 6], [0, 1], [])
    """
    if len(epochs) <= number:
        return list(epochs)
    return [epochs[round(i * (len(epochs) - 1) / (number - 1))] for i in range(number)]


def _said_of_study(sweep: SweepStanding, experiment: Experiment) -> str:
    """What is lost where a sweep's study reads snapshots: it refuses runs that keep none. "" if it does not."""
    runs = [run.run.settings for run in experiment.of(sweep) if run.run is not None]
    if not sweep.record.get("study") or not runs:
        return ""
    swept = [str(key) for key in sweep.record.get("swept", [])]
    theirs = why_not_own_record(sweep.folder / "sweep.json") or any(
        run.run.why_not_own for run in experiment.of(sweep) if run.run is not None
    )
    try:
        if theirs:  # a check may build what they name
            raise ConfigError("study: got somebody else's, which is not asked")
        study = make(sweep.record["study"])
        study.check(runs, swept)
        study.check([RunSettings.check({**run.plain, "callbacks": {}}) for run in runs], swept)
    except (ConfigError, OSError):
        return (
            f"{sweep.folder}: its study reads snapshots; its tables and figures stay, and are drawn again from what "
            "was measured, but measured anew it would look at fewer"
        )
    return ""


def _quiet(folder: Path, made: Plan) -> bool:
    """Whether nothing in a folder has changed of late."""
    paths = [folder, *(path for path in folder.iterdir() if path.name not in (LEASE, LOCK))]
    if max(path.lstat().st_mtime for path in paths) < time.time() - _STARTING:
        return True
    made.leave(f"{folder}: changed in the last {_STARTING / 60:.0f} minutes: left, a command may be starting with it")
    return False


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def lines(made: Plan, base: Path) -> list[str]:
    """What a plan would remove, one line each, and how much that is."""
    found = [f"  {_shown(one.folder, base)}: {one.why}, {size(one.size)}" for one in made.removals]
    return [f"would be removed below {base}:", *found, f"together {size(made.size)}"] if found else []


def _shown(path: Path, base: Path) -> str:
    base = base.absolute()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) and path != base else str(path)


def offers(path: Path, words: Sequence[str]) -> list[str]:
    """What the other levels would free, one line a level, the mildest first."""
    levels = {
        "--checkpoints": (Level(checkpoints=True), "checkpoints of complete runs whose end is in a snapshot too"),
        "--snapshots 2": (Level(keep=2), "snapshots but the first and the last, and what measures ask for"),
        "--weights": (Level(weights=True), "all weights of complete runs; results, tables and figures stay"),
        "--results": (Level(results=True), "whole runs and sweeps"),
    }
    sizes = {flag: (plan(path, words, level).size, said) for flag, (level, said) in levels.items()}
    return [f"{flag} would free {size(free)}: {said}" for flag, (free, said) in sizes.items() if free]
