"""Symmetric linear maps [P] -> [P]. The algorithms of this room see operators, never models."""

from __future__ import annotations

import functools
from typing import Literal, Protocol

import torch
from torch import Tensor

from hw1.curvature.algebra import Algebra, check_vector
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.precision_error import PrecisionError
from hw1.vectors import ParamSpace


class Operator(Protocol):
    """What the algorithms ask for. Whatever has these works, a user's own class too."""

    @property
    def size(self) -> int:
        """P."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the vectors."""

    @property
    def device(self) -> torch.device:
        """Device of the vectors."""

    def matvec(self, v: Tensor) -> Tensor:
        """The product: [P] -> [P], or [P, k] -> [P, k]."""


class AtTheta:
    """What is an operator at a theta [P]: its size, dtype and device are theta's."""

    theta: Tensor

    @property
    def size(self) -> int:
        """P."""
        return self.theta.numel()

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of theta."""
        return self.theta.dtype

    @property
    def device(self) -> torch.device:
        """Device of theta."""
        return self.theta.device


class _OfRisk(AtTheta):
    """Curvature of a risk at theta [P]."""

    def __init__(self, risk: EmpiricalRisk, theta: Tensor) -> None:
        if theta.shape != (risk.space.size,):
            raise ValueError(
                f"theta: got shape {list(theta.shape)}, expected [{risk.space.size}]: begin with risk.theta"
            )
        self.risk = risk
        self.theta = theta.detach().clone()  # the caller may train on


class _Rounded(_OfRisk):
    """An operator whose products are second derivatives, and which says what theta's dtype makes of them.

    Looked at once, at the first estimate: some twenty gradients and products of at most 64 examples.
    """

    _product: Literal["hvp", "gauss_newton_vp"]

    @functools.cached_property
    def precision(self) -> PrecisionError | None:
        """What estimates carry as `precision`: the risk's error against float64; None where it takes no float64."""
        if not self.risk.in_float64:
            return None
        return self.risk.precision_error(self.theta, torch.Generator().manual_seed(0), self._product)


class Hessian(_Rounded, Algebra):
    """H = d2 R / d theta2 at theta [P], of the mean loss over all examples.

    Args:
        risk: R.
        theta: [P]; its dtype is the dtype of the computation.

    Raises:
        ValueError: theta has another size.

    Example:
        >>> net = torch.nn.Linear(1, 1)  # loss (w x + b - y)^2 at x = 3: H = 2 [[9, 3], [3, 1]]
        >>> risk = EmpiricalRisk(net, torch.nn.functional.mse_loss, [(torch.tensor([[3.0]]), torch.zeros(1, 1))])
        >>> Hessian(risk, risk.theta).matvec(torch.tensor([1.0, 0.0]))
        tensor([18.,  6.])
    """

    _product = "hvp"

    def matvec(self, v: Tensor) -> Tensor:
        """H v: [P] -> [P], or [P, k] -> [P, k]."""
        return self.risk.hvp(self.theta, v)

    def block(self, *names: str) -> Hessian:
        """The diagonal block of some parameters (names or prefixes): one layer's curvature, the others held fixed."""
        return Hessian(*self.risk.restricted(self.theta, *names))


class GaussNewton(_Rounded, Algebra):
    """G = 1/N sum_n J_n^T L''_n J_n at theta [P] (Schraudolph 2002), the generalised Gauss-Newton matrix.

    It leaves out the network's own curvature and has no negative eigenvalue for a convex loss: never the Hessian.

    Args:
        risk: R.
        theta: [P]; its dtype is the dtype of the computation.

    Raises:
        ValueError: theta has another size.
    """

    _product = "gauss_newton_vp"

    def matvec(self, v: Tensor) -> Tensor:
        """G v: [P] -> [P], or [P, k] -> [P, k]."""
        return self.risk.gauss_newton_vp(self.theta, v)

    def block(self, *names: str) -> GaussNewton:
        """The diagonal block of some parameters (names or prefixes)."""
        return GaussNewton(*self.risk.restricted(self.theta, *names))


class Dense(Algebra):
    """A symmetric matrix [P, P] as an operator.

    Args:
        matrix: [P, P].
        space: the parameters that its rows stand for; only `block` needs it.

    Raises:
        ValueError: the matrix is not square or not symmetric, or has another size than the space.

    Example:
        >>> Dense(torch.diag(torch.tensor([1.0, 2.0]))).matvec(torch.ones(2))
        tensor([1., 2.])
    """

    def __init__(self, matrix: Tensor, space: ParamSpace | None = None) -> None:
        if matrix.ndim != 2:
            raise ValueError(f"matrix: got shape {list(matrix.shape)}, expected [P, P]")
        require_symmetric(matrix)
        if space is not None and space.size != len(matrix):
            raise ValueError(f"space: got {space.size} parameters, expected {len(matrix)}, the size of the matrix")
        self.matrix = matrix
        self.space = space

    @property
    def size(self) -> int:
        """P."""
        return len(self.matrix)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the matrix."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """Device of the matrix."""
        return self.matrix.device

    def matvec(self, v: Tensor) -> Tensor:
        """The product: [P] -> [P], or [P, k] -> [P, k]."""
        check_vector(self, v)
        return self.matrix @ v

    def diagonal(self) -> Tensor:
        """The diagonal, [P]."""
        return self.matrix.diagonal().clone()

    def block(self, *names: str) -> Dense:
        """The diagonal block of some parameters (names or prefixes)."""
        if self.space is None:
            raise ValueError("block: got a matrix without parameter names, expected Dense(matrix, space)")
        part = self.space.subset(*names)
        rows = self.space.positions(part).to(self.device)
        return Dense(self.matrix[rows][:, rows], part)


def require_symmetric(matrix: Tensor) -> None:
    """Refuse what is not a finite symmetric matrix [P, P], or several of them [..., P, P].

    Raises:
        ValueError: another shape, values that are not finite, or an asymmetry above rounding.
    """
    if matrix.ndim < 2 or matrix.shape[-2] != matrix.shape[-1]:
        raise ValueError(f"matrix: got shape {list(matrix.shape)}, expected [P, P]")
    for one in matrix.reshape(-1, *matrix.shape[-2:]):
        _require_symmetric(one)


def _require_symmetric(matrix: Tensor) -> None:
    if not matrix.isfinite().all():
        raise ValueError("matrix: got values that are not finite, expected finite ones")
    if matrix.numel() == 0:
        return
    asymmetry = (matrix - matrix.T).abs().max() / matrix.abs().max().clamp_min(torch.finfo(matrix.dtype).tiny)
    if asymmetry > torch.finfo(matrix.dtype).eps ** 0.5:
        raise ValueError(
            f"matrix: got an asymmetry of {asymmetry.item():.1e} of its largest entry, expected a symmetric matrix: "
            "symmetrise it with (matrix + matrix.T) / 2"
        )
