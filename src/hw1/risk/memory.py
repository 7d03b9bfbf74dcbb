"""The memory that a run over so many examples takes, what is free, and what is done where it runs out."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hw1.machine import free_memory

T = TypeVar("T")

# What torch says without a class of its own when an allocation fails.
_FAILED = (
    "can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip


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


def held_by(make: Callable[[int], object], examples: int) -> Memory:
    """What `make` leaves in memory as long as its result lives, from that of 2 and of 4 examples; as `memory_of`.

    Example:
        >>> held_by(lambda size: torch.ones(size, 10) + torch.ones(10), 100)  # the summands are gone
        Memory(fixed=0.0, each=40.0)
    """

    def left(size: int) -> int:
        held = _Held()
        with held:
            result = make(size)
        bytes_left = held.now
        del result
        return bytes_left

    if examples < 4:
        return Memory(float(left(examples)), 0.0)
    two, four = left(2), left(4)
    each = (four - two) / 2
    return Memory(two - 2 * each, each)


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
        give_back()
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


def give_back() -> None:
    """Memory that nothing refers to goes back to the machine, also what torch keeps of a GPU's."""
    gc.collect()
    trim()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def trim() -> None:
    """Pages that the C library keeps between tensors of some megabytes go back to the machine, where it is glibc's.

    Of a ResNet-18, which has many such, half of a process's memory: 1.0 of 2.2 GiB after its derivatives are checked.
    """
    if (trimming := _malloc_trim()) is not None:
        trimming(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found


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
