"""What data came to when they were last read, and from which files: that they have changed shows without reading them.

An entry of the cache ($HW1_CACHE, else the user's cache folder) holds the identity of a source of examples and the size
and time of every file that it was read from. While these stay, so does the identity. No torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import site
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.data.source import data_root
from hw1.files import write_text
from hw1.seeds import digest

if TYPE_CHECKING:
    from hw1.data.protocol import ExampleSource

Stamp = list[int]  # [bytes, time of the last change in ns]; [] of what is not there
_RECENT = 2 * 10**9  # ns: what was written so shortly before it was read may change again at the same time and size


@dataclass(frozen=True)
class Remembered:
    """What a source came to when it was last read.

    Attributes:
        identity: of the source.
        stamps: of every file and folder that it was read from, by absolute path.
        at: time of reading, in ns.
    """

    identity: str
    stamps: Mapping[str, Stamp]
    at: int

    def touched(self) -> list[str]:
        """The files that are not what they were, by size and time."""
        return [path for path, stamp in self.stamps.items() if stamp_of(path) != stamp]

    def stands(self) -> bool:
        """Whether the identity is known without reading: there are files, and none of them can have changed."""
        recent = any(stamp and stamp[1] > self.at - _RECENT for stamp in self.stamps.values())
        return not recent and not self.touched()


def stamp_of(path: str) -> Stamp:
    """Size and time of a file or folder; [] where there is none. A folder's time tells what it lists."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [0 if os.path.isdir(path) else status.st_size, status.st_mtime_ns]


def definition_of(node: Mapping[str, Any]) -> str:
    """What tells a source from others on this machine: its node, and the folders that its paths start from."""
    return digest([dict(node), str(data_root(node.get("root")).absolute()), os.getcwd()])


def remembered(definition: str) -> Remembered | None:
    """The entry of a definition; None where there is none that can be read."""
    try:
        found = json.loads(_file(definition).read_text(encoding="utf-8"))
        return Remembered(str(found["identity"]), dict(found["stamps"]), int(found["at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def identity_of(examples: ExampleSource, definition: str | None = None) -> str:
    """What a source says that it reads, which is remembered under a definition.

    Its files are those that it says (`files()`), else those that it opens while it says its identity, the folders
    that it lists meanwhile, and what it has `opened` before (see `watching`). Where there are none, nothing is
    remembered: it is asked again each time.
    """
    at = time.time_ns()
    own = getattr(examples, "files", None)
    with watching() as seen:
        identity = examples.identity()
    seen |= getattr(examples, "opened", set())
    if definition is not None:
        files: Iterable[str | Path] | None = own() if own is not None else seen or None
        if files is not None:
            stamps = {path: stamp_of(path) for path in sorted({os.path.abspath(file) for file in files})}
            with contextlib.suppress(OSError):  # no folder to write to: it is asked again
                text = json.dumps({"identity": identity, "stamps": stamps, "at": at})
                write_text(_file(definition), text)
    return identity


def cache_folder() -> Path:
    """$HW1_CACHE, else `hw1` in the user's cache folder."""
    if chosen := os.environ.get("HW1_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("hw1")


def _file(definition: str) -> Path:
    return cache_folder() / "identities" / f"{definition[:32]}.json"


# Python has no way to take a hook away, so there is one for the process, and it sleeps outside of `watching`.
_seen: list[set[str]] = []
_hooked = False


def _hook(event: str, arguments: Sequence[Any]) -> None:
    if _seen and event in ("open", "os.listdir", "os.scandir"):
        path = arguments[0]
        reading = event != "open" or not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if reading and isinstance(path, str | bytes | os.PathLike):
            _seen[-1].add(os.path.abspath(os.fsdecode(path)))


@contextlib.contextmanager
def watching() -> Iterator[set[str]]:
    """The files that are opened for reading inside, and the folders that are listed; code and packages are no data."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    seen: set[str] = set()
    _seen.append(seen)
    try:
        yield seen
    finally:
        del _seen[next(i for i, one in enumerate(_seen) if one is seen)]  # equal ones may stand there, empty
        seen -= {path for path in seen if _is_code(path)}


def _is_code(path: str) -> bool:
    paths = sysconfig.get_paths()
    installed = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()}
    system = ("/proc", "/sys", "/dev", "/etc", str(cache_folder().absolute()))
    code = path.endswith((".py", ".pyc", ".so", ".pyd")) or "__pycache__" in path
    return code or any(path.startswith(f"{folder}{os.sep}") for folder in (*installed, *system))
