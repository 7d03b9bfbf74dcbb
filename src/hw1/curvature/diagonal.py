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
    return _exactly(op)[0]


def _exactly(op: Operator) -> tuple[Tensor, int]:
    """All of the diagonal, [P], and the products spent: none where the operator gives its own."""
    if callable(own := getattr(op, "diagonal", None)):
        return own(), 0
    diagonal = torch.empty(op.size, dtype=op.dtype, device=op.device)
    first = 0
    for count in _blocks(op.size, op):
        own_rows = torch.arange(first, first + count, device=op.device)
        units = torch.zeros(op.size, count, dtype=op.dtype, device=op.device)
        units[own_rows, torch.arange(count, device=op.device)] = 1
        diagonal[own_rows] = op.matvec(units)[own_rows].diagonal()
        first += count
    return diagonal, op.size


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
    """XDiag (Epperly, Tropp & Webber 2024): the part in a subspace Q exactly, the rest from random signs.

    Half of the products, A W, finds Q; the other half takes diag(Q Q^T A). Each w_i samples what is left, in the
    subspace Q_i that the other w_j find: m = products / 2 estimates d_i, exchangeable, whose mean is the result. For a
    spectrum with few large eigenvalues, such as a trained network's, the error is far below Hutchinson's at equal cost;
    for a flat one, above.

    The spread of the d_i over sqrt(m), the error that the paper states for the trace, leaves out that they share
    vectors: for a flat spectrum it is too small by sqrt(2). The standard errors here add the mean covariance of two d_i
    over all entries, measured, at most as much again; and are wider by sqrt((m - 1) / (m - 3)), Student's t, as m is
    small. On ten spectra, at 20 and 40 products, two of them cover 92 to 97% of the entries.

    Args:
        op: the operator.
        products: products spent, an even number of at least 8; from P on, P of them with unit vectors give the diagonal
            itself (none where the operator has it). Memory holds several times [P, products / 2] numbers.
        generator: for the signs.

    Raises:
        ValueError: fewer than 8 products, or an odd number.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> v = torch.arange(12.0).double()
        >>> op = Dense(torch.outer(v, v))  # rank one: no error but rounding
        >>> found = xdiag(op, products=8, generator=torch.Generator().manual_seed(0))
        >>> bool((found.values - v**2).abs().max() < 1e-9), bool(found.standard_errors.max() < 1e-9)
        (True, True)
    """
    if products < 8 or products % 2:
        raise ValueError(f"products: got {products}, expected an even number of at least 8: half of them are samples")
    m = products // 2
    if products >= op.size:
        exact, spent = _exactly(op)
        return Diagonal(exact.double(), torch.zeros_like(exact, dtype=torch.float64), spent)
    signs = torch.cat([rademacher(op, count, generator) for count in _blocks(m, op)], 1)  # W [P, m]
    found = _times(op, signs).double()  # A W
    q, r = torch.linalg.qr(found)
    rounding = 10 * m * torch.finfo(r.dtype).eps
    if r.diagonal().abs().min() <= rounding * r.abs().max():
        # The range of A has less than m dimensions: leaving out one w_i loses none of them.
        left, sizes, _ = torch.linalg.svd(found, full_matrices=False)
        q = left[:, : max(1, int((sizes > rounding * sizes[0]).sum()))]
        outside = signs.double() * (found - q @ (q.T @ found))
        inside = (q * _times(op, q.to(op.dtype)).double()).sum(1)
        return _mean(inside[:, None] + outside, products)
    images = _times(op, q.to(op.dtype)).double()  # A Q
    # Q_i Q_i^T = Q (I - s_i s_i^T) Q^T, where s_i is column i of R^-T over its length; A w_i = Q R e_i leaves
    # (I - Q_i Q_i^T) A w_i = Q s_i (s_i^T R e_i), and s_i^T R e_i = 1 / |R^-T e_i|.
    s = torch.linalg.solve_triangular(r.T, torch.eye(m, dtype=r.dtype, device=r.device), upper=False)
    lengths = s.norm(dim=0)  # |R^-T e_i|
    s = s / lengths
    rest = signs.double() / lengths  # w_i s_i^T R e_i
    directions, pushed = q @ s, images @ s  # Q s_i and A Q s_i, [P, m]
    samples = (q * images).sum(1)[:, None] - directions * (pushed - rest)
    estimate = _mean(samples, products)
    spread = estimate.standard_errors.square()
    together = _covariance(s.T @ s, directions, pushed, rest)
    share = (together.sum() / spread.sum().clamp_min(torch.finfo(torch.float64).tiny)).clamp(0, 1)
    return Diagonal(estimate.values, (spread * (1 + share) * (m - 1) / (m - 3)).sqrt(), products)


def _covariance(cosines: Tensor, directions: Tensor, pushed: Tensor, rest: Tensor) -> Tensor:
    """Mean covariance of two different d_i and d_j, [P]: E[(d_i - d_i^-j) (d_j - d_j^-i)].

    d_i^-j is the estimate without w_j in the subspace, unbiased whatever w_j is, and independent of d_j^-i but for what
    all others share; so these products of differences are all that is left of the covariance.
    """
    m = len(cosines)
    total = torch.zeros_like(directions[:, 0])
    for i in range(m - 1):
        one, others = slice(i, i + 1), slice(i + 1, m)
        g = cosines[i, others]
        scale = (1 - g.square()).clamp_min(torch.finfo(g.dtype).eps)
        d_i, d_j, e_i, e_j = directions[:, one], directions[:, others], pushed[:, one], pushed[:, others]
        first = (d_j - g * d_i) * (e_j - g * (e_i - rest[:, one]))  # d_i - d_i^-j, times `scale`
        second = (d_i - g * d_j) * (e_i - g * (e_j - rest[:, others]))
        total += (first * second / scale.square()).sum(1)
    return total / (m * (m - 1) / 2)


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
