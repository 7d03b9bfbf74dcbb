"""The minimal ratio where training ends, and at the critical points that are found from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file
from torch import Tensor

from hw1.curvature import (
    CRITICAL,
    LADDER,
    EmpiricalRisk,
    Hessian,
    Method,
    constant_predictor,
    find_critical_points,
    ladder,
    many_points,
    minimal_ratio,
    quadrature_ratio,
    sampled_ratio,
    spectrum,
)
from hw1.files import replacing
from hw1.models import Replicated
from hw1.training.identity import mixed
from hw1.training.objectives import SQUARED_GRADIENT_NORM

FLAT = 1e-3  # |Hg| / (|H| |g|) below which a point is flat (Frye et al. 2021)
MEMBERS_AT_A_TIME = 10  # Hessians in memory at once: 571 parameters are 2.6 MB each
TOLERANCES = (1e-1, 1e-2, 1e-3)  # tau / max|lambda| of the quadrature
TABLE, POINTS = "minimal_ratio.csv", "critical_points.safetensors"


class MinimalRatio(Callback):
    """Writes `<run>/minimal_ratio.csv`: one row a member and phase, with the Hessian's signs by both estimators.

    The Hessian is that of the mean loss over the whole training set in float64, evaluation mode, all parameters. Phases
    are `training` (at the end of training on the loss, and every N epochs), `gradient_norm` (at the end of minimising
    the squared gradient norm) and `search` (where a search for a critical point from the end of training stopped; the
    points themselves are `<run>/critical_points.safetensors`, theta [R, P]). The shares at the run's last weights are
    its metrics `minimal_ratio/positive`, `/zero` and `/negative` too.

    Columns: `loss`, `gradient_norm` |g|, `flatness` |Hg| / (|H| |g|), `reason` (converged, flat, stalled, budget; see
    `hw1.curvature.find_critical_points`), `positive`, `zero`, `negative` and their `tolerance`, and both at the ladder,
    `positive@<tol / max|lambda|>`; by quadrature (`estimator`) at tau / max|lambda| = 1e-1, 1e-2 and 1e-3, the middle
    one without a suffix, each with its standard error (`positive_error`); `sampled`, the share of neighbours with a
    higher loss, and `sampled_error`; `largest`, `smallest` (eigenvalues), `nonzero` (number outside the tolerance),
    `max_weight`, `constant` (predictions that do not depend on the input).

    Args:
        every_n_epochs: distance between two measurements; null for the end only.
        exact_up_to: number of parameters up to which all eigenvalues are taken; beyond, stochastic Lanczos quadrature.
        probes: start vectors of the quadrature.
        steps: Lanczos steps a start vector.
        samples: neighbours a point.
        radius: their distance, as a share of |theta|.
        search_iterations: Hessians that the search from the end of training may take; 0 for no search.
        search_method: levenberg_marquardt or newton, see `hw1.curvature.find_critical_points`.
        seed: of the start vectors and the neighbours.

    Raises:
        ValueError: a value is out of range, or a search where the exact Hessian is too large.
    """

    def __init__(
        self,
        every_n_epochs: int | None,
        exact_up_to: int,
        probes: int,
        steps: int,
        samples: int,
        radius: float,
        search_iterations: int,
        search_method: Method,
        seed: int,
    ) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs: got {every_n_epochs}, expected a positive integer or null")
        least = {"exact_up_to": 0, "probes": 2, "steps": 2, "samples": 1, "search_iterations": 0}
        given = {"exact_up_to": exact_up_to, "probes": probes, "steps": steps}
        for name, value in {**given, "samples": samples, "search_iterations": search_iterations}.items():
            if value < least[name]:
                raise ValueError(f"{name}: got {value}, expected an integer of at least {least[name]}")
        if not 0 < radius < 1:
            raise ValueError(f"radius: got {radius}, expected a share of |theta| between 0 and 1")
        self._every = every_n_epochs
        self._exact_up_to = exact_up_to
        self._probes, self._steps = probes, steps
        self._samples, self._radius = samples, radius
        self._iterations, self._method = search_iterations, search_method
        self._seed = seed
        self._rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far, for a run that is resumed."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self._rows = state_dict["rows"]

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse a search that needs Hessians which are too large.

        Raises:
            ValueError: there are too many parameters for it.
        """
        size = sum(parameter.numel() for parameter in pl_module.net.parameters()) // pl_module.members
        if self._iterations and size > self._exact_up_to:
            raise ValueError(
                f"callbacks.minimal_ratio.search_iterations: got {self._iterations} with {size} parameters, expected 0 "
                f"above exact_up_to={self._exact_up_to}; objective.minimise=squared_gradient_norm needs no Hessians"
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Every N epochs, and where the objective changes. Runs before the checkpoint of the epoch."""
        completed = trainer.current_epoch + 1
        due = self._every is not None and completed % self._every == 0
        if (due or completed == pl_module.objective_after) and completed != trainer.max_epochs:
            on_loss = completed <= pl_module.objective_after or pl_module.objective != SQUARED_GRADIENT_NORM
            phase = "training" if on_loss else "gradient_norm"
            self._rows += self._measure(trainer, pl_module, completed, phase, search=False)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The end of training; here because a run whose training had ended when it was killed is tested only."""
        phase = "gradient_norm" if pl_module.objective == SQUARED_GRADIENT_NORM else "training"
        last = self._measure(trainer, pl_module, trainer.current_epoch, phase, search=self._iterations > 0)
        with replacing(Path(trainer.default_root_dir) / TABLE) as temporary:
            pd.DataFrame(self._rows + last).to_csv(temporary, index=False)
        shares = ("positive", "zero", "negative")
        pl_module.add_measured({f"minimal_ratio/{n}": row[n] for n in shares} for row in last[: pl_module.members])

    def _measure(
        self, trainer: lightning.Trainer, task: lightning.LightningModule, epoch: int, phase: str, search: bool
    ) -> list[dict[str, Any]]:
        """Rows of all members at their present weights; with `search`, those of the points found from there too."""
        with torch.inference_mode(False), torch.enable_grad():
            net = task.net.replica(0) if isinstance(task.net, Replicated) else task.net
            batch = tuple(tensor.to(task.device) for tensor in trainer.datamodule.train_tensors)
            risk = EmpiricalRisk(net, task.loss, [batch])
            starts = task.net.theta() if isinstance(task.net, Replicated) else risk.theta[None]
            starts = starts.clone().double()
            rows = self._rows_at(risk, starts, epoch, phase)
            if not search:
                return rows
            found = find_critical_points(many_points(risk), starts, method=self._method, iterations=self._iterations)
            with replacing(Path(trainer.default_root_dir) / POINTS) as temporary:
                save_file({"theta": found.theta.contiguous().cpu()}, str(temporary))
            searched = self._rows_at(risk, found.theta, epoch, "search")
            for row in searched:
                row |= {"reason": found.reason[row["member"]], "iterations": int(found.iterations[row["member"]])}
            return rows + searched

    def _rows_at(self, risk: EmpiricalRisk, thetas: Tensor, epoch: int, phase: str) -> list[dict[str, Any]]:
        described = describe_points(
            risk,
            thetas,
            exact_up_to=self._exact_up_to,
            probes=self._probes,
            steps=self._steps,
            samples=self._samples,
            radius=self._radius,
            generator=torch.Generator(thetas.device).manual_seed(mixed("minimal_ratio", self._seed, epoch, phase)),
        )
        return [{"member": r, "epoch": epoch, "phase": phase, **row} for r, row in enumerate(described)]


def describe_points(
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
    """What the minimal ratio's table says of each of R points, in the columns of `MinimalRatio`.

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
    points = many_points(risk)
    losses, gradients = points(thetas), points.gradient(thetas)
    rows = []
    for first in range(0, len(thetas), MEMBERS_AT_A_TIME):
        few = slice(first, first + MEMBERS_AT_A_TIME)
        exact = thetas.shape[1] <= exact_up_to
        hessians: Tensor | list[None] = points.hessian(thetas[few]) if exact else [None] * len(thetas[few])
        for theta, gradient, hessian in zip(thetas[few], gradients[few], hessians, strict=True):
            norm = gradient.norm().item()
            if hessian is not None:
                signs = _by_eigenvalues(hessian, gradient)
            else:
                signs = _by_quadrature(risk, theta, gradient, probes, steps, generator)
            neighbours = sampled_ratio(points, theta, radius * theta.norm().item(), samples, generator)
            rows.append(
                {
                    "loss": losses[len(rows)].item(),
                    "gradient_norm": norm,
                    "reason": "converged" if norm < CRITICAL else "flat" if signs["flatness"] < FLAT else "budget",
                    **signs,
                    "sampled": neighbours.value,
                    "sampled_error": neighbours.standard_error,
                    "max_weight": theta.abs().max().item(),
                    "constant": bool(constant_predictor(risk.outputs(theta)[None])[0]),
                }
            )
    return rows


def _by_eigenvalues(hessian: Tensor, gradient: Tensor) -> dict[str, Any]:
    values = spectrum(hessian)
    ratio = minimal_ratio(values, gradient.norm().item())
    largest = values.abs().max().item()
    return {
        "estimator": "eigenvalues",
        "flatness": _flatness(hessian @ gradient, gradient, largest),
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
    op = Hessian(risk, theta.float())  # the tolerances are far above float32's rounding
    rungs = quadrature_ratio(op, probes=probes, steps=steps, generator=generator, tolerances=TOLERANCES)
    largest = rungs[0].tolerance / TOLERANCES[0]
    middle = rungs[1]
    row: dict[str, Any] = {
        "estimator": "quadrature",
        "flatness": _flatness(op.matvec(gradient.float()).double(), gradient, largest),
        "tolerance": middle.tolerance,
    }
    for name in ("positive", "zero", "negative"):
        row |= {name: getattr(middle, name).value, f"{name}_error": getattr(middle, name).standard_error}
        for step, rung in zip(TOLERANCES, rungs, strict=True):
            share = getattr(rung, name)
            row |= {f"{name}@{step:.0e}": share.value, f"{name}_error@{step:.0e}": share.standard_error}
    return row


def _flatness(product: Tensor, gradient: Tensor, largest: float) -> float:
    """|Hg| / (|H| |g|); 0 where there is no gradient or no curvature."""
    scale = largest * gradient.norm().item()
    return product.norm().item() / scale if scale > 0 else 0.0
