"""What this process has of the machine: its cores, its GPUs and its memory. No torch."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# Bytes: a worker's peak beyond what it shares with the server that it is forked from, of a CNN on MNIST with its
# measures; and the server's own,
# which a process that shares nothing takes besides.
PER_WORKER, SERVER = 0.75 * 2**30, 0.4 * 2**30


def seconds_said(variable: str, default: float, least: float, most: float, more: str = "") -> float:
    """What an environment variable says of seconds.

    Raises:
        ValueError: no number of them, or one out of bounds; `more` is what else is to be known of it.
    """
    given = os.environ.get(variable, str(default))
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not least <= seconds <= most:
        raise ValueError(f"{variable}: got {given!r}, expected seconds from {least:g} to {most:g}{more}")
    return seconds


_most: int | None = None
_share: float | None = None


@contextlib.contextmanager
def at_most(number: int | None) -> Iterator[None]:
    """Inside, `cores` is no more than `number`; None for no limit. With 1, work stays in this process."""
    global _most
    before, _most = _most, number
    try:
        yield
    finally:
        _most = before


def allot(memory: float | None) -> None:
    """From now on this process takes so many bytes, because somebody said so; None: nobody did."""
    global _share
    _share = memory


def allotted() -> float | None:
    """Bytes that this process was told to take at most; None where nobody said."""
    return _share


def cores() -> int:
    """Cores that this process may use: its affinity, the container's quota and `at_most` count; at least 1."""
    import joblib

    return min(int(joblib.cpu_count()), _most or sys.maxsize)


def gpus(devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where that is not known.

    No driver is asked: that takes a second.

    Args:
        devices: where the kernel shows them.
    """
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        shown = [path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
        return [str(number) for number in range(len(shown))]
    names = [name.strip() for name in said.split(",")]
    return names[: next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))]  # CUDA stops there


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that this process and its children may still take: of the machine, its cgroups and its own limit.

    Args:
        proc: where the kernel says what is free, and which cgroups this process is in.
        groups: where cgroups are mounted, of either version.

    Returns:
        The smallest of them; infinity where the system says nothing.
    """
    found = [math.inf]
    if (file := proc / "meminfo").is_file():
        lines = dict(line.split(":") for line in file.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    if (file := proc / "self" / "cgroup").is_file():
        for line in file.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                found += _group(groups, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                found += _group(groups / "memory", path, *names)
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(limit - _address_space(proc))
    return max(0.0, min(found))


def _group(root: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[float]:
    """What a cgroup and those above it leave; in a container, where the path is not to be seen, its own root."""
    here = root / path.strip("/")
    for folder in (here, *here.parents):
        if (folder / limit).is_file() and (said := (folder / limit).read_text().strip()) != "max":
            used = int((folder / usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield int(said) - used + int(stat.get(cache, 0))  # the kernel gives up its cache of files first
        if folder == root:
            return


def _address_space(proc: Path) -> int:
    file = proc / "self" / "statm"
    return int(file.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if file.is_file() else 0


def room(most: int, each: float = PER_WORKER) -> int:
    """How many workers there is memory for, of `most`; at least 1.

    Args:
        most: workers.
        each: bytes that one takes.
    """
    return max(1, min(most, int(max(0.0, min(free_memory() - SERVER, most * each)) // each)))
