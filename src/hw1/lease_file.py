"""The files of a lease: whose a folder is, whether that process lives, for how long it was silent. No torch."""

from __future__ import annotations

import errno
import functools
import json
import os
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO, errno.ESTALE)
_LARGEST = 4096  # bytes of a lease
HELD, FREE = "held", "free"  # of one length: the file is written in place
ENDED, _UNKNOWN = "ended", "unknown"  # of a process, in the place of when it was started
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
POLL = 0.1  # seconds between two looks at it


@dataclass(frozen=True)
class Found:
    """What stands in a lease; of one that cannot be read, the bytes alone.

    `lock`: whether its process has, or had, the system's lock too. Where it was taken over from a process that is
    stopped, that one goes on to have it, and it tells nothing.
    """

    raw: bytes = b""
    lock: bool = True
    token: str = ""
    state: str = ""
    host: str = ""
    space: str = ""
    pid: int = 0
    start: str = ""


class Watch:
    """How long a file has been seen to stay as it is.

    Only time in which this process looked counts: one that was itself stopped has seen nothing.
    """

    def __init__(self) -> None:
        self.moved = False
        self._seen: Found | None = None
        self._since, self._last = 0.0, time.monotonic()

    def watched(self, found: Found | None) -> float:
        """Seconds."""
        now = time.monotonic()
        passed, self._last = min(now - self._last, 10 * POLL), now
        if found != self._seen:
            same = found is not None and self._seen is not None and found.token == self._seen.token
            self.moved = self.moved or same
            self._seen, self._since = found, 0.0
        elif found is not None:
            self._since += passed
        return self._since


def read(file: Path) -> Found | None:
    """A lease; None where there is none. What is no regular file is one that cannot be read."""
    for last in (False, True):
        try:
            descriptor = os.open(file, os.O_RDONLY | NO_LINK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return Found(b"a link")
            if error.errno != errno.ESTALE or last:  # it was replaced on another machine meanwhile
                raise
        else:
            break
    try:
        raw = os.read(descriptor, _LARGEST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b"no file"
    finally:
        os.close(descriptor)
    try:
        told = json.loads(raw)
        words = {name: str(told[name]) for name in ("token", "state", "host", "space", "start")}
        return Found(raw, bool(told.get("lock", True)), pid=int(told["pid"]), **words)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Found(raw)


def text(token: str, counter: int, state: str, lock: bool) -> bytes:
    """The content of a lease of this process, of one length whatever the counter."""
    host, space, start = _self(os.getpid())
    told = {"token": token, "counter": f"{counter:020d}", "state": state}
    whose = {"host": host, "space": space, "pid": os.getpid(), "start": start, "lock": lock}
    return (json.dumps(told | whose) + "\n").encode()


@functools.lru_cache(maxsize=1)
def _self(pid: int) -> tuple[str, str, str]:
    """(host, what makes process ids unique there, when this process was started there)."""
    return socket.gethostname(), _space(), started(pid)


@functools.lru_cache(maxsize=1)
def _space() -> str:
    """The start of this machine, and the process ids that are seen here: a container has its own; "" if unknown."""
    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
        return asked.stdout.strip()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def is_here(found: Found | None) -> bool:
    """Whether the process of a lease is one that could be seen here."""
    return found is not None and found.pid > 0 and found.space != "" and found.space == _space()


def is_gone(found: Found | None) -> bool:
    """Whether the process of a lease is known to have ended."""
    return found is not None and is_here(found) and has_ended(found.pid, found.start)


def has_ended(pid: int, start: str) -> bool:
    """Whether the process of this machine that was started then is known to have ended."""
    return started(pid) not in (_UNKNOWN, start)


def started(pid: int) -> str:
    """When a process was started, in ticks since the machine was: no clock that is set; or `ENDED`, `_UNKNOWN`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ENDED
    except OSError:  # another user's
        pass
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # not shown here, or it has just ended: seen when next asked
        return _UNKNOWN
    return ENDED if state in "ZX" else rest[18]


def locked(lock: FileLock) -> bool | None:
    """Whether this process has the system's lock now; None where there is none to be had.

    Raises:
        OSError: nothing can be written there.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return None
    return True
