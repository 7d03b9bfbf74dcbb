"""Lanczos with full reorthogonalisation: extreme eigenpairs, and the spectral density by quadrature.

One file for both, longer than others: they share the orthogonalisation, its breakdown and their start vectors.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hw1.curvature.estimate import Estimate, check_probes
from hw1.curvature.operators import Operator

Which = Literal["largest", "smallest", "both"]
BASIS_BYTES = 2**29  # the basis may take 512 MiB; more vectors mean fewer restarts
SLICE = 2**20  # columns of the basis rotated at a time
MIXED = 1.0  # length of the random vector that is added to a start vector of length 1


@dataclass(frozen=True)
class Eigenpairs:
    """k approximate eigenpairs.

    Attributes:
        values: [k], float64; the largest first (the most negative first for "smallest").
        vectors: [P, k], orthonormal columns.
        residuals: |A v - value v| of each pair, [k], measured with one more product. An eigenvalue of A lies within
            this distance of the value (Parlett 1998, theorem 4.5.1).
        products: number of operator-vector products spent.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int


@dataclass(frozen=True)
class Density:
    """Spectral density by stochastic Lanczos quadrature: probe i's rule is sum_j weights[i, j] delta(nodes[i, j]).

    Attributes:
        nodes: Ritz values, [probes, steps], float64.
        weights: their weights, [probes, steps]; each row sums to 1. A row that ended early is filled with weight 0.
        size: P, the size of the operator.
    """

    nodes: Tensor
    weights: Tensor
    size: int

    def evaluate(self, grid: Tensor, sigma: float) -> Tensor:
        """The density on a grid [G], each node widened to a Gaussian of standard deviation sigma > 0; it sums to 1.

        Raises:
            ValueError: sigma is not positive.
        """
        if not sigma > 0:
            raise ValueError(f"sigma: got {sigma}, expected a positive width, in the unit of the eigenvalues")
        z = (grid.to(self.nodes)[:, None] - self.nodes.reshape(-1)) / sigma  # [G, probes * steps]
        bumps = torch.exp(-0.5 * z.square()) / (sigma * math.sqrt(2 * math.pi))
        return bumps @ self.weights.reshape(-1) / len(self.nodes)

    def mass(self, lo: float, hi: float) -> Estimate:
        """Share of the spectrum in the closed interval [lo, hi], with its standard error over probes.

        The error does not cover the quadrature's own resolution: a node's weight falls on one side of a bound that
        cuts through an unresolved cluster.
        """
        inside = (self.nodes >= lo) & (self.nodes <= hi)
        return Estimate.of((self.weights * inside).sum(1))

    def moment(self, n: int) -> Estimate:
        """tr(A^n) / P, with its standard error over probes; exact quadrature up to n = 2 steps - 1."""
        return Estimate.of((self.weights * self.nodes**n).sum(1))


