"""What a step minimises: the loss, or the squared norm of its gradient. One value a member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hw1.models import Replicated
from hw1.training.identity import ConfigError

Loss = Callable[..., Tensor]

LOSS, SQUARED_GRADIENT_NORM = OBJECTIVES = ("loss", "squared_gradient_norm")


def member_losses(net: nn.Module, loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean loss over the batch of each member, [R]; [1] for a single network.

    Args:
        net: what gave `outputs`.
        loss: a loss of torch.nn.functional: (outputs [B, ...], targets [B, ...], reduction=...).
        outputs: [B, C], or [R, B, C] of a `Replicated`.
        targets: [B, ...], or [R or 1, B, ...].
    """
    if not isinstance(net, Replicated):
        return loss(outputs, targets).reshape(1)
    targets = targets.expand(net.replicas, *targets.shape[1:])
    # A member's mean is over examples, and over features for a squared error, as in torch's own reduction.
    each = loss(outputs.flatten(0, 1), targets.flatten(0, 1), reduction="none")
    return each.reshape(net.replicas, -1).mean(1)


def squared_gradient_norms(net: nn.Module, losses: Tensor) -> Tensor:
    """|g|^2 of each member's loss as something to differentiate: [R, parameter tensors of a member].

    The gradient keeps its graph (double backward, Drucker & Le Cun 1992): without it, minimising would do nothing.

    Args:
        net: the network, or a `Replicated`.
        losses: [R], each member's.
    """
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(losses.sum(), parameters, create_graph=True, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    if isinstance(net, Replicated):
        return net.squares(gradients)
    return torch.stack([gradient.square().sum() for gradient in gradients])[None]


def check_objective(node: Any) -> tuple[str, int]:
    """(objective, epochs on the loss before it) of the config node `objective`.

    Raises:
        ConfigError: a value is not one that it can have.
    """
    if not isinstance(node, dict) or set(node) != {"minimise", "after"}:
        raise ConfigError(f"objective: got {node!r}, expected objective.minimise and objective.after")
    minimise, after = node["minimise"], node["after"]
    if minimise not in OBJECTIVES:
        raise ConfigError(f"objective.minimise: got {minimise!r}, expected {' or '.join(OBJECTIVES)}")
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        raise ConfigError(f"objective.after: got {after!r}, expected a number of epochs, 0 or more")
    if minimise == LOSS and after:
        raise ConfigError(f"objective.after: got {after}, expected 0 where objective.minimise is the loss throughout")
    return minimise, after
