"""The examples of a risk: counted once, read again at every pass, and checked to be the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor


class Examples:
    """Batches (inputs [B, ...], targets [B, ...]) that can be read again.

    Args:
        batches: a list, a DataLoader, or whatever can be iterated again.
        chunk_size: most examples that `chunks` gives at a time.

    Attributes:
        size: N, the number of examples.
        first: the first batch.

    Raises:
        ValueError: an iterator, no examples, or batches that are not pairs of equal length.
    """

    def __init__(self, batches: Iterable[Sequence[Tensor]], chunk_size: int) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size: got {chunk_size}, expected a positive number of examples")
        if isinstance(batches, Iterator):
            raise ValueError(
                "batches: got an iterator, which can be read only once, expected a list(...) or DataLoader"
            )
        self._batches = batches
        self._chunk_size = chunk_size
        self._in_memory = isinstance(batches, list | tuple)
        with torch.random.fork_rng(devices=[]):  # a DataLoader draws a seed at every pass
            self.size, self._fingerprint = _count(batches)
            self.first = tuple(next(iter(batches)))

    def chunks(self, theta: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs [b, ...], targets [b, ...]) in theta's dtype and on its device, b <= chunk_size."""
        seen, fingerprint = 0, torch.zeros(3, dtype=torch.float64)
        for inputs, targets in self._batches:
            seen += len(inputs)
            if not self._in_memory:
                fingerprint += _features(inputs, targets)
            for x, y in zip(torch.split(inputs, self._chunk_size), torch.split(targets, self._chunk_size), strict=True):
                yield cast(x, theta), cast(y, theta)
        changed = not self._in_memory and not close(fingerprint[:2], self._fingerprint[:2], self._fingerprint[2])
        if seen != self.size or changed:
            raise ValueError(
                f"batches: got other examples on another pass ({seen} after {self.size}), expected the same: "
                "switch off random augmentation, and shuffling together with drop_last"
            )

    def whole(self) -> tuple[Tensor, Tensor]:
        """All inputs [N, ...] and targets [N, ...], copied into memory, in the dtype they come in."""
        with torch.random.fork_rng(devices=[]):
            inputs, targets = zip(*self._batches, strict=True)
        return torch.cat(inputs), torch.cat(targets)


def _count(batches: Iterable[Sequence[Tensor]]) -> tuple[int, Tensor]:
    """Number of examples, and their fingerprint."""
    count, fingerprint = 0, torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        if len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
            raise ValueError(f"batches: got a batch of {len(batch)} {type(batch).__name__}, expected (inputs, targets)")
        inputs, targets = batch
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(
                f"batches: got {len(inputs)} inputs and {len(targets)} targets in a batch, expected as many, > 0"
            )
        count += len(inputs)
        fingerprint += _features(inputs, targets)
    if count == 0:
        raise ValueError("batches: got no examples, expected at least one: is the loader empty (drop_last)?")
    return count, fingerprint


def _features(inputs: Tensor, targets: Tensor) -> Tensor:
    """Sums over the batch of a feature of each example, its square and its magnitude: whatever their order, [3]."""
    x = inputs.detach().reshape(len(inputs), -1).double()
    y = targets.detach().reshape(len(targets), -1).double()
    feature = x @ torch.arange(1, x.shape[1] + 1, device=x.device).double().cos()
    feature = feature + y @ torch.arange(1, y.shape[1] + 1, device=y.device).double().sin()
    return torch.stack([feature.sum(), feature.square().sum(), feature.abs().sum() + feature.square().sum()]).cpu()


def cast(tensor: Tensor, theta: Tensor) -> Tensor:
    """On theta's device; in its dtype unless it holds integers (classes, tokens)."""
    return tensor.to(theta.device, theta.dtype) if tensor.is_floating_point() else tensor.to(theta.device)


def close(a: Tensor, b: Tensor, scale: Tensor | None = None) -> bool:
    """Equal but for rounding: within sqrt(eps) of the largest magnitude (kernels may change with the batch's size)."""
    tolerance = math.sqrt(torch.finfo(a.dtype).eps)
    largest = b.abs().max() if scale is None else scale
    return bool(((a - b).abs() <= tolerance * largest + torch.finfo(a.dtype).tiny).all())
