"""Points of zero gradient: minima, saddles and maxima alike, searched from many starts at once, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from hw1.curvature.minimal_ratio import CRITICAL
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.many import batched
from hw1.risk.protocol import BatchedRisk

Method = Literal["levenberg_marquardt", "newton"]
TRIALS = 20  # steps tried at one Hessian; the damping grows, or the step shrinks, from one to the next
PATIENCE = 10  # iterations in a row at which a point must be flat: a search passes flat places on its way


@dataclass(frozen=True)
class CriticalPoint:
    """Where one search ended; see `CriticalPoints`."""

    theta: Tensor
    loss: float
    gradient_norm: float
    reason: str
    gradient_flatness: float
    iterations: int


@dataclass(frozen=True)
class CriticalPoints:
    """Where R searches ended.

    Attributes:
        theta: [R, P], float64.
        loss: [R].
        gradient_norm: |g|, [R].
        reason: why each search stopped. "converged": |g| < tolerance. "flat": the gradient is almost in the kernel of
            the Hessian, in 10 iterations in a row or where the search had to end (Frye et al. 2021): its gradient
            flatness |Hg| / (|H| |g|) is below the one that was asked for. "stalled": no acceptable step. "not
            converged": none of these in all iterations.
        gradient_flatness: |Hg| / (|H| |g|), |H| the spectral norm, [R]; where |g| < tolerance, that of the point
            before, NaN if there was none.
        iterations: steps taken, [R].
    """

    theta: Tensor
    loss: Tensor
    gradient_norm: Tensor
    reason: tuple[str, ...]
    gradient_flatness: Tensor
    iterations: Tensor

    def __len__(self) -> int:
        """R."""
        return len(self.theta)

    def __getitem__(self, r: int) -> CriticalPoint:
        """The end of search r."""
        numbers = (self.loss[r].item(), self.gradient_norm[r].item())
        return CriticalPoint(
            self.theta[r], *numbers, self.reason[r], self.gradient_flatness[r].item(), int(self.iterations[r].item())
        )


def find_critical_points(
    risk: BatchedRisk,
    starts: Tensor,
    *,
    method: Method = "levenberg_marquardt",
    iterations: int = 300,
    tolerance: float = CRITICAL,
    gradient_flatness: float = 1e-3,
    max_step: float = 0.3,
) -> CriticalPoints:
    """Search a point of zero gradient from each of R starts; the searches do not influence each other.

    One iteration takes one Hessian H = Q diag(l) Q^T, and a few gradients. A search that has ended costs nothing.

    "levenberg_marquardt" minimises |g|^2 / 2, whose Gauss-Newton matrix is H^2: the step is -Q l / (l^2 + mu) Q^T g,
    with mu by Nielsen's rule (Madsen, Nielsen & Tingleff 2004, algorithm 3.16). |g| falls at every step, often towards
    a flat point where it is not zero (Doye & Wales 2002; Frye et al. 2021).

    "newton" takes the step -Q l / (l^2 + (1e-8 |H|)^2) Q^T g, shortened to `max_step`, whether |g| falls or not. It
    wanders until it comes near a critical point of whatever index, and so finds more of them, and more kinds; it needs
    more iterations, and its last point means nothing unless it converged.

    Args:
        risk: the loss.
        starts: [R, P].
        method: see above.
        iterations: most steps of a search.
        tolerance: |g| below which a point is critical.
        gradient_flatness: |Hg| / (|H| |g|) below which a point is flat; 0 never is.
        max_step: longest step of "newton", in the units of theta; Levenberg-Marquardt does not use it.

    Raises:
        ValueError: `starts` has another shape or is not finite, or a setting is out of range.

    Example:
        >>> from hw1.risk.many import FunctionRisk
        >>> saddle = FunctionRisk(lambda w: (w[0] * w[1] - 1) ** 2, size=2)
        >>> found = find_critical_points(saddle, torch.tensor([[0.1, -0.2]]))
        >>> found.reason, found.loss.round(decimals=6).tolist()
        (('converged',), [1.0])
    """
    _check(risk, starts, method, iterations, tolerance, gradient_flatness, max_step)
    theta = starts.detach().double().clone()
    gradient = risk.gradient(theta)  # [R, P]
    count = torch.zeros(len(theta), dtype=torch.long, device=theta.device)
    measured = torch.full_like(gradient[:, 0], torch.nan)  # |Hg| / (|H| |g|)
    in_a_row = torch.zeros_like(count)
    damping, growth = torch.full_like(measured, torch.nan), torch.full_like(measured, 2.0)
    reason = ["not converged"] * len(theta)

    def stop(rows: Tensor, why: str) -> None:
        for row in rows.tolist():
            reason[row] = why

    # What is no number cannot be searched: "stalled", as after it.
    bad = ~gradient.isfinite().all(1)
    stop(bad.nonzero()[:, 0], "stalled")
    active = (~bad).nonzero()[:, 0]  # rows of the searches that go on
    for iteration in range(iterations + 1):
        done = gradient[active].norm(dim=1) < tolerance
        stop(active[done], "converged")
        active = active[~done]
        if not len(active):
            break
        hessian = risk.hessian(theta[active])
        finite = hessian.isfinite().all(2).all(1)
        stop(active[~finite], "stalled")
        active = active[finite]
        values, vectors = torch.linalg.eigh(hessian[finite])  # l [A, P], Q [A, P, P]
        slope = _apply(vectors.mT, gradient[active])  # Q^T g
        largest = values.abs().amax(1)  # |H|
        measured[active] = (values * slope).norm(dim=1) / (largest * slope.norm(dim=1)).clamp_min(
            torch.finfo(torch.float64).tiny
        )
        flat = measured[active] < gradient_flatness
        in_a_row[active] = torch.where(flat, in_a_row[active] + 1, 0)
        settled = in_a_row[active] >= PATIENCE
        if iteration == iterations:
            settled = flat
        stop(active[settled], "flat")
        go = ~settled
        if iteration == iterations:
            break
        active, values, vectors, slope, largest = active[go], values[go], vectors[go], slope[go], largest[go]
        if method == "levenberg_marquardt":
            damping[active] = torch.where(damping[active].isnan(), 1e-3 * largest.square(), damping[active])
            damping[active] = damping[active].clamp_min(torch.finfo(torch.float64).tiny)
        todo = torch.arange(len(active), device=theta.device)  # searches without a step yet, among the active
        shrink = 1.0
        for _ in range(TRIALS):
            if not len(todo):
                break
            rows, along, curvature = active[todo], slope[todo], values[todo]
            if method == "levenberg_marquardt":
                step = -along * curvature / (curvature.square() + damping[rows, None])
            else:
                relative = (1e-8 * largest[todo, None]).clamp_min(torch.finfo(torch.float64).tiny ** 0.5)
                step = -along * curvature / (curvature.square() + relative.square())
                step = step * (max_step / step.norm(dim=1)).clamp(max=1.0)[:, None] * shrink
            moved = theta[rows] + _apply(vectors[todo], step)
            possible = moved.isfinite().all(1) & (moved != theta[rows]).any(1)
            new = risk.gradient(torch.where(possible[:, None], moved, theta[rows]))
            ok = possible & new.isfinite().all(1)
            if method == "levenberg_marquardt":
                before, after = along.square().sum(1), new.square().sum(1)
                predicted = before - (along + curvature * step).square().sum(1)
                gain = ((before - after) / predicted).nan_to_num(-1.0, -1.0, -1.0)
                ok = ok & (gain > 1e-4) & (after < before)
                factor = (1 - (2 * gain - 1) ** 3).clamp(1 / 3, 1.0)
                damping[rows] = torch.where(ok, damping[rows] * factor, damping[rows] * growth[rows])
                growth[rows] = torch.where(ok, 2.0, growth[rows] * 2)
            theta[rows[ok]], gradient[rows[ok]] = moved[ok], new[ok]
            count[rows[ok]] += 1
            todo = todo[~ok]
            shrink /= 2
        stop(active[todo], "stalled")
        stop(active[todo][measured[active[todo]] < gradient_flatness], "flat")
        stuck = torch.zeros(len(active), dtype=torch.bool, device=theta.device)
        stuck[todo] = True
        active = active[~stuck]
    return CriticalPoints(theta, risk(theta), gradient.norm(dim=1), tuple(reason), measured, count)


def find_critical_point(
    risk: EmpiricalRisk, theta: Tensor, method: Method = "levenberg_marquardt", *, iterations: int = 300
) -> CriticalPoint:
    """`find_critical_points` from one start theta [P] of a module's risk.

    Raises:
        ValueError: as there.
    """
    return find_critical_points(batched(risk), theta[None], method=method, iterations=iterations)[0]


def constant_predictor(outputs: Tensor, *, relative: float = 1e-12) -> Tensor:
    """Which members give the same outputs for every input, such as networks of dead ReLUs: bool [R].

    Told from the predictions, not from the loss: whatever its constant is, and whatever the variance of the targets.
    A dead network's outputs are one number, summed in the same order for every input, or a few roundings of it: the
    default is 4,500 roundings in float64. A network that is merely almost constant is not one.

    Args:
        outputs: [R, N, C], of N inputs.
        relative: largest range over the inputs, relative to max(1, |outputs|), of each of the C outputs.

    Raises:
        ValueError: another shape, or fewer than 2 inputs.

    Example:
        >>> constant_predictor(torch.tensor([[[0.3], [0.3]], [[0.3], [0.4]]])).tolist()
        [True, False]
    """
    if outputs.ndim != 3 or outputs.shape[1] < 2:
        raise ValueError(f"outputs: got shape {list(outputs.shape)}, expected [R, N, C] with N >= 2 inputs")
    spread = outputs.amax(1) - outputs.amin(1)  # [R, C]
    return (spread <= relative * outputs.abs().amax(1).clamp_min(1.0)).all(1)


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """[A, P, P] times [A, P], one by one: [A, P]."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _check(
    risk: BatchedRisk,
    starts: Tensor,
    method: str,
    iterations: int,
    tolerance: float,
    gradient_flatness: float,
    max_step: float,
) -> None:
    if starts.ndim != 2 or starts.shape[1] != risk.size or len(starts) == 0:
        raise ValueError(f"starts: got shape {list(starts.shape)}, expected [R, {risk.size}] with R >= 1 points")
    if bad := int((~starts.isfinite().all(1)).sum()):
        raise ValueError(f"starts: got {bad} of {len(starts)} points that are not finite: leave out diverged trainings")
    if method not in get_args(Method):
        raise ValueError(f"method: got {method!r}, expected {' or '.join(get_args(Method))}")
    if iterations < 1:
        raise ValueError(f"iterations: got {iterations}, expected at least 1")
    for name, value, least in (("tolerance", tolerance, "> 0"), ("max_step", max_step, "> 0")):
        if not value > 0:
            raise ValueError(f"{name}: got {value}, expected a number {least}")
    if not 0 <= gradient_flatness < 1:
        raise ValueError(f"gradient_flatness: got {gradient_flatness}, expected a number in [0, 1)")
