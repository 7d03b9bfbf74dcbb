"""Where runs stand: finding them by their key, and naming them for people. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hw1.runs.measured import asks_in
from hw1.training.contents import known_result


def find_run(runs: Path, key: str) -> Path | None:
    """The folder of the run with this key among `runs`, whatever its slug; None if there is none."""
    return next((path for path in sorted(runs.glob(f"*-{key}")) if path.is_dir()), None)


def runs_by_key(runs: Path) -> dict[str, Path]:
    """The folders of all runs among `runs` by their keys, as `find_run` finds each; {} where there is none yet."""
    if not runs.is_dir():
        return {}
    with os.scandir(runs) as entries:
        names = sorted(entry.name for entry in entries if "-" in entry.name and entry.is_dir())
    return {name.rpartition("-")[2]: runs / name for name in reversed(names)}  # the first of one key stays


def is_complete(folder: Path) -> bool:
    """Whether a run's folder holds a complete result. One damaged, or another's, is none: the run is finished again."""
    return complete_result(folder) is not None


def complete_result(folder: Path) -> dict[str, Any] | None:
    """The result of a complete run, see `is_complete`; None of any other."""
    result = known_result(folder)
    if result is None or result.get("status") != "complete" or not (folder / "config.yaml").is_file():
        return None
    return result


def ended(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a job of a sweep has done what it was launched for, well or not: trained, and taken the measures.

    Args:
        folder: of the run.
        record: the content of sweep.json.
    """
    if not (folder / "result.json").exists():
        return False
    return not is_complete(folder) or all(ask.file(folder).exists() for ask in asks_in(record))


def slug_of(overrides: Sequence[str]) -> str:
    """A readable folder name from the words of a command: `batch_size=64_lr=0.001`; at most 80 characters.

    Example:
        >>> slug_of(["dataset.batch_size=64", "model=mlp", "dataset.domain=[0,1]"])
        'batch_size=64_mlp_domain=0-1'
    """
    parts = []
    for word in overrides:
        key, _, value = word.lstrip("+~").partition("=")
        value = re.sub(r"[\[\](){}'\"]", " ", value).strip()
        value = re.sub(r"^-(?!\d)|-$", "", re.sub(r"[^\w.+-]+", "-", value))  # a minus stays
        # A group's option says enough by itself; a setting needs its name.
        parts.append(value if key in ("model", "dataset", "optimizer") else f"{key.rpartition('.')[2]}={value}")
    slug = re.sub(r"[^\w.=+-]+", "-", "_".join(part for part in parts if part))
    short = slug[:80].encode()[:200].decode(errors="ignore")  # a file's name has at most 255 bytes, its key 11
    return short.strip("-_.") or "defaults"
