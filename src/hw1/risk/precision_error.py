"""What float32, as a risk multiplies it, makes of a value, a gradient and a Hessian product: against float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from hw1.risk.precision import Precision
from hw1.risk.protocol import Risk

# Examples that are computed in float64 as well, and those among them that say how large one example's share is.
EXAMPLES, SINGLES = 64, 8


class TwiceDifferentiableRisk(Risk, Protocol):
    """A loss of theta [P] with Hessian products, in float32 and float64; `EmpiricalRisk` is one."""

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Its Hessian at theta times v: [P] -> [P]."""


@dataclass(frozen=True)
class PrecisionError:
    """How far value, gradient and Hessian product lie from float64's at the same theta; norms are Euclidean.

    The relative errors are shares of what one example contributes: at a minimum the examples' gradients cancel, their
    rounding does not, and a share of the mean gradient would say nothing.

    Attributes:
        value: |R - R64|, in the loss's unit.
        gradient: ||g - g64||.
        product: ||H v - H64 v|| for one random v of norm 1.
        relative_value: `value` over the root mean square of single examples' |loss_n| (times their number, for a sum).
        relative_gradient: `gradient` over that of ||grad loss_n||.
        relative_product: `product` over that of ||H_n v||.
        examples: how many R is over here.
        precision: how float32 was multiplied.
        dtype: theta's. For float64 all errors are 0: there is nothing to compare with.
    """

    value: float
    gradient: float
    product: float
    relative_value: float
    relative_gradient: float
    relative_product: float
    examples: int
    precision: Precision
    dtype: torch.dtype

    def __str__(self) -> str:
        if self.dtype == torch.float64:
            return "float64"
        errors = ", ".join(
            f"{name} {getattr(self, name):.1e} ({getattr(self, f'relative_{name}'):.1e} of an example's)"
            for name in ("value", "gradient", "product")
        )
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} multiplied in {self.precision}, off float64 on {self.examples} examples by: {errors}"


def precision_error(
    risk: TwiceDifferentiableRisk,
    singles: Sequence[TwiceDifferentiableRisk],
    theta: Tensor,
    generator: torch.Generator,
    *,
    examples: int,
    precision: Precision,
    reduction: Literal["mean", "sum"] = "mean",
    product: Literal["hvp", "gauss_newton_vp"] = "hvp",
) -> PrecisionError:
    """Value, gradient and product with a random v at theta, in its dtype and in float64.

    Costs `risk` and each of `singles` once in float64, and `risk` once more in theta's dtype. The error of a mean over
    more examples is no larger, since their roundings partly cancel.

    Args:
        risk: of a few examples, at most `EXAMPLES` for the cost's sake; it multiplies float32 in `precision`.
        singles: risks of single ones among its examples, `SINGLES` are enough; where examples cannot be taken apart, of
            what it is made up from (batches).
        theta: [P].
        generator: for v.
        examples: how many like `singles` make up `risk`.
        precision: how `risk` multiplies float32.
        product: which of the risks' products is meant.
        reduction: whether `risk` is the mean or the sum of what is like `singles`.

    Raises:
        ValueError: no singles.

    Example:
        >>> from torch import nn
        >>> from hw1.risk.empirical import EmpiricalRisk
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(20, 3, generator=generator), torch.randn(20, 1, generator=generator)
        >>> risk = EmpiricalRisk(nn.Linear(3, 1), nn.functional.mse_loss, [(x, y)])
        >>> singles = [risk.draw(1, generator) for _ in range(SINGLES)]
        >>> error = precision_error(risk, singles, risk.theta, generator, examples=20, precision="ieee")
        >>> error.relative_gradient < 1e-5
        True
    """
    if not singles:
        raise ValueError("singles: got none, expected risks of single examples: draw some with risk.draw(1, generator)")
    if theta.dtype == torch.float64:
        return PrecisionError(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, examples, precision, theta.dtype)
    v = torch.randn(len(theta), dtype=torch.float64, device=generator.device, generator=generator)
    v = (v / v.norm()).to(theta)
    exact, exact_v = theta.double(), v.double()
    rounded, reference = _all(risk, theta, v, product), _all(risk, exact, exact_v, product)
    errors = [(a.double() - b).norm().item() for a, b in zip(rounded, reference, strict=True)]
    norms = torch.tensor(
        [[part.norm().item() for part in _all(single, exact, exact_v, product)] for single in singles],
        dtype=torch.float64,
    )
    scales = norms.square().mean(dim=0).sqrt() * (examples if reduction == "sum" else 1)
    relative = [_over(error, scale) for error, scale in zip(errors, scales.tolist(), strict=True)]
    return PrecisionError(
        errors[0], errors[1], errors[2], relative[0], relative[1], relative[2],
        examples, precision, theta.dtype,
    )  # fmt: skip


def _all(risk: TwiceDifferentiableRisk, theta: Tensor, v: Tensor, product: str) -> tuple[Tensor, Tensor, Tensor]:
    return risk(theta).detach(), risk.gradient(theta), getattr(risk, product)(theta, v)


def _over(error: float, scale: float) -> float:
    if scale:
        return error / scale
    return 0.0 if error == 0 else math.inf
