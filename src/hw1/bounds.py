"""Bounds on what a file may claim, checked before memory is taken for it: the one table of them, see docs/bounds.md.

A file is believed about its sizes no further than this, whoever wrote it. Each bound is raised by the environment
variable of its name, which workers inherit. Imports nothing.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bound:
    """The most that a file may claim of something.

    Attributes:
        variable: the environment variable that sets another bound: a positive integer, `_` between digits allowed.
        default: without it.
        unit: what is counted.
        counted: whether it is counted on the way, and not beyond the bound: how much there is is not known.
    """

    variable: str
    default: int
    unit: str
    counted: bool = False

    @property
    def most(self) -> int:
        """What holds now.

        Raises:
            ValueError: the variable is no positive integer.
        """
        text = os.environ.get(self.variable, "").strip()
        if not text:
            return self.default
        if not text.isascii() or not text.replace("_", "").isdigit() or int(text[:19]) < 1:
            raise ValueError(f"{self.variable}: got {text[:40]!r}, expected a positive integer, or nothing")
        return int(text[:19])

    def problem(self, got: int, most: int | None = None) -> str:
        """What is wrong with a claim, and the remedy; "" where it is within the bound.

        Args:
            got: what is claimed.
            most: a bound of this moment, as free memory, where the variable sets none.
        """
        most = self.most if most is None or os.environ.get(self.variable, "").strip() else most
        if got <= most:
            return ""
        if self.counted:
            return f"got more than {most:,} {self.unit}: set {self.variable} to a larger number if that is meant"
        said = f"{got:,}" if got < 10**18 else "more than 10^18"
        remedy = f"set {self.variable}={got} if that is meant" if got < 10**18 else "such a file is not read"
        return f"got {said} {self.unit}, expected at most {most:,}: {remedy}"


STORED_BYTES = Bound("HW1_MAX_STORED_BYTES", 32 * 2**20, "bytes of stored JSON")
YAML_BYTES = Bound("HW1_MAX_YAML_BYTES", 2**20, "bytes of YAML")
YAML_NODES = Bound("HW1_MAX_YAML_NODES", 100_000, "values of YAML, aliases written out", counted=True)
DEPTH = Bound("HW1_MAX_DEPTH", 64, "levels of nested values", counted=True)
MEMBERS = Bound("HW1_MAX_MEMBERS", 10_000, "members")
THREADS = Bound("HW1_MAX_THREADS", 1024, "threads")
WEIGHTS = Bound("HW1_MAX_WEIGHTS", 10**9, "weights")
TENSORS = Bound("HW1_MAX_TENSORS", 20_000, "tensors of one model", counted=True)
HEADER_BYTES = Bound("HW1_MAX_HEADER_BYTES", 8 * 2**20, "bytes of safetensors header")
COLUMNS = Bound("HW1_MAX_COLUMNS", 10_000, "columns of a table")
IMAGE_PIXELS = Bound("HW1_MAX_IMAGE_PIXELS", 89_478_485, "pixels")  # from which on Pillow warns
DATA_BYTES = Bound(
    "HW1_MAX_DATA_BYTES", 2**63 - 1, "bytes of data in memory"
)  # by default what is free, see `hw1.memory`

ALL = (
    *(STORED_BYTES, YAML_BYTES, YAML_NODES, DEPTH, MEMBERS, THREADS, COLUMNS),
    *(WEIGHTS, TENSORS, HEADER_BYTES, IMAGE_PIXELS, DATA_BYTES),
)

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def special(mode: int) -> str:
    """What a thing with this mode is, that is no file, as words: reading a pipe waits, a device may never end.

    Args:
        mode: `os.stat_result.st_mode`.

    Returns:
        "" for a file.

    Example:
        >>> special(os.stat(os.devnull).st_mode), special(os.stat(os.curdir).st_mode)
        ('a device', 'a folder')
    """
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no file")


def content_of(file: Path, bound: Bound) -> bytes:
    """What stands in a file, if it is one and no longer than it may be.

    Raises:
        OSError: it is not there, or not to be read.
        ValueError: it is something else, or longer; says what, without the file's name.
    """
    status = os.stat(file)
    if kind := special(status.st_mode):
        raise ValueError(f"got {kind}, expected a file")
    if problem := bound.problem(status.st_size):
        raise ValueError(problem)
    with open(file, "rb") as opened:
        content = opened.read(bound.most + 1)  # what the system calls empty, as files of /proc, may be endless
    if problem := bound.problem(len(content)):
        raise ValueError(problem)
    return content


def depth_problem(value: object) -> str:
    """What is wrong with how deep a parsed value is nested; "" if nothing is. Does not recurse."""
    most, level, depth = DEPTH.most, [value], 0
    while level := [
        inner
        for one in level
        if isinstance(one, dict | list)
        for inner in (one.values() if isinstance(one, dict) else one)
    ]:
        depth += 1
        if depth > most:
            return DEPTH.problem(depth)
    return ""
