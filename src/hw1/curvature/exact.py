"""The whole Hessian and its spectrum, in float64, for networks of up to some thousand parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from hw1.curvature.operators import require_symmetric
from hw1.curvature.risk import EmpiricalRisk


def dense_hessian(risk: EmpiricalRisk, theta: Tensor, *, columns: int = 64) -> Tensor:
    """H = d2 R / d theta2 at theta [P]: [P, P] float64, symmetric to the bit.

    For any module whose layers have a second derivative: products with unit vectors on the kept graph of the gradient,
    `columns` of them at a time.

    Args:
        risk: R.
        theta: [P], taken in float64.
        columns: unit vectors at a time; memory grows with it.

    Raises:
        ValueError: theta is not as the risk expects.

    Example:
        >>> net = torch.nn.Linear(1, 1)  # loss (w x + b - y)^2 at x = 3
        >>> risk = EmpiricalRisk(net, torch.nn.functional.mse_loss, [(torch.tensor([[3.0]]), torch.zeros(1, 1))])
        >>> dense_hessian(risk, risk.theta).tolist()
        [[18.0, 6.0], [6.0, 2.0]]
    """
    theta = theta.detach().double()
    hessian = torch.empty(len(theta), len(theta), dtype=torch.float64, device=theta.device)
    for first in range(0, len(theta), columns):
        last = min(first + columns, len(theta))
        units = torch.zeros(len(theta), last - first, dtype=torch.float64, device=theta.device)
        units[range(first, last), range(last - first)] = 1
        hessian[:, first:last] = risk.hvp(theta, units)
    return (hessian + hessian.T) / 2


def spectrum(matrix: Tensor) -> Tensor:
    """All eigenvalues of a symmetric matrix [P, P]: [P] float64, ascending.

    Raises:
        ValueError: the matrix is not square, not symmetric or not finite.

    Example:
        >>> spectrum(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist()
        [-1.0, 1.0]
    """
    require_symmetric(matrix)
    values: Tensor = torch.linalg.eigvalsh(matrix.double())
    return values
