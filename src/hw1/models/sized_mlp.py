"""Fully connected networks by their number of parameters instead of their sizes."""

import itertools
import logging
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

from hw1.bounds import TENSORS
from hw1.models.mlp import Mlp

log = logging.getLogger(__name__)


def mlp_of_size(
    in_shape: Sequence[int], out_features: int, *, size: int, depth: int, activation: str, dropout: float
) -> Mlp:
    """The `Mlp` of a depth that is nearest to a number of parameters; its log line says how near.

    Args:
        in_shape: shape of one example.
        out_features: number of outputs.
        size: number of parameters to come near to.
        depth: number of hidden layers; see `hidden_of_size` for their sizes.
        activation: as of `Mlp`.
        dropout: as of `Mlp`.

    Raises:
        ValueError: as `hidden_of_size` and `Mlp`.

    Example:
        >>> net = mlp_of_size((1,), 1, size=571, depth=7, activation="relu", dropout=0.0)
        >>> sum(p.numel() for p in net.parameters())
        568
    """
    hidden = hidden_of_size(math.prod(in_shape), out_features, size, depth)
    if log.isEnabledFor(logging.INFO):  # once each, and not while a sweep is only planned
        _say(math.prod(in_shape), out_features, size, tuple(hidden))
    return Mlp(in_shape, out_features, hidden=hidden, activation=activation, dropout=dropout)


def mlp_of_budget(
    in_shape: Sequence[int], out_features: int, *, budget: int, depth: int, activation: str, dropout: float
) -> Mlp:
    """`mlp_of_size`, as the runs of earlier versions name it."""
    return mlp_of_size(in_shape, out_features, size=budget, depth=depth, activation=activation, dropout=dropout)


def hidden_of_size(inputs: int, outputs: int, size: int, depth: int) -> list[int]:
    """Hidden sizes whose network has the number of parameters nearest to `size`; of two as near, the smaller.

    The sizes are equal, but for the last ones, which may have one unit more.

    Raises:
        ValueError: no hidden layer, or a size below that of the smallest network of this depth.

    Example:
        >>> hidden_of_size(1, 1, 571, 1), hidden_of_size(1, 1, 571, 4)
        ([190], [12, 13, 13, 13])
    """
    if depth < 1:
        raise ValueError(f"depth: got {depth}, expected a positive number of hidden layers")
    if problem := TENSORS.problem(2 * (depth + 1)):
        raise ValueError(f"depth: {problem}")
    least = parameters([inputs, *[1] * depth, outputs])
    if size < least:
        raise ValueError(f"size: got {size}, expected at least {least}: one unit in each of {depth} hidden layers")
    # The number of widths whose net does not exceed the size, which is the largest of them.
    width = bisect_right(range(1, size), size, key=lambda units: parameters([inputs, *[units] * depth, outputs]))

    def net(more: int) -> list[int]:
        return [width] * (depth - more) + [width + 1] * more

    def count(more: int) -> int:  # rises
        return parameters([inputs, *net(more), outputs])

    above = bisect_right(range(depth + 1), size, key=count)
    near = range(max(0, above - 1), min(above, depth) + 1)
    return net(min(near, key=lambda more: abs(count(more) - size)))


def parameters(sizes: Sequence[int]) -> int:
    """Weights and biases of a fully connected network with layers of these sizes, input and output included."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(sizes))


@cache
def _say(inputs: int, outputs: int, size: int, hidden: tuple[int, ...]) -> None:
    found = parameters([inputs, *hidden, outputs])
    sizes = "-".join(str(size) for size in (inputs, *hidden, outputs))
    log.info("size %d: %s has %d parameters (%+.2f%%)", size, sizes, found, 100 * (found / size - 1))
