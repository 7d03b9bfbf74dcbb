"""Whether a loss is the mean over examples, and examples are independent, told from outputs that are there already."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hw1.risk.closeness import close

Loss = Callable[[Tensor, Tensor], Tensor]

CARRIED = 8  # examples of a batch that are looked at again together with the next one
UNTAKEN = (RuntimeError, ValueError, TypeError, IndexError, UserWarning)  # of an operation that refuses its inputs


class MeanOverExamples:
    """Looks at one batch of outputs after another, and refuses a loss that is no mean over examples.

    A batch, and some examples of the one before, are cut into two random parts. The loss of the whole must be the mean
    of theirs weighed by their lengths, and so must its gradient by every output, where it has one. The length of a part
    has no divisor in common with that of the whole: if k of n examples count otherwise, the shares of them differ.

    Args:
        loss: (outputs [B, ...], targets [B, ...]) -> [].
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._carried: tuple[Tensor, Tensor] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> None:
        """Look at a batch: outputs [B, ...], targets [B, ...]. A loss that is not finite tells nothing.

        Raises:
            ValueError: the loss is no mean.
        """
        with torch.inference_mode(False), torch.enable_grad():
            batch = (outputs.detach().clone(), targets.clone())
            before, self._carried = self._carried, (batch[0][-CARRIED:], batch[1][-CARRIED:])
            if before is not None and all(a.shape[1:] == b.shape[1:] for a, b in zip(before, batch, strict=True)):
                batch = (torch.cat([before[0], batch[0]]), torch.cat([before[1], batch[1]]))
            if len(batch[0]) == 1:
                batch = (torch.cat([batch[0]] * 2), torch.cat([batch[1]] * 2))
            self._compare(*batch)

    def _compare(self, outputs: Tensor, targets: Tensor) -> None:
        count = len(outputs)
        length = next(n for n in range(max(1, count // 3), count) if math.gcd(n, count) == 1)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(outputs.device)
        outputs, targets = outputs[order], targets[order]
        (whole, slope), outputs, targets = self._most_precisely(outputs, targets)
        if not whole.isfinite():
            return
        pieces = [(outputs[:length], targets[:length]), (outputs[length:], targets[length:])]
        try:
            (one, first), (other, rest) = (self._at(*piece) for piece in pieces)
        except UNTAKEN as error:
            raise ValueError(f"loss: got {error} on {length} of {count} examples, {_REMEDY}") from error
        share = length / count
        expected = share * one + (1 - share) * other
        if not close(whole, expected, torch.maximum(one.abs(), other.abs())):
            raise ValueError(
                f"loss: got {whole.item():.6g} on {count} examples and {expected.item():.6g} as the mean of two parts "
                f"weighed by their lengths, {_REMEDY}"
            )
        expected_slope = torch.cat([share * first, (1 - share) * rest])
        if slope.isfinite().all() and not close(slope, expected_slope, slope.abs().max()):
            raise ValueError(f"loss: got another gradient for an example in {count} than in a part of them, {_REMEDY}")

    def _most_precisely(self, outputs: Tensor, targets: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """Loss and gradient, and what they are of: in float64 where the loss has no constants of another dtype."""
        double = targets.double() if targets.is_floating_point() else targets
        try:
            return self._at(outputs.double(), double), outputs.double(), double
        except UNTAKEN:
            return self._at(outputs, targets), outputs, targets

    def _at(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss [], and its gradient by the outputs [B, ...], zero where there is none."""
        leaf = outputs.clone().requires_grad_()
        value = self._loss(leaf, targets.clone())
        if not value.requires_grad:
            return value.detach(), torch.zeros_like(leaf)
        (slope,) = torch.autograd.grad(value, leaf, allow_unused=True)
        return value.detach(), torch.zeros_like(leaf) if slope is None else slope


_REMEDY = "expected the mean over examples: use reduction='mean', and no class weights or ignored targets"


def outputs_of_first(network: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs of the first two examples, as far as there are two; shapes and dtypes fit, and the loss is [].

    Args:
        network: in evaluation mode.
        loss: (outputs, targets) -> [].
        inputs: [N, ...], as the network takes them.
        targets: [N, ...].

    Raises:
        ValueError: they do not fit.
    """
    x, y = inputs[:2].clone(), targets[:2].clone()
    shapes = f"inputs {list(x.shape)}, targets {list(y.shape)}"
    with torch.no_grad(), warnings.catch_warnings():
        # torch only warns where mse_loss broadcasts [B] against [B, 1] to a [B, B] of wrong pairs.
        warnings.filterwarnings("error", message="Using a target size")
        try:
            outputs = network(x)
            if isinstance(outputs, Tensor):
                shapes += f", outputs {list(outputs.shape)}"
                value = loss(outputs.clone(), y)
        except UNTAKEN as error:
            raise ValueError(
                f"inputs and targets: got {shapes}, expected shapes and dtypes that the module and the loss take: "
                f"{error}"
            ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != len(x):
        got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"module: got outputs {got} for {len(x)} examples, expected a tensor [B, ...]: wrap it")
    if not isinstance(value, Tensor) or value.ndim:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss: got {got}, expected []: the mean over examples")
    return outputs


def check_alone(network: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Refuse a network whose outputs for some examples change when others leave their batch, or from call to call.

    Args:
        network: in evaluation mode.
        inputs: [B, ...].
        outputs: the network's, [B, ...]; where they are not finite they tell nothing.

    Raises:
        ValueError: they change.
    """
    half = (len(inputs) + 1) // 2
    with torch.no_grad():
        alone, outputs = network(inputs[:half].clone()), outputs.detach()[:half]
    if outputs.isfinite().all() and not close(alone, outputs):
        raise ValueError(
            "module: got other outputs for an example when others left its batch, expected independent examples and no "
            "chance: give batch-norm running statistics (track_running_stats=True), and use nn.Dropout in place of "
            "random calls in forward"
        )