def extreme_eigenpairs(
    op: Operator,
    k: int,
    which: Which = "largest",
    *,
    tol: float = 1e-4,
    generator: torch.Generator,
    start: Tensor | None = None,
    basis_size: int | None = None,
    max_products: int | None = None,
) -> Eigenpairs:
    """The k eigenpairs at the ends of a symmetric operator's spectrum, to a given residual.

    Lanczos with full reorthogonalisation (twice: Parlett 1998, section 6.9) and thick restarts (Wu & Simon 2000). One
    start vector meets only one eigenvector of a repeated eigenvalue, so for k > 1 the search goes on from fresh random
    directions until one of them adds nothing to the k.

    Args:
        op: the operator.
        k: number of pairs.
        which: "largest" or "smallest" by value (not by magnitude), or "both": ceil(k/2) largest, floor(k/2) smallest.
        tol: stop when every residual is at most tol * max|lambda|. A value's error is of the order of the residual's
            square over the gap to the next one.
        generator: for the start vector.
        start: a vector [P] to begin with, such as the eigenvector of a network a few steps ago. A random vector as long
            is added: where two eigenvalues have changed places, the old vector would else hide the new one. On four
            kinds of spectra, a start near the eigenvector saved 20% (tol = 1e-4) to 45% (1e-2) of the products; one at
            the exact second eigenvector, the worst there is, hid the first in 2 to 5% of the searches.
        basis_size: vectors kept before a restart; unless said, as many as fit 512 MiB, between 2 k + 10 and 300.
        max_products: give up after so many; unless said, 1,000 + 20 k.

    Returns:
        The pairs, with measured residuals. If they stay above the tolerance (too few products, or rounding in float32),
        a warning says so.

    Raises:
        ValueError: k is below 1 or above P, `which` is unknown, `start` is not a finite vector [P] other than zero, or
            a product is not finite.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> op = Dense(torch.diag(torch.tensor([3.0, 3.0, -1.0, 0.5]).double()))
        >>> pairs = extreme_eigenpairs(op, 2, generator=torch.Generator().manual_seed(0))
        >>> pairs.values.round(decimals=6).tolist()
        [3.0, 3.0]
    """
    if not 1 <= k <= op.size:
        raise ValueError(f"k: got {k}, expected 1 to {op.size}, the size of the operator: ask for fewer")
    if which not in ("largest", "smallest", "both"):
        raise ValueError(f"which: got {which!r}, expected largest, smallest or both")
    top, bottom = {"largest": (k, 0), "smallest": (0, k), "both": (k - k // 2, k // 2)}[which]
    if start is not None and (start.shape != (op.size,) or not start.isfinite().all() or not start.any()):
        raise ValueError(
            f"start: got shape {list(start.shape)}, expected a finite vector [{op.size}] other than zero: leave it out"
        )
    if basis_size is None:
        bytes_each = op.size * torch.finfo(op.dtype).bits // 8
        basis_size = max(2 * k + 10, min(300, BASIS_BYTES // bytes_each))
    basis_size = min(op.size, max(basis_size, 2 * k + 10))
    budget = 1000 + 20 * k if max_products is None else max_products

    search = _Search(op, basis_size, generator, start)
    before: Tensor | None = (
        None  # the wanted values when the search last went on from a fresh direction, and since when
    )
    since = 0
    # A random vector meets an outlier with 1/sqrt(P) of its length: so many steps make it stand out (Kuczynski &
    # Wozniakowski 1992: the error falls with m / ln P).
    least = math.ceil(math.log(op.size)) + 3
    while search.products < budget:
        search.step()
        complete = search.count == op.size
        if search.count < k or not (complete or search.worth_a_look()):
            continue
        values, vectors, residuals = search.ritz()
        wanted = _ends(len(values), top, bottom)
        slack = tol * values.abs().max().item()
        if complete:
            break
        # Residuals that a fresh direction leaves behind add up, in squares: a quarter leaves room for 15 of them.
        if residuals[wanted].max().item() <= slack / (1 if k == 1 else 4):
            if k == 1:
                break
            if before is None:
                before, since = values[wanted], search.products
                search.restart(vectors[:, wanted], before, fresh=True)
                continue
            if search.products - since >= least and _nothing_else(values, residuals, top, bottom, slack):
                if (values[wanted] - before).abs().max().item() <= slack:
                    break
                before, since = values[wanted], search.products
                search.restart(vectors[:, wanted], before, fresh=True)
                continue
        if search.count == basis_size:  # keep half again as many as wanted, at the same ends
            more = [count + count // 2 + 3 if count else 0 for count in (top, bottom)]
            keep = _ends(len(values), *more)
            search.restart(vectors[:, keep], values[keep], fresh=False)
    values, vectors, _ = search.ritz()
    wanted = _ends(len(values), top, bottom)
    if which == "smallest":
        wanted = wanted.flip(0)
    found = values[wanted]
    search.restart(vectors[:, wanted], found, fresh=False)
    basis = search.basis[: len(wanted)].clone()  # [k, P]; the other directions are not needed any more
    search.basis = basis
    residuals = torch.tensor(
        [(op.matvec(v) - value * v).norm().item() for v, value in zip(basis, found.tolist(), strict=True)]
    ).double()
    scale = values.abs().max().item()
    if residuals.max().item() > tol * scale:
        warnings.warn(
            f"the largest residual is {residuals.max().item() / max(scale, 1e-300):.1e} of max|lambda|, above "
            f"tol = {tol:.1e}, after {search.products} products: allow more (max_products), a larger basis_size, or "
            "take theta in float64",
            stacklevel=2,
        )
    return Eigenpairs(found, basis.T, residuals, search.products + k)


def _ends(count: int, top: int, bottom: int) -> Tensor:
    """Positions of the `top` last and the `bottom` first of `count` ascending values, the largest first."""
    top = min(top, count)
    bottom = min(bottom, count - top)
    return torch.cat([torch.arange(count - 1, count - 1 - top, -1), torch.arange(bottom - 1, -1, -1)])


def _nothing_else(values: Tensor, residuals: Tensor, top: int, bottom: int, slack: float) -> bool:
    """Whether the next Ritz pair behind each wanted end is known well enough to stay there: to a tenth of its gap."""
    count = len(values)
    if count <= top + bottom:
        return False
    pairs = [(count - top, count - top - 1)] if top else []
    pairs += [(bottom - 1, bottom)] if bottom else []
    return all(
        residuals[behind].item() <= max(slack, 0.1 * abs((values[last] - values[behind]).item()))
        for last, behind in pairs
    )


class _Search:
    """Rayleigh-Ritz on a growing orthonormal basis Q [m, P]: projected = Q A Q^T [m, m].

    The projected matrix is filled with the coefficients of the orthogonalisation itself, so that it stays right after a
    restart (Ritz vectors as basis) and after a fresh direction, where it is no longer tridiagonal.
    """

    def __init__(self, op: Operator, basis_size: int, generator: torch.Generator, start: Tensor | None) -> None:
        self.op = op
        self.generator = generator
        self.basis = torch.empty(basis_size + 1, op.size, dtype=op.dtype, device=op.device)  # last: the next direction
        self.projected = torch.zeros(basis_size, basis_size, dtype=torch.float64)
        self.count = 0  # m, directions whose product is known
        self.beta = 0.0  # length of the part of the last product outside the basis
        self.products = 0
        self.scale = 0.0
        self._fresh_direction(0)
        if start is not None:
            vector = start.detach().to(self.basis)
            vector = vector / vector.norm() + MIXED * self.basis[0]
            self.basis[0] = vector / vector.norm()

    def step(self) -> None:
        """One product; the basis grows by one direction."""
        m = self.count
        product = self.op.matvec(self.basis[m])
        self.products += 1
        inside, self.beta = _orthogonalise(product, self.basis[: m + 1])
        if not math.isfinite(self.beta):
            raise ValueError("op: got a product that is not finite, expected finite ones: does the loss overflow?")
        self.projected[m, : m + 1] = self.projected[: m + 1, m] = inside.double().cpu()
        self.scale = max(self.scale, self.beta, self.projected[m, : m + 1].norm().item())
        self.count = m + 1
        if self.beta > _breakdown(self.op) * self.scale:
            self.basis[m + 1] = product / self.beta
        else:  # an invariant subspace: what is outside is met only from a new direction
            self.beta = 0.0
            self._fresh_direction(m + 1)

    def worth_a_look(self) -> bool:
        """Whether to solve the small problem now: always while it is small, or before a restart."""
        return self.count % max(1, self.count // 16) == 0 or self.count == len(self.projected)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values [m] ascending, their coordinates in the basis [m, m], and residuals [m]."""
        m = self.count
        values, vectors = torch.linalg.eigh(self.projected[:m, :m])
        return values, vectors, self.beta * vectors[-1].abs()

    def restart(self, vectors: Tensor, values: Tensor, *, fresh: bool) -> None:
        """Keep the Ritz vectors with these coordinates [m, r]; go on from the residual, or from a fresh direction."""
        m, kept = vectors.shape
        following = self.basis[m].clone()
        rotation = vectors.T.to(self.basis)
        for first in range(0, self.op.size, SLICE):  # in place
            last = first + SLICE
            self.basis[:kept, first:last] = rotation @ self.basis[:m, first:last]
        self.projected.zero_()
        self.projected[:kept, :kept] = torch.diag(values)
        self.count = kept
        if fresh:
            self._fresh_direction(kept)
        else:
            self.basis[kept] = following

    def _fresh_direction(self, m: int) -> None:
        """A random unit vector orthogonal to the first m, as number m."""
        if m >= self.op.size:
            return  # they span the space
        vector = _gaussian(self.op, self.generator)
        _, length = _orthogonalise(vector, self.basis[:m])
        self.basis[m] = vector / length


def _orthogonalise(vector: Tensor, basis: Tensor) -> tuple[Tensor, float]:
    """Take the basis [m, P] out of vector [P], in place, twice; its coefficients [m] and the length that is left."""
    total = torch.zeros(len(basis), dtype=vector.dtype, device=vector.device)
    for _ in range(2):
        coefficients = basis @ vector
        vector.sub_(basis.T @ coefficients)
        total += coefficients
    return total, vector.norm().item()


def _breakdown(op: Operator) -> float:
    """What is left of a product, relative to the largest, that is rounding."""
    return 10 * torch.finfo(op.dtype).eps


def _gaussian(op: Operator, generator: torch.Generator) -> Tensor:
    vector = torch.randn(op.size, dtype=op.dtype, generator=generator, device=generator.device)
    return vector.to(op.device)


def rademacher(op: Operator, count: int, generator: torch.Generator) -> Tensor:
    """Random signs, [P, count], in the operator's dtype and on its device."""
    signs = torch.randint(0, 2, (op.size, count), generator=generator, device=generator.device, dtype=torch.int8)
    return (2 * signs - 1).to(op.device, op.dtype)


def spectral_density(op: Operator, *, probes: int = 10, steps: int = 80, generator: torch.Generator) -> Density:
    """Density of the eigenvalues by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017; Ghorbani et al. 2019).

    Each probe is a vector of random signs over sqrt(P); its Lanczos matrix's eigenvalues are the nodes, the squared
    first components of the eigenvectors the weights. Moments up to 2 steps - 1 are unbiased.

    Args:
        op: the operator.
        probes: independent start vectors, at least 2; errors fall as 1/sqrt(probes).
        steps: Lanczos steps a probe (at most P are taken); 80 to 90 resolve the densities of Ghorbani et al. 2019.
        generator: for the probes.

    Raises:
        ValueError: fewer than 2 probes, fewer than 1 step, or a product that is not finite.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> op = Dense(torch.diag(torch.tensor([1.0, 1.0, 1.0, 5.0]).double()))
        >>> density = spectral_density(op, probes=3, steps=4, generator=torch.Generator().manual_seed(0))
        >>> round(density.moment(1).value, 6), round(density.mass(4, 6).value, 6)
        (2.0, 0.25)
    """
    check_probes(probes)
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1")
    steps = min(steps, op.size)
    nodes, weights = torch.zeros(2, probes, steps, dtype=torch.float64)
    basis = torch.empty(steps, op.size, dtype=op.dtype, device=op.device)
    for probe in range(probes):
        values, shares = _quadrature(op, rademacher(op, 1, generator)[:, 0], basis)
        nodes[probe] = values[-1]  # filled up at the largest node, with weight 0
        nodes[probe, : len(values)], weights[probe, : len(values)] = values, shares
    return Density(nodes, weights, op.size)


def _quadrature(op: Operator, start: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights [m] of one start vector [P]; m = len(basis), or less where its Krylov space ends."""
    diagonal: list[float] = []
    beside: list[float] = []
    scale = 0.0
    direction = start / start.norm()
    for m in range(len(basis)):
        basis[m] = direction
        product = op.matvec(direction).clone()
        coefficients, beta = _orthogonalise(product, basis[: m + 1])
        if not math.isfinite(beta):
            raise ValueError("op: got a product that is not finite, expected finite ones: does the loss overflow?")
        diagonal.append(coefficients[m].item())
        scale = max(scale, beta, abs(diagonal[-1]))
        if beta <= _breakdown(op) * scale:
            break
        beside.append(beta)
        direction = product / beta
    m = len(diagonal)
    beside = beside[: m - 1]
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix += torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors[0].square()
