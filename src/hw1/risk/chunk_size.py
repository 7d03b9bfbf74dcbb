"""How many examples at a time: the fastest of a few sizes that memory has room for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from hw1.risk.memory import Memory, free_on, give_back, halving, memory_of, out_of_memory

# The share of the free memory that a chunk may take: the rest is for vectors, kernels' workspaces and others' growth.
SHARE = 0.5
# At most so many sizes are timed, each four times the one before, the largest being at most MOST.
SIZES, STEP = 4, 4
MOST = {"cpu": 2048}  # its caches are long full
MOST_ELSEWHERE = 16384
# A larger size is timed only where all of them are expected to take less than so many seconds together.
SECONDS = 10.0
# A run shorter than this is done again, up to three times, and the shortest counts: the first one also warms up.
BRIEF, RUNS = 0.5, 3
# The smallest size is taken that is slower than the fastest by no more than this: memory for nothing otherwise.
NEARLY = 1.03


@dataclass(frozen=True)
class ChunkChoice:
    """A chunk size and what it was chosen by.

    The last bits of a sum depend on the chunk, and times differ from one run to the next: what is repeated, resumed or
    split passes `chunk` on as `chunk_size=`, and does not choose again.

    Attributes:
        chunk: examples at a time.
        tried: (size, seconds an example) of what was timed, smallest first.
        ended: why no larger one was tried: "all" were; they became "slower" twice; "memory"; or "time".
    """

    chunk: int
    tried: tuple[tuple[int, float], ...]
    ended: Literal["all", "slower", "memory", "time"]

    def __str__(self) -> str:
        times = ", ".join(f"{size}: {1e3 * each:.3g}" for size, each in self.tried)
        return f"chunk_size {self.chunk} (ms an example at {times})" if times else f"chunk_size {self.chunk}"


def choose_chunk(
    run: Callable[[int], object],
    examples: int,
    device: torch.device,
    *,
    needs: Memory | None = None,
    free: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> ChunkChoice:
    """The size at which `run` takes the least time an example, of a few that fit in half of the free memory.

    Costs `run` at sizes 2 and 4 for their memory; then at most four sizes, a factor 4 apart, up to 2,048 examples on a
    CPU and 16,384 elsewhere, each at most three times if that is short. Ends where two in a row are slower than the
    best, or where the next one would bring all of them above ten seconds. Given the times, the choice is fixed.

    Args:
        run: what is to be fast, at that many examples, e.g. a gradient with its graph and one product. It must keep
            nothing of what it makes.
        examples: how many there are.
        device: where `run` computes.
        needs: the memory that `run` takes; measured by `memory_of`, unless said.
        free: bytes; asked from the machine or the device, unless said.
        clock: seconds.

    Raises:
        ValueError: no examples.
        MemoryError: one example is too many.

    Example:
        >>> net = torch.nn.Linear(3, 1)
        >>> choice = choose_chunk(lambda size: net(torch.ones(size, 3)).sum().backward(), 50, torch.device("cpu"))
        >>> choice.chunk <= 50
        True
    """
    if examples < 1:
        raise ValueError(f"examples: got {examples}, expected at least 1: is the loader empty (drop_last)?")
    fixed, each = memory_of(run, examples) if needs is None else needs
    room = SHARE * (free_on(device) if free is None else free) - fixed
    most = room / max(each, 1.0)
    limit = min(examples, MOST.get(device.type, MOST_ELSEWHERE))
    sizes = sizes_to_try(limit, most)
    tried: list[tuple[int, float]] = []
    spent, slower = 0.0, 0
    ended: Literal["all", "slower", "memory", "time"] = "all" if limit <= most else "memory"
    for size in sizes:
        if tried and spent + size * tried[-1][1] > SECONDS:
            ended = "time"
            break
        seconds, took = _seconds(run, size, device, clock)
        if seconds is None:
            ended = "memory"
            break
        spent += took
        slower = slower + 1 if tried and seconds / size > min(each for _, each in tried) else 0
        tried.append((size, seconds / size))
        if slower == 2:
            ended = "slower"
            break
    if not tried:  # measured memory was not all that it takes
        return ChunkChoice(halving(run, max(1, sizes[0] // 2))[1], (), "memory")
    fastest = min(each for _, each in tried)
    return ChunkChoice(next(size for size, each in tried if each <= NEARLY * fastest), tuple(tried), ended)


def sizes_to_try(examples: int, most: float) -> list[int]:
    """At most four sizes, ascending, about a factor 4 apart: the last is all examples, or a power of two within `most`.

    Args:
        examples: at least 1.
        most: examples that there is memory for; one is tried even where there is less.

    Example:
        >>> sizes_to_try(5000, 1e9), sizes_to_try(5000, 3000.0), sizes_to_try(6, 1e9), sizes_to_try(6, 0.5)
        ([64, 256, 1024, 5000], [32, 128, 512, 2048], [1, 6], [1])
    """
    top = examples if examples <= most else _power_of_two(max(1, int(most)))
    below = [_power_of_two(top // STEP**power) for power in range(SIZES - 1, 0, -1) if top >= STEP**power]
    return [*below, top]


def _seconds(
    run: Callable[[int], object], size: int, device: torch.device, clock: Callable[[], float]
) -> tuple[float | None, float]:
    """The shortest of up to three runs, None where memory runs out; and what all of them took."""
    times: list[float] = []
    while not times or (len(times) < RUNS and times[-1] < BRIEF):
        try:
            _finish(device)
            begin = clock()
            run(size)
            _finish(device)
            times.append(clock() - begin)
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        give_back()
        return None, sum(times)
    return min(times), sum(times)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _power_of_two(number: int) -> int:
    """The largest that is no larger."""
    return 1 << (number.bit_length() - 1)
