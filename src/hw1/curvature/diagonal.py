"""The diagonal of an operator: exactly, from random signs, and by XDiag."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hw1.curvature.estimate import check_probes
from hw1.curvature.lanczos import rademacher
from hw1.curvature.operators import Operator

COLUMNS = 32  # vectors at a time, at most
COLUMN_NUMBERS = 2**22  # and numbers in them


@dataclass(frozen=True)
class Diagonal:
    """An unbiased estimate of each entry.

    Attributes:
        values: [P], float64.
        standard_errors: of each entry, [P], itself estimated from the samples.
        products: operator-vector products spent.
    """

    values: Tensor
    standard_errors: Tensor
    products: int


def exact_diagonal(op: Operator) -> Tensor:
    """All of the diagonal, [P], by P products with unit vectors; an operator with a method `diagonal` gives its own.

    For small P: a net of 1,000 parameters takes the time of 1,000 products, in blocks.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> exact_diagonal(Dense(torch.tensor([[1.0, 5.0], [5.0, 2.0]])).damped(1)).tolist()
        [2.0, 3.0]
    """
    if callable(own := getattr(op, "diagonal", None)):
        given: Tensor = own()
        return given
    diagonal = torch.empty(op.size, dtype=op.dtype, device=op.device)
    first = 0
    for count in _blocks(op.size, op):
        own_rows = torch.arange(first, first + count, device=op.device)
        units = torch.zeros(op.size, count, dtype=op.dtype, device=op.device)
        units[own_rows, torch.arange(count, device=op.device)] = 1
        diagonal[own_rows] = op.matvec(units)[own_rows].diagonal()
        first += count
    return diagonal


def hutchinson_diagonal(op: Operator, *, probes: int = 100, generator: torch.Generator) -> Diagonal:
    """diag(A) = E[z * (A z)], entry by entry, over random signs z (Bekas, Kokiopoulou & Saad 2007): unbiased.

    The variance of entry i is sum_{j != i} A_ij^2 / probes.

    Args:
        op: the operator.
        probes: products spent, at least 2.
        generator: for the signs.

    Raises:
        ValueError: fewer than 2 probes.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> op = Dense(torch.diag(torch.tensor([1.0, -2.0, 4.0])))  # no error: the matrix is diagonal
        >>> hutchinson_diagonal(op, probes=2, generator=torch.Generator().manual_seed(0)).values.tolist()
        [1.0, -2.0, 4.0]
    """
    check_probes(probes)
    mean = torch.zeros(op.size, dtype=torch.float64, device=op.device)
    squares = torch.zeros_like(mean)
    seen = 0
    for count in _blocks(probes, op):
        z = rademacher(op, count, generator)  # [P, count]
        for sample in (z * op.matvec(z)).double().T:  # Welford 1962
            seen += 1
            distance = sample - mean
            mean += distance / seen
            squares += distance * (sample - mean)
    return Diagonal(mean, (squares / (probes - 1) / probes).sqrt(), probes)


def xdiag(op: Operator, *, products: int = 100, generator: torch.Generator) -> Diagonal:
    """XDiag (Epperly, Tropp & Webber 2024, section 4): the part in a subspace Q exactly, the rest from random signs.

    Half of the products, A W, finds Q; the other half takes diag(Q Q^T A). Each w_i samples what is left, in the
    subspace Q_i that the other w_j find: m = products / 2 estimates d_i, exchangeable, whose mean is the result. For a
    spectrum with few large eigenvalues, such as a trained network's, the error is far below Hutchinson's at equal cost;
    for a flat one, above.

    The standard errors are the spread of the d_i over sqrt(m), as that paper has it for the trace.

    Args:
        op: the operator.
        products: products spent, an even number of at least 4; from 2 P on, P of them with unit vectors give the
            diagonal itself. [P, products / 2] vectors are held, thrice.
        generator: for the signs.

    Raises:
        ValueError: fewer than 4 products, or an odd number.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> v = torch.arange(8.0).double()
        >>> op = Dense(torch.outer(v, v))  # rank one: no error but rounding
        >>> found = xdiag(op, products=6, generator=torch.Generator().manual_seed(0))
        >>> found.values.round(decimals=9).tolist(), bool(found.standard_errors.max() < 1e-9)
        ([0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0], True)
    """
    if products < 4 or products % 2:
        raise ValueError(f"products: got {products}, expected an even number of at least 4: half of them are samples")
    m = products // 2
    if m >= op.size:
        exact = exact_diagonal(op).double()
        return Diagonal(exact, torch.zeros_like(exact), op.size)
    signs = torch.cat([rademacher(op, count, generator) for count in _blocks(m, op)], 1)  # W [P, m]
    found = _times(op, signs).double()  # A W
    q, r = torch.linalg.qr(found)
    scale = r.abs().max()
    if r.diagonal().abs().min() <= op.size * torch.finfo(op.dtype).eps * scale:
        # The range of A has less than m dimensions: leaving out one w_i loses none of them.
        left, sizes, _ = torch.linalg.svd(found, full_matrices=False)
        q = left[:, sizes > op.size * torch.finfo(op.dtype).eps * sizes[0]]
        outside = signs.double() * (found - q @ (q.T @ found))
        inside = (q * _times(op, q.to(op.dtype)).double()).sum(1)
        return _mean(inside[:, None] + outside, products)
    images = _times(op, q.to(op.dtype)).double()  # A Q
    # Q_i Q_i^T = Q (I - s_i s_i^T) Q^T, where s_i is column i of R^-T over its length; A w_i = Q R e_i leaves
    # (I - Q_i Q_i^T) A w_i = Q s_i (s_i^T R e_i), and s_i^T R e_i = 1 / |R^-T e_i|.
    s = torch.linalg.solve_triangular(r.T, torch.eye(m, dtype=r.dtype, device=r.device), upper=False)
    lengths = s.norm(dim=0)  # |R^-T e_i|
    s = s / lengths
    directions = q @ s  # Q s_i, [P, m]
    inside = (q * images).sum(1)[:, None] - directions * (images @ s)
    return _mean(inside + signs.double() * directions / lengths, products)


def _mean(samples: Tensor, products: int) -> Diagonal:
    """Of m estimates of each entry, [P, m]."""
    return Diagonal(samples.mean(1), samples.std(1) / math.sqrt(samples.shape[1]), products)


def _times(op: Operator, vectors: Tensor) -> Tensor:
    """A V, [P, k], some columns at a time."""
    return torch.cat([op.matvec(part) for part in torch.split(vectors, _blocks(vectors.shape[1], op), dim=1)], 1)


def _blocks(count: int, op: Operator) -> list[int]:
    """`count` in parts that fit a block."""
    most = max(1, min(COLUMNS, COLUMN_NUMBERS // op.size))
    return [min(most, count - first) for first in range(0, count, most)]
