"""Kinds of file, and kinds of fault: what is injected into a command, and what is done to files that lie there."""

import errno
import fnmatch
import re
import signal
from dataclasses import dataclass

from .preload import FAIL, FSYNC, MKDIR, OPEN, RENAME, SHORT, SIGNAL, SIGNAL_AFTER, UNLINK, WRITE

# By a kind's name: globs of paths below the folder of an experiment, "*" spans folders. The first that fits counts.
# What stands in a file's temporary folder, `.result.json.x.part/`, is of its kind, and so is that.
FILES = {
    "result.json": ["runs/*/result.json"],
    "settings.json": ["runs/*/settings.json"],
    "progress.json": ["runs/*/progress.json"],
    ".hydra": ["runs/*/.hydra", "runs/*/.hydra/*.yaml"],
    "config.yaml": ["runs/*/config.yaml"],
    "metrics.csv": ["runs/*/metrics.csv"],
    "run.log": ["runs/*/run.log"],
    "last.ckpt": ["runs/*/checkpoints/last.ckpt"],
    "other checkpoints": ["runs/*/checkpoints/*.ckpt", "runs/*/checkpoints"],
    "snapshots": ["runs/*/snapshots/*", "runs/*/snapshots"],
    "measures": ["runs/*/measures/*", "runs/*/measures"],
    "event files": ["*/events.out.tfevents*"],
    "sweep.json": ["sweeps/*/sweep.json"],
    "figures": ["sweeps/*/*.png", "sweeps/*/*.svg"],
    "page": ["sweeps/*/report.html"],
    "tables": ["sweeps/*/*.csv"],
    "caches": ["measurements/*.csv", "measurements"],
    ".lock": ["*.lock"],
    "folders": ["runs", "sweeps", "runs/*", "sweeps/*", "."],
}
_HIDDEN = re.compile(r"(.*/)?\.([^/]+?)\.[^./]+\.part(/.*)?")


def file_kind(path):
    """The kind of a path below the folder of an experiment; None of a path that is of none."""
    if hidden := _HIDDEN.fullmatch(path):
        path = (hidden[1] or "") + hidden[2]
    if path in ("runs", "sweeps", ".") or re.fullmatch(r"(runs|sweeps)/[^/]+", path):
        return "folders"
    return next((kind for kind, globs in FILES.items() if any(fnmatch.fnmatchcase(path, one) for one in globs)), None)


@dataclass(frozen=True)
class Injection:
    """What happens to an operation: see `Preload.arm`. `torn`: in the middle of a write; `main`: to the command."""

    op: int
    action: int
    error: int = 0
    signal: int = 0
    torn: bool = False
    lasting: bool = False
    main: bool = False


KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
INJECTIONS = {
    "SIGKILL at open": Injection(OPEN, SIGNAL, signal=KILL),
    "SIGKILL before a write": Injection(WRITE, SIGNAL, signal=KILL),
    "SIGKILL in a write": Injection(WRITE, SIGNAL, signal=KILL, torn=True),
    "SIGKILL before a rename": Injection(RENAME, SIGNAL, signal=KILL),
    "SIGKILL after a rename": Injection(RENAME, SIGNAL_AFTER, signal=KILL),
    "SIGKILL at fsync": Injection(FSYNC, SIGNAL, signal=KILL),
    "SIGKILL at unlink": Injection(UNLINK, SIGNAL_AFTER, signal=KILL),
    "SIGKILL at mkdir": Injection(MKDIR, SIGNAL_AFTER, signal=KILL),
    "SIGKILL of the command": Injection(WRITE | RENAME, SIGNAL, signal=KILL, main=True),
    "SIGTERM in a write": Injection(WRITE, SIGNAL, signal=TERM, torn=True),
    "SIGTERM at a rename": Injection(RENAME, SIGNAL, signal=TERM),
    "SIGTERM of the command": Injection(WRITE | RENAME, SIGNAL, signal=TERM, main=True),
    "SIGINT in a write": Injection(WRITE, SIGNAL, signal=INT, torn=True),
    "SIGINT at a rename": Injection(RENAME, SIGNAL_AFTER, signal=INT),
    "SIGINT of the command": Injection(WRITE | RENAME, SIGNAL, signal=INT, main=True),
    "ENOSPC of a write": Injection(WRITE, FAIL, errno.ENOSPC, torn=True),
    "ENOSPC from a write on": Injection(WRITE | OPEN | MKDIR, FAIL, errno.ENOSPC, torn=True, lasting=True),
    "EIO of a write": Injection(WRITE, FAIL, errno.EIO),
    "EDQUOT of a write": Injection(WRITE, FAIL, errno.EDQUOT, torn=True),
    "EINTR of a write": Injection(WRITE, FAIL, errno.EINTR),
    "short write": Injection(WRITE, SHORT, torn=True),
    "EROFS at open": Injection(OPEN, FAIL, errno.EROFS),
    "EMFILE at open": Injection(OPEN, FAIL, errno.EMFILE),
    "EIO of a rename": Injection(RENAME, FAIL, errno.EIO),
    "EIO of fsync": Injection(FSYNC, FAIL, errno.EIO),
    "EACCES of mkdir": Injection(MKDIR, FAIL, errno.EACCES),
    "EACCES of unlink": Injection(UNLINK, FAIL, errno.EACCES),
}


# Damages: (content, random numbers, another's content) -> content; None where the file cannot be damaged so.


def _cut(content, chance, other):
    return content[: chance.randrange(len(content))]


def _flipped(content, chance, other):
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def _zeroed(content, chance, other):
    at, size = chance.randrange(len(content)), chance.choice((16, 64, 512))
    return content[:at] + bytes(len(content[at : at + size])) + content[at + size :]


def _garbage(content, chance, other):
    return content + chance.randbytes(chance.choice((1, 16, 300)))


def _twice(content, chance, other):
    lines = content.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    return b"".join([*lines[:at], lines[at], *lines[at:]])


def _other(content, chance, other):
    return other


DAMAGES = {
    "truncated": _cut,
    "bit flipped": _flipped,
    "block of zeros": _zeroed,
    "emptied": lambda content, chance, other: b"",
    "garbage behind it": _garbage,
    "line doubled": _twice,
    "another's": _other,
    "older version": _other,
    "deleted": None,
    "a folder in its place": None,
}
KINDS = (*INJECTIONS, *DAMAGES)
