"""What a step minimises: the loss, or the squared norm of its gradient. One value a member."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from hw1.kinds import Loss
from hw1.models import Members


def member_losses(net: nn.Module, loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean loss over the batch of each member, [R]; [1] for a single network.

    Args:
        net: what gave `outputs`.
        loss: (outputs [B, ...], targets [B, ...], reduction=...), one of torch.nn.functional or `hw1.kinds.loss_of`.
        outputs: [B, ...], or [R, B, ...] of a `Members`.
        targets: [B, ...], or [R or 1, B, ...].
    """
    if not isinstance(net, Members):
        return loss(outputs, targets).reshape(1)
    targets = targets.expand(net.count, *targets.shape[1:])
    several = targets.ndim > 2 and not targets.is_floating_point()  # tokens, of which some may not count
    if several or not _is_elementwise(loss):
        return torch.stack([loss(*pair).reshape(()) for pair in zip(outputs, targets, strict=True)])
    # A member's mean is over examples, and over features for a squared error, as in torch's own reduction.
    each = loss(outputs.flatten(0, 1), targets.flatten(0, 1), reduction="none")
    return each.reshape(net.count, -1).mean(1)


def _is_elementwise(loss: Loss) -> bool:
    """Whether the mean over a member's targets is that of the loss's values without a reduction.

    Not where targets may weigh less, or be ignored, and not where a loss has no `reduction`.
    """
    return inspect.isfunction(loss) and "reduction" in inspect.signature(loss).parameters


def squared_gradient_norms(net: nn.Module, losses: Tensor) -> Tensor:
    """|g|^2 of each member's loss as something to differentiate: [R, parameter tensors of a member].

    The gradient keeps its graph (double backward, Drucker & Le Cun 1992): without it, minimising would do nothing.

    Args:
        net: the network, or a `Members`.
        losses: [R], each member's.
    """
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(losses.sum(), parameters, create_graph=True, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    if isinstance(net, Members):
        return net.squares(gradients)
    return torch.stack([gradient.square().sum() for gradient in gradients])[None]
