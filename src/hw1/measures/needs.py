"""The memory that a run takes, estimated from its parameters and measures before it begins. No torch.

What is checked before anything trains knows the number of parameters; the launcher, which asks, does not count again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from hw1.machine import PER_WORKER
from hw1.measures.room import MANY, MOST
from hw1.settings import RunSettings

COPIES = 8  # of a network while it trains: weights, gradients, an optimizer's two, checkpoints on their way
BYTES = 4  # of a parameter

_known: dict[str, float] = {}


def need(parameters: int, members: int, curvature: bool) -> float:
    """Bytes that a run takes at its peak.

    Args:
        parameters: P, of one member.
        members: R.
        curvature: whether it takes a measure that keeps to `hw1.measures.room`.

    Example:
        >>> need(14_718, 1, True) == PER_WORKER
        True
        >>> round(need(11_181_642, 1, True) / 2**30, 1)
        2.8
    """
    if parameters < MANY:
        return PER_WORKER
    training = COPIES * BYTES * parameters * members
    return PER_WORKER + max(training, BYTES * parameters * members + MOST if curvature else 0)


def values_need(parameters: int) -> float:
    """Bytes that a process takes that evaluates losses of a network with so many parameters, and checks them first."""
    return PER_WORKER if parameters < MANY else PER_WORKER + 2 * COPIES * BYTES * parameters


def expect(settings: RunSettings, parameters: int, curvature: bool) -> None:
    """Note what a run that was checked takes."""
    key = _key(settings)
    _known[key] = max(_known.get(key, 0.0), need(parameters, settings.members, curvature))


def largest(runs: Iterable[RunSettings]) -> float:
    """Bytes that the largest of these runs takes, as far as they were checked."""
    return max((_known.get(_key(run), PER_WORKER) for run in runs), default=PER_WORKER)


def _key(settings: RunSettings) -> str:
    """What decides the number of parameters, and the measures: not the seed."""
    plain = settings.plain
    return json.dumps([plain.get(name) for name in ("model", "dataset", "measures")], sort_keys=True, default=str)
