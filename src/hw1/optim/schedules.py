"""Learning rates that rise first: the factor of a step in closed form, so that a resumed training has the same bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class Factor:
    """Step -> the factor of the learning rate: it rises linearly to 1, then stays, or falls as a half cosine.

    Attributes:
        rise: steps after which it is 1; step s of them has (s + 1) / rise.
        total: steps of the training.
        end: factor behind the last step, of the cosine: no step is one of learning rate 0; None to stay at 1.
    """

    rise: int
    total: int
    end: float | None

    def __call__(self, step: int) -> float:
        """The factor.

        Example:
            >>> factor = Factor(rise=2, total=5, end=0.0)
            >>> [round(factor(step), 3) for step in range(5)]
            [0.5, 1.0, 1.0, 0.75, 0.25]
        """
        if step < self.rise:
            return (step + 1) / self.rise
        if self.end is None:
            return 1.0
        done = min(1.0, (step - self.rise) / max(1, self.total - self.rise))
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * done)) / 2


def cosine_warmup(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup: float, end_factor: float = 0.0
) -> LambdaLR:
    """Linear warm-up (Goyal et al. 2017, section 2.2), then a half cosine (Loshchilov & Hutter 2017, eq. 5).

    Args:
        optimizer: whose learning rates are the largest.
        total_steps: of the training, in steps of this schedule.
        warmup: share of them in which it rises, below 1; or a number of steps, from 1 on.
        end_factor: what is left of the learning rate at the end.

    Raises:
        ValueError: `warmup` is negative, or all of the training or more; `end_factor` is not in [0, 1].
    """
    if not 0 <= end_factor <= 1:
        raise ValueError(f"end_factor: got {end_factor}, expected a share from 0 to 1")
    return LambdaLR(optimizer, Factor(_rise(warmup, total_steps), total_steps, end_factor))


def linear_warmup(optimizer: torch.optim.Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """Linear warm-up (Goyal et al. 2017, section 2.2), then the learning rate itself; arguments as `cosine_warmup`."""
    return LambdaLR(optimizer, Factor(_rise(warmup, total_steps), total_steps, None))


def _rise(warmup: float, total: int) -> int:
    steps = round(warmup * total) if 0 <= warmup < 1 else int(warmup)
    if warmup < 0 or steps >= total:
        raise ValueError(
            f"warmup: got {warmup} of {total} steps, expected a share from 0 to below 1, or fewer steps than there are"
        )
    return steps
