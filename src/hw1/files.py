"""Files that are whole or absent: a killed process leaves the old content or the new, never half of either.

What is not whole yet stands in a folder of its own, `.<name>.<64 random bits>.part`, that only this user may enter:
whoever writes into it by name, as safetensors and torch do, follows no link that somebody else has put there.

What training and reports depend on also lasts where the power fails (`lasting`); what is made again in a moment, as
figures, need not.
"""

import contextlib
import datetime
import errno
import functools
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hw1 import lease
from hw1.bounds import special

try:
    import fcntl
except ImportError:  # not on Windows, where what a killed process left is removed with its run's folder alone
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part", re.DOTALL)
_AROUND = 4  # <output>/<experiment>/runs/<run>
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_tidied: set[str] = set()
_led_to: set[str] = set()  # folders that the disk knows by now
_ROOM = "make room there and run the command again, which goes on"
_REMEDIES = {
    errno.EISDIR: "a file is expected there; delete it and run the command again",
    errno.ENOTDIR: "a folder is expected where a file is; delete that and run the command again",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EIO: "the disk could not be read or written; when it can, run the command again, which goes on",
}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the same disk; when the block ends without an error it replaces `path` in one step.

    The file gets the mode that the umask gives to new ones, whatever the block made of it. A link at `path` is
    replaced, not followed.

    Raises:
        LostError: another process holds the folder by now (see `lease`).
        OSError: it cannot be written, or the block left no plain file.
    """
    lease.require(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent)
    # The prefix keeps globs like *.safetensors from seeing half a file.
    room = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        os.mkdir(room, 0o700)
        with _held(room):
            try:
                temporary = room / path.name
                made = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)
                mode = stat.S_IMODE(os.fstat(made).st_mode)
                os.close(made)
                yield temporary
                _set_mode(temporary, mode)
                lease.require(path)
                os.replace(temporary, path)
            finally:
                try:
                    os.rmdir(room)
                except OSError:  # not empty: the block failed
                    shutil.rmtree(room, ignore_errors=True)
    except FileNotFoundError:  # who took the folder over a moment ago has removed it
        lease.require(path)
        raise


@contextlib.contextmanager
def lasting(path: Path) -> Iterator[Path]:
    """As `replacing`, for what must not be lost: a power failure, too, leaves the old content or the new.

    The content is on the disk before the file has its name, and the name is before this returns.
    """
    with replacing(path) as temporary:
        yield temporary
        sync_file(temporary)
    try:
        sync_folder(path.parent)
    except FileNotFoundError:  # who took the folder over a moment ago has removed it
        lease.require(path)
        raise


def sync_file(file: Path) -> None:
    """Have a file's content on the disk."""
    opened = os.open(file, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | _NO_LINK)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk and, once a process, its own and those of the folders around it."""
    if os.name == "nt":  # opens no folders
        return
    name = os.path.abspath(folder)
    _sync_names(name)
    for _ in range(_AROUND):
        if name in _led_to:
            return
        _led_to.add(name)
        name = os.path.dirname(name)
        with contextlib.suppress(PermissionError):  # whoever may not read it has made nothing in it
            _sync_names(name)


def _sync_names(folder: str) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems that sync no folders
            raise
    finally:
        os.close(opened)


def _set_mode(file: Path, mode: int) -> None:
    """Set the mode of a file that a library may have made anew: safetensors' are for their owner alone."""
    opened = os.open(file, os.O_RDONLY | _NO_LINK)
    try:
        if stat.S_IMODE(os.fstat(opened).st_mode) != mode and hasattr(os, "fchmod"):
            os.fchmod(opened, mode)
    finally:
        os.close(opened)


@contextlib.contextmanager
def _held(room: Path) -> Iterator[None]:
    """Let other processes see that a temporary folder has a writer; the system lets go of it where that is killed."""
    if fcntl is None:
        yield
        return
    opened = os.open(room, os.O_RDONLY | _NO_LINK)
    try:
        with contextlib.suppress(OSError):  # a network file system that locks no folders
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _tidy(folder: Path) -> None:
    """Remove what killed processes were writing into a folder; once a process and folder."""
    name = os.path.abspath(folder)
    if name not in _tidied:
        _tidied.add(name)
        remove_left(folder)


