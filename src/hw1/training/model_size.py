"""How large a network is while it is built: a width that no memory holds is refused before any is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hw1.bounds import TENSORS, WEIGHTS
from hw1.settings import ConfigError


class Counting(TorchDispatchMode):
    """Inside, tensors are counted as torch is asked for them, on whatever device.

    Args:
        node: the settings of what is built, to name the one that is too large.
        key: where they stand.

    Raises:
        ConfigError: one tensor, or all that layers keep their weights in, are larger than `hw1.bounds.WEIGHTS`, or
            there are more than `hw1.bounds.TENSORS`.
    """

    def __init__(self, node: Mapping[str, Any], key: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._node, self._key = node, key
        self._weights = self._tensors = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is asked for, then let it be made."""
        name = str(func.overloadpacket.__name__)
        if asked := _asked(name, args):
            self._tensors += 1
            self._weights += asked if name.startswith(("empty", "new_empty")) else 0
            if problem := WEIGHTS.problem(max(asked, self._weights)) or TENSORS.problem(self._tensors):
                raise ConfigError(f"{self._largest()}: {problem}")
        return func(*args, **(kwargs or {}))

    def _largest(self) -> str:
        """The key of the largest number among the settings."""
        numbers = dict(_integers(self._node, self._key))
        return max(numbers, key=lambda key: numbers[key], default=self._key)


def _integers(value: Any, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield key, value
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield from _integers(inner, f"{key}.{name}")


def _asked(name: str, args: Sequence[Any]) -> int:
    """The number of elements of what an operation of torch makes from sizes alone; 0 of any other."""
    numbers = [one for one in args if isinstance(one, int | float) and not isinstance(one, bool)]
    if name == "eye":
        return math.prod(map(int, numbers[:1] * 2 if len(numbers) == 1 else numbers[:2]))
    if name == "arange":
        first, last, step = {1: (0, *numbers, 1), 2: (*numbers, 1)}.get(len(numbers), (*numbers, 0, 0, 1)[:3])
        return int(max(0.0, (last - first) / (step or 1)))
    if name == "linspace":
        return int(numbers[-1]) if numbers else 0
    if name == "repeat":
        return int(args[0].numel() * math.prod(args[1]))
    if isinstance(next(iter(args), None), Tensor) and not name.startswith("new_"):
        return 0
    sizes = next((one for one in args if isinstance(one, list | tuple)), ())
    return math.prod(map(int, sizes)) if all(isinstance(one, int) for one in sizes) and sizes else 0
