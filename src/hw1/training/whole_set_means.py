"""Means over whole sets, batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class WholeSetMeans(Metric):
    """Means of several values over all batches, each with its weights, float64: K values of R members, [R, K].

    NaN stands for itself; torchmetrics' MeanMetric can leave it out or ignore weights, and is one object a value.

    Args:
        members: R.
        values: K.
        dtype: of the sums; float64 keeps the digits of float32 terms.
    """

    full_state_update = False
    sums: Tensor
    weights: Tensor

    def __init__(self, members: int, values: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(members, values, dtype=dtype), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(members, values, dtype=dtype), dist_reduce_fx="sum")

    def update(self, means: Tensor, weights: Tensor) -> None:
        """Add the means [R, K] over a batch that weighs so much in each, [R, K]."""
        weighing = weights > 0  # the mean over nothing is no number
        self.sums += torch.where(weighing, means.to(self.sums.dtype) * weights, 0.0)
        self.weights += weights

    def compute(self) -> Tensor:
        """The means over everything so far, [R, K]."""
        return self.sums / self.weights
