"""A loss as a function of theta, as the algorithms ask for it: at one theta, or at many at once."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Risk(Protocol):
    """A loss of theta [P]; `EmpiricalRisk` is one. A user's own class works too."""

    def __call__(self, theta: Tensor) -> Tensor:
        """The loss: [P] -> []."""

    def gradient(self, theta: Tensor) -> Tensor:
        """Its gradient: [P] -> [P]."""


class BatchedRisk(Protocol):
    """A twice differentiable loss at R thetas [R, P] at once, in float64. A user's own class works too."""

    @property
    def size(self) -> int:
        """P."""

    def __call__(self, thetas: Tensor) -> Tensor:
        """Losses: [R, P] -> [R]."""

    def gradient(self, thetas: Tensor) -> Tensor:
        """Gradients: [R, P] -> [R, P]."""

    def hessian(self, thetas: Tensor) -> Tensor:
        """Hessians, symmetric: [R, P] -> [R, P, P]."""
