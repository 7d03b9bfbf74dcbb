"""Whether runs and sweeps are what was written: one line a damage, with its remedy. No torch for finished runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw1.files import file_digest
from hw1.inside import inside
from hw1.records import DamagedError, is_own, read_record
from hw1.runs.damage import link_in, run_damage
from hw1.runs.standing import named_runs, strays
from hw1.training.contents import RESULT, difference, stored
from hw1.typed import program

_HASH = re.compile(r"[0-9a-f]{16}")  # in the name of a cached table


@dataclass(frozen=True)
class Verdict:
    """What `verify` found below a path.

    Attributes:
        runs: number of runs.
        sweeps: number of sweeps.
        damage: one line a damage, with its remedy.
        unlisted: finished runs and sweeps of an earlier version, which lists no hashes.
        foreign: records without a valid signature of this user's.
    """

    runs: int
    sweeps: int
    damage: Sequence[str]
    unlisted: Sequence[Path]
    foreign: Sequence[Path]


def verify(path: Path) -> Verdict:
    """Read and hash everything below a run, a sweep (with its runs), an experiment or an output folder.

    Raises:
        FileNotFoundError: nothing of that kind stands there.
    """
    if path.name == "sweep.json":
        path = path.parent
    base = path.parent.parent
    sweeps: list[Path] = []
    if (path / "sweep.json").exists():
        sweeps = [path]
        record = stored(path / "sweep.json") or {}
        runs = [base / "runs" / name for name, _ in named_runs(record)]
    elif (path / "config.yaml").exists() or (path / RESULT).exists():
        runs = [path]
    else:
        found = {*path.glob("runs/*/"), *path.glob("*/runs/*/")}
        runs = sorted(folder for folder in found if (folder / "config.yaml").exists() or (folder / RESULT).exists())
        sweeps = sorted(file.parent for pattern in ("", "*/") for file in path.glob(f"{pattern}sweeps/*/sweep.json"))
    if not runs and not sweeps:
        raise FileNotFoundError(f"{path}: no run, sweep or folder of them stands there; expected one")
    damage = [line for folder in runs for line in run_damage(folder)]
    listed: set[Path] = set()
    unlisted, foreign = [], []
    for folder in runs:
        result = stored(folder / RESULT) or {}
        if result.get("status") == "complete" and "files" not in result:
            unlisted.append(folder)
    for folder in sweeps:
        try:
            record = read_record(folder / "sweep.json")
        except DamagedError as error:
            damage.append(str(error))
            continue
        damage += sweep_damage(folder, record)
        listed |= {folder.parent.parent / name for name in record.get("caches", {})}
        damage += [f"{folder / 'sweep.json'}: {line}; run its command again" for line in strays(record)]
        if not isinstance(record.get("files", {}), Mapping):
            unlisted.append(folder)
    if not (path / "sweep.json").exists() and path not in runs:  # of a folder of them, what no sweep lists as well
        damage += _unlisted_damage({folder.parent.parent for folder in (*runs, *sweeps)}, listed)
    for file in (*(folder / RESULT for folder in runs), *(folder / "sweep.json" for folder in sweeps)):
        if file.exists() and file.parent not in unlisted and not is_own(file):
            foreign.append(file)
    return Verdict(len(runs), len(sweeps), damage, unlisted, foreign)


def sweep_damage(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """What is wrong with the tables, figures and page of a sweep, and with the cached tables that it was made of.

    Args:
        folder: of the sweep.
        record: the content of its sweep.json.
    """
    if link := link_in(folder):
        return [link]
    files, caches = record.get("files", {}), record.get("caches", {})
    try:
        if not isinstance(files, Mapping):  # of an earlier version
            there = {name: inside(folder, name) for name in files}
            files = {name: [file.stat().st_size if file.exists() else 0, None] for name, file in there.items()}
        found = [(inside(folder, name), listed) for name, listed in files.items()]
        found += [(inside(folder.parent.parent, name), listed) for name, listed in caches.items()]
    except DamagedError as error:
        return [str(error)]
    problems = [difference(file, *listed) for file, listed in found]
    return [f"{problem}; {program()} report {folder} makes it again" for problem in problems if problem]


def _unlisted_damage(bases: set[Path], listed: set[Path]) -> Iterator[str]:
    """What is wrong with cached tables that no sweep lists: their names hold hashes of their contents."""
    for base in sorted(bases):
        for file in sorted((base / "measurements").glob("[!.]*.csv")):
            mark = file.stem.partition("-")[2]
            if file not in listed and _HASH.fullmatch(mark) and not file_digest(file).startswith(mark):
                yield f"{file} is damaged: its content is not what was written; remove it"
