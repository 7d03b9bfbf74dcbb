"""Batches of any nested structure: dicts and whatever is like one, tuples, named ones too, dataclasses, and lists."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def leaves_of(batch: Any) -> Iterator[Any]:
    """Whatever a batch holds that is no structure, in its own order."""
    if isinstance(batch, Mapping):
        for name in batch:
            yield from leaves_of(batch[name])
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from leaves_of(part)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for field in dataclasses.fields(batch):
            yield from leaves_of(getattr(batch, field.name))
    else:
        yield batch


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch, in its own order."""
    return (leaf for leaf in leaves_of(batch) if isinstance(leaf, Tensor))


def map_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor changed; what is no tensor stays, and so does the caller's batch.

    Example:
        >>> import torch
        >>> map_tensors({"x": torch.ones(2), "names": ["a", "b"]}, lambda tensor: 2 * tensor)
        {'x': tensor([2., 2.]), 'names': ['a', 'b']}
    """
    return _map(batch, lambda part: change(part) if isinstance(part, Tensor) else part)


def _map(batch: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with every tensor and every list of texts changed."""
    if isinstance(batch, Tensor) or _is_texts(batch):
        return change(batch)
    if isinstance(batch, Mapping):
        parts = {name: _map(batch[name], change) for name in batch}
        if not isinstance(batch, dict | UserDict):
            return parts  # a copy of another mapping may write to what it is a copy of
        same = copy.copy(batch)  # keeps its class, and what else it holds
        for name, part in parts.items():
            same[name] = part
        return same
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_map(part, change) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_map(part, change) for part in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        other = copy.copy(batch)
        for field in dataclasses.fields(batch):  # a frozen one too; its own checks were made when it was
            object.__setattr__(other, field.name, _map(getattr(batch, field.name), change))
        return other
    return batch


def _columns(batch: Any) -> list[Any]:
    """What `_map` changes, in its order."""
    found: list[Any] = []

    def keep(part: Any) -> Any:
        found.append(part)
        return part

    _map(batch, keep)
    return found


def _is_texts(batch: Any) -> bool:
    return type(batch) in (list, tuple) and bool(batch) and all(isinstance(part, str) for part in batch)


def examples_in(batch: Any) -> int:
    """Length of the first tensor that has one: the number of examples, where the first dimension counts them.

    Raises:
        ValueError: the batch holds no such tensor.
    """
    for tensor in tensors_of(batch):
        if tensor.ndim:
            return len(tensor)
    raise ValueError(
        f"batches: got a {type(batch).__name__} without tensors [B, ...], expected tensors in dicts, tuples or lists: "
        "say with count=f(batch) how much another batch weighs"
    )


def common_length(batch: Any) -> int | None:
    """B, where every tensor of the batch but scalars is [B, ...] and nothing else is as long; None elsewhere."""
    lengths = {len(tensor) for tensor in tensors_of(batch) if tensor.ndim}
    if len(lengths) != 1:
        return None
    (length,) = lengths
    return None if _holds_list_of(batch, length) else length


def rows_of(batch: Any, rows: Tensor | slice) -> Any:
    """Some examples of a batch that has a common length; scalars stay.

    Args:
        batch: tensors [B, ...], and lists of B texts, in any structure.
        rows: which, indices on the CPU or a slice.
    """
    length = common_length(batch)

    def take(part: Any) -> Any:
        if isinstance(part, Tensor):
            if not part.ndim:
                return part
            return part[rows if isinstance(rows, slice) else rows.to(part.device)]
        if len(part) != length:
            return part
        return type(part)(part[rows] if isinstance(rows, slice) else [part[row] for row in rows.tolist()])

    return _map(batch, take)


def joined(parts: Sequence[Any]) -> Any:
    """Batches of one structure, one after another, as one batch."""
    lengths = [common_length(part) for part in parts]
    columns = zip(*(_columns(part) for part in parts), strict=True)
    following = iter(list(columns))

    def join(part: Any) -> Any:
        column = next(following)
        if isinstance(part, Tensor):
            return torch.cat(column) if part.ndim else part
        if len(part) != lengths[0]:
            return part
        return type(part)(text for own in column for text in own)

    return _map(parts[0], join)


def signature(batch: Any) -> tuple[object, ...]:
    """What batches must have in common to be joined: the shape of an example, dtype and device of every tensor.

    And the value of every scalar and of whatever is neither tensor nor text, since it belongs to the whole batch.
    """
    return tuple(
        (tuple(leaf.shape[1:]) if leaf.ndim else leaf.item(), leaf.dtype, leaf.device)
        if isinstance(leaf, Tensor)
        else repr(leaf)
        for leaf in leaves_of(batch)
        if not isinstance(leaf, str)
    )


def cast(batch: Any, like: Tensor) -> Any:
    """Tensors on the device of `like`; in its dtype unless they hold integers (classes, tokens)."""
    return map_tensors(
        batch, lambda part: part.to(like.device, like.dtype) if part.is_floating_point() else part.to(like.device)
    )


def detached(batch: Any) -> Any:
    """The same tensors without history, and as tensors that can be computed with where the caller's cannot."""

    def free(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.is_inference() and not torch.is_inference_mode_enabled() else tensor.detach()

    return map_tensors(batch, free)


def refuse_arrays(batch: Any) -> None:
    """Refuse NumPy arrays, which torch's operations do not take.

    Raises:
        ValueError: there is one.
    """
    for leaf in leaves_of(batch):
        if isinstance(leaf, np.ndarray | np.generic):
            raise ValueError(
                f"batches: got a NumPy {type(leaf).__name__} of {leaf.dtype}, expected tensors: convert it with "
                "torch.from_numpy(...)"
            )


def check_pair(batch: Any) -> None:
    """Refuse what is no pair (inputs, targets) of tensors [B, ...] in any structure.

    Raises:
        ValueError: it is none.
    """
    length = len(batch) if isinstance(batch, tuple | list) else None
    if length != 2:
        got = "" if length is None else f"{length} "
        raise ValueError(
            f"batches: got a batch of {got}{type(batch).__name__}, expected (inputs, targets): use batch_loss=f("
            "module, batch) for others"
        )
    inputs, targets = batch
    for name, part in (("inputs", inputs), ("targets", targets)):
        if not any(tensor.ndim for tensor in tensors_of(part)):
            raise ValueError(
                f"batches: got {name} of {type(part).__name__} without tensors [B, ...], expected (inputs, targets): "
                "use batch_loss=f(module, batch) for others"
            )
    if isinstance(inputs, Tensor) and isinstance(targets, Tensor) and not 0 < len(inputs) == len(targets):
        raise ValueError(
            f"batches: got {len(inputs)} inputs and {len(targets)} targets in a batch, expected as many, > 0: "
            "put examples first in both, and leave out empty batches"
        )


def _holds_list_of(batch: Any, length: int) -> bool:
    """Whether there is a list of `length` things that are neither tensors nor texts: they cannot be cut."""
    if isinstance(batch, Mapping):
        return any(_holds_list_of(batch[name], length) for name in batch)
    if not isinstance(batch, tuple | list) or _is_texts(batch):
        return False
    if len(batch) == length and not any(isinstance(leaf, Tensor) for leaf in leaves_of(batch)):
        return True
    return any(_holds_list_of(part, length) for part in batch)
