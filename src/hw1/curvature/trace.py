"""Trace of an operator from products with random vectors."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hw1.curvature.estimate import Estimate, check_probes, precision_of
from hw1.curvature.lanczos import BASIS_BYTES, breakdown, orthogonalise, rademacher
from hw1.curvature.operators import Operator

BLOCK = 16  # probes at a time, at most
BLOCK_NUMBERS = 2**22  # and numbers in a block: what a block saves, it saves in small networks
QR_COPIES = 4  # of a sketch, that torch's QR makes; a larger one is made orthonormal column by column, in place


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


def hutchpp_trace(
    op: Operator, *, products: int = 99, generator: torch.Generator, basis_size: int | None = None
) -> Estimate:
    """Hutch++ (Meyer, Musco, Musco & Woodruff 2021, algorithm 1): tr(Q^T A Q) exactly, the rest by Hutchinson.

    A third of the products finds the subspace Q of large curvature, a third takes its trace, a third samples the rest.
    For a spectrum with few large eigenvalues, such as a trained network's, the error is far below Hutchinson's at
    equal cost. The standard error is that of the sampled rest, given Q, estimated as in `hutchinson_trace`; below about
    60 products `xtrace` has the smaller one.

    Args:
        op: the operator.
        products: products spent, at least 6; what is left after dividing by three goes to the samples.
        generator: for the signs.
        basis_size: vectors of Q, at most, where memory holds no third of the products; the other products are samples,
            of a larger rest, whose larger error is stated.

    Raises:
        ValueError: fewer than 6 products, or no vector of Q.

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
    if basis_size is not None and basis_size < 1:
        raise ValueError(f"basis_size: got {basis_size}, expected at least 1, or None for a third of the products")
    third = min(products // 3, op.size, basis_size or products)
    q = _subspace(op, third, generator)  # [P, third]
    exact = sum(
        (part * op.matvec(part)).double().sum().item() for part in torch.split(q, blocks(q.shape[1], op), dim=1)
    )
    terms = _Terms()
    for count in blocks(products - 2 * third, op):
        z = rademacher(op, count, generator)
        product = op.matvec(z - q @ (q.T @ z))
        terms.add((z * (product - q @ (q.T @ product))).double())
    rest_of_it = terms.estimate()
    return Estimate(
        exact + rest_of_it.value, rest_of_it.standard_error, degrees=rest_of_it.degrees, precision=precision_of(op)
    )


def _subspace(op: Operator, size: int, generator: torch.Generator) -> Tensor:
    """Orthonormal columns that span the products with so many vectors of random signs, [P, size]."""
    if QR_COPIES * size * op.size * torch.finfo(op.dtype).bits // 8 <= BASIS_BYTES:
        sketch = torch.cat([op.matvec(rademacher(op, count, generator)) for count in blocks(size, op)], 1)
        q: Tensor = torch.linalg.qr(sketch)[0]
        return q
    rows = torch.empty(size, op.size, dtype=op.dtype, device=op.device)
    found, largest = 0, 0.0
    for _ in range(size):
        product = op.matvec(rademacher(op, 1, generator)[:, 0])
        largest = max(largest, product.norm().item())
        _, length = orthogonalise(product, rows[:found])
        if length > breakdown(op) * largest:  # else A has no larger image
            rows[found] = product.div_(length)
            found += 1
    return rows[:found].T


class _Terms:
    """Mean over probes of sum_i d_i, where d = z * (A z) [P] of random signs z, and its standard error."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Tensor | None = None  # [P]; what is constant then leaves no rounding
        self.sum: Tensor | None = None  # of d - first, [P]
        self.squares = 0.0  # of d - first

    def add(self, terms: Tensor) -> None:
        """More of them, [P, count], which are written to."""
        if self.first is None or self.sum is None:
            self.first, self.sum = terms[:, 0].clone(), torch.zeros_like(terms[:, 0])
        moved = terms.sub_(self.first[:, None])  # in place: they are as large as the network, in float64
        self.count += terms.shape[1]
        self.sum += moved.sum(1)
        self.squares += moved.square_().sum().item()

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