def remove_left(folder: Path) -> None:
    """Remove what killed processes were writing into a folder, and nothing that somebody still writes."""
    try:
        with os.scandir(folder) as entries:
            left = [Path(entry.path) for entry in entries if _PART.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for room in left:
        remove_room(room)


def remove_room(room: Path) -> None:
    """Remove a temporary folder of `replacing`, if nobody writes into it any more."""
    if _PART.fullmatch(room.name) and _is_left(room):
        shutil.rmtree(room, ignore_errors=True)  # follows no link


def _is_left(room: Path) -> bool:
    """Whether nobody writes into a temporary folder any more."""
    if fcntl is None:
        return False
    try:
        opened = os.open(room, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)
    except OSError:
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(opened)
    return True


def remove_left_below(base: Path) -> None:
    """Remove what killed processes were writing into an experiment's folder, its sweeps and its measurements.

    Of a command that is no longer at work on its sweep, what its jobs read there goes too.
    """
    folders = [base, base / "runs", base / "sweeps", base / "measurements"]
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(base / "sweeps") as entries:
        sweeps = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        folders += sweeps
        for sweep in sweeps:
            names = os.listdir(sweep)
            orders = [sweep / name for name in names if name.startswith(".sweep-")]
            queued = any(name.startswith("submitted-") for name in names)  # jobs of a cluster, which will read them
            if orders and not queued and not lease.is_held(sweep):
                for order in orders:
                    order.unlink(missing_ok=True)
    for folder in folders:
        remove_left(folder)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes were writing anywhere below a folder that nobody else writes into now.

    What an earlier version left, files `.<name>.<process>.part`, is removed as well.
    """
    for here, names, files in os.walk(folder):  # which passes over what has gone meanwhile, and follows no link
        for name in names + files:
            if not (name.startswith(".") and name.endswith(".part")):
                continue
            part = Path(here, name)
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def new_folder(base: Path) -> Path:
    """A folder in `base` that was not there, named by the present second; two processes never get the same.

    Its name is the last of all, also where the clock was set back: readers take the last for the newest.
    """
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    there = [path.name[: len(now)] for path in base.glob("[0-9]*")]
    stamp = max([now, *(name for name in there if re.fullmatch(r"\d{4}(-\d\d){2}_\d\d(-\d\d){2}", name))])
    numbers = (f"{stamp}_{i}" if i < 10 else f"{stamp}_9_{i:06d}" for i in itertools.count(2))
    for name in itertools.chain([stamp], numbers):
        try:
            (base / name).mkdir(parents=True)
        except FileExistsError:
            continue
        return base / name
    raise AssertionError("the names never end")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, to last; NaN is refused by no one and read back by Python."""
    with lasting(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def explained(error: BaseException | None) -> str:
    """What the system said of a file, in one line: which, what is wrong, the remedy if there is one; else ""."""
    if not isinstance(error, OSError) or not error.strerror or error.filename is None:
        return ""
    file = error.filename if error.filename2 is None else error.filename2  # of a rename, what it would have become
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{file}: {error.strerror[0].lower()}{error.strerror[1:]}" + (f"; {remedy}" if remedy else "")


def file_digest(file: Path) -> str:
    """Hex SHA-256 of a file; hashed once a process while it stays as it is."""
    status = file.stat()
    if kind := special(status.st_mode):  # a pipe, say, whose reader waits
        raise ValueError(f"{file}: got {kind}, expected a file")
    return _digest(file, status.st_size, status.st_mtime_ns, status.st_ino)


def file_sums(file: Path) -> list[Any]:
    """What records hold of a file: [bytes, SHA-256]."""
    return [file.stat().st_size, file_digest(file)]


@functools.lru_cache(maxsize=4096)
def _digest(file: Path, size: int, time: int, node: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
