"""What would make a risk's numbers wrong, looked for before they are given, and refused by name.

`examine` asks what values need, when a risk is made; `confirm` what gradients and products need, when the first is
asked for. Both look at a few examples, in float64 where the module takes it; whether the loss is a mean is looked at
for all of them, unless torch itself says so.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hw1.risk.batching import additivity_of, independent
from hw1.risk.counts import Reduction
from hw1.risk.derivatives import IN_FLOAT32, IN_FLOAT64, Steps, wrong_gradient, wrong_product
from hw1.risk.evaluable import FAR, evaluable, in_float64, same_again, scalar, theta_near
from hw1.risk.guard import line_of
from hw1.risk.memory import out_of_memory, trim
from hw1.risk.nested import detached, map_tensors, tensors_of
from hw1.risk.own_weights import own_weights_alone

if TYPE_CHECKING:
    from hw1.risk.empirical import EmpiricalRisk

# What is multiplied to see whether what follows is linear: by a power of two, which rounds nothing.
LARGE = 2.0**13
NOT_LINEAR = (
    "module: got a backward that is not linear in what flows back, expected a derivative: take hooks that clip or "
    "normalise gradients out of forward"
)
FEW = 8  # examples that derivatives and their independence are looked at with
MANY = 1_000_000  # parameters, from which copies in float64 are worth giving back


def examine(risk: EmpiricalRisk, stated: str | None, caller: nn.Module | None) -> Reduction:
    """Find out how the risk is evaluated, and whether its loss is a mean or a sum.

    Args:
        risk: R; how it is evaluated is noted in its `Ways`.
        stated: the reduction, where the user or the loss says it.
        caller: the module as it was given; None to look no further than whether it can be evaluated.

    Raises:
        ValueError: it cannot; or, unless `caller` is None, one of the things in the docstring of `EmpiricalRisk`.
    """
    with torch.inference_mode(False):
        try:
            return _examine(risk, stated, caller)
        finally:
            _leave(risk)


def confirm(risk: EmpiricalRisk, kind: str) -> None:
    """Find out whether gradients, or products of a kind, are right here; once in the life of a risk.

    Args:
        risk: R.
        kind: "gradient", "hessian" or "gauss_newton".

    Raises:
        ValueError: they are not, or an operation cannot be differentiated so often.
    """
    ways = risk._ways
    if not risk._checked or kind in ways.confirmed:
        return
    if kind != "gradient":
        confirm(risk, "gradient")
    ways.confirmed |= {kind}  # what follows asks for gradients and products
    try:
        with torch.inference_mode(False), torch.enable_grad():
            _confirm(risk, kind)
    except BaseException:
        ways.confirmed -= {kind}
        raise
    finally:
        _leave(risk)


def _leave(risk: EmpiricalRisk) -> None:
    """Keep nothing of what was looked at in float64."""
    risk._network.drop(torch.float64)
    if risk.space.size >= MANY:
        trim()


@contextlib.contextmanager
def said_by_name(what: str) -> Iterator[None]:
    """An operation without such a derivative is named in one line, with the remedy.

    Raises:
        ValueError: torch has none.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        said = line_of(error)
        if "heckpoint" in said:
            remedy = "use torch.utils.checkpoint with use_reentrant=False"
        elif what == "gradient":
            remedy = "use operations that torch can differentiate twice, or HessianByDifferences(risk, theta)"
        else:
            remedy = "use HessianByDifferences(risk, theta), which takes differences of gradients"
        raise ValueError(
            f"module: got an operation that cannot be differentiated for the {what} ({said}), expected one with a "
            f"second derivative: {remedy}"
        ) from error


def _examine(risk: EmpiricalRisk, stated: str | None, caller: nn.Module | None) -> Reduction:
    theta = risk.theta
    if theta.dtype not in (torch.float32, torch.float64):
        theta = theta.float()
    first = _first(risk)
    name = "loss" if risk.loss is not None else "batch_loss"
    evaluable(risk, first, theta, name)
    exact = in_float64(risk, theta, first)
    if caller is None:
        return "sum" if stated == "sum" else "mean"
    generator = torch.Generator().manual_seed(0)
    close_by = theta_near(risk, first, exact, generator)
    if risk.examples.gaps:
        scalar(name, risk(theta), "the mean over examples", nan=risk.examples.nan)
    same_again(risk, first, exact)
    own_weights_alone(risk, first, close_by, caller, name)
    if risk.examples.together:
        return "sum" if stated == "sum" else "mean"
    independent(risk, first, exact)
    found = additivity_of(risk, first, theta, theta_near(risk, first, exact, generator, FAR), generator)
    reduction = found.decided(stated, name)
    if reduction == "sum" and stated is None:
        warnings.warn(
            f"{name}: its values add up, so R is taken as the sum over all examples: say so with reduction='sum'",
            stacklevel=4,
        )
    return reduction


def _first(risk: EmpiricalRisk) -> Any:
    """A few examples, spread over the batches; those that weigh something."""
    return detached(risk.examples.few(FEW).first)


