"""Batches of any nested structure: dicts and whatever is like one, tuples, named ones too, and lists of tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch, in its own order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for name in batch:
            yield from tensors_of(batch[name])
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from tensors_of(part)


def map_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor changed; what is no tensor stays, and so does the caller's batch.

    Example:
        >>> import torch
        >>> map_tensors({"x": torch.ones(2), "names": ["a", "b"]}, lambda tensor: 2 * tensor)
        {'x': tensor([2., 2.]), 'names': ['a', 'b']}
    """
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        same = copy.copy(batch)  # keeps its class, and what else it holds
        parts = {name: map_tensors(batch[name], change) for name in batch}
        if not hasattr(same, "__setitem__"):
            return parts
        for name, part in parts.items():
            same[name] = part
        return same
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(part, change) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_tensors(part, change) for part in batch)
    return batch


def examples_in(batch: Any) -> int:
    """Length of the first tensor that has one: the number of examples, where the first dimension counts them.

    Raises:
        ValueError: the batch holds no such tensor.
    """
    for tensor in tensors_of(batch):
        if tensor.ndim:
            return len(tensor)
    raise ValueError(
        f"batches: got a {type(batch).__name__} without tensors [B, ...], expected tensors in dicts, tuples or lists; "
        "say with count=f(batch) how much another batch weighs"
    )


def cast(batch: Any, like: Tensor) -> Any:
    """Tensors on the device of `like`; in its dtype unless they hold integers (classes, tokens)."""
    return map_tensors(
        batch, lambda part: part.to(like.device, like.dtype) if part.is_floating_point() else part.to(like.device)
    )
