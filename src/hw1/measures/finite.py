"""Which members can be measured, and where: the rule of all measures, written once."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hw1.kinds import Loss

EXAMPLES = 256  # at a time


def finite(net: nn.Module, loss: Loss, batches: Iterable[tuple[Tensor, Tensor]]) -> bool:
    """Whether a network's weights are finite numbers, and its loss on the examples too: else a measure of it is NaN.

    The loss is taken in evaluation mode, in the network's dtype and on its device; the network is left alone.

    Args:
        net: one member.
        loss: (outputs [B, ...], targets) -> mean loss [].
        batches: inputs [B, ...] and targets [B, ...].
    """
    import torch

    from hw1.risk.guard import own_copy, twice_differentiable
    from hw1.risk.nested import cast

    if not all(parameter.isfinite().all() for parameter in net.parameters()):
        return False
    network = own_copy(net)
    like = next(network.parameters())
    if like.dtype not in (torch.float32, torch.float64):
        network = network.float()
        like = next(network.parameters())
    with twice_differentiable(like.device, network), torch.no_grad():
        for x, y in batches:
            for inputs, targets in zip(x.split(EXAMPLES), y.split(EXAMPLES), strict=True):
                if not loss(network(cast(inputs, like)), cast(targets, like)).isfinite():
                    return False
    return True


def in_float64(net: nn.Module) -> nn.Module:
    """The network where float64 can be computed: itself, or a copy on the CPU of one that is on Apple's GPU."""
    device = next(net.parameters()).device
    there = float64_device(device)
    return net if there == device else copy.deepcopy(net).to(there)


def float64_device(device: torch.device) -> torch.device:
    """The device on which what lies on `device` is computed in float64: Apple's GPUs have none, and the CPU takes over.

    Example:
        >>> import torch
        >>> float64_device(torch.device("mps")), float64_device(torch.device("cuda", 1))
        (device(type='cpu'), device(type='cuda', index=1))
    """
    import torch

    return torch.device("cpu") if device.type == "mps" else device
