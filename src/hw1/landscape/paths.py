"""Straight lines between two networks (Goodfellow, Vinyals & Saxe 2015), and the loss along them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hw1.vectors import ParamSpace


def segment(a: nn.Module, b: nn.Module, alphas: Sequence[float]) -> Iterator[Tensor]:
    """Points theta(alpha) = (1 - alpha) theta_a + alpha theta_b, one at a time.

    At alpha 0 and 1 the point is theta_a and theta_b to the bit. Buffers (batch-norm statistics, say) are not
    parameters and are not interpolated: see `recompute_statistics`.

    Args:
        a: the network at alpha = 0.
        b: the network at alpha = 1, of the same architecture.
        alphas: K numbers; below 0 and above 1 extrapolates.

    Returns:
        Iterator over K vectors theta [P].

    Raises:
        ValueError: the networks differ in the names or shapes of their parameters.

    Example:
        >>> a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(a.weight, 1.0), nn.init.constant_(b.weight, 3.0)
        >>> [point.item() for point in segment(a, b, [0, 0.5, 1, 2])]
        [1.0, 2.0, 3.0, 5.0]
    """
    space = ParamSpace.of(a)
    space.require_same(ParamSpace.of(b))
    start = space.flatten({name: parameter.detach() for name, parameter in a.named_parameters()})  # [P]
    end = space.flatten({name: parameter.detach() for name, parameter in b.named_parameters()})  # [P]
    ends = {0.0: start, 1.0: end}  # as they are: 0 * inf would be NaN
    # A generator function would postpone the check above to the first point.
    return (ends[alpha].clone() if alpha in ends else (1 - alpha) * start + alpha * end for alpha in alphas)


def evaluate(risk: Callable[[Tensor], Tensor], thetas: Iterable[Tensor]) -> Tensor:
    """The value of `risk` at each theta.

    Args:
        risk: theta [P] -> [] (a loss), or -> [M] (several quantities at once, as `EmpiricalRisk.metrics` does).
        thetas: K vectors [P].

    Returns:
        [K], or [K, M].

    Example:
        >>> evaluate(lambda theta: theta.square().sum(), [torch.zeros(2), torch.ones(2)])
        tensor([0., 2.])
    """
    return torch.stack([risk(theta) for theta in thetas])


def barrier(alphas: Sequence[float], losses: Sequence[float]) -> float:
    """Height of the loss barrier: max over alpha in [0, 1] of the loss minus the chord between the two ends.

    Frankle et al. 2020 (linear mode connectivity) subtract the mean of the two ends; the chord is its generalisation
    to ends of unequal loss (Entezari et al. 2022, eq. 1).

    Args:
        alphas: K positions, with 0 and 1 among them.
        losses: K losses, in nats (or the unit of the loss).

    Returns:
        The barrier in the unit of the loss; 0 where the loss never rises above the chord. NaN if a loss is NaN.

    Raises:
        ValueError: 0 or 1 is not among `alphas`, so that the ends are unknown.

    Example:
        >>> barrier([0, 0.5, 1], [1.0, 4.0, 2.0])
        2.5
    """
    position, loss = np.asarray(alphas, dtype=float), np.asarray(losses, dtype=float)
    ends = [np.flatnonzero(np.isclose(position, end, rtol=0, atol=1e-9)) for end in (0.0, 1.0)]
    if not all(len(end) for end in ends):
        raise ValueError(f"alphas: got {list(alphas)}, expected 0 and 1 among them: the barrier is measured from both")
    start, stop = (loss[end[0]] for end in ends)
    inside = (position >= -1e-9) & (position <= 1 + 1e-9)
    chord = (1 - position) * start + position * stop
    return float(np.max((loss - chord)[inside]))
