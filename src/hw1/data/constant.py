"""What the best constant prediction comes to under any loss: what a network has to beat that has learned anything."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hw1.kinds import Kind, Loss

_TARGETS = 10_000  # the first ones, of more
_STEPS = 200
_NOTHING = 1e-3


def constant_loss(loss: Loss, kind: Kind, targets: Tensor, out_features: int) -> float | None:
    """The smallest mean loss that one output for all inputs has, by L-BFGS from zero; None where none is found.

    Of classes, and of tokens with one output for all positions, [out_features]; of values an output for each of a
    target's, of others a single one. A loss with several minima may have a smaller one than is found. None, too, where
    it is nothing beside that of outputs 0: then any network is above it.

    Args:
        loss: (outputs, targets) -> mean loss [].
        kind: of the targets.
        targets: [N, ...], of which the first 10,000 tell.
        out_features: as of the data.

    Example:
        >>> squared = torch.nn.functional.mse_loss
        >>> round(constant_loss(squared, "values", torch.tensor([[0.0], [2.0]]), 1), 6)
        1.0
    """
    own = targets[: max(1, _TARGETS // max(1, targets[0].numel()))]
    spread = {"classes": (out_features,), "tokens": (1, out_features)}.get(kind, own.shape[1:])
    whole = {"classes": (len(own), out_features), "tokens": (*own.shape, out_features)}.get(kind, own.shape)
    constant = torch.zeros(spread, requires_grad=True)
    optimizer = torch.optim.LBFGS([constant], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def evaluated() -> Tensor:
        optimizer.zero_grad()
        found = loss(constant.expand(whole), own)
        found.backward()
        return found

    try:
        with torch.enable_grad():
            start = float(optimizer.step(evaluated).detach())  # the loss at zero
            found = float(loss(constant.expand(whole), own).detach())
    except (RuntimeError, ValueError, TypeError, ArithmeticError):  # of a user's loss that takes no such outputs
        return None
    return found if math.isfinite(found) and found > _NOTHING * abs(start) else None
