"""The minimal ratio where training ends, and at the critical points that are found from there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hw1.measures.protocol import Column, Finding, Measure, Subject, Weights
from hw1.settings.run_settings import SQUARED_GRADIENT_NORM

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hw1.curvature import EmpiricalRisk
    from hw1.settings import RunSettings

FLAT = 1e-3  # |Hg| / (|H| |g|) below which a point is flat (Frye et al. 2021)
MEMBERS_AT_A_TIME = 10  # Hessians in memory at once: 571 parameters are 2.6 MB each
TOLERANCES = (1e-1, 1e-2, 1e-3)  # tau / max|lambda| of the quadrature
POINTS = "critical_points.safetensors"
SHARES = ("positive", "zero", "negative")


class MinimalRatio(Measure):
    """Signs of the Hessian's eigenvalues by both estimators, a row a member and phase.

    The Hessian is that of the mean loss over the whole training set in float64, evaluation mode, all parameters. Phases
    are `training` (at the end of training on the loss), `gradient_norm` (at the end of minimising the squared gradient
    norm) and `search` (where a search for a critical point from the end of training stopped; the points themselves are
    `critical_points.safetensors`, theta [R, P]). The columns are the shares at the run's last weights.

    Of a row: `loss`, `gradient_norm` |g|, `gradient_flatness` |Hg| / (|H| |g|), `reason` (converged, flat, stalled,
    budget; see `hw1.curvature.find_critical_points`), `positive`, `zero`, `negative` and their `tolerance`, and both at
    the ladder, `positive@<tol / max|lambda|>`; by quadrature (`estimator`) at tau / max|lambda| = 1e-1, 1e-2 and 1e-3,
    the middle one without a suffix, each with its standard error (`positive_error`); `sampled`, the share of neighbours
    with a higher loss, and `sampled_error`; `largest`, `smallest` (eigenvalues), `nonzero` (number outside the
    tolerance), `max_weight`, `constant` (predictions that do not depend on the input).

    Args:
        exact_up_to: number of parameters up to which all eigenvalues are taken; beyond, stochastic Lanczos quadrature.
        probes: start vectors of the quadrature.
        steps: Lanczos steps a start vector.
        samples: neighbours a point.
        radius: their distance, as a share of |theta|.
        search_iterations: Hessians that the search from the end of training may take; 0 for no search.
        search_method: levenberg_marquardt or newton, see `hw1.curvature.find_critical_points`.
        seed: of the start vectors and the neighbours; null for the run's.

    Raises:
        ValueError: a value is out of range.
    """

    version: ClassVar[int] = 1
    columns: ClassVar[Mapping[str, Column]] = {
        "minimal_ratio/positive": Column("share of eigenvalues > tolerance"),
        "minimal_ratio/zero": Column("share of eigenvalues within ± tolerance"),
        "minimal_ratio/negative": Column("share of eigenvalues < -tolerance"),
    }

    def __init__(
        self,
        exact_up_to: int,
        probes: int,
        steps: int,
        samples: int,
        radius: float,
        search_iterations: int,
        search_method: Literal["levenberg_marquardt", "newton"],
        seed: int | None,
    ) -> None:
        least = {"exact_up_to": 0, "probes": 2, "steps": 2, "samples": 1, "search_iterations": 0}
        given = {"exact_up_to": exact_up_to, "probes": probes, "steps": steps}
        for name, value in {**given, "samples": samples, "search_iterations": search_iterations}.items():
            if value < least[name]:
                raise ValueError(f"{name}: got {value}, expected an integer of at least {least[name]}")
        if not 0 < radius < 1:
            raise ValueError(f"radius: got {radius}, expected a share of |theta| between 0 and 1")
        self._exact_up_to = exact_up_to
        self._probes, self._steps = probes, steps
        self._samples, self._radius = samples, radius
        self._iterations, self._method = search_iterations, search_method
        self._seed = seed

    def epochs(self, settings: RunSettings) -> Collection[int]:
        """Where the objective changes."""
        objective = settings.objective
        return [objective.after] if objective.minimise == SQUARED_GRADIENT_NORM and objective.after else []

    def check(self, settings: RunSettings, parameters: int) -> None:
        """Refuse a search that needs Hessians which are too large.

        Raises:
            ValueError: there are too many parameters for it.
        """
        if self._iterations and parameters > self._exact_up_to:
            raise ValueError(
                f"search_iterations: got {self._iterations} with {parameters} parameters, expected 0 "
                f"above exact_up_to={self._exact_up_to}; objective.minimise=squared_gradient_norm needs no Hessians"
            )

    def take(self, subject: Subject, memory: Mapping[str, Tensor]) -> Finding:
        """Rows of all members at every moment, and of the points found from the end."""
        from safetensors.torch import save

        from hw1.curvature import batched, find_critical_points

        seed = subject.seed if self._seed is None else self._seed
        end = [self._rows(subject, weights, seed) for weights in subject.moments]
        rows = [row for some in end for row in some]
        values = {f"minimal_ratio/{name}": [row[name] for row in end[-1]] for name in SHARES}
        if not self._iterations:
            return Finding(values, rows)
        risk, last = _risk(subject, subject.end), subject.end
        starts = last.theta().double()
        found = find_critical_points(batched(risk), starts, method=self._method, iterations=self._iterations)
        searched = self._rows_at(risk, found.theta, last.epoch, "search", seed)
        for row in searched:
            row |= {"reason": found.reason[row["member"]], "iterations": int(found.iterations[row["member"]])}
        return Finding(values, rows + searched, {POINTS: save({"theta": found.theta.contiguous().cpu()})})

    def _rows(self, subject: Subject, weights: Weights, seed: int) -> list[dict[str, Any]]:
        return self._rows_at(_risk(subject, weights), weights.theta().double(), weights.epoch, weights.phase, seed)

    def _rows_at(self, risk: EmpiricalRisk, thetas: Tensor, epoch: int, phase: str, seed: int) -> list[dict[str, Any]]:
        import torch

        from hw1.seeds import mixed

        described = describe(
            risk,
            thetas,
            exact_up_to=self._exact_up_to,
            probes=self._probes,
            steps=self._steps,
            samples=self._samples,
            radius=self._radius,
            generator=torch.Generator(thetas.device).manual_seed(mixed("minimal_ratio", seed, epoch, phase)),
        )
        return [{"member": r, "epoch": epoch, "phase": phase, **row} for r, row in enumerate(described)]


def _risk(subject: Subject, weights: Weights) -> EmpiricalRisk:
    """The mean loss over the whole training set, on the network's device."""
    from hw1.curvature import EmpiricalRisk

    device = next(weights.nets[0].parameters()).device
    x, y = (tensor.to(device) for tensor in subject.data.train_tensors)
    return EmpiricalRisk(weights.nets[0], subject.loss, [(x, y)])


