"""Hessian products by differences of the gradient, for networks whose operations have no second derivative."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hw1.curvature.algebra import Algebra, check_vector
from hw1.curvature.operators import AtTheta
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.protocol import Risk

SAFETY = 1.5  # of the difference between two steps; rounding alone makes it 1.1 times the error


@dataclass(frozen=True)
class ProductByDifferences:
    """A product and how far it may be off.

    Attributes:
        product: H v, [P] or [P, k].
        error: of each column, the length of product - H v that is expected at most: [] or [k].
    """

    product: Tensor
    error: Tensor


class HessianByDifferences(AtTheta, Algebra):
    """H v ~ |v| (g(theta + h u) - g(theta - h u)) / 2h along u = v / |v|: central differences of the gradient g.

    For operations whose backward cannot be differentiated, or says nothing where it is (Hardsigmoid, CTC,
    EmbeddingBag); a product costs two gradients. Everywhere else `Hessian` is exact, and faster.

    The error is h^2 / 6 times the third derivative along u, and rounding over h. They are of one size at h =
    eps^(1/3) (Nocedal & Wright 2006, section 8.1), where theta's own rounding is eps; here it is eps |theta|. That
    leaves about eps^(2/3): on small trained networks 1e-11 to 1e-9 of the product in float64, 1e-4 to 1e-2 in float32.
    Take theta in float64. What the error is, `with_error` measures. Where the gradient jumps within h, at a kink, the
    product holds the jump over 2h.

    Args:
        risk: R; only its `gradient` is called.
        theta: [P]; its dtype is the dtype of the computation.
        step: h, a length in parameter space; unless said, (eps max(1, |theta|))^(1/3).

    Raises:
        ValueError: theta is no vector, or the step is too short to change it, or not positive.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Hardsigmoid()).double()
        >>> x, y = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
        >>> risk = EmpiricalRisk(net, torch.nn.functional.mse_loss, [(x, y)])  # ((w + 3) / 6)^2: H = 2 / 36
        >>> op = HessianByDifferences(risk, risk.theta)
        >>> found = op.with_error(torch.tensor([36.0]).double())
        >>> round(found.product.item(), 6), found.error.item() < 1e-7
        (2.0, True)
    """

    def __init__(self, risk: Risk, theta: Tensor, *, step: float | None = None) -> None:
        if theta.ndim != 1:
            raise ValueError(f"theta: got shape {list(theta.shape)}, expected [P]: begin with risk.theta")
        self.risk = risk
        self.theta = theta.detach().clone()  # the caller may train on
        eps, length = torch.finfo(theta.dtype).eps, theta.norm().item()
        self.step = (eps * max(1.0, length)) ** (1 / 3) if step is None else step
        if not 4 * eps * length < self.step < float("inf"):
            raise ValueError(
                f"step: got {self.step}, expected a finite length above {max(4 * eps * length, 0.0):.1e}, the rounding "
                "of theta: leave it out"
            )

    def matvec(self, v: Tensor) -> Tensor:
        """H v: [P] -> [P], or [P, k] -> [P, k]; two gradients a vector."""
        check_vector(self, v)
        columns = [self._along(column, self.step)[0] for column in v.reshape(self.size, -1).T]
        return torch.stack(columns, 1).reshape(v.shape)

    def with_error(self, v: Tensor) -> ProductByDifferences:
        """H v and its error: v [P] or [P, k]; four gradients a vector.

        Differences over h and 2h are three truncation errors apart, or, where rounding rules, 1.1 of its size: half
        again as much, and eps |g| / h, is the error that is said. A jump of the gradient within h may be off by a third
        more than that.
        """
        check_vector(self, v)
        products, errors = [], []
        for column in v.reshape(self.size, -1).T:
            near, rounding = self._along(column, self.step)
            far, _ = self._along(column, 2 * self.step)
            products.append(near)
            errors.append(SAFETY * (near - far).norm() + rounding)
        return ProductByDifferences(torch.stack(products, 1).reshape(v.shape), torch.stack(errors).reshape(v.shape[1:]))

    def block(self, *names: str) -> HessianByDifferences:
        """The diagonal block of some parameters (names or prefixes), the others held fixed.

        Raises:
            ValueError: the risk is none of a module, or a name is unknown.
        """
        if not isinstance(self.risk, EmpiricalRisk):
            raise ValueError(
                f"block: got a {type(self.risk).__name__}, expected an EmpiricalRisk, which knows names: make one "
                "of the module and its loss"
            )
        return HessianByDifferences(*self.risk.restricted(self.theta, *names))

    def _along(self, v: Tensor, step: float) -> tuple[Tensor, Tensor]:
        """The difference [P] for one vector [P], and what rounding the gradients alone does to it, []."""
        length = v.norm()
        if length == 0:
            return torch.zeros_like(v), torch.zeros_like(length)
        there = self.risk.gradient(self.theta + (step / length) * v)
        back = self.risk.gradient(self.theta - (step / length) * v)
        scale = length / (2 * step)
        return (there - back) * scale, torch.finfo(v.dtype).eps * (there.norm() + back.norm()) * scale
