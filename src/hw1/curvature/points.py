"""A loss at many points at once, in float64: what a search over many starts asks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

from hw1.curvature.exact import dense_hessian
from hw1.curvature.layerwise import MlpRisk
from hw1.curvature.risk import EmpiricalRisk

HESSIAN_NUMBERS = 2**20  # numbers in the Hessians that `Function` takes at a time; the graph is many times larger


class ManyPoints(Protocol):
    """A twice differentiable loss of theta [P], for R points theta [R, P] in float64. A user's own class works too."""

    @property
    def size(self) -> int:
        """P."""

    def __call__(self, theta: Tensor) -> Tensor:
        """Losses: [R, P] -> [R]."""

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradients: [R, P] -> [R, P]."""

    def hessian(self, theta: Tensor) -> Tensor:
        """Hessians, symmetric: [R, P] -> [R, P, P]."""


class OneByOne:
    """The risk of any module, one point after another.

    Args:
        risk: R.
    """

    def __init__(self, risk: EmpiricalRisk) -> None:
        self._risk = risk

    @property
    def size(self) -> int:
        """P."""
        return self._risk.space.size

    def __call__(self, theta: Tensor) -> Tensor:
        """Losses: [R, P] -> [R]."""
        return torch.stack([self._risk(point) for point in theta.double()])

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradients: [R, P] -> [R, P]."""
        return torch.stack([self._risk.gradient(point) for point in theta.double()])

    def hessian(self, theta: Tensor) -> Tensor:
        """Hessians: [R, P] -> [R, P, P]."""
        return torch.stack([dense_hessian(self._risk, point) for point in theta.double()])


class Function:
    """A function theta [P] -> [], written with torch operations, for many points by `torch.func.vmap`.

    Args:
        f: the function; it must do without branches on values and without in-place changes of theta.
        size: P.

    Example:
        >>> saddle = Function(lambda w: (w[0] * w[1] - 1) ** 2, size=2)
        >>> saddle.hessian(torch.zeros(1, 2).double()).tolist()
        [[[0.0, -2.0], [-2.0, 0.0]]]
    """

    def __init__(self, f: Callable[[Tensor], Tensor], size: int) -> None:
        self._size = size
        self._value, self._gradient = vmap(f), vmap(grad(f))
        self._hessian = vmap(hessian(f), chunk_size=max(1, HESSIAN_NUMBERS // size**2))

    @property
    def size(self) -> int:
        """P."""
        return self._size

    def __call__(self, theta: Tensor) -> Tensor:
        """Losses: [R, P] -> [R]."""
        losses: Tensor = self._value(theta.double())
        return losses.detach()

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradients: [R, P] -> [R, P]."""
        gradients: Tensor = self._gradient(theta.double())
        return gradients.detach()

    def hessian(self, theta: Tensor) -> Tensor:
        """Hessians: [R, P] -> [R, P, P]."""
        hessians: Tensor = self._hessian(theta.double()).detach()
        return (hessians + hessians.mT) / 2


def many_points(risk: EmpiricalRisk) -> ManyPoints:
    """The fastest way at hand to take a risk at many points.

    Args:
        risk: R.
    """
    return MlpRisk.of(risk) or OneByOne(risk)
