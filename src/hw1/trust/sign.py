"""`hw1 trust FOLDER`: says what would be imported, and signs results, and a project, as the user's. No torch.

So a laptop takes in what its cluster trained. No link is followed: what is signed lies in the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw1.records import DamagedError, is_own, make_key, read_record, sums, write_record
from hw1.settings import ConfigError
from hw1.settings.code import source_of
from hw1.trust.judge import targets
from hw1.trust.names import lies_in, parts_of
from hw1.trust.owner import keep_code
from hw1.trust.projects import add_project, is_project, looks_like_a_project
from hw1.typed import program
from hw1.words import count

_RUN = ("settings.json", "result.json")
_KNOWN = ("hw1", "torch", "torchvision", "torchmetrics", "lightning")


@dataclass(frozen=True)
class Signing:
    """What `hw1 trust` would do.

    Attributes:
        folder: the one that was named.
        project: whether it is a project, whose code and conf/ commands then take.
        records: the files that would be signed, and what stands in them: that is signed, whatever stands there later.
        modules: what is imported once they are, and where it is named.
        damaged: what is left as it is, and why.
    """

    folder: Path
    project: bool
    records: dict[Path, dict[str, Any]] = field(default_factory=dict)
    modules: dict[str, list[str]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


def plan(folder: Path) -> Signing:
    """What signing a folder means; nothing is written, nothing imported.

    Raises:
        ConfigError: there is no such folder, or nothing in it to sign.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: got no folder, expected one of results, or a project")
    made = Signing(folder, looks_like_a_project(folder))
    for file in _records(folder):
        try:
            record = read_record(file)
        except (OSError, DamagedError) as error:
            made.damaged.append(str(error))
            continue
        made.records[file] = record
        for key, name in targets(record, ""):
            top = (parts_of(str(name).replace(":", ".")) or (str(name),))[0]
            if not lies_in(str(name), _KNOWN) or not parts_of(name):
                shown = f"{name} ({file.relative_to(folder)}{key})"
                made.modules.setdefault(top, []).append(shown)
    if made.project:
        for path in sorted(folder.iterdir()):
            if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.stem.isidentifier():
                made.modules.setdefault(path.stem, [])
    if not made.records and not made.project:
        said = f"; {made.damaged[0]}" if made.damaged else ""
        raise ConfigError(f"{folder}: got no results and no project, expected some to sign{said}")
    return made


def lines(made: Signing) -> list[str]:
    """What is to be said before somebody signs."""
    runs = len({file.parent for file in made.records if file.name in _RUN})
    sweeps = sum(file.name == "sweep.json" for file in made.records)
    said = [
        f"{made.folder}: {count(runs, 'run')}, {count(sweeps, 'sweep')}"
        + (", and the folder as a project" if made.project else "")
    ]
    for name, where in sorted(made.modules.items()):
        few = list(dict.fromkeys(where))[:3]
        there = source_of(name) if name.isidentifier() else None
        own = made.folder / f"{name}.py"
        place = there or (own if own.is_file() else "not found from here")
        said.append(f"  would import {name} ({place})" + (f": {', '.join(few)}" if few else ""))
    if not made.modules:
        said.append("  would import nothing but hw1, torch and what hw1 uses of theirs")
    return [*said, *(f"  left as it is: {line}" for line in made.damaged)]


def carry_out(made: Signing) -> str:
    """Sign; returns what was done.

    Raises:
        ConfigError: the user's key, or a file, cannot be written.
    """
    if problem := make_key():
        raise ConfigError(f"trust: got no key to sign with: {problem}")
    records = dict(made.records)
    unsigned = [file for file in records if not is_own(file)]
    for file in unsigned:
        before = sums(file.read_bytes())
        write_record(file, records[file])
        if file.name == "settings.json" and (result := file.with_name("result.json")) in records:
            records[result] = _listed_anew(file, before, result, records[result])
    if made.project and not is_project(made.folder) and (problem := add_project(made.folder)):
        raise ConfigError(f"trust: {problem}")
    for folder in sorted({file.parent for file in made.records if file.name in _RUN}):
        settings, key = _settings(folder)
        keep_code(folder, settings, key)
    project = f"; a project of yours: {program()} takes its code and conf/" if made.project else ""
    return f"{made.folder}: {len(unsigned)} of {len(made.records)} records signed{project}"


def _listed_anew(settings: Path, before: Sequence[object], result: Path, record: dict[str, Any]) -> dict[str, Any]:
    """A run's result, which lists its settings.json as it is now that it is signed, if it listed what was signed."""
    if list(record.get("files", {}).get(settings.name, ())) == before:
        record = {**record, "files": {**record["files"], settings.name: sums(settings.read_bytes())}}
        write_record(result, record)
    return record


def _settings(folder: Path) -> tuple[Mapping[str, Any], str]:
    for name in reversed(_RUN):
        if (folder / name).is_file():
            try:
                record = read_record(folder / name)
            except (OSError, DamagedError):
                continue
            if isinstance(record.get("settings"), Mapping):
                return record["settings"], str(record.get("key"))
    return {}, ""


def _records(folder: Path) -> Iterator[Path]:
    """The records in a folder, at any depth: of runs, sweeps and measurements. Links are passed over."""
    for base, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not os.path.islink(os.path.join(base, name)))
        here = Path(base)
        for name in sorted(files):
            file = here / name
            measured = here.name == "measures" and file.suffix == ".json" and "." not in file.stem
            if (name in _RUN or name == "sweep.json" or measured) and file.is_file() and not file.is_symlink():
                yield file
