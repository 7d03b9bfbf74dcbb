"""Who may write into a folder: a lease, a token and a counter, and no clock. No torch.

`<folder>/.lease` says whose the folder is. The holder raises the counter in place; who waits watches it by its own
monotonic clock, and puts a lease of its own in the place of one that stays silent. The holder's file is then another
than the one that stands there: what it still counts is seen by nobody, and before it renames or appends anything it
reads the token, and stops where that is no longer its own. A lease whose process is known to be gone, on this machine
since it was started, is replaced at once.

Beside it stands a lock of the operating system, `.lock`, which is faster where it works: on some network file systems
it fails, or holds nobody off. Then the lease alone is right.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from hw1 import preemption
from hw1.lease_file import FREE, HELD, NO_LINK, POLL, Found, Watch, is_gone, is_here, locked, read, text
from hw1.machine import seconds_said

LEASE, LOCK = ".lease", ".lock"  # names in a folder that is held
SECONDS = "HW1_LEASE_SECONDS"
_CLAIM = ".lease.next"  # of who is about to take it
_BEATS = 20  # of the counter, in the time after which a silent lease is taken over
_GRACE = 0.5  # seconds in which a process has its lock and not yet its lease


class HeldError(RuntimeError):
    """Another process holds the folder."""


class LostError(RuntimeError):
    """Another process took the folder over while this one was silent. Nothing more is written there."""


def hold(folder: Path, wait: float | None = None, waits: Callable[[], None] | None = None) -> Lease:
    """Take a folder for the length of a `with`; `replacing` refuses to write below it once it is no longer held.

    Args:
        folder: it exists.
        wait: seconds to wait for a process that is known to be at work; None for as long as it takes. One of another
            machine is watched until that is known.
        waits: called once if it does wait; by default a line on stderr says so.

    Raises:
        HeldError: another process holds it.
        OSError: nothing can be written there.
        Preempted: the job was asked to stop while it waited.
        ValueError: HW1_LEASE_SECONDS is no number of seconds.
    """
    return _taken(folder, wait, waits or functools.partial(_say, folder))


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder; nothing is written.

    Of another machine's lease one look does not tell whether its process lives: it counts as held.
    """
    with contextlib.suppress(OSError):
        found = read(folder / LEASE)
        if found is not None and found.state == HELD and not is_gone(found):
            return True
        if found is not None and not found.lock:
            return False
    lock = folder / LOCK
    if not lock.is_file():
        return False
    try:
        FileLock(lock).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # it is not this user's to lock, or there are no locks
        return False
    return False


def require(path: str | os.PathLike[str]) -> None:
    """Read whether the leases that this process has over a path are still its own; where it has none, nothing.

    Raises:
        LostError: one is not.
    """
    for lease in over(path):
        lease.require()


def over(path: str | os.PathLike[str]) -> list[Lease]:
    """The leases that this process has over a path."""
    found: list[Lease] = []
    at = os.path.abspath(path) if _held else ""
    while at:
        found += _held.get(at, ())
        at = "" if at == os.path.dirname(at) else os.path.dirname(at)
    return found


