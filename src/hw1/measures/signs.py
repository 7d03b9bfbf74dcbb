"""What the minimal ratio's table says of a point: the signs of the Hessian's eigenvalues there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hw1.stages import at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hw1.curvature import EmpiricalRisk

FLAT = 1e-3  # |Hg| / (|H| |g|) below which a point is flat (Frye et al. 2021)
MEMBERS_AT_A_TIME = 10  # Hessians in memory at once: 571 parameters are 2.6 MB each
TOLERANCES = (1e-1, 1e-2, 1e-3)  # tau / max|lambda| of the quadrature
SHARES = ("positive", "zero", "negative")


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
            at(len(rows), len(thetas))
            norm = gradient.norm().item()
            if hessian is not None:
                signs = _by_eigenvalues(hessian, gradient)
            else:
                signs = _by_quadrature(risk, theta, gradient, probes, steps, generator)
            outputs = risk.outputs(theta)
            neighbours = sampled_ratio(many, theta, radius * theta.norm().item(), samples, generator)
            flat = "flat" if signs["gradient_flatness"] < FLAT else "not converged"
            rows.append(
                {
                    "loss": losses[len(rows)].item(),
                    "gradient_norm": norm,
                    "reason": "converged" if norm < CRITICAL else flat,
                    **signs,
                    "sampled": neighbours.value,
                    "sampled_error": neighbours.standard_error,
                    "max_weight": theta.abs().max().item(),
                    "constant": bool(constant_predictor(outputs.reshape(len(outputs), -1)[None])[0]),
                }
            )
    return rows


def not_finite(exact: bool) -> dict[str, Any]:
    """What `describe` says of a member that cannot be measured.

    Args:
        exact: whether the others' eigenvalues are all taken.
    """
    from hw1.curvature import LADDER

    names = ["loss", "gradient_norm", "gradient_flatness", *SHARES, "tolerance"]
    if exact:
        names += [f"{name}@{step:.0e}" for name in ("positive", "negative") for step in LADDER]
        names += ["largest", "smallest", "nonzero"]
    else:
        names += [f"{name}_error" for name in SHARES]
        names += [f"{name}{kind}@{step:.0e}" for name in SHARES for step in TOLERANCES for kind in ("", "_error")]
    names += ["sampled", "sampled_error", "max_weight"]
    told = {"reason": "not finite", "estimator": "eigenvalues" if exact else "quadrature", "constant": False}
    return dict.fromkeys(names, math.nan) | told


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
    rungs = quadrature_ratio(
        op, probes=probes, steps=steps, most_steps=steps, generator=generator, tolerances=TOLERANCES
    )
    largest = rungs[0].tolerance / TOLERANCES[0]
    middle = rungs[1]
    row: dict[str, Any] = {
        "estimator": "quadrature",
        "gradient_flatness": _gradient_flatness(op.matvec(gradient.float()).double(), gradient, largest),
        "tolerance": middle.tolerance,
    }
    for name in ("positive", "zero", "negative"):
        row |= {name: getattr(middle, name).value, f"{name}_error": getattr(middle, name).error}
        for step, rung in zip(TOLERANCES, rungs, strict=True):
            share = getattr(rung, name)
            row |= {f"{name}@{step:.0e}": share.value, f"{name}_error@{step:.0e}": share.error}
    return row


def _gradient_flatness(product: Tensor, gradient: Tensor, largest: float) -> float:
    """|Hg| / (|H| |g|); 0 where there is no gradient or no curvature."""
    scale = largest * gradient.norm().item()
    return product.norm().item() / scale if scale > 0 else 0.0
