"""Whether what a chain of layers says is what the risk itself says, at the thetas that are asked for."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hw1.risk.guard import differentiable, twice_differentiable

if TYPE_CHECKING:
    from hw1.risk.empirical import EmpiricalRisk
    from hw1.risk.layerwise import LayerwiseRisk

TOLERANCE = math.sqrt(torch.finfo(torch.float64).eps)
UNTAKEN = (RuntimeError, TypeError, IndexError)  # what torch raises where an operation does not take its inputs


@dataclass
class Schedule:
    """At which of the thetas asked for a dear comparison is due: the 1st, 2nd, 4th, ..., all after a failure."""

    asked: int = 0
    due: int = 1

    def ask(self) -> bool:
        """Whether it is due at the next theta."""
        self.asked += 1
        return self.asked >= self.due

    def passed(self) -> None:
        """The comparison at this theta found no difference."""
        self.due = 2 * self.asked


@dataclass
class Standing:
    """What comparisons with the risk have said so far; `doubted` if there was ever a difference."""

    values: Schedule = field(default_factory=Schedule)
    hessians: Schedule = field(default_factory=Schedule)
    doubted: bool = False


def differing(risk: EmpiricalRisk, form: LayerwiseRisk, members: Tensor, hessians: Tensor) -> list[int]:
    """Numbers of the members whose Hessian is not what the form says, as far as comparisons tell.

    At every theta: the module's own outputs for all examples, and that their loss is a mean over examples. Value,
    gradient and one product of the risk's own besides, at the 1st, 2nd, 4th, ... theta. Where outputs are not finite
    there is nothing to compare. With 571 parameters and 500 examples the former takes 7% of a Hessian's CPU time, 2%
    where 20 members are asked for together, and the latter half of it.

    Args:
        risk: R.
        form: its layer-by-layer form.
        members: [R, P], float64.
        hessians: what the form says, [R, P, P].
    """
    schedule, found = form.standing.hessians, []
    try:
        outputs = _same_outputs(risk, form, members)
    except UNTAKEN:
        outputs = [False] * len(members)
    for number, (theta, hessian, same) in enumerate(zip(members, hessians, outputs, strict=True)):
        if schedule.ask() and same:
            same = _same_derivatives(risk, form, theta, hessian)
            if same:
                schedule.passed()
        if same is False:
            found.append(number)
    form.standing.doubted |= bool(found)
    return found


def stands(risk: EmpiricalRisk, form: LayerwiseRisk, thetas: Tensor) -> bool:
    """Whether values and gradients may come from the form: compared at the 1st, 2nd, 4th, ... theta.

    Args:
        risk: R.
        form: its layer-by-layer form.
        thetas: those asked for, [R, P], float64 and finite.
    """
    schedule = form.standing.values
    for theta in thetas:
        if form.standing.doubted:
            break
        if not schedule.ask():
            continue
        try:
            same = _same_outputs(risk, form, theta[None])[0] and _same_derivatives(risk, form, theta, None)
        except UNTAKEN:
            same = False
        if same:
            schedule.passed()
        form.standing.doubted = same is False
    return not form.standing.doubted


def _same_outputs(risk: EmpiricalRisk, form: LayerwiseRisk, members: Tensor) -> list[bool | None]:
    """Whether the form's outputs are the module's and their loss a mean; None where they are not finite."""
    same: list[bool | None] = [True] * len(members)
    with twice_differentiable(members.device, risk.module, risk.precision), torch.no_grad():
        for few, inputs, y in form.chunks(members):
            x = inputs.clone()  # a first layer may work in place
            theirs, parameters = form.outputs_of(members[few], inputs), risk.space.unflatten(members[few])
            if len(theirs) > 1:
                risk._network.like(members)  # made here: inside vmap it could not be
                ours = torch.vmap(risk._outputs_with, (0, None))(parameters, x)
            else:
                ours = risk._outputs_with({name: tensor[0] for name, tensor in parameters.items()}, x)[None]
            for number, (own, other) in enumerate(zip(ours, theirs, strict=True), few.start):
                if not own.isfinite().all() and not other.isfinite().all():
                    same[number] = None
                elif same[number] and not (_close(own, other) and _is_mean(risk, own, y)):
                    same[number] = False
    return same


def _is_mean(risk: EmpiricalRisk, outputs: Tensor, y: Tensor) -> bool:
    """Whether the loss of all outputs [n, ...] is that of two parts of unequal length, weighed by it."""
    assert risk.loss is not None
    first = len(y) // 3
    if not first:
        return True
    one, other = risk.loss(outputs[:first], y[:first]), risk.loss(outputs[first:], y[first:])
    expected = (first * one + (len(y) - first) * other) / len(y)
    return _close(risk.loss(outputs, y), expected, torch.maximum(one.abs(), other.abs()))


def _same_derivatives(risk: EmpiricalRisk, form: LayerwiseRisk, theta: Tensor, hessian: Tensor | None) -> bool | None:
    """Whether value and gradient are the risk's own, and a product if there is a Hessian [P, P]; None if not finite.

    All in one scale: at an interpolating minimum value and gradient are rounding, and the product is not.
    """
    with differentiable(theta.device):
        theta = theta.clone()
        v = torch.randn(len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(theta)
        forms = [form(theta), form.gradient(theta), *([] if hessian is None else [hessian @ v])]
        if not all(part.isfinite().all() for part in forms):
            return None
        risks = [risk(theta), risk.gradient(theta)]
        if hessian is not None:
            alone = copy.copy(risk)  # the graph that the risk keeps for its products stays, and none is kept here
            alone._keep_graph = False
            risks.append(alone.hvp(theta, v))
        return _close(torch.cat([part.flatten() for part in risks]), torch.cat([part.flatten() for part in forms]))


def _close(a: Tensor, b: Tensor, scale: Tensor | None = None) -> bool:
    """Equal but for rounding, relative to the largest number unless a scale is given; or neither of them finite."""
    if a.shape != b.shape:
        return False
    if not a.isfinite().all() and not b.isfinite().all():
        return True
    bound = TOLERANCE * (a.abs().amax() if scale is None else scale) + torch.finfo(torch.float64).tiny
    return bool(((a - b).abs() <= bound).all())