def describe(
    risk: EmpiricalRisk,
    thetas: Tensor,
    *,
    exact_up_to: int,
    probes: int,
    steps: int,
    samples: int,
    radius: float,
    generator: torch.Generator,
) -> list[dict[str, Any]]:
    """What the minimal ratio's table says of each of R points, in the rows of `MinimalRatio`.

    Args:
        risk: the mean loss.
        thetas: [R, P], float64.
        exact_up_to: P up to which all eigenvalues are taken.
        probes: start vectors of the quadrature beyond.
        steps: Lanczos steps a start vector.
        samples: neighbours a point.
        radius: their distance, as a share of |theta|.
        generator: for start vectors and neighbours.
    """
    from hw1.curvature import CRITICAL, batched, constant_predictor, sampled_ratio

    many = batched(risk)
    losses, gradients = many(thetas), many.gradient(thetas)
    rows: list[dict[str, Any]] = []
    for first in range(0, len(thetas), MEMBERS_AT_A_TIME):
        few = slice(first, first + MEMBERS_AT_A_TIME)
        exact = thetas.shape[1] <= exact_up_to
        hessians: Tensor | list[None] = many.hessian(thetas[few]) if exact else [None] * len(thetas[few])
        for theta, gradient, hessian in zip(thetas[few], gradients[few], hessians, strict=True):
            norm = gradient.norm().item()
            if hessian is not None:
                signs = _by_eigenvalues(hessian, gradient)
            else:
                signs = _by_quadrature(risk, theta, gradient, probes, steps, generator)
            neighbours = sampled_ratio(many, theta, radius * theta.norm().item(), samples, generator)
            reason = "converged" if norm < CRITICAL else "flat" if signs["gradient_flatness"] < FLAT else "budget"
            rows.append(
                {
                    "loss": losses[len(rows)].item(),
                    "gradient_norm": norm,
                    "reason": reason,
                    **signs,
                    "sampled": neighbours.value,
                    "sampled_error": neighbours.standard_error,
                    "max_weight": theta.abs().max().item(),
                    "constant": bool(constant_predictor(risk.outputs(theta)[None])[0]),
                }
            )
    return rows


def _by_eigenvalues(hessian: Tensor, gradient: Tensor) -> dict[str, Any]:
    from hw1.curvature import LADDER, ladder, minimal_ratio, spectrum

    values = spectrum(hessian)
    ratio = minimal_ratio(values, gradient.norm().item())
    largest = values.abs().max().item()
    return {
        "estimator": "eigenvalues",
        "gradient_flatness": _gradient_flatness(hessian @ gradient, gradient, largest),
        "positive": ratio.positive,
        "zero": ratio.zero,
        "negative": ratio.negative,
        "tolerance": ratio.tolerance,
        **{f"positive@{step:.0e}": rung.positive for step, rung in zip(LADDER, ladder(values), strict=True)},
        **{f"negative@{step:.0e}": rung.negative for step, rung in zip(LADDER, ladder(values), strict=True)},
        "largest": values[-1].item(),
        "smallest": values[0].item(),
        "nonzero": int((values.abs() > ratio.tolerance).sum()),
    }


def _by_quadrature(
    risk: EmpiricalRisk, theta: Tensor, gradient: Tensor, probes: int, steps: int, generator: torch.Generator
) -> dict[str, Any]:
    from hw1.curvature import Hessian, quadrature_ratio

    op = Hessian(risk, theta.float())  # the tolerances are far above float32's rounding
    rungs = quadrature_ratio(op, probes=probes, steps=steps, generator=generator, tolerances=TOLERANCES)
    largest = rungs[0].tolerance / TOLERANCES[0]
    middle = rungs[1]
    row: dict[str, Any] = {
        "estimator": "quadrature",
        "gradient_flatness": _gradient_flatness(op.matvec(gradient.float()).double(), gradient, largest),
        "tolerance": middle.tolerance,
    }
    for name in ("positive", "zero", "negative"):
        row |= {name: getattr(middle, name).value, f"{name}_error": getattr(middle, name).standard_error}
        for step, rung in zip(TOLERANCES, rungs, strict=True):
            share = getattr(rung, name)
            row |= {f"{name}@{step:.0e}": share.value, f"{name}_error@{step:.0e}": share.standard_error}
    return row


def _gradient_flatness(product: Tensor, gradient: Tensor, largest: float) -> float:
    """|Hg| / (|H| |g|); 0 where there is no gradient or no curvature."""
    scale = largest * gradient.norm().item()
    return product.norm().item() / scale if scale > 0 else 0.0
