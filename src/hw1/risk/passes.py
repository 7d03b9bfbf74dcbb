"""What is remembered of a pass over batches: a fingerprint of all examples, and a few of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hw1.risk.nested import examples_in, rows_of, signature, tensors_of

SPREAD = 32  # examples kept for checks, at least, where there are so many


class Spread:
    """Every so many-th example, SPREAD to 2 SPREAD of them at the end, each a batch of one."""

    def __init__(self) -> None:
        self._found: list[tuple[int, Any]] = []
        self._stride, self._seen = 1, 0
        self._form: tuple[object, ...] | None = None

    @property
    def rows(self) -> list[Any]:
        """The examples."""
        return [row for _, row in self._found]

    def add(self, batch: Any) -> None:
        """Look at a batch whose tensors are [B, ...]; one of another form than the first is passed over."""
        form = signature(batch)
        self._form = self._form or form
        if form != self._form:
            return
        start, end = self._seen, self._seen + examples_in(batch)
        numbers = range(-(-start // self._stride) * self._stride, end, self._stride)
        while len(self._found) + len(numbers) > 2 * SPREAD:
            self._stride *= 2
            self._found = [(number, row) for number, row in self._found if number % self._stride == 0]
            numbers = range(-(-start // self._stride) * self._stride, end, self._stride)
        # Picked by index: a slice would keep the batch in memory.
        self._found += [(number, rows_of(batch, torch.tensor([number - start]))) for number in numbers]
        self._seen = end


def fingerprint_of(batch: Any) -> Tensor:
    """Sums over the batch of a feature of each example, its square and its magnitude: whatever their order, [3]."""
    feature = torch.zeros((), dtype=torch.float64)
    alone = torch.zeros(3, dtype=torch.float64)  # of tensors without a row an example
    for number, tensor in enumerate(tensors_of(batch)):
        wave = torch.sin if number % 2 else torch.cos
        rows = tensor.detach().reshape(len(tensor) if tensor.ndim else 1, -1).double()
        rows = torch.nan_to_num(rows, nan=0.5, posinf=2.0, neginf=-2.0)  # the same again is the same
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
