"""Whether a loss is a mean over what is counted, or a sum, at all of the data and however it is put into batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hw1.risk.counts import Reduction
from hw1.risk.nested import common_length, joined, rows_of, signature

# What means of the same numbers may differ by, relative to the largest: in float64, and in float32.
EXACT, ROUNDED = 1e-8, 5e-5
OTHERS = 8  # examples of earlier batches that each batch is mixed with

Weight = Callable[[Any], float]
Value = Callable[[Any], Tensor]


@dataclass
class Additivity:
    """How the losses of batches and of their parts have gone together so far.

    Attributes:
        tolerance: relative to the largest loss of a part.
        mean: whether every batch's loss was the weighted mean of its parts'.
        sum: whether it was their sum.
        compared: how many were compared.
        example: of the first batch that was no mean: its loss, the weighted mean of its parts, their sum.
    """

    tolerance: float
    mean: bool = True
    sum: bool = True
    compared: int = 0
    example: tuple[float, float, float] | None = None

    def compare(self, value: Tensor, parts: Sequence[tuple[float, Tensor]]) -> None:
        """One batch's loss and its parts' (weight, loss); parts that weigh nothing have none."""
        weighing = [(weight, part.double().item()) for weight, part in parts if weight]
        whole, total = value.double().item(), sum(weight for weight, _ in weighing)
        if not total or not math.isfinite(whole) or not all(math.isfinite(part) for _, part in weighing):
            return
        mean = sum(weight * part for weight, part in weighing) / total
        added = sum(part for _, part in weighing)
        tolerance = max(self.tolerance, ROUNDED) if value.dtype != torch.float64 else self.tolerance
        allowed = tolerance * max(abs(whole), *(abs(part) for _, part in weighing)) + 1e-300
        self.compared += 1
        if abs(whole - mean) > allowed:
            self.mean = False
            self.example = self.example or (whole, mean, added)
        # A part that weighs nothing has no mean, but may have a sum: with one left there is nothing to add.
        if len(weighing) == len(parts) and abs(whole - added) > allowed * len(parts):
            self.sum = False

    def decided(self, stated: str | None, name: str) -> Reduction:
        """Mean or sum, as stated or as found.

        Raises:
            ValueError: the loss is neither, or not what was stated.
        """
        if stated != "sum" and self.mean:
            return "mean"
        if stated != "mean" and self.sum and self.compared:
            return "sum"
        if stated == "sum" and not self.compared:
            return "sum"
        assert self.example is not None or stated == "sum"
        whole, mean, added = self.example or (math.nan, math.nan, math.nan)
        if stated == "sum":
            raise ValueError(
                f"{name}: got values whose parts do not add up, expected a sum over examples: leave reduction='sum' out"
            )
        raise ValueError(
            f"{name}: got {whole:.6g} on a batch and {mean:.6g} as the weighted mean of its parts ({added:.6g} as "
            "their sum), expected a mean over examples: say with count=f(batch) what a batch weighs (counted tokens, "
            "summed class weights), or use reduction='mean', and no class weights or ignored targets"
        )


class Mixing:
    """Batches are taken apart, and mixed with examples of earlier ones: whatever a batching could do.

    Args:
        additivity: where it is noted.
        generator: for the choices.
    """

    def __init__(self, additivity: Additivity, generator: torch.Generator) -> None:
        self._additivity, self._generator = additivity, generator
        self._others: list[Any] = []
        self._form: tuple[object, ...] | None = None

    def look_at(self, batches: Sequence[Any], weight: Weight, value: Value) -> None:
        """Batches of one form, each of a common length: together with examples of earlier ones, at the cost of two."""
        parts = [(weight(batch), batch) for batch in batches]
        if self._others and signature(batches[0]) != self._form:
            self._others = []
        self._form = signature(batches[0])
        if self._others:
            parts.append((weight(others := joined(self._others)), others))
        parts = [(own, batch) for own, batch in parts if own]
        if len(parts) > 1:
            whole = value(joined([batch for _, batch in parts]))
            self._additivity.compare(whole, [(own, value(batch)) for own, batch in parts])
        elif parts and not self._others:
            self._apart(parts[0][1], value(parts[0][1]), weight, value)
        for batch in batches:
            self._keep(batch)

    def look(self, batch: Any, weight: Weight, value: Value, *, apart: bool) -> None:
        """One batch.

        Args:
            batch: of a common length; what `value` and `weight` take.
            weight: a batch or part of one -> what it weighs.
            value: a batch or part of one that weighs something -> its loss [].
            apart: whether to take it apart, too; else it is only mixed, unless it is the first.
        """
        whole, own = value(batch), weight(batch)
        if (apart or not self._others) and own:
            self._apart(batch, whole, weight, value)
        form = signature(batch)
        if form != self._form:  # not to be joined with earlier ones
            self._form, self._others = form, []
        if self._others:
            others = joined(self._others)
            among = weight(others)
            if own and among:
                parts = [(own, whole), (among, value(others))]
                self._additivity.compare(value(joined([batch, others])), parts)
        self._keep(batch)

    def _apart(self, batch: Any, whole: Tensor, weight: Weight, value: Value) -> None:
        length = common_length(batch)
        if length is None or length < 2:
            return
        order = torch.randperm(length, generator=self._generator)
        cut = max(1, length // 3)
        pieces = [rows_of(batch, order[:cut]), rows_of(batch, order[cut:])]
        weights = [weight(piece) for piece in pieces]
        values = [value(piece) if own else whole.new_zeros(()) for piece, own in zip(pieces, weights, strict=True)]
        self._additivity.compare(whole, list(zip(weights, values, strict=True)))

    def _keep(self, batch: Any) -> None:
        """A few examples of it, in place of some of those before: each earlier batch may be met."""
        length = common_length(batch) or 0
        if not length:
            return
        rows = torch.randperm(length, generator=self._generator)[: 2 if self._others else OTHERS]
        new = [rows_of(batch, row[None]) for row in rows]
        if len(self._others) + len(new) > OTHERS:
            keep = torch.randperm(len(self._others), generator=self._generator)[: OTHERS - len(new)]
            self._others = [self._others[i] for i in keep.tolist()]
        self._others += new


def halves(length: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Two random halves of so many examples, in random order."""
    order = torch.randperm(length, generator=generator)
    yield order[: (length + 1) // 2]
    yield order[(length + 1) // 2 :]
