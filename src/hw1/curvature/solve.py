"""Linear systems with an operator, by conjugate gradients."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from hw1.curvature.algebra import check_vector
from hw1.curvature.operators import Operator

ROUNDING = 100  # times eps |A| is what a product's own rounding may make of a curvature of zero


@dataclass(frozen=True)
class Solution:
    """What `solve` found.

    Attributes:
        x: [P], or [P, k].
        residuals: |b - (A + damping I) x|, measured with a fresh product: [], or [k]. Where A has no negative
            eigenvalue, x is at most residual / damping away from the solution.
        products: operator-vector products spent.
        converged: whether every residual is at most tol |b|.
    """

    x: Tensor
    residuals: Tensor
    products: int
    converged: bool


def solve(
    op: Operator, b: Tensor, *, damping: float = 0.0, tol: float = 1e-5, max_products: int | None = None
) -> Solution:
    """Solve (A + damping I) x = b by conjugate gradients (Hestenes & Stiefel 1952), the columns of a block at once.

    A + damping I must be positive definite; a Hessian is so near a minimum or with enough damping, a Gauss-Newton or
    Fisher matrix with any. The residual that rounding lets drift is measured afresh, and the search begun again from
    there while that halves it.

    Args:
        op: A.
        b: [P] or [P, k], in the operator's dtype.
        damping: at least 0.
        tol: residual to reach, relative to |b|; unless said, that of `scipy.sparse.linalg.cg`.
        max_products: give up after so many; unless said, 1,000 a column.

    Returns:
        x with its measured residuals. If one stays above the tolerance, a warning says so.

    Raises:
        ValueError: a direction of negative curvature was met (the message says how much damping it asks for), a product
            or b is not finite or of another shape, or a setting is out of range.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> op = Dense(torch.diag(torch.tensor([1.0, 3.0]).double()))
        >>> solve(op, torch.tensor([2.0, 4.0]).double(), damping=1.0).x.tolist()
        [1.0, 1.0]
    """
    check_vector(op, b)
    if not b.isfinite().all():
        raise ValueError("b: got values that are not finite, expected finite ones: does a gradient overflow?")
    if not 0 <= damping < math.inf:
        raise ValueError(f"damping: got {damping}, expected a finite number of at least 0: 0 adds nothing")
    if not 0 < tol < 1:
        raise ValueError(f"tol: got {tol}, expected a number between 0 and 1: give 1e-6, say")
    right = b.detach().reshape(op.size, -1)  # [P, k]
    search = _Search(op, damping, 1000 * right.shape[1] if max_products is None else max_products)
    goal = tol * _norms(right)  # [k]
    x, residual = torch.zeros_like(right), right.clone()
    while True:
        before = _norms(residual)
        open_columns = (before > goal).nonzero()[:, 0]
        if not len(open_columns) or search.products + 2 * len(open_columns) > search.budget:
            break
        x[:, open_columns] += search.correction(residual[:, open_columns], goal[open_columns])
        residual[:, open_columns] = right[:, open_columns] - search.times(x[:, open_columns])
        after = _norms(residual)
        if not (after[open_columns] <= 0.5 * before[open_columns]).any():
            break
    lengths = _norms(residual)
    converged = bool((lengths <= goal).all())
    if not converged:
        worst = (lengths / _norms(right).clamp_min(torch.finfo(torch.float64).tiny)).max().item()
        warnings.warn(
            f"the largest residual is {worst:.1e} of |b|, above tol = {tol:.1e}, after {search.products} products: "
            "allow more (max_products), damp more, or take theta in float64",
            stacklevel=2,
        )
    return Solution(x.reshape(b.shape), lengths.reshape(b.shape[1:]), search.products, converged)


class _Search:
    """Conjugate gradients with a budget of products, and the size of the operator as it is met."""

    def __init__(self, op: Operator, damping: float, budget: int) -> None:
        self.op, self.damping, self.budget = op, damping, budget
        self.products = 0
        self.scale = 0.0  # largest |A v| / |v| so far

    def times(self, v: Tensor) -> Tensor:
        """(A + damping I) V, [P, k]."""
        self.products += v.shape[1]
        product = self.op.matvec(v) + self.damping * v
        if not product.isfinite().all():
            raise ValueError("op: got a product that is not finite, expected finite ones: does the loss overflow?")
        return product

    def correction(self, residual: Tensor, goal: Tensor) -> Tensor:
        """V with |residual - (A + damping I) V| <= goal [k] by its own account, or as near as it comes: [P, k]."""
        x, r, p = torch.zeros_like(residual), residual.clone(), residual.clone()
        rr = _dots(r, r)
        active = torch.arange(r.shape[1], device=r.device)
        # The residual is measured with one product a column afterwards.
        while len(active) and self.products + len(active) + r.shape[1] <= self.budget:
            direction = p[:, active]
            product = self.times(direction)
            lengths, along = _dots(direction, direction), _dots(direction, product)
            curvature = along / lengths  # [active]
            self.scale = max(self.scale, (_norms(product) / lengths.sqrt()).max().item())
            self._require_positive(curvature.min().item())
            flat = curvature <= 0  # but for rounding: nothing more is to be had along it
            active, direction, product, along = active[~flat], direction[:, ~flat], product[:, ~flat], along[~flat]
            step = (rr[active] / along).to(r.dtype)
            x[:, active] += step * direction
            r[:, active] -= step * product
            new = _dots(r[:, active], r[:, active])
            p[:, active] = r[:, active] + (new / rr[active]).to(r.dtype) * direction
            rr[active] = new
            active = active[new.sqrt() > goal[active]]
        return x

    def _require_positive(self, curvature: float) -> None:
        if curvature < -ROUNDING * torch.finfo(self.op.dtype).eps * self.scale:
            raise ValueError(
                f"op: got a direction v with v^T (A + damping I) v / v^T v = {curvature:.3g}, expected a positive "
                f"definite operator: ask for a damping above {self.damping - curvature:.3g}, or take GaussNewton"
            )


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """Of columns [P, k]: [k], summed in float64."""
    return (a * b).sum(0, dtype=torch.float64)


def _norms(a: Tensor) -> Tensor:
    return _dots(a, a).sqrt()
