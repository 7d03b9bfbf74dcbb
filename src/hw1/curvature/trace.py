"""Trace of an operator from products with random vectors."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hw1.curvature.estimate import Estimate, check_probes, precision_of
from hw1.curvature.lanczos import rademacher
from hw1.curvature.operators import Operator

BLOCK = 16  # probes at a time, at most
BLOCK_NUMBERS = 2**22  # and numbers in a block: what a block saves, it saves in small networks


def hutchinson_trace(op: Operator, *, probes: int = 100, generator: torch.Generator) -> Estimate:
    """Trace of A = E[z^T A z] over random signs z (Hutchinson 1990): unbiased.

    Its error is sqrt(2 sum_{i != j} A_ij^2 / probes), and the sum is that of the variances of the P coordinates of
    z * (A z). Estimated from these it is far more certain than from the scatter of z^T A z, which few probes of a
    spectrum with an outlier tend to state too small.

    Args:
        op: the operator.
        probes: products spent, at least 2.
        generator: for the signs.

    Raises:
        ValueError: fewer than 2 probes.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> op = Dense(torch.diag(torch.tensor([1.0, -2.0, 4.0])))  # no error: the matrix is diagonal
        >>> hutchinson_trace(op, probes=2, generator=torch.Generator().manual_seed(0))
        Estimate(value=3.0, standard_error=0.0)
    """
    check_probes(probes)
    terms = _Terms()
    for count in blocks(probes, op):
        z = rademacher(op, count, generator)  # [P, count]
        terms.add((z * op.matvec(z)).double())
    return replace(terms.estimate(), precision=precision_of(op))


def hutchpp_trace(op: Operator, *, products: int = 99, generator: torch.Generator) -> Estimate:
    """Hutch++ (Meyer, Musco, Musco & Woodruff 2021, algorithm 1): tr(Q^T A Q) exactly, the rest by Hutchinson.

    A third of the products finds the subspace Q of large curvature, a third takes its trace, a third samples the rest.
    For a spectrum with few large eigenvalues, such as a trained network's, the error is far below Hutchinson's at
    equal cost. The standard error is that of the sampled rest, given Q, estimated as in `hutchinson_trace`; below about
    60 products `xtrace` has the smaller one.

    Args:
        op: the operator.
        products: products spent, at least 6; what is left after dividing by three goes to the samples.
        generator: for the signs.

    Raises:
        ValueError: fewer than 6 products.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> v = torch.arange(8.0).double()
        >>> op = Dense(torch.outer(v, v))  # rank one: no error but rounding
        >>> estimate = hutchpp_trace(op, products=6, generator=torch.Generator().manual_seed(0))
        >>> round(estimate.value, 9), estimate.standard_error < 1e-9
        (140.0, True)
    """
    if products < 6:
        raise ValueError(f"products: got {products}, expected at least 6: a third of them are samples")
    third = min(products // 3, op.size)
    sketch = torch.cat([op.matvec(rademacher(op, count, generator)) for count in blocks(third, op)], 1)
    q, _ = torch.linalg.qr(sketch)  # [P, third]
    exact = sum((part * op.matvec(part)).double().sum().item() for part in torch.split(q, blocks(third, op), dim=1))
    terms = _Terms()
    for count in blocks(products - 2 * third, op):
        z = rademacher(op, count, generator)
        rest = z - q @ (q.T @ z)
        product = op.matvec(rest)
        terms.add((z * (product - q @ (q.T @ product))).double())
    rest_of_it = terms.estimate()
    return Estimate(
        exact + rest_of_it.value, rest_of_it.standard_error, degrees=rest_of_it.degrees, precision=precision_of(op)
    )


class _Terms:
    """Mean over probes of sum_i d_i, where d = z * (A z) [P] of random signs z, and its standard error."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Tensor | None = None  # [P]; what is constant then leaves no rounding
        self.sum: Tensor | None = None  # of d - first, [P]
        self.squares = 0.0  # of d - first

    def add(self, terms: Tensor) -> None:
        """More of them, [P, count]."""
        if self.first is None or self.sum is None:
            self.first, self.sum = terms[:, 0].clone(), torch.zeros_like(terms[:, 0])
        moved = terms - self.first[:, None]
        self.count += terms.shape[1]
        self.sum += moved.sum(1)
        self.squares += moved.square().sum().item()

    def estimate(self) -> Estimate:
        """Their mean. Its variance is twice the sum of the coordinates' variances, over the number of probes."""
        assert self.first is not None and self.sum is not None
        n = self.count
        variance = max(0.0, self.squares - self.sum.square().sum().item() / n) / (n - 1)
        value = (self.first.sum() + self.sum.sum() / n).item()
        return Estimate(value, math.sqrt(2 * variance / n), degrees=n - 1)


def blocks(count: int, op: Operator) -> list[int]:
    """`count` in parts that fit a block."""
    most = max(1, min(BLOCK, BLOCK_NUMBERS // op.size))
    return [min(most, count - first) for first in range(0, count, most)]
