"""Minimal ratio: the share of directions in which a critical point is a minimum. Two estimators, never merged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hw1.curvature.density import Density
from hw1.curvature.estimate import Share
from hw1.curvature.lanczos import density_until
from hw1.curvature.operators import GaussNewton, Operator

LADDER = (1e-12, 1e-9, 1e-6, 1e-3, 1e-2)
NEIGHBOURS_AT_A_TIME = 100
CRITICAL = 1e-6  # |g| from which on a point is not critical


@dataclass(frozen=True)
class Ratio:
    """Shares of the eigenvalues by sign; they sum to 1.

    Attributes:
        positive: share > tolerance: the minimal ratio.
        zero: share within +- tolerance.
        negative: share < -tolerance: the index (Dauphin et al. 2014; Pennington & Bahri 2017).
        tolerance: in the unit of the eigenvalues.
        critical: whether |g| < 1e-6; shares at other points are labelled "not critical".
    """

    positive: float
    zero: float
    negative: float
    tolerance: float
    critical: bool = True


@dataclass(frozen=True)
class EstimatedRatio:
    """The same shares, estimated, each with its standard error and the quadrature's resolution (`Density.mass`)."""

    positive: Share
    zero: Share
    negative: Share
    tolerance: float


def minimal_ratio(eigenvalues: Tensor, gradient_norm: float = 0.0, *, c: float = 1.0) -> Ratio:
    """Shares of positive, zero and negative eigenvalues at tolerance max(10 P eps max|lambda|, c |g|).

    The first term is the rounding of a symmetric eigensolver; the second is there because away from a critical point
    ReLU rescaling gives every hidden unit an eigenvalue of order |g| and random sign.

    Args:
        eigenvalues: all of the Hessian's, [P]; eps is that of their dtype.
        gradient_norm: |g| at the point, of the same loss.
        c: eigenvalue that a gradient of norm 1 makes uncertain; 1 takes the weights to be of order 1.

    Raises:
        ValueError: no eigenvalues, some that are not finite, or a negative |g| or c.

    Example:
        >>> minimal_ratio(torch.tensor([2.0, 1e-20, -1.0, 3.0]).double()).positive
        0.5
    """
    _check(eigenvalues)
    if not 0 <= gradient_norm < math.inf:
        raise ValueError(f"gradient_norm: got {gradient_norm}, expected a finite number of at least 0")
    if not 0 <= c < math.inf:
        raise ValueError(f"c: got {c}, expected a finite number of at least 0")
    eps = torch.finfo(eigenvalues.dtype).eps
    rounding = 10 * len(eigenvalues) * eps * eigenvalues.abs().max().item()
    return _shares(eigenvalues, max(rounding, c * gradient_norm), gradient_norm < CRITICAL)


def ladder(eigenvalues: Tensor) -> tuple[Ratio, ...]:
    """The shares at tolerance / max|lambda| = 1e-12, 1e-9, 1e-6, 1e-3, 1e-2: how much the tolerance decides.

    Args:
        eigenvalues: [P].

    Raises:
        ValueError: no eigenvalues, or some that are not finite.

    Example:
        >>> [ratio.positive for ratio in ladder(torch.tensor([1.0, 1e-4, 1e-7, -1.0]).double())]
        [0.75, 0.75, 0.5, 0.25, 0.25]
    """
    _check(eigenvalues)
    largest = eigenvalues.abs().max().item()
    return tuple(_shares(eigenvalues, step * largest, True) for step in LADDER)


