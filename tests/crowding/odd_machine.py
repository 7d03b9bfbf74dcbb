"""`train.py` on a machine where something is odd: $ODD says what, as `no_locks`, `years:30` or `error:28:/folder`."""

import datetime
import errno
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def no_locks():
    """Of a network file system without a lock manager."""

    def acquire(lock, timeout=None):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(lock.lock_file))

    _locks(acquire)


def idle_locks():
    """Of one whose locks everybody gets."""

    def acquire(lock, timeout=None):
        return type("Got", (), {"lock": lock, "__enter__": lambda self: lock, "__exit__": lambda self, *error: None})()

    _locks(acquire)


def _locks(acquire):
    from filelock import BaseFileLock

    BaseFileLock.acquire, BaseFileLock.release = acquire, lambda lock, force=False: None


def years(number):
    """The clock is so many years off, and is set anew by as many with every tenth question."""
    real, asked = time.time, [0]

    def now():
        asked[0] += 1
        return real() + float(number) * (1 + asked[0] // 10 % 2) * 365.25 * 86400

    time.time = now
    time.time_ns = lambda: int(now() * 1e9)
    off = datetime.timedelta(days=365 * float(number))
    real_datetime = datetime.datetime

    class Off(real_datetime):
        @classmethod
        def now(cls, tz=None):
            return real_datetime.now(tz) + off

    import hw1.files

    hw1.files.datetime = type("Datetime", (), {"datetime": Off})


def stale():
    """Listings of `runs` show nothing new: a network file system's may be a minute old."""
    real, nothing = os.scandir, tempfile.mkdtemp()

    def scandir(path="."):
        if str(path).endswith("/runs"):
            return real(nothing)
        return real(path)

    os.scandir = scandir


def umask(mask):
    os.umask(int(mask, 8))


def error(number, folder):
    """Nothing can be written below a folder: read-only, full."""

    def hook(event, arguments):
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = os.path.abspath(os.fsdecode(arguments[0])), arguments[2] or 0
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.link"):
            path, writes = os.path.abspath(os.fsdecode(arguments[0])), True
        else:
            return
        if writes and (path + os.sep).startswith(folder.rstrip("/") + os.sep):
            raise OSError(int(number), os.strerror(int(number)), path)

    sys.addaudithook(hook)


if __name__ == "__main__":
    kind, *more = os.environ["ODD"].split(":")
    globals()[kind](*more)
    sys.path.insert(0, str(ROOT))
    import train

    train.main()