def _confirm(risk: EmpiricalRisk, kind: str) -> None:
    few = copy.copy(risk)
    few.examples = risk.examples.few(FEW)
    few.precision = "ieee"  # what is asked is whether they are derivatives, not how far they are rounded
    few._warned, few._said_float32, few._keep_graph, few._auto = True, True, False, False
    few._forget()
    theta = few.theta
    if theta.dtype not in (torch.float32, torch.float64):
        theta = theta.float()
    narrow = risk._ways.float32 or risk._ways.loss_float32 or theta.device.type == "mps"
    steps = IN_FLOAT32 if narrow else IN_FLOAT64
    if theta.device.type != "mps":
        theta = theta.double()
    generator = torch.Generator().manual_seed(0)
    theta = theta_near(few, few.examples.first, theta, generator)
    if kind == "gradient":
        slopes = wrong_gradient(few, few.gradient, few.space, theta, steps, generator)
        if slopes is not None:
            raise ValueError(
                f"module: got a slope of {slopes[0]:.6g} by its backward and {slopes[1]:.6g} by differences of its "
                "values, expected the same: a backward of its own (straight-through, reversed or clipped gradients, "
                "detached parts, torch.utils.checkpoint without use_reentrant=False) is not the derivative of forward"
            )
        _linear(few, theta, steps)
        return
    if kind == "gauss_newton":
        # Second differences of float32 say nothing; that J^T u is right, the gradient has shown.
        off = None if narrow else wrong_gauss_newton(few, theta, generator)
        if off is not None:
            raise ValueError(
                f"module: got a Gauss-Newton form of {off[0]:.6g} and {off[1]:.6g} by differences of outputs, expected "
                "the same: is a backward of its own not the derivative of forward?"
            )
        return
    v = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    one, many = few.hvp(theta, v), few.hvp(theta, LARGE * v) / LARGE
    floor = 100 * steps.rounding * few.gradient(theta).norm() * v.norm()
    if (one - many).norm() > steps.tolerance * one.norm() + floor:
        raise ValueError(NOT_LINEAR)
    del v, one, many
    if len(theta) >= MANY:
        trim()
    wrong = wrong_product(few.gradient, few.hvp, few.space, theta, steps, generator)
    if wrong is not None:
        raise ValueError(
            f"module: got products that are off by {wrong[1]:.2g} of their size at {wrong[0]} from differences of "
            "gradients, expected the same: an operation's backward has no derivative of its own (once_differentiable, "
            "saved tensors that were detached); use HessianByDifferences(risk, theta)"
        )


def wrong_gauss_newton(few: EmpiricalRisk, theta: Tensor, generator: torch.Generator) -> tuple[float, float] | None:
    """None if v^T G v is the second difference of the loss along J v, J v by differences of outputs; else both."""
    v = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    v = v * (theta.norm().clamp_min(1e-2) / v.norm())
    found: tuple[float, float] | None = None
    product = few.gauss_newton_vp(theta, v)
    if not product.any() and not few.gradient(theta).any():
        return None  # a loss of steps, whose differences may meet one
    form = (v @ product).item()
    for length in (1e-4, 1e-5, 1e-3, 1e-2):
        total, level = 0.0, 0.0
        for batch, weight in few.examples.chunks(theta):
            ahead, at, behind = (_outputs_at(few, theta + step * v, batch[0]) for step in (length, 0.0, -length))
            values = [
                few._loss_at(_along(at, ahead, behind, share), batch[1], theta).item() for share in (0.5, 0.0, -0.5)
            ]
            total += (values[0] - 2 * values[1] + values[2]) / length**2 * few.examples.share(weight)
            level += abs(values[1]) * few.examples.share(weight)
        if abs(form - total) <= 1e-3 * max(abs(form), abs(total)) + 1e-14 * level / length**2:
            return None
        found = found or (form, total)
    return found


def _linear(few: EmpiricalRisk, theta: Tensor, steps: Steps) -> None:
    """Refuse a backward that is not linear in what flows back.

    Raises:
        ValueError: the gradient of a multiple of the loss is not that multiple of the gradient.
    """
    with few._point(theta) as point:
        leaves = tuple(point.leaves.values())
        for batch, _ in few.examples.chunks(theta):
            value = few._loss_of(point, batch)
            if not value.requires_grad:
                return
            one, many = (
                torch.autograd.grad(value, leaves, torch.full_like(value, by), retain_graph=True, allow_unused=True)
                for by in (1.0, LARGE)
            )
            pairs = [(own, other / LARGE) for own, other in zip(one, many, strict=True) if own is not None]
            floor = 100 * steps.rounding * max((own.norm().item() for own, _ in pairs), default=0.0)
            if any((own - other).norm() > steps.tolerance * own.norm() + floor for own, other in pairs):
                raise ValueError(NOT_LINEAR)


def _outputs_at(few: EmpiricalRisk, theta: Tensor, inputs: Any) -> Any:
    with few._point(theta, leaves=False) as point, few._values():
        return map_tensors(few._outputs(point, inputs), Tensor.detach)


def _along(at: Any, ahead: Any, behind: Any, share: float) -> Any:
    """Outputs + share (ahead - behind), of floating-point tensors in any structure."""
    following = zip(tensors_of(ahead), tensors_of(behind), strict=True)

    def move(own: Tensor) -> Tensor:
        one, other = next(following)
        return own + share * (one - other) if own.is_floating_point() else own

    return map_tensors(at, move)
