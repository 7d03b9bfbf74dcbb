"""Whether a risk can be evaluated, and how: which dtype its module takes, whether it needs a graph, writes or draws."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hw1.risk.closeness import close
from hw1.risk.derivatives import moved
from hw1.risk.guard import line_of
from hw1.risk.nested import cast, map_tensors, tensors_of
from hw1.risk.precision import tolerance

if TYPE_CHECKING:
    from hw1.risk.empirical import EmpiricalRisk

BATCH_LOSS = "the mean over what the batch counts"


def evaluable(risk: EmpiricalRisk, first: Any, theta: Tensor, name: str) -> None:
    """Evaluate once, and note how.

    Raises:
        ValueError: shapes or dtypes do not fit, or the loss is no finite number.
    """
    ways = risk._ways
    try:
        value = _once(risk, first, theta)
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "inference" not in str(error).lower():
            raise _unfit(risk, first, name, error) from error
        ways.graph = True
        value = _tried(risk, first, theta, name)
    except Exception as error:
        raise _unfit(risk, first, name, error) from error
    scalar(name, value, "the mean over examples" if risk.loss is not None else BATCH_LOSS, nan=risk.examples.nan)


def _tried(risk: EmpiricalRisk, first: Any, theta: Tensor, name: str) -> Tensor:
    try:
        return _once(risk, first, theta)
    except Exception as error:
        raise _unfit(risk, first, name, error) from error


def _once(risk: EmpiricalRisk, first: Any, theta: Tensor) -> Tensor:
    """The loss of the first examples; notes where what is given is written to."""
    own = map_tensors(cast(first, theta), torch.clone)
    versions = [tensor._version for tensor in tensors_of(own)]
    with warnings.catch_warnings(), risk._point(theta, leaves=False) as point, risk._values():
        # torch only warns where mse_loss broadcasts [B] against [B, 1] to a [B, B] of wrong pairs.
        warnings.filterwarnings("error", message="Using a target size")
        placed = [(key, tensor, tensor._version) for key, tensor in point.leaves.items()]
        if risk.loss is None:
            value = risk._loss_of(point, own)
        else:
            outputs = risk._outputs(point, own[0])
            loss_versions = [tensor._version for tensor in tensors_of(outputs)]
            value = risk._loss_at(outputs, own[1], theta)
            if loss_versions != [tensor._version for tensor in tensors_of(outputs)]:
                risk._ways.clones = True
        for key, tensor, version in placed:
            if tensor._version != version:
                raise ValueError(
                    f"module: got a forward that changes {key} in place, expected a function of theta: compute with a "
                    "changed copy, and without max_norm"
                )
    if versions != [tensor._version for tensor in tensors_of(own)]:
        risk._ways.clones = True
    return value


def _unfit(risk: EmpiricalRisk, first: Any, name: str, error: BaseException) -> ValueError:
    """The error that says what did not fit."""
    if isinstance(error, ValueError) and str(error).startswith("module: got a forward that changes"):
        return error
    if risk.loss is None:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors_of(first))
        return ValueError(
            f"batch_loss: got {type(error).__name__} on the first batch ({type(first).__name__} of tensors {shapes}), "
            f"expected f(module, batch) -> []: {line_of(error)}"
        )
    inputs, targets = (" and ".join(_shape(tensor) for tensor in tensors_of(part)) for part in first)
    shapes = f"inputs {inputs}, targets {targets}"
    with contextlib.suppress(Exception), torch.no_grad(), risk._point(risk.theta.float(), leaves=False) as point:
        outputs = risk._outputs(point, cast(first[0], risk.theta.float()))
        shapes += ", outputs " + " and ".join(_shape(tensor) for tensor in tensors_of(outputs))
    return ValueError(
        f"batches: got {shapes}, expected shapes and dtypes that the module and the loss take: {line_of(error)}"
    )


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def scalar(name: str, value: object, meaning: str, *, nan: bool) -> None:
    """Refuse a loss that is no finite number.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, Tensor) or value.ndim:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: got {got}, expected a tensor of shape []: return {meaning}")
    if not value.is_floating_point():
        raise ValueError(f"{name}: got {value.dtype}, expected a floating-point number: return {meaning}")
    if value.isfinite():
        return
    if nan:
        raise ValueError(
            f"batches: got NaN among the examples, and so a loss of {value.item()}, expected numbers: leave these "
            "examples out, or fill the gaps"
        )
    raise ValueError(
        f"{name}: got {value.item()} at the module's parameters, expected a finite number: did training diverge, or "
        "does it take the logarithm of 0?"
    )


