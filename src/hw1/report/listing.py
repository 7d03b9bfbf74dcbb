"""`python -m hw1 list`: experiments, sweeps and runs as they stand at this moment, in words. No torch."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from hw1.metrics import TEST_ACCURACY, TEST_LOSS, label
from hw1.runs.inventory import Experiment, Filter, inventory, selected
from hw1.runs.standing import (
    AT_WORK,
    COMPLETE,
    FAILED,
    INTERRUPTED,
    MEASURING,
    QUEUED,
    RUNNING,
    STATES,
    WAITING,
    Standing,
    SweepStanding,
)
from hw1.settings import ConfigError
from hw1.settings.about import About
from hw1.stages import duration
from hw1.terminal import columns, table
from hw1.typed import program, training
from hw1.words import count, printable, width

_LEAST = {"note": 16, "command": 16, "run": 16, "experiment": 12, "speed": 0}
_CAME_TO = (label(TEST_LOSS), label(TEST_ACCURACY), "took")
_MOST = 20  # failed runs that an overview shows


def listing(path: Path, words: Sequence[str], cells: int | None) -> tuple[list[str], bool]:
    """What stands below a path, in lines that are `printable`; whether a command is at work there.

    Args:
        path: a folder of results, an experiment, a sweep or a run.
        words: filters; with them, the runs that fulfil all are listed.
        cells: width of the terminal; None where lines may be of any length.

    Raises:
        FileNotFoundError: there is no such folder.
        ConfigError: a word is no filter.
    """
    lines, busy = _listing(path, words, cells)
    return [printable(line) for line in lines], busy


def no_results(path: Path) -> str:
    """What to say of a folder of results that holds none, or is not there yet."""
    return f"{path}: no results yet; {training()} --help says how to train some"


def _listing(path: Path, words: Sequence[str], cells: int | None) -> tuple[list[str], bool]:
    """The same, with what records and names of folders say as it is."""
    filters = [Filter.of(word) for word in words]
    found = inventory(path)
    if not found:
        return [no_results(path)], False
    runs = [run for experiment in found for run in experiment.runs]
    sweeps = [sweep for experiment in found for sweep in experiment.sweeps]
    busy = any(run.status in (*AT_WORK, WAITING, QUEUED) for run in runs) or any(
        sweep.status == RUNNING for sweep in sweeps
    )
    several = len(found) > 1
    if filters:
        chosen = selected(runs, filters)
        head = f"{len(chosen)} of {count(len(runs), 'run')}: {_counted(chosen)}" if chosen else "no such run"
        return [head, *_runs(chosen, cells, several)], busy
    if several:
        return _overview(found, runs, cells), busy
    if path.name == "sweep.json" or (path / "sweep.json").is_file():
        return [*_sweep(found[0], sweeps[0]), "", *_runs(runs, cells)], busy
    return _whole(found[0], cells), busy


def watch(path: Path, words: Sequence[str]) -> None:
    """Show the listing anew every two seconds, over the last one, until no command is at work there.

    Raises:
        ConfigError: standard output is no terminal.
    """
    if not sys.stdout.isatty():
        raise ConfigError("--watch: got a file or a pipe, expected a terminal; leave it out")
    print("\x1b[2J", end="")
    while True:
        lines, busy = listing(path, words, columns())
        rows = os.get_terminal_size().lines or 24
        shown = lines if len(lines) < rows else [*lines[: rows - 2], f"... and {len(lines) - rows + 2} more lines"]
        # Over what stands there: cleared first, it would flicker.
        print("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J", end="", flush=True)
        if not busy:
            return
        time.sleep(2)


def _overview(found: Sequence[Experiment], runs: Sequence[Standing], cells: int | None) -> list[str]:
    """One line an experiment; below, the runs that are at work, and those that failed."""
    states = [state for state in STATES if any(run.status == state for run in runs)]
    header = ["experiment", "sweeps", "runs", *states, "last command", "note"]
    rows = []
    for experiment in found:
        of = Counter(run.status for run in experiment.runs)
        last = experiment.sweeps[-1] if experiment.sweeps else None
        counts = [str(of[state] or "") for state in states]
        note = _title(last) if last else ""
        if last and last.status in (RUNNING, INTERRUPTED):
            note = f"{last.status}; {note}" if note else last.status
        rows.append(
            [
                experiment.folder.name,
                *(str(len(experiment.sweeps)), str(len(experiment.runs)), *counts),
                *(_day(last.folder.name) if last else "", note),
            ]
        )
    lines = table(header, rows, cells, _LEAST)
    for title, chosen in (
        ("at work:", [run for run in runs if run.status in AT_WORK]),
        ("failed:", [run for run in runs if run.status == FAILED]),
    ):
        if chosen:
            lines += ["", title, *_runs(chosen[:_MOST], cells, several=True)]
            lines += [f"and {len(chosen) - _MOST} more"] if len(chosen) > _MOST else []
    return lines


def _whole(experiment: Experiment, cells: int | None) -> list[str]:
    """An experiment: its sweeps, then all its runs."""
    lines = [f"{experiment.folder.name}: {count(len(experiment.runs), 'run')}: {_counted(experiment.runs)}"]
    rows = []
    for sweep in experiment.sweeps:
        runs = experiment.of(sweep)
        ended = sum(run.status in (COMPLETE, MEASURING) for run in runs)
        words = sweep.record.get("command", [])
        command = " ".join(map(str, words)) if isinstance(words, list) else ""
        said = sweep.reason or command or "(no words)"
        rows.append([sweep.folder.name, sweep.status, f"{ended}/{len(sweep.folders)}", _left(sweep, runs), said])
    lines += ["", *table(["sweep", "status", "complete", "left", "command"], rows, cells, _LEAST)] if rows else []
    if orphans := sum(not run.sweeps for run in experiment.runs) if experiment.sweeps else 0:
        lines.append(f"{count(orphans, 'run')} that no sweep names: {program()} clean")
    return [*lines, "", *_runs(experiment.runs, cells)]


def _sweep(experiment: Experiment, sweep: SweepStanding) -> list[str]:
    """What one sweep is, and how it stands."""
    runs = experiment.of(sweep)
    title = _title(sweep)
    left = _left(sweep, runs)
    lines = [f"{experiment.folder.name}: {title}" if title else experiment.folder.name]
    lines.append(f"{sweep.status}; {count(len(runs), 'run')}: {_counted(runs)}" + (f"; {left} left" if left else ""))
    if sweep.status == INTERRUPTED:
        lines.append("its command is no longer at work; given again, it goes on from the last checkpoints")
    return [*lines, *([sweep.reason] if sweep.reason else [])]


def _runs(runs: Sequence[Standing], cells: int | None, several: bool = False) -> list[str]:
    """One line a run, those at work first."""
    rows = []
    for run in sorted(runs, key=lambda run: run.status not in AT_WORK):
        own = [run.experiment] if several else []
        rows.append([run.status, *own, run.name, *_progress(run), *_came_to(run)])
    header = ["status", *(["experiment"] if several else []), "run", "epoch", "speed", "left"]
    lines = table([*header, *_CAME_TO, "note"], rows, None, {})
    if cells is not None and max(map(width, lines), default=0) > cells:  # no room for what all names end in
        at = header.index("run")
        for row, name in zip(rows, _without_end([row[at] for row in rows]), strict=True):
            row[at] = name
    return table([*header, *_CAME_TO, "note"], rows, cells, _LEAST)


def _without_end(names: Sequence[str]) -> list[str]:
    """Names of runs without the settings in which all of them end.

    Example:
        >>> _without_end(["lr=0.1_seed=0_budget=quick", "lr=0.1_seed=10_budget=quick"])
        ['lr=0.1_seed=0', 'lr=0.1_seed=10']
    """
    words = [name.split("_") for name in names]
    alike = [len(set(ends)) == 1 for ends in zip(*(reversed(own) for own in words), strict=False)]
    shared = alike.index(False) if False in alike else 0
    return ["_".join(own[: len(own) - shared]) for own in words]


def _progress(run: Standing) -> tuple[str, str, str]:
    """(epoch, steps a second, time left)."""
    if run.status in (COMPLETE, MEASURING) and run.run is not None:
        return f"{run.run.result.get('epochs', '')}", "", ""
    if (at := run.progress) is None:
        return "", "", ""
    speed = f"{at.rate:.3g} steps/s" if at.rate == at.rate else ""
    return f"{at.epoch}/{at.epochs}", speed, duration(at.left) if at.left == at.left else ""


def _came_to(run: Standing) -> tuple[str, ...]:
    """What it came to (medians over its members), how long that took, and, of a run that did not, why."""
    if run.status not in (COMPLETE, MEASURING) or run.run is None:
        return "", "", "", run.reason or run.worker
    said = []
    for name in (TEST_LOSS, TEST_ACCURACY):
        values = [run.run.metrics(member).get(name) for member in range(run.run.count)]
        numbers = [value for value in values if isinstance(value, int | float) and value == value]
        said.append(f"{median(numbers):.4g}" if numbers else "")
    seconds = run.run.result.get("seconds")
    members = f"medians of {run.run.count}" if run.run.count > 1 else ""
    return *said, duration(seconds) if isinstance(seconds, int | float) else "", members


def _left(sweep: SweepStanding, runs: Sequence[Standing]) -> str:
    """About how long a sweep at work will take yet, from what its runs have done since; "" if none has ended."""
    launched, began = sweep.record.get("launched"), sweep.record.get("launched_at")
    if sweep.status != RUNNING or not isinstance(launched, list) or not isinstance(began, int | float):
        return ""
    own = [run for run in runs if run.folder.name in launched]
    left = [run for run in own if run.status in (*AT_WORK, WAITING, QUEUED)]
    if own and len(left) < len(own):
        far = [run.progress for run in left if run.progress is not None]
        trained = sum(run.status == MEASURING for run in left)
        done = len(own) - len(left) + trained + sum((one.step - one.first) / one.steps for one in far)
        to_do = len(left) - trained - sum(one.step / one.steps for one in far)
        seconds = max(0.0, time.time() - began) / done * to_do
        return duration(seconds) if to_do > 0 else ""  # all are trained, and being measured: who knows how long
    slowest = [run.progress.left for run in left if run.progress is not None]
    if left and len(slowest) == len(left) and all(seconds == seconds for seconds in slowest):
        return duration(max(slowest))
    return ""


def _title(sweep: SweepStanding) -> str:
    return About.of(sweep.record.get("about")).title


def _counted(runs: Iterable[Standing]) -> str:
    """`3 complete, 1 failed`."""
    of = Counter(run.status for run in runs)
    return ", ".join(f"{of[state]} {state}" for state in STATES if of[state]) or "none"


def _day(name: str) -> str:
    """The time that names a sweep, as people write it.

    Example:
        >>> _day("2026-11-28_10-20-30"), _day("mine")
        ('2026-11-28 10:20', 'mine')
    """
    day, _, clock = name.partition("_")
    parts = clock.split("-")
    return f"{day} {parts[0]}:{parts[1]}" if len(parts) > 1 and day[:4].isdigit() else name
