"""Trace of an operator with every product used for both the subspace and the rest (XTrace)."""

from __future__ import annotations

import math

import torch
from scipy.special import ndtri, stdtrit
from torch import Tensor

from hw1.curvature.estimate import Estimate, precision_of
from hw1.curvature.operators import Operator
from hw1.curvature.trace import blocks

TWO_SIDED = 0.975  # a two-sided 95%
APART = 1e-8  # sin^2 of the angle from which on two directions are two: else A has no more rank than vectors


def xtrace(op: Operator, *, products: int = 60, generator: torch.Generator) -> Estimate:
    """XTrace (Epperly, Tropp & Webber 2024, section 2.1 and algorithm 2): the mean of n = products / 2 estimates.

    With test vectors w_1 ... w_n, estimate i takes the trace on Q_i, the range of all A w_j but A w_i, exactly, and
    the rest from w_i alone: tr(Q_i^T A Q_i) + u^T A u, where u is w_i without its part in Q_i, scaled to the expected
    length of a vector there (their section 2.3). All n share the 2 n products A W and A Q. Unbiased.

    Its error is below Hutch++'s at equal cost, most so with few products. Their error estimate is the scatter of the n
    estimates t_i over sqrt(n) (section 2.2), as if these were independent: 10 to 30% too small. The standard error
    here adds their covariance, and is widened by Student's t at n - 1 degrees, so that two of them cover 95%. Let t_ij
    be t_i with A w_j left out of Q_i as well. Each t_i is unbiased whatever the other vectors are, so
    cov(t_i, t_j) = E[(t_i - t_ij) (t_j - t_ji)], and these take no further product.

    Args:
        op: the operator.
        products: products spent, at least 4; an odd one is not spent.
        generator: for the test vectors, normal and scaled to length sqrt(P).

    Raises:
        ValueError: fewer than 4 products, or a product that is not finite.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> v = torch.arange(8.0).double()
        >>> op = Dense(torch.outer(v, v))  # rank one: no error but rounding
        >>> estimate = xtrace(op, products=6, generator=torch.Generator().manual_seed(0))
        >>> round(estimate.value, 9), estimate.standard_error < 1e-9
        (140.0, True)
    """
    if products < 4:
        raise ValueError(f"products: got {products}, expected at least 4: two for each estimate")
    n = min(products // 2, op.size)
    test = torch.randn(op.size, n, dtype=op.dtype, generator=generator, device=generator.device).to(op.device)
    test *= math.sqrt(op.size) / test.norm(dim=0)
    image = _product(op, test)  # Y = A W
    if not image.isfinite().all():
        raise ValueError("op: got a product that is not finite, expected finite ones: does the loss overflow?")
    q, r = torch.linalg.qr(image)  # [P, n], [n, n]
    image_of_q = _product(op, q)  # A Q
    within = (q.T @ image_of_q).double()  # [n, n]
    left_out = _left_out(r.double())  # s_i: Q_i Q_i^T = Q (I - s_i s_i^T) Q^T
    along = (q.T @ test).double()  # [n, n]
    kept = along - left_out * (left_out * along).sum(0)
    rest = test - q @ kept.to(q)  # u_i, [P, n]
    image_of_rest = image - image_of_q @ kept.to(q)
    lengths = rest.square().sum(0, dtype=torch.float64)
    forms = (rest * image_of_rest).sum(0, dtype=torch.float64)  # u_i^T A u_i
    curvatures = left_out.T @ within @ left_out  # s_i^T H s_j
    whole = within.trace()
    estimates = whole - curvatures.diagonal() + _per_length(forms, lengths, op.size - n + 1)  # t_i

    # t_ij takes from Q_i the part of s_j that is orthogonal to s_i, e = (s_j - g s_i) / sqrt(1 - g^2).
    angles = left_out.T @ left_out  # g, [n, n]
    sines = 1 - angles.square()
    apart = sines > APART
    sines = torch.where(apart, sines, 1.0)
    component = left_out.T @ along  # s_j^T w_i at [j, i]
    component = (component.T - angles * component.diagonal()[:, None]) / sines.sqrt()  # e^T w_i at [i, j]
    mixed = left_out.T @ (image_of_q.T @ rest).double()  # s_j^T Q^T A u_i at [j, i]
    mixed = (mixed.T - angles * mixed.diagonal()[:, None]) / sines.sqrt()
    own = curvatures.diagonal()
    taken = (own[None, :] - 2 * angles * curvatures + angles.square() * own[:, None]) / sines  # e^T H e
    forms_without = forms[:, None] + 2 * component * mixed + component.square() * taken
    lengths_without = lengths[:, None] + component.square()
    without = whole - own[:, None] - taken + _per_length(forms_without, lengths_without, op.size - n + 2)  # t_ij
    change = torch.where(apart, estimates[:, None] - without, 0.0)
    covariance = (change * change.T).sum().item() / max(1, n * (n - 1))
    if n == op.size:  # nothing is left to chance
        return Estimate(estimates.mean().item(), 0.0, precision=precision_of(op))
    scattered = Estimate.of(estimates)
    wider = float(stdtrit(n - 1, TWO_SIDED)) / float(ndtri(TWO_SIDED))
    error = wider * math.sqrt(scattered.standard_error**2 + max(0.0, covariance))
    return Estimate(scattered.value, error, precision=precision_of(op))


def _per_length(forms: Tensor, lengths: Tensor, dimension: int) -> Tensor:
    """Quadratic forms of vectors that are scaled to the expected squared length."""
    return torch.where(lengths > 0, forms * dimension / lengths, 0.0)


def _product(op: Operator, vectors: Tensor) -> Tensor:
    return torch.cat([op.matvec(part) for part in torch.split(vectors, blocks(vectors.shape[1], op), dim=1)], 1)


def _left_out(r: Tensor) -> Tensor:
    """Unit columns s_i [n, n] orthogonal to all columns of R but the i-th: those of R^-T."""
    n = len(r)
    # Where images depend on each other, leaving one out leaves the range as it is: s_i is then any direction that has
    # no image, and a diagonal at rounding finds one.
    least = (torch.finfo(r.dtype).eps * r.diagonal().abs().max()).clamp_min(torch.finfo(r.dtype).tiny ** 0.5)
    diagonal = r.diagonal()
    lifted = torch.where(diagonal.abs() < least, least, diagonal)
    r = r - torch.diag(diagonal) + torch.diag(lifted)
    inverse = torch.linalg.solve_triangular(r, torch.eye(n, dtype=r.dtype, device=r.device), upper=True)
    return torch.nn.functional.normalize(inverse.T, dim=0)
