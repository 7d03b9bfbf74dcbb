"""Trace of an operator from products with random signs."""

from __future__ import annotations

import torch

from hw1.curvature.estimate import Estimate, check_probes
from hw1.curvature.lanczos import rademacher
from hw1.curvature.operators import Operator

BLOCK = 16  # probes at a time, at most
BLOCK_NUMBERS = 2**22  # and numbers in a block: what a block saves, it saves in small networks


def hutchinson_trace(op: Operator, *, probes: int = 100, generator: torch.Generator) -> Estimate:
    """Trace of A = E[z^T A z] over random signs z (Hutchinson 1990): unbiased.

    Its error is sqrt(2 sum_{i != j} A_ij^2 / probes).

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
    samples = []
    for count in _blocks(probes, op):
        z = rademacher(op, count, generator)  # [P, count]
        samples.append((z * op.matvec(z)).double().sum(0))
    return Estimate.of(torch.cat(samples))


def hutchpp_trace(op: Operator, *, products: int = 99, generator: torch.Generator) -> Estimate:
    """Hutch++ (Meyer, Musco, Musco & Woodruff 2021, algorithm 1): tr(Q^T A Q) exactly, the rest by Hutchinson.

    A third of the products finds the subspace Q of large curvature, a third takes its trace, a third samples the rest.
    For a spectrum with few large eigenvalues, such as a trained network's, the error is far below Hutchinson's at
    equal cost. The standard error is that of the sampled rest, given Q.

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
    sketch = torch.cat([op.matvec(rademacher(op, count, generator)) for count in _blocks(third, op)], 1)
    q, _ = torch.linalg.qr(sketch)  # [P, third]
    exact = sum((part * op.matvec(part)).double().sum().item() for part in torch.split(q, _blocks(third, op), dim=1))
    samples = []
    for count in _blocks(products - 2 * third, op):
        z = rademacher(op, count, generator)
        z = z - q @ (q.T @ z)
        samples.append((z * op.matvec(z)).double().sum(0))
    rest = Estimate.of(torch.cat(samples))
    return Estimate(exact + rest.value, rest.standard_error)


def _blocks(count: int, op: Operator) -> list[int]:
    """`count` in parts that fit a block."""
    most = max(1, min(BLOCK, BLOCK_NUMBERS // op.size))
    return [min(most, count - first) for first in range(0, count, most)]
