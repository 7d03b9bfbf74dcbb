"""The minimal ratio where training ends, and at the critical points that are found from there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hw1.measures.finite import finite, in_float64
from hw1.measures.protocol import Column, Finding, Measure, Subject, Weights
from hw1.measures.signs import SHARES, describe, not_finite
from hw1.settings.run_settings import SQUARED_GRADIENT_NORM

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hw1.curvature import EmpiricalRisk
    from hw1.settings import RunSettings

POINTS = "critical_points.safetensors"


class MinimalRatio(Measure):
    """Signs of the Hessian's eigenvalues by both estimators, a row a member and phase.

    The Hessian is that of the mean loss over the whole training set in float64, evaluation mode, all parameters. Phases
    are `training` (at the end of training on the loss), `gradient_norm` (at the end of minimising the squared gradient
    norm) and `search` (where a search for a critical point from the end of training stopped; the points themselves are
    `critical_points.safetensors`, theta [R, P]). The columns are the shares at the run's last weights.

    Of a row: `loss`, `gradient_norm` |g|, `gradient_flatness` |Hg| / (|H| |g|), `reason` (converged, flat, stalled,
    budget; see `hw1.curvature.find_critical_points`; "not finite" where the member's weights or loss are not, and then
    all numbers are NaN), `positive`, `zero`, `negative` and their `tolerance`, and both at
    the ladder, `positive@<tol / max|lambda|>`; by quadrature (`estimator`) at tau / max|lambda| = 1e-1, 1e-2 and 1e-3,
    the middle one without a suffix, each with its error (`positive_error`, the standard error and the quadrature's
    resolution); `sampled`, the share of neighbours with a higher loss, and `sampled_error`; `largest`, `smallest`
    (eigenvalues), `nonzero` (number outside the tolerance), `max_weight`, `constant` (predictions that do not depend on
    the input).

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

    version: ClassVar[int] = 2
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

    def check_tracked(self) -> None:
        """Refuse a search: it would start anew at every occasion, and its points be thrown away.

        Raises:
            ValueError: there is one.
        """
        if self._iterations:
            raise ValueError(f"search_iterations: got {self._iterations}, expected 0 while training")

    def take(self, subject: Subject, memory: Mapping[str, Tensor]) -> Finding:
        """Rows of all members at every moment, and of the points found from the end."""
        import torch
        from safetensors.torch import save

        from hw1.curvature import batched, find_critical_points

        seed = subject.seed if self._seed is None else self._seed
        rows: list[dict[str, Any]] = []
        for weights in subject.moments:
            alike = _alike(subject, weights)
            at = self._rows(alike, weights, weights.phase, seed)
            rows += at
        values = {f"minimal_ratio/{name}": [row[name] for row in at] for name in SHARES}
        if not self._iterations:
            return Finding(values, rows)
        ends, reasons = [], {}
        points = torch.full((len(weights.nets), _parameters(weights)), torch.nan, dtype=torch.float64)
        for few in alike:
            settings: Any = {"method": self._method, "iterations": self._iterations}
            found = find_critical_points(batched(few.risk), few.thetas, **settings)
            ends.append(replace(few, thetas=found.theta))
            points[few.members] = found.theta.cpu()
            for member, reason, steps in zip(few.members, found.reason, found.iterations.tolist(), strict=True):
                reasons[member] = {"reason": reason, "iterations": steps}
        searched = self._rows(ends, weights, "search", seed)
        for row in searched:
            row |= reasons.get(row["member"], {"iterations": 0})
        return Finding(values, rows + searched, {POINTS: save({"theta": points})})

    def _rows(self, alike: Sequence[_Alike], weights: Weights, phase: str, seed: int) -> list[dict[str, Any]]:
        """The rows of all members, those that are in none of `alike` included."""
        import torch

        from hw1.seeds import mixed

        described: dict[int, dict[str, Any]] = {}
        if alike:
            randomness = torch.Generator(alike[0].thetas.device)
            randomness.manual_seed(mixed("minimal_ratio", seed, weights.epoch, phase))
        for few in alike:
            found = describe(
                few.risk,
                few.thetas,
                exact_up_to=self._exact_up_to,
                probes=self._probes,
                steps=self._steps,
                samples=self._samples,
                radius=self._radius,
                generator=randomness,
            )
            described |= dict(zip(few.members, found, strict=True))
        nothing = not_finite(_parameters(weights) <= self._exact_up_to)
        return [
            {"member": r, "epoch": weights.epoch, "phase": phase, **described.get(r, nothing)}
            for r in range(len(weights.nets))
        ]


@dataclass(frozen=True)
class _Alike:
    """Members that differ in their parameters alone.

    Attributes:
        members: their numbers among all.
        risk: the mean loss over the whole training set, with their buffers.
        thetas: their parameters, [len(members), P], float64.
    """

    members: list[int]
    risk: EmpiricalRisk
    thetas: Tensor


def _alike(subject: Subject, weights: Weights) -> list[_Alike]:
    """Those that can be measured: all at once, or each by itself where buffers (batch-norm's statistics) differ."""
    import torch

    from hw1.curvature import EmpiricalRisk
    from hw1.vectors import ParamSpace

    data = subject.data
    batches = data.batches("train")
    nets = {r: in_float64(net) for r, net in enumerate(weights.nets) if finite(net, subject.loss, batches)}
    if not nets:
        return []
    buffers = [dict(net.named_buffers()) for net in nets.values()]
    same = all(torch.equal(value, other[name]) for other in buffers[1:] for name, value in buffers[0].items())
    device = next(next(iter(nets.values())).parameters()).device
    pairs = batches if data.streamed else [(x.to(device), y.to(device)) for x, y in batches]

    def together(few: Mapping[int, nn.Module]) -> _Alike:
        own = list(few.values())
        risk = EmpiricalRisk(own[0], subject.loss, pairs, ParamSpace.of(own[0]), keep_graph=not data.streamed)
        return _Alike(list(few), risk, replace(weights, nets=own).theta().double())

    return [together(nets)] if same else [together({r: net}) for r, net in nets.items()]


def _parameters(weights: Weights) -> int:
    """P."""
    return sum(parameter.numel() for parameter in weights.nets[0].parameters())