def quadrature_ratio(
    op: Operator,
    *,
    probes: int = 10,
    steps: int = 80,
    generator: torch.Generator,
    tolerances: tuple[float, ...] = (1e-1, 1e-2, 1e-3),
    most_steps: int | None = None,
) -> tuple[EstimatedRatio, ...]:
    """The shares by stochastic Lanczos quadrature, where P is too large for all eigenvalues.

    Args:
        op: the Hessian.
        probes: start vectors, at least 2.
        steps: Lanczos steps a probe, at least. It goes on until what they leave unresolved at every tolerance, the
            shares' `resolution`, is half a standard error.
        generator: for the start vectors.
        tolerances: tau / max|lambda|, with max|lambda| the largest node.
        most_steps: a probe's steps at most; unless said, 4 * steps. `steps` makes the cost known beforehand.

    Raises:
        ValueError: a Gauss-Newton operator, which hides negative curvature; or too few probes or steps.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> op = Dense(torch.diag(torch.tensor([1.0, 1.0, -1.0]).double()))
        >>> ratio = quadrature_ratio(op, probes=2, generator=torch.Generator().manual_seed(0))[0]
        >>> round(ratio.positive.value, 6), round(ratio.negative.value, 6)
        (0.666667, 0.333333)
    """
    refuse_gauss_newton(op)

    def shares(density: Density, tau: float) -> tuple[Share, Share, Share]:
        above = math.nextafter(tau, math.inf)  # what lies at the tolerance is zero
        return density.mass(above, math.inf), density.mass(-tau, tau), density.mass(-math.inf, -above)

    def enough(rule: Density) -> bool:
        """Whether one probe's rule is fine enough: a bound's half on either side, beside the error of all probes."""
        largest = rule.nodes.abs().max().item()
        for tau in (step * largest for step in tolerances):
            above, below = (rule.unresolved(side * tau).item() / 2 for side in (1, -1))
            masks = (rule.nodes > tau, above), (rule.nodes.abs() <= tau, above + below), (rule.nodes < -tau, below)
            for mask, blur in masks:
                share = Share((rule.weights * mask).sum().item(), op.size * probes / 2)
                if blur > 0.5 * share.standard_error:
                    return False
        return True

    most = 4 * steps if most_steps is None else most_steps
    density = density_until(op, enough, probes=probes, steps=steps, most_steps=most, generator=generator)
    largest = density.nodes.abs().max().item()
    return tuple(EstimatedRatio(*shares(density, step * largest), step * largest) for step in tolerances)


def sampled_ratio(
    risk: Callable[[Tensor], Tensor], theta: Tensor, radius: float, samples: int, generator: torch.Generator
) -> Share:
    """Share of neighbours with a higher loss, among points drawn uniformly on the sphere around theta.

    Not the share of positive eigenvalues: diag(1, 1, -1) has 2/3 of those, and 1/sqrt 2 of its neighbours are higher.
    A neighbour at exactly the same loss is not higher; below about sqrt(eps |R| / max|lambda|) the radius is too small
    for the dtype, so prefer float64.

    Args:
        risk: thetas [k, P] -> losses [k]; `batched(risk)` of an `EmpiricalRisk`.
        theta: [P].
        radius: distance of the neighbours, > 0.
        samples: number of neighbours, at least 1.
        generator: for the directions.

    Returns:
        The share, with the binomial standard error and interval.

    Raises:
        ValueError: the radius or the number of samples is not positive.

    Example:
        >>> saddle = lambda x: x[:, 0] ** 2 + x[:, 1] ** 2 - x[:, 2] ** 2
        >>> share = sampled_ratio(saddle, torch.zeros(3), 0.1, 2000, torch.Generator().manual_seed(0))
        >>> abs(share.value - 0.5**0.5) < 3 * share.standard_error
        True
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius: got {radius}, expected a positive number")
    if samples < 1:
        raise ValueError(f"samples: got {samples}, expected at least 1")
    center = risk(theta[None])
    higher = 0
    for done in range(0, samples, NEIGHBOURS_AT_A_TIME):
        shape = min(NEIGHBOURS_AT_A_TIME, samples - done), len(theta)
        directions = torch.randn(shape, dtype=torch.float64, generator=generator, device=generator.device)
        steps = directions * (radius / directions.norm(dim=1, keepdim=True))
        higher += int((risk(theta + steps.to(theta)) > center).sum())
    return Share(higher / samples, samples)


def refuse_gauss_newton(op: Operator) -> None:
    """Refuse a Gauss-Newton operator where signs of eigenvalues are counted.

    Raises:
        ValueError: `op` is one.
    """
    if isinstance(op, GaussNewton):
        raise ValueError(
            "op: got a Gauss-Newton operator, expected a Hessian: Gauss-Newton is positive semidefinite, so its shares "
            "say nothing about minima; use Hessian(risk, theta)"
        )


def _check(eigenvalues: Tensor) -> None:
    if eigenvalues.ndim != 1 or len(eigenvalues) == 0 or not eigenvalues.is_floating_point():
        raise ValueError(
            f"eigenvalues: got {eigenvalues.dtype} of shape {list(eigenvalues.shape)}, expected all eigenvalues, "
            "floating point [P]: use spectrum(matrix)"
        )
    if not eigenvalues.isfinite().all():
        raise ValueError("eigenvalues: got some that are not finite, expected finite ones")


def _shares(eigenvalues: Tensor, tolerance: float, critical: bool) -> Ratio:
    count = len(eigenvalues)
    positive, negative = int((eigenvalues > tolerance).sum()), int((eigenvalues < -tolerance).sum())
    zero = count - positive - negative
    return Ratio(positive / count, zero / count, negative / count, tolerance, critical)