def in_float64(risk: EmpiricalRisk, theta: Tensor, first: Any) -> Tensor:
    """Theta in float64 where the module can be computed so; notes where it computes in float32 whatever theta is."""
    if theta.device.type == "mps":
        return theta
    exact = theta.double()
    if theta.dtype == torch.float64:
        risk._ways.loss_float32 |= _computed_in_float32(risk, first, exact)
        return exact
    plain = risk._ways
    for narrow in ((False, False), (False, True), (True, False), (True, True)):
        risk._ways = dataclasses.replace(plain, float32=narrow[0], loss_float32=narrow[1])
        with contextlib.suppress(Exception):
            rounded = _computed_in_float32(risk, first, exact)
            risk._ways.loss_float32 |= rounded
            return exact
    risk._ways = plain
    return theta


def _computed_in_float32(risk: EmpiricalRisk, first: Any, theta: Tensor) -> bool:
    """Whether the loss comes out in float32 whatever it is given, as that of most language models does."""
    found: list[torch.dtype] = []
    as_theta = risk._as_theta

    def noted(value: Tensor, like: Tensor) -> Tensor:
        found.append(value.dtype)
        return as_theta(value, like)

    risk._as_theta = noted  # type: ignore[method-assign]
    try:
        _once(risk, first, theta)
    finally:
        del risk._as_theta
    return found[-1] != torch.float64


NEAR = (0.05, 1e-3)  # of the parameters' size, by how much theta is moved for derivatives; the next if not finite
FAR = (0.5, *NEAR)  # and for losses that shall differ from example to example, as those of a fresh network do not


def theta_near(
    risk: EmpiricalRisk, first: Any, theta: Tensor, generator: torch.Generator, moves: tuple[float, ...] = NEAR
) -> Tensor:
    """A theta nearby at which the loss is finite, too: [P]."""
    for by in moves:
        near = moved(risk.space, theta, generator, by)
        if value_at(risk, first, near).isfinite():
            return near
    return theta


def value_at(risk: EmpiricalRisk, batch: Any, theta: Tensor) -> Tensor:
    """The loss of a batch at theta, [], without a graph."""
    with risk._point(theta, leaves=False) as point, risk._values():
        return risk._loss_of(point, cast(batch, theta)).detach()


def same_again(risk: EmpiricalRisk, first: Any, theta: Tensor) -> None:
    """Refuse chance.

    Raises:
        ValueError: outputs or values differ at a second look.
    """
    own = cast(first, theta)
    with risk._point(theta, leaves=False) as point, risk._values():
        if risk.loss is None:
            value, again = (risk._loss_of(point, own).detach() for _ in range(2))
            if not close(value, again):
                raise ValueError(
                    f"batch_loss: got {value.item():.6g} and then {again.item():.6g} on one batch, expected a "
                    "deterministic function: no random calls in it or in forward"
                )
            return
        outputs = risk._outputs(point, own[0])
        values = [risk._loss_at(outputs, own[1], theta).detach() for _ in range(2)]
        if not close(*values):
            raise ValueError(
                f"loss: got {values[0].item():.6g} and then {values[1].item():.6g} for the same outputs, expected a "
                "deterministic function: no random calls in it"
            )
        kept = [tensor.detach().clone() for tensor in tensors_of(outputs)]
        for one, other in zip(kept, tensors_of(risk._outputs(point, own[0])), strict=True):
            if not alike(risk, one, other.detach()):
                raise ValueError(
                    "module: got other outputs for the same inputs, expected a deterministic function: use nn.Dropout, "
                    "which evaluation mode switches off, in place of random calls in forward"
                )


def alike(risk: EmpiricalRisk, one: Tensor, other: Tensor) -> bool:
    """Equal but for the rounding that this risk computes with."""
    if not one.is_floating_point():
        return torch.equal(one, other)
    return one.shape == other.shape and close(one, other, tolerance=rounding_of(risk, one.dtype))


def rounding_of(risk: EmpiricalRisk, dtype: torch.dtype) -> float:
    """What numbers that are computed in two ways may differ by, relatively, in the precision in use."""
    narrow = risk._ways.float32 or risk._ways.loss_float32 or dtype != torch.float64
    if narrow or risk.precision == "bfloat16":
        return tolerance(torch.float32, risk.precision)
    return tolerance(torch.float64, risk.precision)
