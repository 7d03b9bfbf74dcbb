"""What a spectral density says: its curve, shares and moments, each with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hw1.curvature.estimate import Estimate, Share
from hw1.risk.precision_error import PrecisionError

ON_A_NODE = 1e-13  # of the largest node: a bound this near to a node is on it


@dataclass(frozen=True)
class LogDensity:
    """Density of log10|lambda| by sign, on a grid; the two areas and `below` sum to 1.

    Attributes:
        positive: of the eigenvalues > floor, [G].
        negative: of the eigenvalues < -floor, [G].
        below: share of |lambda| <= floor, which has no place on the grid.
        floor: in the unit of the eigenvalues.
    """

    positive: Tensor
    negative: Tensor
    below: Share
    floor: float


@dataclass(frozen=True)
class Density:
    """Spectral density by stochastic Lanczos quadrature: probe i's rule is sum_j weights[i, j] delta(nodes[i, j]).

    Attributes:
        nodes: Ritz values, [probes, steps], float64, ascending.
        weights: their weights, [probes, steps]; each row sums to 1. A row that ended early is filled with weight 0.
        size: P, the size of the operator.
        residuals: |A v - node v| of each node's Ritz vector v, with the sign of the product of v's first and last
            coordinate in the Lanczos basis, [probes, steps]; a row of zeros is exact. Without them `mass` knows its
            resolution less sharply.
        precision: as an `Estimate`'s.
    """

    nodes: Tensor
    weights: Tensor
    size: int
    residuals: Tensor | None = None
    precision: PrecisionError | None = field(default=None, repr=False, compare=False)

    def evaluate(self, grid: Tensor, sigma: float) -> Tensor:
        """The density on a grid [G], each node widened to a Gaussian of standard deviation sigma > 0; it sums to 1.

        Raises:
            ValueError: sigma is not positive.
        """
        check_width(sigma, "in the unit of the eigenvalues")
        return _smoothed(self.nodes, self.weights, grid, sigma)

    def logarithmic(self, grid: Tensor, sigma: float, floor: float) -> LogDensity:
        """The density of log10|lambda|, for each sign, on a grid [G] of log10|lambda|.

        Args:
            grid: in decades, [G].
            sigma: standard deviation of the Gaussian that each node becomes, in decades.
            floor: |lambda| up to which an eigenvalue counts as zero, > 0. Below about eps * max|lambda| nodes are
                rounding; the resolution of `below` says how well the steps tell what lies there.

        Raises:
            ValueError: the width or the floor is not positive.

        Example:
            >>> from hw1.curvature.lanczos import spectral_density
            >>> from hw1.curvature.operators import Dense
            >>> op = Dense(torch.diag(torch.tensor([100.0, 100.0, -0.01, 0.0]).double()))
            >>> density = spectral_density(op, probes=2, generator=torch.Generator().manual_seed(0))
            >>> log = density.logarithmic(torch.linspace(-4, 4, 801).double(), 0.1, floor=1e-8)
            >>> round(log.positive.sum().item() * 0.01, 4), round(log.negative.sum().item() * 0.01, 4)
            (0.5, 0.25)
            >>> round(log.below.value, 4)
            0.25
        """
        check_width(sigma, "in decades")
        if not 0 < floor < math.inf:
            raise ValueError(f"floor: got {floor}, expected a positive eigenvalue: give 1e-8 of the largest, say")
        places = self.nodes.abs().clamp_min(torch.finfo(torch.float64).tiny).log10()
        positive = _smoothed(places, self.weights * (self.nodes > floor), grid, sigma)  # [G]
        negative = _smoothed(places, self.weights * (self.nodes < -floor), grid, sigma)
        below = (self.weights * (self.nodes.abs() <= floor)).sum(1).mean().item()
        bounds = _between(self._below(-floor, closed=False), self._below(floor, closed=True))
        return LogDensity(positive, negative, self._share(below, *bounds), floor)

    def mass(self, lo: float, hi: float) -> Share:
        """Share of the spectrum in the closed interval [lo, hi].

        Its resolution is that of the quadrature: what moments up to 2 steps tell of a probe's mass below a bound lies
        between the sums of a rule that has a node there (Gauss-Radau), without and with that node's weight (the
        inequalities of Chebyshev, Markov and Stieltjes: Akhiezer 1965, theorem 2.5.4). The value is the middle. More
        steps make it finer; a bound in a gap of the spectrum has almost none.

        Its standard error is that of eigenvectors spread over all parameters, share (1 - share) 2 / (P probes). For
        random signs that is the most there can be.
        """
        if not lo <= hi:
            return self._share(0.0, 0.0, 0.0)
        before, until = self._below(lo, closed=False), self._below(hi, closed=True)
        middle = (until[0] + until[1] - before[0] - before[1]).mean().item() / 2
        return self._share(middle, *_between(before, until))

    def unresolved(self, x: float) -> Tensor:
        """The share of each probe of which its rule does not tell whether it lies below x, [probes].

        It is the weight that a node at x would have, in the rule of one more node.

        Raises:
            ValueError: a density without residuals.
        """
        if self.residuals is None:
            raise ValueError(
                "residuals: got none, expected those of spectral_density: keep them with nodes and weights"
            )
        last = self.residuals / _gaps(self.nodes, x)
        return (self.weights.sqrt() * last).sum(1).square() / (1 + last.square().sum(1))

    def moment(self, n: int) -> Estimate:
        """tr(A^n) / P; exact quadrature up to n = 2 steps - 1, and unbiased.

        The standard error is that of eigenvectors spread over all parameters, sqrt(2 var(lambda^n) / (P probes)), with
        the variance over the estimated spectrum. For random signs that is the most there can be. Few samples of a
        spectrum with an outlier measure it far better than their scatter does; from n = steps on the rules do not hold
        the variance, and the larger of the two is taken.
        """
        powers = self.nodes**n
        samples = Estimate.of((self.weights * powers).sum(1))
        variance = (self.weights * (powers - samples.value).square()).sum(1).mean().item()
        error = math.sqrt(2 * variance / (self.size * len(self.nodes)))
        if n >= self.nodes.shape[1] < self.size:
            error = max(error, samples.standard_error)
        return Estimate(samples.value, error)

    def _share(self, value: float, lower: float, upper: float) -> Share:
        # What is known exactly is rounded like its bounds.
        value = min(max(value, lower), upper) if math.isfinite(value) else value
        return Share(value, len(self.nodes) * self.size / 2, max(upper - value, value - lower, 0.0))

    def _below(self, x: float, *, closed: bool) -> tuple[Tensor, Tensor]:
        """Least and largest mass of each probe below x, [probes]; `closed` counts what lies at x where it is known."""
        under = self.nodes <= x if closed else self.nodes < x
        gauss = (self.weights * under).sum(1)
        if math.isinf(x) or not self.nodes.isfinite().all():
            return gauss, gauss
        if self.residuals is None:  # Gauss' own nodes beside x
            count = under.sum(1, keepdim=True)  # [probes, 1]
            padded = torch.nn.functional.pad(self.weights, (1, 1))
            exact = (self.weights == 0).any(1) | (self.weights.shape[1] == self.size)
            beside = [padded.gather(1, count + step)[:, 0].masked_fill(exact, 0.0) for step in (0, 1)]
            return gauss - beside[0], gauss + beside[1]
        least, most = gauss.clone(), gauss.clone()
        open_ends = self.residuals.any(1)
        if open_ends.any():
            rows = self.nodes[open_ends], self.weights[open_ends], self.residuals[open_ends]
            least[open_ends], most[open_ends] = _radau(*rows, x)
        return least, most


def _radau(nodes: Tensor, weights: Tensor, residuals: Tensor, x: float) -> tuple[Tensor, Tensor]:
    """Mass below a node at x, and with it, of the rules of one more node that have one there: [n] each.

    In the Ritz basis the Jacobi matrix of one more step is an arrow, diag(nodes) bordered by the residuals; its corner
    is chosen so that x is an eigenvalue (Golub & Meurant 2010, section 6.2).
    """
    gaps = _gaps(nodes, x)
    arrow = torch.diag_embed(torch.cat([nodes, x + (residuals.square() / gaps).sum(1, keepdim=True)], 1))
    arrow[:, -1, :-1] = arrow[:, :-1, -1] = residuals
    vectors = torch.linalg.eigh(arrow).eigenvectors  # [n, steps + 1, steps + 1]
    shares = torch.einsum("nj,njk->nk", weights.sqrt(), vectors[:, :-1]).square()
    sums = torch.nn.functional.pad(shares.cumsum(1), (1, 0))  # [n, steps + 2]
    at = (gaps < 0).sum(1, keepdim=True)  # nodes of the arrow separate the old ones
    return sums.gather(1, at)[:, 0], sums.gather(1, at + 1)[:, 0]


def _gaps(nodes: Tensor, x: float) -> Tensor:
    """Nodes - x, [n, steps], none of them zero."""
    least = ON_A_NODE * nodes.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny ** 0.5)
    return torch.where((nodes - x).abs() < least, least, nodes - x)


def _between(before: tuple[Tensor, Tensor], until: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Least and largest mass between two bounds, the mean over probes of what lies below them at least and at most."""
    least, most = (until[0] - before[1]).clamp_min(0.0), (until[1] - before[0]).clamp(0.0, 1.0)
    return least.mean().item(), most.mean().item()


def _smoothed(places: Tensor, weights: Tensor, grid: Tensor, sigma: float) -> Tensor:
    """Mean over probes of weighted Gaussians at places [probes, steps], on the grid [G]."""
    z = (grid.to(places)[:, None] - places.reshape(-1)) / sigma  # [G, probes * steps]
    bumps = torch.exp(-0.5 * z.square()) / (sigma * math.sqrt(2 * math.pi))
    return bumps @ weights.reshape(-1) / len(places)


def check_width(sigma: float, unit: str) -> None:
    """Refuse a width that is not positive.

    Raises:
        ValueError: it is not.
    """
    if not sigma > 0:
        raise ValueError(f"sigma: got {sigma}, expected a positive width, {unit}: give one above 0")
