"""Who reads weights that are not theta's: a forward with copies of its own, a loss with the caller's module in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class _Reads(TorchDispatchMode):
    """Notes which of some tensors' memory the operations inside are given."""

    def __init__(self, memory: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = memory
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for value in tree_iter((args, kwargs)):
            if isinstance(value, Tensor) and (place := _memory_of(value)) in self._memory:
                self.found.add(self._memory[place])
        return func(*args, **(kwargs or {}))


def read_of(tensors: Iterable[tuple[str, Tensor]], compute: Callable[[], object]) -> list[str]:
    """The names of those tensors whose memory is read while `compute` runs, views and `.data` of them too."""
    memory = {place: name for name, tensor in tensors if (place := _memory_of(tensor))}
    reads = _Reads(memory)
    with torch.no_grad(), reads:
        compute()
    return sorted(reads.found)


def _memory_of(tensor: Tensor) -> int:
    """Where its storage begins; 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
