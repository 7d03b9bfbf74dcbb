"""Whether batches may be cut and mixed: examples that do not influence each other, losses that are means or add up."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hw1.risk.counts import known_mean
from hw1.risk.evaluable import alike, rounding_of, value_at
from hw1.risk.guard import line_of
from hw1.risk.mean import EXACT, ROUNDED, Additivity, Mixing, halves
from hw1.risk.nested import cast, common_length, map_tensors, rows_of, signature, tensors_of

if TYPE_CHECKING:
    from hw1.risk.empirical import EmpiricalRisk

TOGETHER = 32  # examples that batches are put together to, at least, before earlier ones are mixed in


def independent(risk: EmpiricalRisk, first: Any, theta: Tensor) -> None:
    """Refuse examples whose outputs depend on what else is in their batch.

    Raises:
        ValueError: they do.
    """
    length = common_length(first)
    if risk.loss is None or length is None or length < 2:
        return
    own = cast(first, theta)
    generator = torch.Generator().manual_seed(0)
    with risk._point(theta, leaves=False) as point, risk._values():
        outputs = map_tensors(risk._outputs(point, own[0]), Tensor.detach)
        if common_length(outputs) != length:
            return  # whether its losses add up is asked of the whole
        for rows in halves(length, generator):
            try:
                alone = risk._outputs(point, rows_of(own[0], rows))
            except Exception as error:
                raise ValueError(
                    f"module: got {type(error).__name__} on {len(rows)} of {length} examples ({line_of(error)}), "
                    "expected independent examples: give batch-norm running statistics (track_running_stats=True)"
                ) from error
            for one, other in zip(tensors_of(alone), tensors_of(rows_of(outputs, rows)), strict=True):
                if not alike(risk, one.detach(), other):
                    raise ValueError(
                        "module: got other outputs for an example when others left its batch, expected independent "
                        "examples: give batch-norm running statistics (track_running_stats=True), and recurrent layers "
                        "batch_first=True"
                    )


def additivity_of(
    risk: EmpiricalRisk,
    first: Any,
    theta: Tensor,
    near: Tensor,
    generator: torch.Generator,
) -> Additivity:
    """How losses go together: of all batches, or of the first examples where torch says that a loss is a mean."""
    few = Additivity(_rounding(risk, near.dtype))
    if common_length(first) is not None:
        mixing = Mixing(few, generator)
        mixing.look(cast(first, near), risk.examples.weight, lambda part: value_at(risk, part, near), apart=True)
    if not few.mean and not few.sum:
        return few
    if not risk.examples.said and known_mean(risk.loss):
        return few
    near = near.to(theta.dtype)
    if risk.loss is not None:
        return _over_outputs(risk, near, generator, few)
    everything = dataclasses.replace(few, tolerance=_rounding(risk, near.dtype))
    mixing = Mixing(everything, generator)
    few_batches: list[Any] = []

    def look() -> None:
        if few_batches:
            mixing.look_at(few_batches, risk.examples.weight, lambda part: value_at(risk, part, near))
            few_batches.clear()

    for batch, _ in risk.examples.chunks(near):
        if common_length(batch) is None:
            continue
        if few_batches and signature(batch) != signature(few_batches[0]):
            look()
        few_batches.append(batch)
        if sum(common_length(own) or 0 for own in few_batches) >= TOGETHER:
            look()
    look()
    return everything


def _rounding(risk: EmpiricalRisk, dtype: torch.dtype) -> float:
    """What losses of the same examples in other batches may differ by, relatively."""
    if risk.precision != "ieee":
        return rounding_of(risk, dtype)
    return ROUNDED if dtype != torch.float64 or risk._ways.float32 or risk._ways.loss_float32 else EXACT


def _over_outputs(risk: EmpiricalRisk, near: Tensor, generator: torch.Generator, few: Additivity) -> Additivity:
    """The same of all batches, by the loss alone, in float64, of outputs that are computed once."""
    exact = near if near.device.type == "mps" else near.double()
    narrow = risk._ways.loss_float32 or exact.dtype != torch.float64
    everything = dataclasses.replace(few, tolerance=ROUNDED if narrow else EXACT)
    mixing = Mixing(everything, generator)

    def value(part: tuple[Any, Any]) -> Tensor:
        return risk._loss_at(part[1], part[0][1], exact).detach()

    def weight(part: tuple[Any, Any]) -> float:
        return risk.examples.weight(part[0])

    with risk._point(near, leaves=False) as point, risk._values():
        for batch, _ in risk.examples.chunks(near):
            outputs = map_tensors(risk._outputs(point, batch[0]), Tensor.detach)
            both = (batch, cast(outputs, exact))
            if common_length(both) is not None and common_length(outputs) is not None:
                mixing.look(cast(both, exact), weight, value, apart=True)
            elif common_length(batch) is not None:
                mixing.look((batch, None), weight, lambda part: risk._loss_of(point, part[0]).detach(), apart=False)
    return everything
