"""How many examples at a time: the fastest of a few sizes that memory has room for, and less where it runs out."""

from __future__ import annotations

import functools
import gc
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hw1.machine import free_memory

T = TypeVar("T")

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

# What torch says without a class of its own when an allocation fails.
_FAILED = (
    "can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip


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


def halving(run: Callable[[int], T], chunk: int) -> tuple[T, int]:
    """What `run` returns at `chunk` or, where memory runs out, at half of it, a quarter and so on; and at which.

    Each halving is one warning. It helps where one chunk is too large: a graph that is kept of *all* examples is as
    large in small chunks, and must be given up first (`keep_graph=False`). Pass the chunk that is returned from then
    on.

    Args:
        run: chunk -> result. It begins anew each time: what it adds to must be its own.
        chunk: examples at a time, at least 1.

    Raises:
        MemoryError: one example is too many.

    Example:
        >>> def run(chunk):
        ...     if chunk > 100:
        ...         raise torch.OutOfMemoryError("CUDA out of memory")
        ...     return f"done in {chunk}"
        >>> with warnings.catch_warnings(record=True) as said:
        ...     halving(run, 256)
        ('done in 64', 64)
        >>> len(said)
        2
    """
    while True:
        try:
            return run(chunk), chunk
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            # The traceback holds the frames, and these the tensors that filled the memory: only its line is kept.
            line = str(error).partition("\n")[0] or type(error).__name__
        _free()
        if chunk == 1:
            raise MemoryError(
                f"chunk_size: got no memory for 1 example ({line}), expected room for one: use keep_graph=False, fewer "
                "parameters by `space`, or a device with more memory"
            )
        warnings.warn(f"chunk_size: memory ran out at {chunk}, goes on with {chunk // 2} ({line})", stacklevel=2)
        chunk //= 2


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a CPU or a GPU.

    Example:
        >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), out_of_memory(RuntimeError("x"))
        (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FAILED)


def free_on(device: torch.device) -> float:
    """Bytes that this process may still take on a device; what torch holds there without using it counts as free."""
    if device.type != "cuda":
        return free_memory()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + unused)


class Memory(NamedTuple):
    """Bytes of tensors that a run over n examples makes and holds at once: at most fixed + n each."""

    fixed: float
    each: float


def memory_of(run: Callable[[int], object], examples: int) -> Memory:
    """What `run` takes, from what it holds after each of its operations with 2 and with 4 examples.

    The peaks alone would not do: with few examples what is as large as the parameters decides where the peak is.
    Tensors are counted, not workspaces of kernels; a device's own peak is the process's and would have to be set back.

    Args:
        run: as in `choose_chunk`.
        examples: how many there are; with fewer than 4 all is said to be fixed.

    Example:
        >>> memory_of(lambda size: torch.ones(size, 10) + torch.ones(10), 100)
        Memory(fixed=40.0, each=80.0)
    """
    if examples < 4:
        return Memory(float(max(_held(run, examples), default=0)), 0.0)
    two, four = _held(run, 2), _held(run, 4)
    if len(two) != len(four):  # which operations there are depends on the number of examples
        return Memory(0.0, max(four) / 4)
    each = [(b - a) / 2 for a, b in zip(two, four, strict=True)]
    fixed = [a - 2 * slope for a, slope in zip(two, each, strict=True)]
    return Memory(max(fixed, default=0.0), max(each, default=0.0))


def _held(run: Callable[[int], object], size: int) -> list[int]:
    held = _Held()
    with held:
        run(size)
    return held.after_each


class _Held(TorchDispatchMode):
    """Bytes of the storages that operations have made inside and that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.after_each = 0, list[int]()
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._see((args, kwargs), ours=False)
        result = func(*args, **(kwargs or {}))
        self._see(result, ours=True)
        self.after_each.append(self.now)
        return result

    def _see(self, tree: Any, ours: bool) -> None:
        for tensor in tree_leaves(tree):
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._alive:
                size = storage.nbytes() if ours else 0
                self._alive[key] = weakref.ref(storage, functools.partial(self._drop, key)), size
                self.now += size

    def _drop(self, key: int, _: object) -> None:
        self.now -= self._alive.pop(key)[1]


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
        _free()
        return None, sum(times)
    return min(times), sum(times)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _power_of_two(number: int) -> int:
    """The largest that is no larger."""
    return 1 << (number.bit_length() - 1)
