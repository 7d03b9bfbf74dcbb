"""How long the paths of the weights are, and how far apart they start and end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from hw1.studies.headlines import Headline, bounded, headline

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from hw1.runs import Snapshots

FURTHEST = math.sqrt(3)  # the largest `ends_over_independent` of `apart`: three equal lengths in one line


def between(name: str, values: Sequence[float], least: float = 0.0, most: float = math.inf) -> Headline:
    """Mean over paths of what lies between each and the others, with a 95% interval; NaN below three paths.

    Every pair of paths is in two of the values. The standard error is the jackknife's over paths: for means of pairs
    that of independent values times 2 (n - 1) / (n - 2).

    Args:
        name: what it is.
        values: of each path, a mean over the others.
        least: the lowest value that there can be, where the interval is cut.
        most: the highest; where there is one the interval is that of `bounded`.
    """
    n, naive = len(values), headline(name, values)
    half = (naive.high - naive.value) * 2 * (n - 1) / (n - 2) if n > 2 else math.nan
    found = Headline(name, naive.value, naive.value - half, naive.value + half, n)
    if math.isfinite(most):
        return bounded(found, least, most)
    return found if math.isnan(half) else replace(found, low=max(found.low, least))


def path_distances(weights: str, read: Callable[[], list[Snapshots]]) -> pd.DataFrame:
    """One row a path: its length and the distances, in l2 norm."""
    import pandas as pd

    from hw1.landscape import displacements

    paths = [snapshots.values.flatten(1) for snapshots in read()]
    columns: dict[str, list[float]] = {
        "length": [float(displacements(path).sum()) for path in paths],
        "net": [float(displacements(path[[0, -1]])) for path in paths],
    }
    for name, position in (("to_other_starts", 0), ("to_other_ends", -1)):
        points = [path[position].double() for path in paths]
        away = [[float((one - other).norm()) for other in points if other is not one] for one in points]
        columns[name] = [fmean(distances) if distances else math.nan for distances in away]
    ends = [(path[0].double(), path[-1].double()) for path in paths]
    for own in ends:
        pairs = [apart(own, other) for other in ends if other is not own]
        for name in ("ends_over_independent", "displacement_cosine"):
            columns.setdefault(name, []).append(fmean(pair[name] for pair in pairs) if pairs else math.nan)
    table = pd.DataFrame({"member": range(len(paths)), "weights": weights, **columns})
    return table.assign(ends_over_length=table["to_other_ends"] / table["length"])


def apart(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> dict[str, float]:
    """How far two paths end apart, by their ends alone: however often one looked in between, it is the same.

    With starts a, b and displacements u, v at right angles to each other and to a - b, as independent directions are
    in many dimensions, the ends lie sqrt(|a - b|^2 + |u|^2 + |v|^2) apart. `ends_over_independent` is their distance
    over that, in [0, `FURTHEST`]; `displacement_cosine` that of the angle between u and v.
    """
    (a, end_a), (b, end_b) = one, other
    u, v = end_a - a, end_b - b
    independent = ((a - b).square().sum() + u.square().sum() + v.square().sum()).sqrt()
    return {
        "ends_over_independent": float((end_a - end_b).norm() / independent),
        "displacement_cosine": float(u @ v / (u.norm() * v.norm())),
    }
