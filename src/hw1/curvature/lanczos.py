"""Lanczos with full reorthogonalisation: extreme eigenpairs, and the spectral density by quadrature.

One file for both, longer than others: they share the orthogonalisation, its breakdown and their start vectors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hw1.curvature.checkpoint import Checkpoint, Keeper, Progress, State, digest, expect, restore, tensor_of
from hw1.curvature.density import Density
from hw1.curvature.estimate import check_probes, precision_of
from hw1.curvature.operators import Operator
from hw1.risk.precision_error import PrecisionError

Which = Literal["largest", "smallest", "both"]
BASIS_BYTES = 2**29  # the basis may take 512 MiB; more vectors mean fewer restarts
SLICE = 2**20  # columns of the basis rotated at a time
MIXED = 1.0  # length of the random vector that is added to a start vector of length 1
HIDDEN = 0.05  # probability that a random start hid an eigenvalue at three times the tolerance, at most,
LOOK = 1.2  # growth of a rule from one look at whether it is fine enough to the next
APART = 0.03  # of max|lambda|, or at so much: a residual below it takes steps enough to see what is nearer
ROUNDED = 100  # eps times max|lambda|: a residual below it is measured with a product of its own


@dataclass(frozen=True)
class Eigenpairs:
    """k approximate eigenpairs.

    Attributes:
        values: [k], float64; the largest first (the most negative first for "smallest").
        vectors: [P, k], orthonormal columns.
        residuals: |A v - value v| of each pair, [k]: from the products of the search where these still tell, well above
            rounding; else measured with one more. An eigenvalue of A lies within this distance of the value (Parlett
            1998, theorem 4.5.1).
        products: number of operator-vector products spent.
        precision: as an `Estimate`'s.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    precision: PrecisionError | None = field(default=None, repr=False, compare=False)


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
    checkpoint: Checkpoint | Path | str | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Eigenpairs:
    """The k eigenpairs at the ends of a symmetric operator's spectrum, to a given residual.

    Lanczos with full reorthogonalisation (twice: Parlett 1998, section 6.9) and thick restarts (Wu & Simon 2000). One
    start vector meets only one eigenvector of a repeated eigenvalue, so for k > 1 the search goes on from fresh random
    directions until one of them adds nothing to the k. For k = 1 it goes on until an unseen eigenvalue beyond the
    value, by three times the tolerance and 3% of max|lambda|, would take a start vector as unfit as one in twenty.

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
        max_products: give up after so many, at least k; unless said, 1,000 + 20 k.
        checkpoint: a file, or a `Checkpoint`, from which the same call goes on where it was stopped, to the same bits;
            it is written now and then, and when an exception or Ctrl-C ends the call. One product more, at the
            beginning of each call, tells whether the operator is the same; it is not counted.
        progress: called after each product; what it raises stops the search.

    Returns:
        The pairs, with measured residuals. If they stay above the tolerance (too few products, or rounding in float32),
        a warning says so.

    Raises:
        ValueError: k is below 1 or above P, `which` is unknown, `start` is not a finite vector [P] other than zero,
            fewer than k products are allowed, a product is not finite, or the checkpoint is of something else.

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
    if budget < k:
        raise ValueError(f"max_products: got {budget}, expected at least {k}, the number of pairs")

    settings: dict[str, Any] = {"k": k, "which": which, "tol": tol, "basis_size": basis_size, "max_products": budget}
    settings |= {"start": None if start is None else digest(start)}
    keeper = Keeper(checkpoint, "eigenpairs", op, settings, generator)
    search = _Search(op, k, basis_size, generator, start, keeper.load())
    with keeper.leaving(search.state):
        # A resumed search looks again at what it was stopped before it had looked at.
        while (search.looked or not _settled(search, top, bottom, tol)) and search.products < budget:
            search.step()
            if progress is not None:
                progress(Progress(search.products, budget + k, search.residual))
            keeper.after_product(search.products, search.whole_state)
        values, vectors, _ = search.ritz()
        wanted = _ends(len(values), top, bottom)
        if which == "smallest":
            wanted = wanted.flip(0)
        found = values[wanted]
        basis = search.rotated(vectors[:, wanted])  # [k, P]
        scale = values.abs().max().item()
        residuals = search.residuals(found, vectors[:, wanted])
        measured = residuals is None or residuals.min().item() < ROUNDED * torch.finfo(op.dtype).eps * scale
        if residuals is None or measured:
            residuals = torch.tensor(
                [(op.matvec(v) - value * v).norm().item() for v, value in zip(basis, found.tolist(), strict=True)]
            ).double()
    if residuals.max().item() > tol * scale:
        warnings.warn(
            f"the largest residual is {residuals.max().item() / max(scale, 1e-300):.1e} of max|lambda|, above "
            f"tol = {tol:.1e}, after {search.products} products: allow more (max_products), a larger basis_size, or "
            "take theta in float64",
            stacklevel=2,
        )
    return Eigenpairs(found, basis.T, residuals, search.products + (k if measured else 0), precision_of(op))


def _settled(search: _Search, top: int, bottom: int, tol: float) -> bool:
    """Whether the wanted pairs are found; if not, restart where it is time."""
    k = top + bottom
    complete = search.count == search.op.size
    if search.count < k or not (complete or search.worth_a_look()):
        search.looked = True
        return False
    values, vectors, residuals = search.ritz()
    if complete:
        return True
    wanted = _ends(len(values), top, bottom)
    scale = values.abs().max().item()
    slack = tol * scale
    worst = residuals[wanted].max().item()
    search.residual = worst / max(scale, 1e-300)
    # A random vector meets an outlier with 1/sqrt(P) of its length: so many steps make it stand out (Kuczynski &
    # Wozniakowski 1992: the error falls with m / ln P).
    least = math.ceil(math.log(search.op.size)) + 3
    if k == 1:
        if worst <= slack and search.hidden(values, vectors, top == 1, max(3 * slack, APART * scale)) <= HIDDEN:
            return True
    # Residuals that a fresh direction leaves behind add up, in squares: a quarter leaves room for 15 of them.
    elif worst <= slack / 4:
        known = search.products - search.since >= least and _nothing_else(values, residuals, top, bottom, slack)
        before = search.before
        # What moves by no more than a residual still drifts, where eigenvalues are spread over many decades.
        if before is not None and known and (values[wanted] - before).abs().max().item() <= slack / 10:
            return True
        if before is None or known:
            search.confirm(vectors[:, wanted], values[wanted])
            return False
    if search.count == search.most:  # keep half again as many as wanted, at the same ends
        more = [count + count // 2 + 3 if count else 0 for count in (top, bottom)]
        keep = _ends(len(values), *more)
        search.restart(vectors[:, keep], values[keep])
    search.looked = True
    return False


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

    It is stopped and resumed between steps. What a step has written when it is interrupted lies beyond the m.
    """

    NUMBERS = ("count", "beta", "beside", "restarted", "products", "scale", "since", "residual", "looked")

    def __init__(
        self,
        op: Operator,
        k: int,
        basis_size: int,
        generator: torch.Generator,
        start: Tensor | None,
        resumed: State | None,
    ) -> None:
        self.op = op
        self.generator = generator
        self.most = basis_size
        self.basis = torch.empty(basis_size + 1, op.size, dtype=op.dtype, device=op.device)  # last: the next direction
        self.projected = torch.zeros(basis_size, basis_size, dtype=torch.float64)
        self.before: Tensor | None = None  # the wanted values when the search last went on from a fresh direction,
        self.since = 0  # and the products until then
        self.count = 0  # m, directions whose product is known
        self.beta = 0.0  # length of the part of the last product outside the basis
        self.beside: list[float] = []  # and of all of them, [m], until a restart
        self.restarted = False
        self.products = 0
        self.scale = 0.0
        self.residual = math.nan
        self.looked = True  # whether the last step has been judged
        self.whole = True  # whether basis, coefficients and numbers belong together
        self.fitness = 1.0 if start is None else 1 / (1 + MIXED**2)  # how much of the start vector is random
        if resumed is not None:
            self._resume(k, *resumed)
            return
        self._fresh_direction(0)
        if start is not None:
            vector = start.detach().to(self.basis)
            vector = vector / vector.norm() + MIXED * self.basis[0]
            self.basis[0] = vector / vector.norm()
        self.random = generator.get_state()

    def whole_state(self) -> State:
        """What a checkpoint holds."""
        m = self.count
        tensors = {"basis": self.basis[: m + 1], "projected": self.projected[:m, :m], "generator": self.random}
        if self.before is not None:
            tensors["before"] = self.before
        return tensors, {name: getattr(self, name) for name in self.NUMBERS}

    def state(self) -> State | None:
        """The same; None in the middle of a change."""
        return self.whole_state() if self.whole else None

    def _resume(self, k: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        restore(self, self.NUMBERS, numbers)
        m = self.count
        expect("count", m <= self.most, m, f"at most {self.most}")
        self.basis[: m + 1] = tensor_of(tensors, "basis", m + 1, self.op.size)
        self.projected[:m, :m] = tensor_of(tensors, "projected", m, m)
        of = 0 if self.restarted else m
        expect("beside", len(self.beside) == of, f"of {len(self.beside)}", f"of {of}")
        self.before = tensor_of(tensors, "before", k) if "before" in tensors else None
        self.random = self.generator.set_state(tensors["generator"]).get_state()

    def step(self) -> None:
        """One product; the basis grows by one direction."""
        m = self.count
        product = self.op.matvec(self.basis[m])
        inside, beta = orthogonalise(product, self.basis[: m + 1])
        if not math.isfinite(beta):
            raise ValueError("op: got a product that is not finite, expected finite ones: does the loss overflow?")
        self.projected[m, : m + 1] = self.projected[: m + 1, m] = inside.double().cpu()
        scale = max(self.scale, beta, self.projected[m, : m + 1].norm().item())
        if beta > breakdown(self.op) * scale:
            self.basis[m + 1] = product / beta
        else:  # an invariant subspace: what is outside is met only from a new direction
            beta = 0.0
            self._fresh_direction(m + 1)
        self.whole = False
        self.count, self.beta, self.scale = m + 1, beta, scale
        if not self.restarted:
            self.beside.append(beta)
        self.products += 1
        self.random, self.looked = self.generator.get_state(), False
        self.whole = True

    def worth_a_look(self) -> bool:
        """Whether to solve the small problem now: always while it is small, or before a restart."""
        return self.count % max(1, self.count // 16) == 0 or self.count == self.most

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values [m] ascending, their coordinates in the basis [m, m], and residuals [m]."""
        m = self.count
        values, vectors = torch.linalg.eigh(self.projected[:m, :m])
        return values, vectors, self.beta * vectors[-1].abs()

    def residuals(self, values: Tensor, vectors: Tensor) -> Tensor | None:
        """|A Q s - value Q s| of the Ritz pairs with coordinates s [m, r], [r]; None after a restart.

        A Q = Q C + beta q e_m^T as the products were, whether or not A is as symmetric as it says: C [m, m] holds
        their coefficients on and above the diagonal, and the lengths of what was left below it.
        """
        if self.restarted:
            return None
        m = self.count
        products = self.projected[:m, :m].triu()
        if m > 1:
            products += torch.diag(torch.tensor(self.beside[:-1], dtype=torch.float64), -1)
        inside = (products @ vectors - values * vectors).square().sum(dim=0)
        return (inside + (self.beta * vectors[-1]).square()).sqrt()

    def hidden(self, values: Tensor, vectors: Tensor, top: bool, distance: float) -> float:
        """Probability of a start vector in which an eigenvalue so far beyond the last Ritz value is not seen, at most.

        Its share of the start vector is at most the weight of a node there, in the rule of one more node (`Density`).
        A random vector's share of a direction is below w with probability sqrt(2 w P / pi). 0 after a restart, which
        comes after more steps than it takes.
        """
        if self.restarted:
            return 0.0
        end = values[-1] + distance if top else values[0] - distance
        last = self.beta * vectors[-1] / (values - end)
        weight = (vectors[0] * last).sum().square() / (1 + last.square().sum())
        return math.sqrt(2 * weight.item() / self.fitness * self.op.size / math.pi)

    def rotated(self, vectors: Tensor) -> Tensor:
        """The Ritz vectors with these coordinates [m, r], as rows [r, P]."""
        m, kept = vectors.shape
        found = torch.empty(kept, self.op.size, dtype=self.op.dtype, device=self.op.device)
        rotation = vectors.T.to(self.basis)
        for first in range(0, self.op.size, SLICE):
            last = first + SLICE
            found[:, first:last] = rotation @ self.basis[:m, first:last]
        return found

    def restart(self, vectors: Tensor, values: Tensor) -> None:
        """Keep the Ritz vectors with these coordinates [m, r], and go on from the residual."""
        following = self.basis[self.count].clone()
        self.whole = False
        self._keep(vectors, values)
        self.basis[self.count] = following
        self.whole = True

    def confirm(self, vectors: Tensor, values: Tensor) -> None:
        """Keep the wanted pairs, and go on from a fresh direction, to see whether it finds others."""
        self.whole = False
        self._keep(vectors, values)
        self._fresh_direction(self.count)
        self.before, self.since = values, self.products
        self.random = self.generator.get_state()
        self.whole = True

    def _keep(self, vectors: Tensor, values: Tensor) -> None:
        m, kept = vectors.shape
        rotation = vectors.T.to(self.basis)
        for first in range(0, self.op.size, SLICE):  # in place
            last = first + SLICE
            self.basis[:kept, first:last] = rotation @ self.basis[:m, first:last]
        self.projected.zero_()
        self.projected[:kept, :kept] = torch.diag(values)
        self.beside, self.restarted = [], True
        self.count = kept
        self.looked = True

    def _fresh_direction(self, m: int) -> None:
        """A random unit vector orthogonal to the first m, as number m."""
        if m >= self.op.size:
            return  # they span the space
        vector = _gaussian(self.op, self.generator)
        _, length = orthogonalise(vector, self.basis[:m])
        self.basis[m] = vector / length


def orthogonalise(vector: Tensor, basis: Tensor) -> tuple[Tensor, float]:
    """Take the basis [m, P] out of vector [P], in place, twice; its coefficients [m] and the length that is left."""
    total = torch.zeros(len(basis), dtype=vector.dtype, device=vector.device)
    for _ in range(2):
        coefficients = basis @ vector
        vector.sub_(basis.T @ coefficients)
        total += coefficients
    return total, vector.norm().item()


def breakdown(op: Operator) -> float:
    """What is left of a product, relative to the largest, that is rounding."""
    return 10 * torch.finfo(op.dtype).eps


def _gaussian(op: Operator, generator: torch.Generator) -> Tensor:
    vector = torch.randn(op.size, dtype=op.dtype, generator=generator, device=generator.device)
    return vector.to(op.device)


def rademacher(op: Operator, count: int, generator: torch.Generator) -> Tensor:
    """Random signs, [P, count], in the operator's dtype and on its device."""
    signs = torch.randint(0, 2, (op.size, count), generator=generator, device=generator.device, dtype=torch.int8)
    return (2 * signs - 1).to(op.device, op.dtype)


def spectral_density(
    op: Operator,
    *,
    probes: int = 10,
    steps: int = 80,
    generator: torch.Generator,
    basis_size: int | None = None,
    checkpoint: Checkpoint | Path | str | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Density:
    """Density of the eigenvalues by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017; Ghorbani et al. 2019).

    Each probe is a vector of random signs over sqrt(P); its Lanczos matrix's eigenvalues are the nodes, the squared
    first components of the eigenvectors the weights. Moments up to 2 steps - 1 are unbiased.

    Args:
        op: the operator.
        probes: independent start vectors, at least 2; errors fall as 1/sqrt(probes).
        steps: Lanczos steps a probe (at most P are taken); 80 to 90 resolve the densities of Ghorbani et al. 2019.
        generator: for the probes.
        basis_size: Lanczos vectors kept, at least 2, of P numbers each; all `steps`, unless said. With fewer, each new
            one is made orthogonal to the last ones alone. Nodes then repeat those of eigenvalues that have converged,
            in several steps and of one weight together: rules are those of a matrix whose eigenvalues lie, in clusters
            as wide as rounding, at A's (Greenbaum 1989), and moments below the step at which the first has converged
            stay exact. Papyan 2019 takes densities of networks so, with none but the last three.
        checkpoint: as in `extreme_eigenpairs`.
        progress: as there.

    Raises:
        ValueError: fewer than 2 probes, fewer than 1 step, fewer than 2 vectors kept, a product that is not finite, or
            a checkpoint of something else.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> op = Dense(torch.diag(torch.tensor([1.0, 1.0, 1.0, 5.0]).double()))
        >>> density = spectral_density(op, probes=3, steps=4, generator=torch.Generator().manual_seed(0))
        >>> round(density.moment(1).value, 6), round(density.mass(4, 6).value, 6)
        (2.0, 0.25)
    """
    check_probes(probes)
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1: give products for each probe")
    if basis_size is not None and basis_size < 2:
        raise ValueError(f"basis_size: got {basis_size}, expected at least 2, or None to keep one a step")
    steps = min(steps, op.size)
    kept = min(steps, basis_size or steps)
    settings = {"probes": probes, "steps": steps} | ({} if kept == steps else {"basis_size": kept})
    keeper = Keeper(checkpoint, "density", op, settings, generator)
    rules = _Rules(op, probes, steps, generator, keeper.load(), kept)
    with keeper.leaving(rules.state):
        while rules.probe < probes:
            rules.step()
            if progress is not None:
                progress(Progress(rules.products, probes * steps, math.nan))
            keeper.after_product(rules.products, rules.whole_state)
    return Density(rules.nodes, rules.weights, op.size, rules.residuals, precision_of(op))


def probe_density(
    op: Operator, probe: int, *, steps: int = 80, generator: torch.Generator, basis_size: int | None = None
) -> Density:
    """The rule of one probe of `spectral_density`, to the bit: [1, steps].

    So the probes of one density may be computed in many processes, and put together in their order. What float32 made
    of the products is the operator's to say (`precision`).

    Args:
        op: the operator.
        probe: its number, from 0.
        steps: as there.
        generator: as `spectral_density` is given it: the signs of earlier probes are drawn and left.
        basis_size: as there.

    Raises:
        ValueError: a negative number, fewer than 1 step, fewer than 2 vectors kept, or a product that is not finite.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> op = Dense(torch.diag(torch.tensor([1.0, 1.0, 1.0, 5.0]).double()))
        >>> whole = spectral_density(op, probes=3, steps=4, generator=torch.Generator().manual_seed(0))
        >>> second = probe_density(op, 1, steps=4, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(second.nodes[0], whole.nodes[1])
        True
    """
    if probe < 0:
        raise ValueError(f"probe: got {probe}, expected at least 0: the first is number 0")
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1: give products for each probe")
    if basis_size is not None and basis_size < 2:
        raise ValueError(f"basis_size: got {basis_size}, expected at least 2, or None to keep one a step")
    for _ in range(probe):
        rademacher(op, 1, generator)
    steps = min(steps, op.size)
    rules = _Rules(op, 1, steps, generator, None, min(steps, basis_size or steps))
    while rules.probe < 1:
        rules.step()
    return Density(rules.nodes, rules.weights, op.size, rules.residuals)


def density_until(
    op: Operator,
    enough: Callable[[Density], bool],
    *,
    probes: int,
    steps: int,
    most_steps: int,
    generator: torch.Generator,
) -> Density:
    """`spectral_density` whose probes go on, from `steps` to `most_steps`, until `enough` says so of their own rule.

    Raises:
        ValueError: as there, or fewer steps at most than at least.
    """
    check_probes(probes)
    if not 1 <= steps <= most_steps:
        raise ValueError(
            f"steps: got {steps}, at most {most_steps}, expected at least 1 and no more than at most: raise most_steps"
        )
    rules = _Rules(op, probes, min(most_steps, op.size), generator, None)
    look = steps
    while rules.probe < probes:
        rules.step()
        m = len(rules.diagonal)
        if m == 0:
            look = steps
        elif m >= look:
            look = math.ceil(LOOK * m)
            nodes, weights, residuals = (part[None] for part in rules.rule())
            if enough(Density(nodes, weights, op.size, residuals)):
                rules.end()
                look = steps
    nodes, weights, residuals = (part[:, : rules.longest] for part in (rules.nodes, rules.weights, rules.residuals))
    return Density(nodes, weights, op.size, residuals, precision_of(op))


class _Rules:
    """The quadrature rules of several probes, one after another; stopped and resumed between steps."""

    NUMBERS = ("diagonal", "beside", "scale", "probe", "products", "longest")  # that a checkpoint holds

    def __init__(
        self,
        op: Operator,
        probes: int,
        steps: int,
        generator: torch.Generator,
        resumed: State | None,
        kept: int | None = None,
    ) -> None:
        self.op = op
        self.generator = generator
        self.nodes, self.weights, self.residuals = torch.zeros(3, probes, steps, dtype=torch.float64)
        self.basis = torch.empty(kept or steps, op.size, dtype=op.dtype, device=op.device)  # row m % kept: number m
        self.diagonal: list[float] = []  # of the present probe's Jacobi matrix,
        self.beside: list[float] = []  # and what stands beside it, with the length of the last remainder
        self.scale = 0.0
        self.probe = 0
        self.products = 0
        self.longest = 0  # of the rules that are done
        self.whole = True
        if resumed is None:
            self._begin()
        else:
            self._resume(*resumed)

    def whole_state(self) -> State:
        """What a checkpoint holds."""
        done = {name: getattr(self, name)[: self.probe] for name in ("nodes", "weights", "residuals")}
        tensors = {"basis": self.basis[: len(self.diagonal)], "direction": self.direction, "generator": self.random}
        return done | tensors, {name: getattr(self, name) for name in self.NUMBERS}

    def state(self) -> State | None:
        """The same; None in the middle of a change."""
        return self.whole_state() if self.whole else None

    def _resume(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        restore(self, self.NUMBERS, numbers)
        m, (probes, steps) = len(self.diagonal), self.nodes.shape
        expect("probe", self.probe <= probes, self.probe, f"at most {probes}")
        expect("diagonal", m < steps and m in (0, len(self.beside)), f"of {m}", f"one of {len(self.beside)}, < {steps}")
        for name in ("nodes", "weights", "residuals"):
            getattr(self, name)[: self.probe] = tensor_of(tensors, name, self.probe, steps)
        kept = min(m, len(self.basis))
        self.basis[:kept] = tensor_of(tensors, "basis", kept, self.op.size)
        self.direction = tensor_of(tensors, "direction", self.op.size).to(self.basis)
        self.random = self.generator.set_state(tensors["generator"]).get_state()

    def _begin(self) -> None:
        start = rademacher(self.op, 1, self.generator)[:, 0]
        self.direction = start / start.norm()
        self.diagonal, self.beside, self.scale = [], [], 0.0
        self.random = self.generator.get_state()

    def step(self) -> None:
        """One product."""
        m = len(self.diagonal)
        row = m % len(self.basis)
        self.basis[row] = self.direction
        product = self.op.matvec(self.direction).clone()
        coefficients, beta = orthogonalise(product, self.basis[: m + 1])
        if not math.isfinite(beta):
            raise ValueError("op: got a product that is not finite, expected finite ones: does the loss overflow?")
        entry = coefficients[row].item()
        scale = max(self.scale, beta, abs(entry))
        ended = beta <= breakdown(self.op) * scale or m + 1 == self.op.size
        following = product / beta if beta > 0 else product
        self.whole = False
        self.direction, self.scale = following, scale
        self.diagonal.append(entry)
        self.beside.append(0.0 if ended else beta)
        self.products += 1
        if ended or m + 1 == self.nodes.shape[1]:
            self.end()
        self.whole = True

    def end(self) -> None:
        """Note the present probe's rule, and go on to the next."""
        m = len(self.diagonal)
        values, shares, residuals = self.rule()
        self.nodes[self.probe] = values[-1]  # filled up at the largest node, with weight 0
        self.nodes[self.probe, :m], self.weights[self.probe, :m], self.residuals[self.probe, :m] = (
            values, shares, residuals,
        )  # fmt: skip
        self.longest = max(self.longest, m)
        self.probe += 1
        self.diagonal = []
        if self.probe < len(self.nodes):
            self._begin()

    def rule(self) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes, weights and residuals [m] of the present probe."""
        m = len(self.diagonal)
        matrix = torch.diag(torch.tensor(self.diagonal, dtype=torch.float64))
        if m > 1:
            off = torch.tensor(self.beside[:-1], dtype=torch.float64)
            matrix += torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors[0].square(), self.beside[-1] * vectors[-1] * vectors[0].sign()
