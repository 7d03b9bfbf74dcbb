"""Sharpness-aware minimisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Sam(torch.optim.SGD):
    """SGD on the loss at the worst nearby point (Foret et al. 2021, eq. 2 and algorithm 1).

    A step takes the gradient g at theta, then that at theta + rho g / |g|, and moves theta by the latter. With
    `adaptive`, scale-invariant: theta + rho theta^2 g / |theta g| (Kwon et al. 2021, eq. 8). A step costs two
    evaluations of its batch, each with its own dropout and batch-norm statistics.

    Args:
        params: parameters, named ones, or groups.
        lr: learning rate.
        rho: radius, in the unit of the parameters (0.05 in the paper's table 1; adaptive: 0.5 to 2).
        momentum, weight_decay, nesterov: of SGD. Weight decay is none of the loss that is made worse.
        adaptive: see above.

    Raises:
        ValueError: `rho` is negative, or what SGD refuses.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        rho: float = 0.05,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        adaptive: bool = False,
    ) -> None:
        if rho < 0:
            raise ValueError(f"rho: got {rho}, expected a number of at least 0")
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
        self._rho, self._adaptive = rho, adaptive

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]  # not without one
        """One step; returns the loss at its start.

        Args:
            closure: evaluates loss and gradients anew.
        """
        with torch.enable_grad():
            loss = closure()
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        start = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            directions = [self._direction(parameter) for parameter in parameters]
            scaled = [self._scaled(parameter) for parameter in parameters]
            norm = torch.stack([one.norm().to(scaled[0].device) for one in scaled]).norm() if scaled else None
            for parameter, direction in zip(parameters, directions, strict=True):
                assert norm is not None
                # At a critical point there is no worse direction: it stays where it is.
                parameter += direction * torch.where(norm > 0, self._rho / norm, 0.0).to(parameter)
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
        super().step()
        return loss

    def _scaled(self, parameter: Tensor) -> Tensor:
        assert parameter.grad is not None
        return parameter.grad * parameter.abs() if self._adaptive else parameter.grad

    def _direction(self, parameter: Tensor) -> Tensor:
        assert parameter.grad is not None
        return parameter.grad * parameter.square() if self._adaptive else parameter.grad.clone()
