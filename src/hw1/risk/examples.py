"""The examples of a risk: counted once, read again at every pass, and checked to be the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hw1.risk.nested import cast, examples_in, tensors_of

Count = Callable[[Any], "float | Tensor"]


class Examples:
    """Batches that can be read again, in chunks that weigh what they hold.

    Args:
        batches: a list, a DataLoader, or whatever can be iterated again.
        chunk_size: most examples that `chunks` gives at a time; batches that `count` weighs are not split.
        count: what a batch weighs; unless given, the number of its examples.
        pairs: whether batches must be (inputs [B, ...], targets [B, ...]); else they may be of any structure, and are
            not split.

    Attributes:
        size: what all batches weigh: N, the number of examples, unless `count` says something else.
        first: the first batch.
        pairs: as given.
        counted: whether `count` was given.

    Raises:
        ValueError: an iterator, no examples, batches that are not pairs of equal length where they must be, or counts
            that are negative or not finite.
    """

    def __init__(
        self, batches: Iterable[Any] | None, chunk_size: int, count: Count | None = None, *, pairs: bool = True
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size: got {chunk_size}, expected a positive number of examples")
        if batches is None:
            raise ValueError("batches: got None, expected a list or DataLoader of batches")
        if isinstance(batches, Iterator):
            raise ValueError(
                "batches: got an iterator, which can be read only once, expected a list(...) or DataLoader"
            )
        self.pairs = pairs
        self.counted = count is not None
        self._batches = batches
        self._count = examples_in if count is None else count
        self._chunk_size = chunk_size
        self._in_memory = isinstance(batches, list | tuple)
        self._held: Sequence[Any] | None = batches if isinstance(batches, list | tuple) else None
        with torch.random.fork_rng(devices=[]):  # a DataLoader draws a seed at every pass
            self.size, self._fingerprint = self._read_all()
            self.first = next(iter(batches))

    def chunks(self, like: Tensor) -> Iterator[tuple[Any, float]]:
        """(batch, its weight), tensors on the device of `like`; those of floating point in its dtype.

        Pairs without a `count` come in parts of at most chunk_size examples. A batch that weighs nothing is left out.
        """
        seen, fingerprint = 0.0, torch.zeros(3, dtype=torch.float64)
        for batch in self._batches:
            weight = self._weight(batch)
            seen += weight
            if not self._in_memory:
                fingerprint += _features(batch)
            if not self.pairs or self.counted:
                if weight:
                    yield cast(batch, like), weight
                continue
            inputs, targets = batch
            for x, y in zip(torch.split(inputs, self._chunk_size), torch.split(targets, self._chunk_size), strict=True):
                yield (cast(x, like), cast(y, like)), len(x)
        changed = not self._in_memory and not close(fingerprint[:2], self._fingerprint[:2], self._fingerprint[2])
        if not math.isclose(seen, self.size, rel_tol=1e-12 if self.counted else 0.0) or changed:
            raise ValueError(
                f"batches: got other examples on another pass ({seen:.10g} after {self.size:.10g}), expected the same: "
                "switch off random augmentation, and shuffling together with drop_last"
            )

    def whole(self) -> tuple[Tensor, Tensor]:
        """All inputs [N, ...] and targets [N, ...] of pairs, copied into memory, in the dtype they come in."""
        with torch.random.fork_rng(devices=[]):
            inputs, targets = zip(*self._batches, strict=True)
        return torch.cat(inputs), torch.cat(targets)

    def draw(self, size: int, generator: torch.Generator) -> Examples:
        """`size` of the examples of pairs, without replacement, as one batch. What a loader gives is held from now on.

        Raises:
            ValueError: batches of another structure, or a size that is not between 1 and the number of examples.
        """
        if not self.pairs:
            raise ValueError("draw: got batches of any structure, expected pairs (inputs, targets), which can be mixed")
        if self._held is None:
            with torch.random.fork_rng(devices=[]):
                self._held = list(self._batches)
        lengths = [len(inputs) for inputs, _ in self._held]
        if not 1 <= size <= sum(lengths):
            raise ValueError(f"size: got {size}, expected 1 to {sum(lengths)}, the number of examples")
        drawn = torch.randperm(sum(lengths), generator=generator, device=generator.device)[:size].cpu()
        parts: list[tuple[Tensor, Tensor]] = []
        start = 0
        for (inputs, targets), length in zip(self._held, lengths, strict=True):
            rows = drawn[(drawn >= start) & (drawn < start + length)] - start
            if len(rows):
                parts.append((inputs[rows.to(inputs.device)], targets[rows.to(targets.device)]))
            start += length
        batch = tuple(torch.cat(column) for column in zip(*parts, strict=True))
        return Examples([batch], self._chunk_size, self._count if self.counted else None)

    def _read_all(self) -> tuple[float, Tensor]:
        """What all batches weigh, and their fingerprint, which nobody asks for where they are held in memory."""
        size, fingerprint, found = 0.0, torch.zeros(3, dtype=torch.float64), False
        for batch in self._batches:
            found = True
            if self.pairs:
                _check_pair(batch)
            size += self._weight(batch)
            if not self._in_memory:
                fingerprint += _features(batch)
        if not found or (not self.counted and size == 0):
            raise ValueError("batches: got no examples, expected at least one: is the loader empty (drop_last)?")
        if size == 0:
            raise ValueError("count: got 0 for every batch, expected a positive sum")
        return (int(size) if size == int(size) else size), fingerprint

    def _weight(self, batch: Any) -> float:
        value = self._count(batch)
        weight = value.item() if isinstance(value, Tensor) else value
        if not 0 <= weight < math.inf:
            raise ValueError(f"count: got {weight} for a batch, expected a finite number of at least 0")
        return weight


def _check_pair(batch: Any) -> None:
    length = len(batch) if hasattr(batch, "__len__") else None
    if length != 2 or not all(isinstance(part, Tensor) for part in batch):
        got = "" if length is None else f"{length} "
        raise ValueError(
            f"batches: got a batch of {got}{type(batch).__name__}, expected (inputs, targets); batch_loss=f(module, "
            "batch) takes others"
        )
    inputs, targets = batch
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(
            f"batches: got {len(inputs)} inputs and {len(targets)} targets in a batch, expected as many, > 0"
        )


def _features(batch: Any) -> Tensor:
    """Sums over the batch of a feature of each example, its square and its magnitude: whatever their order, [3]."""
    feature = torch.zeros((), dtype=torch.float64)
    alone = torch.zeros(3, dtype=torch.float64)  # of tensors without a row an example
    for number, tensor in enumerate(tensors_of(batch)):
        wave = torch.sin if number % 2 else torch.cos
        rows = tensor.detach().reshape(len(tensor) if tensor.ndim else 1, -1).double()
        own = (rows @ wave(torch.arange(1, rows.shape[1] + 1, device=rows.device).double())).cpu()
        if feature.ndim == 0 and tensor.ndim:
            feature = own
        elif tensor.ndim and len(own) == len(feature):
            feature = feature + own
        else:
            alone += _sums(own)
    return _sums(feature) + alone


def _sums(feature: Tensor) -> Tensor:
    return torch.stack([feature.sum(), feature.square().sum(), feature.abs().sum() + feature.square().sum()])


def close(a: Tensor, b: Tensor, scale: Tensor | None = None) -> bool:
    """Equal but for rounding: within sqrt(eps) of the largest magnitude (kernels may change with the batch's size)."""
    tolerance = math.sqrt(torch.finfo(a.dtype).eps)
    largest = b.abs().max() if scale is None else scale
    return bool(((a - b).abs() <= tolerance * largest + torch.finfo(a.dtype).tiny).all())