class Lease:
    """A folder that is held; made by `hold`, and given back at the end of a `with`.

    Attributes:
        folder: it.
        succeeds: whether the one before did not give it back: it was killed, or silent.
    """

    def __init__(
        self, folder: Path, descriptor: int, token: str, succeeds: bool, beat: float, lock: FileLock | None
    ) -> None:
        self.folder, self.succeeds, self._lock = folder, succeeds, lock
        self._token, self._descriptor, self._beat = token, descriptor, beat
        self._counter, self._lost, self._asked = 0, False, time.monotonic()
        self._writing, self._ended = threading.Lock(), threading.Event()
        self._known_as = os.path.abspath(folder)
        try:
            threading.Thread(target=self._beats, name=f"lease of {folder.name}", daemon=True).start()
        except RuntimeError:  # no memory for one
            self._write(FREE)
            raise
        _held.setdefault(self._known_as, []).append(self)

    def require(self) -> None:
        """Read whether it is still this process's.

        Raises:
            LostError: it is not.
        """
        if not self._lost:
            found = read(self.folder / LEASE)
            self._lost = found is None or found.token != self._token
            self._asked = time.monotonic()
        if self._lost:
            raise LostError(
                f"{self.folder}: got the lease of another process, which took it over while this one was silent; "
                "expected its own: nothing more is written there; give the command again to go on with what it makes"
            )

    def is_lost(self) -> bool:
        """Whether `require` would refuse; the file is read only where the heartbeat has not done so of late: cheap."""
        if not self._lost and time.monotonic() - self._asked > 2 * self._beat:
            with contextlib.suppress(LostError, OSError):
                self.require()
        return self._lost

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back."""
        self._ended.set()
        _held[self._known_as].remove(self)
        if not _held[self._known_as]:
            del _held[self._known_as]
        with self._writing:
            if not self._lost:
                self._write(FREE)
            os.close(self._descriptor)
            self._descriptor = -1
        if self._lock is not None:
            self._lock.release()

    def _beats(self) -> None:
        while not self._ended.wait(self._beat):
            with self._writing:
                if self._descriptor >= 0:
                    self._write(HELD)
            with contextlib.suppress(OSError):  # of a network, say: the next write asks again
                try:
                    self.require()
                except LostError:
                    return

    def _write(self, state: str) -> None:
        """Raise the counter, in place: of a lease that was replaced, nobody sees it."""
        self._counter += 1
        with contextlib.suppress(OSError):  # silent, then: whoever watches decides
            # Closing, of a duplicate too, is when a network file system sends what was written.
            duplicate = os.dup(self._descriptor)
            try:
                os.lseek(duplicate, 0, os.SEEK_SET)
                os.write(duplicate, text(self._token, self._counter, state, self._lock is not None))
            finally:
                os.close(duplicate)


_held: dict[str, list[Lease]] = {}  # of this process


def _taken(folder: Path, wait: float | None, waits: Callable[[], None]) -> Lease:
    """The lease, once it is this process's."""
    patience = _patience()
    begun, said = time.monotonic(), False
    holder, claimer = Watch(), Watch()
    lock = FileLock(folder / LOCK)
    while True:
        system = locked(lock)
        try:
            found = read(folder / LEASE)
            if system is False and found is not None and not found.lock:
                system = None
            silent = holder.watched(found) > patience
            gone, free = is_gone(found), found is None or found.state == FREE
            if (silent and not free) or ((gone or free) and system is not False):
                lease = _claimed(folder, found, not free, patience, lock if system else None)
                if lease is not None:
                    system = None
                    return lease
                claim = read(folder / _CLAIM)
                if claimer.watched(claim) > patience or is_gone(claim):
                    _clear(folder / _CLAIM)
        finally:
            if system:
                lock.release()
        waited = time.monotonic() - begun
        alive = not free and not gone and (holder.moved or is_here(found))
        if wait is not None and waited >= (wait if alive else max(wait, _GRACE)) and (alive or system is False):
            raise HeldError(f"{folder}: another process holds it")
        if not said and (waited > _GRACE or alive):
            said = True
            waits()
        preemption.require()
        time.sleep(POLL)


def _claimed(folder: Path, found: Found | None, succeeds: bool, patience: float, lock: FileLock | None) -> Lease | None:
    """A lease of this process's in the place of the one that was found; None where another was faster."""
    claim, file = folder / _CLAIM, folder / LEASE
    token = secrets.token_hex(16)
    try:
        descriptor = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_RDWR | NO_LINK, 0o666)
    except FileExistsError:
        return None
    kept = False
    try:
        os.write(descriptor, text(token, 0, HELD, lock is not None))
        if read(file) != found:
            _unlink_own(claim, descriptor)
            return None
        with contextlib.suppress(FileNotFoundError):  # who took it away has taken this process for dead
            os.replace(claim, file)
        now = read(file)
        if now is None or now.token != token:
            return None
        lease = Lease(folder, descriptor, token, succeeds, patience / _BEATS, lock)
        kept = True
        return lease
    except OSError:
        _unlink_own(claim, descriptor)
        raise
    finally:
        if not kept:
            os.close(descriptor)


def _unlink_own(claim: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(claim, follow_symlinks=False), os.fstat(descriptor)):
            os.unlink(claim)


def _clear(claim: Path) -> None:
    """Take the claim of a dead process away, in one step: one of several does."""
    aside = claim.with_name(f"{LEASE}.{secrets.token_hex(8)}.part")
    with contextlib.suppress(OSError):
        os.rename(claim, aside)
        os.unlink(aside)


def _patience() -> float:
    """Seconds of silence after which a lease is taken over."""
    return seconds_said(SECONDS, 60, 1, 86400, ", the same on all machines")


def _say(folder: Path) -> None:
    print(f"{folder}: another process is at work there; waiting", file=sys.stderr, flush=True)
