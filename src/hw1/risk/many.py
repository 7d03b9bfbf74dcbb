"""A loss at many thetas at once, in float64: what a search over many starts asks of it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

from hw1.risk.agreement import stands
from hw1.risk.dense import dense_hessian
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.layerwise import LayerwiseRisk
from hw1.risk.protocol import BatchedRisk

HESSIAN_NUMBERS = 2**20  # numbers in the Hessians that `FunctionRisk` takes at a time; the graph is many times larger


class OneByOne:
    """The risk of any module, one theta after another; NaN where a gradient or Hessian is not finite.

    Args:
        risk: R.
    """

    def __init__(self, risk: EmpiricalRisk) -> None:
        self._risk = risk

    @property
    def size(self) -> int:
        """P."""
        return self._risk.space.size

    def __call__(self, thetas: Tensor) -> Tensor:
        """Losses: [R, P] -> [R]."""
        return torch.stack([self._risk(theta) for theta in thetas.double()])

    def gradient(self, thetas: Tensor) -> Tensor:
        """Gradients: [R, P] -> [R, P]."""
        return torch.stack([_or_nan(self._risk.gradient, theta, 1) for theta in thetas.double()])

    def hessian(self, thetas: Tensor) -> Tensor:
        """Hessians: [R, P] -> [R, P, P]."""
        hessian = functools.partial(dense_hessian, self._risk)
        return torch.stack([_or_nan(hessian, theta, 2) for theta in thetas.double()])


def _or_nan(compute: Callable[[Tensor], Tensor], theta: Tensor, dimensions: int) -> Tensor:
    """The result [P] or [P, P] at theta [P]; NaN where the risk refuses it as not finite: a search goes on without."""
    try:
        return compute(theta)
    except ValueError as error:
        if not str(error).startswith(("gradient: got values", "product: got values")):
            raise
        return torch.full((len(theta),) * dimensions, torch.nan, dtype=theta.dtype, device=theta.device)


class LayerByLayer:
    """The risk of a fully connected network, members together, or one after another where that would differ.

    Values and gradients are compared with the risk's at the 1st, 2nd, 4th, ... theta, Hessians as `dense_hessian` says.

    Args:
        risk: R.
        form: its layer-by-layer form.
    """

    def __init__(self, risk: EmpiricalRisk, form: LayerwiseRisk) -> None:
        self._risk, self._form, self._alone = risk, form, OneByOne(risk)

    @property
    def size(self) -> int:
        """P."""
        return self._form.size

    def __call__(self, thetas: Tensor) -> Tensor:
        """Losses: [R, P] -> [R]."""
        thetas = self._form.members(thetas)
        return (self._form if stands(self._risk, self._form, thetas) else self._alone)(thetas)

    def gradient(self, thetas: Tensor) -> Tensor:
        """Gradients: [R, P] -> [R, P]."""
        thetas = self._form.members(thetas)
        return (self._form if stands(self._risk, self._form, thetas) else self._alone).gradient(thetas)

    def hessian(self, thetas: Tensor) -> Tensor:
        """Hessians: [R, P] -> [R, P, P]."""
        return dense_hessian(self._risk, self._form.members(thetas))


class FunctionRisk:
    """A function theta [P] -> [], written with torch operations, for many thetas by `torch.func.vmap`.

    Args:
        f: the function; it must do without branches on values and without in-place changes of theta.
        size: P.

    Example:
        >>> saddle = FunctionRisk(lambda w: (w[0] * w[1] - 1) ** 2, size=2)
        >>> saddle.hessian(torch.zeros(1, 2).double()).tolist()
        [[[0.0, -2.0], [-2.0, 0.0]]]
    """

    def __init__(self, f: Callable[[Tensor], Tensor], size: int) -> None:
        self._size = size
        self._value, self._gradient = vmap(f), vmap(grad(f))
        self._hessian = vmap(hessian(f), chunk_size=max(1, HESSIAN_NUMBERS // size**2))

    @property
    def size(self) -> int:
        """P."""
        return self._size

    def __call__(self, thetas: Tensor) -> Tensor:
        """Losses: [R, P] -> [R]."""
        losses: Tensor = self._value(thetas.double())
        return losses.detach()

    def gradient(self, thetas: Tensor) -> Tensor:
        """Gradients: [R, P] -> [R, P]."""
        gradients: Tensor = self._gradient(thetas.double())
        return gradients.detach()

    def hessian(self, thetas: Tensor) -> Tensor:
        """Hessians: [R, P] -> [R, P, P]."""
        hessians: Tensor = self._hessian(thetas.double()).detach()
        return (hessians + hessians.mT) / 2


def batched(risk: EmpiricalRisk) -> BatchedRisk:
    """The same risk at many thetas at once, the fastest way at hand.

    Args:
        risk: R.
    """
    form = LayerwiseRisk.of(risk)
    return OneByOne(risk) if form is None else LayerByLayer(risk, form)
