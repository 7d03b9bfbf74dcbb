"""The whole Hessian of a risk, in float64, for networks of up to some thousand parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hw1.risk.agreement import UNTAKEN, differing
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.layerwise import LayerwiseRisk


def dense_hessian(risk: EmpiricalRisk, theta: Tensor, *, columns: int = 64) -> Tensor:
    """H = d2 R / d theta2 at theta [P] or members [R, P]: [P, P] or [R, P, P] float64, symmetric to the bit.

    Fully connected networks go layer by layer, members together (`hw1.risk.layerwise.LayerwiseRisk`), where that is
    what the risk itself says: its outputs are compared at every theta, its value, gradient and a product at the first
    ones and ever fewer (`hw1.risk.agreement`). Any other module whose layers have a second derivative, and any theta at
    which there is a difference: products with unit vectors on the kept graph of the gradient, `columns` of them at a
    time, one member after another.

    Args:
        risk: R.
        theta: [P] or [R, P], taken in float64.
        columns: unit vectors at a time; memory grows with it. Not for fully connected networks.

    Raises:
        ValueError: theta is not as the risk expects.

    Example:
        >>> net = torch.nn.Linear(1, 1)  # loss (w x + b - y)^2 at x = 3
        >>> risk = EmpiricalRisk(net, torch.nn.functional.mse_loss, [(torch.tensor([[3.0]]), torch.zeros(1, 1))])
        >>> dense_hessian(risk, risk.theta).tolist()
        [[18.0, 6.0], [6.0, 2.0]]
    """
    theta = theta.detach().double()
    if theta.ndim not in (1, 2) or theta.shape[-1] != risk.space.size:
        raise ValueError(
            f"theta: got shape {list(theta.shape)}, expected [{risk.space.size}] or [R, {risk.space.size}]"
        )
    hessians, left = _layer_by_layer(risk, theta.view(-1, risk.space.size))
    for number in left:
        hessians[number] = _by_products(risk, theta.view(-1, risk.space.size)[number], columns)
    return hessians.view(*theta.shape, risk.space.size)


def _layer_by_layer(risk: EmpiricalRisk, members: Tensor) -> tuple[Tensor, Iterable[int]]:
    """Hessians [R, P, P] at members [R, P], and the numbers of those that must be found otherwise."""
    everything = range(len(members))
    form = LayerwiseRisk.of(risk)
    if form is not None:
        try:
            hessians = form.hessian(members)
        except UNTAKEN:  # what the loss, say, does not take: the risk itself says so more clearly
            return members.new_empty(*members.shape, risk.space.size), everything
        return hessians, differing(risk, form, members, hessians)
    return members.new_empty(*members.shape, risk.space.size), everything


def _by_products(risk: EmpiricalRisk, theta: Tensor, columns: int) -> Tensor:
    """H [P, P] at theta [P] from products with unit vectors."""
    hessian = torch.empty(len(theta), len(theta), dtype=torch.float64, device=theta.device)
    for first in range(0, len(theta), columns):
        last = min(first + columns, len(theta))
        units = torch.zeros(len(theta), last - first, dtype=torch.float64, device=theta.device)
        units[range(first, last), range(last - first)] = 1
        hessian[:, first:last] = risk.hvp(theta, units)
    return (hessian + hessian.T) / 2
