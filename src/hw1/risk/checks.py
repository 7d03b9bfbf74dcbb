"""What an `EmpiricalRisk` is asked before it answers: parameters that are numbers, a loss that is a mean, no chance."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hw1.risk.examples import close
from hw1.risk.nested import tensors_of

WRONG = (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError, UserWarning)


def check_parameters(module: nn.Module) -> None:
    """Refuse a module without parameters, or with some that are not finite numbers.

    Raises:
        ValueError: there is one.
    """
    named = list(module.named_parameters())
    if not named:
        raise ValueError("module: got no parameters, expected at least one (a quantized module hides its weights)")
    for name, parameter in named:
        if not parameter.is_floating_point():
            raise ValueError(
                f"module: got {name} of {parameter.dtype}, expected floating point: convert it with module.double()"
            )
        if not parameter.isfinite().all():
            raise ValueError(
                f"module: got values in {name} that are not finite, expected finite ones: did training diverge?"
            )


def check_theta(theta: Tensor, size: int) -> None:
    """Refuse what is no finite vector theta [P].

    Raises:
        ValueError: another dtype or shape, or values that are not finite.
    """
    if theta.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"theta: got {theta.dtype}, expected float32 or float64: convert it with theta.double()")
    if theta.shape != (size,):
        raise ValueError(f"theta: got shape {list(theta.shape)}, expected [{size}]: begin with risk.theta")
    if bad := int((~theta.isfinite()).sum()):
        raise ValueError(
            f"theta: got {bad} of {theta.numel()} values that are not finite, expected none of them: did training "
            "diverge?"
        )


def check_vectors(v: Tensor, theta: Tensor, size: int) -> None:
    """Refuse what is no vector [P] or block [P, k] of theta's dtype, on its device.

    Raises:
        ValueError: another shape, dtype or device.
    """
    if v.ndim not in (1, 2) or len(v) != size:
        raise ValueError(
            f"v: got shape {list(v.shape)}, expected [{size}] or [{size}, k]: flatten named tensors with "
            "risk.space.flatten(...)"
        )
    if v.dtype != theta.dtype or v.device != theta.device:
        raise ValueError(
            f"v: got {v.dtype} on {v.device}, expected theta's {theta.dtype} on {theta.device}: use v.to(theta)"
        )


def check_pairs(
    outputs_of: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    split: bool,
) -> None:
    """Look at a few examples: shapes fit, the loss is a scalar, nothing is random.

    Args:
        outputs_of: inputs -> outputs, at some theta.
        loss: (outputs, targets) -> [].
        inputs: [B, ...], B >= 2.
        targets: [B, ...].
        split: whether the loss must also be a mean over examples that do not influence each other.

    Raises:
        ValueError: it is not so.
    """
    shapes = f"inputs {list(inputs.shape)}, targets {list(targets.shape)}"
    with torch.no_grad(), warnings.catch_warnings():
        # torch only warns where mse_loss broadcasts [B] against [B, 1] to a [B, B] of wrong pairs.
        warnings.filterwarnings("error", message="Using a target size")
        try:
            outputs = outputs_of(inputs)
            again = outputs_of(inputs)
            shapes += f", outputs {list(outputs.shape)}"
            value = loss(outputs, targets)
        except WRONG as error:
            raise ValueError(
                f"batches: got {shapes}, expected shapes and dtypes that the module and the loss take: {error}"
            ) from error
        _check_scalar("loss", value, "the mean over examples")
        if not close(outputs, again):
            raise ValueError(
                "module: got other outputs for the same inputs, expected a deterministic function: use nn.Dropout, "
                "which evaluation mode switches off, in place of random calls in forward"
            )
        if not split:
            return
        _check_mean(loss, outputs, targets, value)
        half = (len(inputs) + 1) // 2
        if not close(outputs_of(inputs[:half]), outputs[:half]):
            raise ValueError(
                "module: got other outputs for an example when others left its batch, expected independent "
                "examples: give batch-norm running statistics (track_running_stats=True)"
            )


def check_batch_loss(value_of: Callable[[Any], Tensor], batch: Any) -> None:
    """Look at the first batch: its loss is a scalar, and the same at a second look.

    Raises:
        ValueError: it is not so.
    """
    with torch.no_grad():
        try:
            value, again = value_of(batch), value_of(batch)
        except WRONG as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors_of(batch))
            raise ValueError(
                f"batch_loss: got {type(error).__name__} on the first batch ({type(batch).__name__} of tensors "
                f"{shapes}), expected f(module, batch) -> []: {error}"
            ) from error
        _check_scalar("batch_loss", value, "the mean over what the batch counts")
        if not close(value, again):
            raise ValueError(
                f"batch_loss: got {value.item():.6g} and then {again.item():.6g} on one batch, expected a "
                "deterministic function: no random calls in it or in forward"
            )


def _check_scalar(name: str, value: object, meaning: str) -> None:
    if not isinstance(value, Tensor) or value.ndim:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: got {got}, expected a tensor of shape []: {meaning}")
    if not value.isfinite():
        raise ValueError(f"{name}: got {value.item()} at the module's parameters, expected a finite number")


def _check_mean(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor, value: Tensor) -> None:
    half = (len(outputs) + 1) // 2
    weight = half / len(outputs)
    parts = torch.stack([loss(outputs[:half], targets[:half]), loss(outputs[half:], targets[half:])])
    halves = weight * parts[0] + (1 - weight) * parts[1]
    if not close(value, halves, parts.abs().max()):
        raise ValueError(
            f"loss: got {value.item():.6g} on a batch and {halves.item():.6g} as the weighted mean of its halves, "
            "expected a mean over examples: use reduction='mean' (or say with count=f(batch) what a batch weighs), and "
            "no class weights or ignored targets"
        )
