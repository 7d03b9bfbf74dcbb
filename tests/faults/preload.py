"""The library that makes writes, renames and syncs fail, also those below Python: compiled, loaded, told what to do."""

import ctypes
import mmap
import os
import shutil
import subprocess
from pathlib import Path

ENVIRONMENT = "HW1_FAULTS"  # names the control file in every process that has the library loaded

OPEN, WRITE, RENAME, UNLINK, MKDIR, FSYNC, TRUNCATE, LINK = (1 << bit for bit in range(8))
NAMES = {"open": OPEN, "write": WRITE, "rename": RENAME, "unlink": UNLINK, "mkdir": MKDIR, "fsync": FSYNC}
NAMES |= {"truncate": TRUNCATE, "link": LINK}
NOTHING, FAIL, SHORT, SIGNAL, SIGNAL_AFTER = range(5)


class Control(ctypes.Structure):
    """`struct control` of faults.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("armed", "ops", "action", "error", "signal", "lasting", "whom", "trace")),
        *((name, ctypes.c_int64) for name in ("at", "keep", "seen", "fired")),
        *(("root", ctypes.c_char * 512), ("globs", ctypes.c_char * 1024)),
        *(("log", ctypes.c_char * 512), ("path", ctypes.c_char * 1024)),
    )


def compiler():
    """The C compiler; None where there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


def compiled(folder):
    """The library, made in a folder."""
    library = Path(folder) / "faults.so"
    source = Path(__file__).with_name("faults.c")
    words = [compiler(), "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"]
    subprocess.run(words, check=True)
    return library


class Preload:
    """What the loaded library is told. One fault at a time.

    Args:
        file: the control file; made anew.
        root: the folder below which operations count.
    """

    def __init__(self, file, root):
        file.write_bytes(bytes(ctypes.sizeof(Control)))
        with file.open("r+b") as opened:
            self.told = Control.from_buffer(mmap.mmap(opened.fileno(), 0))
        self._log = file.with_suffix(".log")
        self.told.root, self.told.log = str(root).encode(), str(self._log).encode()
        os.environ[ENVIRONMENT] = str(file)

    def trace(self):
        """Note every operation from now on, until `traced`."""
        self._log.write_bytes(b"")
        self._arm(trace=1)

    def traced(self):
        """[(operation, bytes, path below the root)], in order."""
        self.told.armed = 0
        lines = [line.split("\t") for line in self._log.read_text().splitlines()]
        return [(op, int(size), path) for op, size, path in lines]

    def arm(self, ops, globs, at, action, *, error=0, signal=0, keep=0, lasting=False):
        """Let the operation number `at` of those on files that match a glob meet a fault.

        Args:
            ops: which operations count, a sum of OPEN, ...
            globs: of paths below the root; "*" spans folders.
            at: from 0.
            action: FAIL, SHORT, SIGNAL (before it, or in the middle of a write), SIGNAL_AFTER.
            error: the error's number.
            signal: the signal's number.
            keep: bytes that a write that meets it writes still.
            lasting: whether all that follow, on any file, fail too.
        """
        more = {"error": error, "signal": signal, "keep": keep, "lasting": int(lasting)}
        self._arm(ops=ops, globs="\n".join(globs).encode(), at=at, action=action, **more)

    def disarm(self):
        """No more faults; returns how many operations met one, and the path of the first."""
        self.told.armed = 0
        return self.told.fired, self.told.path.decode()

    def _arm(self, **values):
        told = self.told
        told.armed = told.trace = told.action = told.seen = told.fired = told.whom = 0
        told.path = b""
        for name, value in values.items():
            setattr(told, name, value)
        told.armed = 1
