"""Paths that do not leave a folder: names from records that somebody else may have written, and links.

An output folder and the folders of experiments in it may be links of the user's own. Below `<output>/<experiment>`
none is followed, to read or to write: `runs/` and `sweeps/`, a run's folder, its parts, any file. No torch.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeGuard

from hw1.bounds import special
from hw1.records import DamagedError

_FOLDERS = ("runs", "sweeps", "replaced", "measurements")  # of an experiment
_OWN_LINKS = "wandb"  # Weights & Biases keeps a link to its latest run
_PLAIN = re.compile(r"(?!\.)[\w=+.,@-]+(/(?!\.\.?(/|$))[\w=+.,@-]+)*")  # no part of which is . or ..
_REMEDY = "none is followed below an experiment's folder: put what it leads to in its place, or remove it"


def is_name(name: object) -> TypeGuard[str]:
    """Whether something is the name of a file or folder, and no path.

    Example:
        >>> is_name("seed=1-0123456789"), is_name("../x"), is_name("C:x"), is_name(None)
        (True, False, False, False)
    """
    return isinstance(name, str) and _problem(name) == "" and not set(name) & set("/\\")


def inside(base: Path, name: object) -> Path:
    """The path of a file that a record names, in the folder that it is relative to.

    Args:
        base: that folder.
        name: as it was stored, with / between folders.

    Raises:
        DamagedError: it leads out of the folder, or over a link.

    Example:
        >>> inside(Path("out"), "measures/a.json").as_posix()
        'out/measures/a.json'
    """
    if not isinstance(name, str) or _problem(name):
        raise DamagedError(
            f"{base}: got a record that names {repr(name)[:200]}, expected a path below: it is not followed; "
            "run the command again that wrote the record, or remove it"
        )
    path = os.fspath(base)
    for part in name.split("/"):
        path = f"{path}/{part}"
        if is_link(path):
            raise DamagedError(f"{path}: got a link, expected a file or folder: {_REMEDY}")
    return Path(path)


def _problem(name: str) -> str:
    if _PLAIN.fullmatch(name):  # nearly all: tens of thousands stand in a large sweep's records
        return ""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if not posix.parts or "\0" in name:
        return "no name"
    if posix.is_absolute() or windows.drive or windows.root:
        return "absolute"
    return "leads out" if ".." in posix.parts or ".." in windows.parts else ""


def is_link(path: str | os.PathLike[str]) -> bool:
    """Whether a link stands at a path, wherever it leads; False where nothing does."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def what_is(path: Path) -> str:
    """What stands at a path that is neither a file nor a folder, in words."""
    return "a link" if is_link(path) else special(os.lstat(path).st_mode)


def refuse_links(folder: Path) -> list[Path]:
    """Refuse links in the folder of a run or a sweep: itself, `runs/` or `sweeps/` around it, and all below.

    And pipes, sockets and devices, whose reader waits.

    Args:
        folder: need not be there. One that stands in no `runs/` or `sweeps/` may itself be a link of the user's.

    Returns:
        What it saw of folders in which something is being written, or was when its process was killed.

    Raises:
        DamagedError: there is one.
    """
    rooms: list[Path] = []
    if (link := first_link(folder, rooms)) is not None:
        remedy = _REMEDY if is_link(link) else "remove it"
        raise DamagedError(f"{link}: got {what_is(link)}, expected a file or folder: {remedy}")
    return rooms


def refuse_linked_parts(base: Path) -> None:
    """Refuse links among the parts of an experiment's folder.

    Raises:
        DamagedError: there is one.
    """
    for path in (base / name for name in (*_FOLDERS, ".lock")):
        if is_link(path):
            raise DamagedError(f"{path}: got a link, expected a file or folder: {_REMEDY}")


def first_link(folder: Path, rooms: list[Path] | None = None) -> Path | None:
    """A link, or what is neither file nor folder, in the folder of a run or a sweep, see `refuse_links`; None if none.

    Args:
        folder: of the run or sweep.
        rooms: takes what the other returns.
    """
    whole = folder if folder.is_absolute() else Path.cwd() / folder
    if whole.parent.name in _FOLDERS:
        for path in (folder.parent, folder):
            if is_link(path):
                return path
    return next(_links(os.fspath(folder), [] if rooms is None else rooms), None)


def _links(folder: str, rooms: list[Path]) -> Iterator[Path]:
    folders = [folder]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield Path(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        if entry.name == _OWN_LINKS:
                            continue
                        folders.append(entry.path)
                        if entry.name.endswith(".part"):
                            rooms.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):  # a pipe, say, whose reader waits
                        yield Path(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it is not there, or was removed meanwhile


def is_private(folder: Path) -> bool:
    """Whether a folder is this user's own, no link, and nobody else's to look into."""
    with suppress(OSError):
        found = os.lstat(folder)
        mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        return stat.S_ISDIR(found.st_mode) and mine and not found.st_mode & 0o077
    return False
