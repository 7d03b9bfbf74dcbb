"""The folders that are the user's projects: a signed list in her configuration folder. No torch.

A file in a folder cannot say that the folder is hers: it may have come with somebody else's results.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from hw1.records import FORMAT, DamagedError, is_own, key_file, make_key, read_record, write_record

FILE = "projects.json"  # beside the user's key


def projects() -> list[Path]:
    """The resolved folders that `hw1 init` and `hw1 trust` have signed."""
    file = key_file().with_name(FILE)
    try:
        listed = read_record(file).get("projects") if is_own(file) else None
    except (OSError, DamagedError):
        return []
    return [Path(name) for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def is_project(folder: Path) -> bool:
    """Whether a folder is one of the user's projects, or the checkout that hw1 itself runs from."""
    try:
        resolved = folder.resolve()
    except OSError:
        return False
    return resolved == _checkout() or resolved in projects()


def in_project(file: Path | None) -> bool:
    """Whether a file lies in one of the user's projects."""
    if file is None:
        return False
    resolved = file.resolve()
    return any(resolved.is_relative_to(folder) for folder in (_checkout(), *projects()))


def add_project(folder: Path) -> str:
    """Sign a folder as a project of the user's; returns why it cannot be signed, "" if it is."""
    if problem := make_key():
        return problem
    known = [str(one) for one in projects()]
    name = str(folder.resolve())
    if name not in known:
        try:
            write_record(key_file().with_name(FILE), {"format": FORMAT, "projects": [*known, name]})
        except OSError as error:
            return f"{key_file().with_name(FILE)} cannot be written ({error.strerror})"
    return ""


def looks_like_a_project(folder: Path) -> bool:
    """Whether a folder looks like a project: marked in its pyproject.toml, or with a conf/, or modules beside."""
    try:
        tool = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("tool")
    except (OSError, ValueError):
        tool = None
    marked = isinstance(tool, dict) and "hw1" in tool
    return marked or (folder / "conf").is_dir() or any(folder.glob("*.py"))


def _checkout() -> Path:
    """The folder that this package was imported from: `src/hw1/trust/` of it, or where wheels are installed."""
    source = Path(__file__).resolve().parents[2]
    return source.parent if source.name == "src" else source
