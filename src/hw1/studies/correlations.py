"""Rank correlations whose intervals keep their level where runs are alike. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from hw1.studies.headlines import Headline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def correlation_headline(
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    within: Sequence[Hashable] = (),
    *,
    given: Sequence[float] = (),
    resamples: int = 4999,
) -> Headline:
    """Spearman's rank correlation, x against y, with an interval from orders exchanged within what is alike.

    Runs of a seed are alike: they may share initial weights and the order of the data. Where they differ in x, what
    can be exchanged when x changes nothing is the order of their y, within each seed. So of x's ranks and of y the
    mean of their seed is taken off, y's are ranked, and the correlation of the two is set against those of such
    exchanges (aligned ranks: Hodges & Lehmann 1962; restricted permutations: Winkler et al. 2015). Fisher's
    z = artanh(rho) has about one spread whatever rho is; the interval is z +- the 95% quantile of |z| under exchange,
    so it excludes 0 exactly where the permutation test rejects at 5%, which keeps its level at any number of runs.
    Resampling does not: pairs, since they are not independent; seeds, since three of them have ten resamples.

    With `given`, what goes with a third quantity is taken off first: within seeds, the regression on it of y and of the
    ranks of x; the residuals of y are ranked and exchanged (Freedman & Lane 1983), and the interval is widened by the
    degree of freedom that this takes. So networks that were stopped at almost one loss are compared as if it had been
    one.

    Runs that share their seed with no other are exchanged with one another; without `within` all are. Where all runs
    of a model have one x, and are alike, see `correlation_of_means_headline`.

    Args:
        name: what it is.
        x: of each run.
        y: of each run.
        within: of each run what it shares with those it is alike, its seed; () where runs are independent.
        given: of each run what is to be held equal; () for nothing.
        resamples: number of exchanges, drawn at random from a fixed seed.

    Returns:
        n is the number of different values of `within`, or of runs. The value is NaN below 3 runs, where x or y
        does not vary, or where one is NaN; the interval also where there are so few exchanges that even the most
        extreme comes up in more than 5% of them.

    Example:
        >>> str(correlation_headline("rho", list(range(9)), [0, 2, 1, 3, 5, 4, 6, 8, 7])).split("[")[0]
        'rho = 0.95 '
    """
    import numpy as np
    from scipy.stats import rankdata

    n = len(set(within)) if len(within) else len(x)
    blocks, levels = _blocks(within, len(x)), np.asarray(y, dtype=float)
    if len(x) < 3 or np.isnan([*x, *y, *given]).any():
        return Headline(name, math.nan, math.nan, math.nan, n)
    if not np.isfinite(levels).all():
        levels = rankdata(levels)  # inf, of a diverged run, has no distance from a mean
    distances, a = _from_means(levels, blocks), _from_means(rankdata(x), blocks)
    if len(given):
        third = _from_means(np.asarray(given, dtype=float), blocks)
        distances, a = _residual(distances, third), _residual(a, third)
    ties = distances.round(12 - math.ceil(math.log10(np.abs(levels).max() or 1)))  # no rounding error tells two apart
    b = rankdata(ties) - (len(x) + 1) / 2
    scale = math.sqrt(float((a @ a) * (b @ b)))
    if scale < 1e-9:
        return Headline(name, math.nan, math.nan, math.nan, n)
    drawn = np.argsort(blocks + np.random.default_rng(0).random((resamples, len(x))), axis=1)  # block by block
    exchanged = b[drawn] @ a[np.argsort(blocks, kind="stable")] / scale
    rho = float(a @ b) / scale
    # A correlation of 1 stands for what lies nearer to it than to the next lower one, as z is infinite there.
    most = 1 - 6 / (len(x) * (len(x) ** 2 - 1))
    z = np.arctanh(np.clip(np.append(exchanged, rho), -most, most)).round(9)
    sizes, counts = np.unique(np.abs(z), return_counts=True)
    rare = np.cumsum(counts[::-1])[::-1] / len(z) <= 0.05  # as large or larger in at most 5%
    if not rare.any():
        return Headline(name, rho, math.nan, math.nan, n)
    first = int(rare.argmax())
    half = float(sizes[max(first - 1, 0) : first + 1].mean())  # between the last that is not and the first that is
    if len(given):
        free = len(x) - len(set(blocks.tolist()))
        if free < 3:
            return Headline(name, rho, math.nan, math.nan, n)
        half *= math.sqrt(free / (free - 1))  # exchanged residuals are free of the third quantity in one direction less
    low, high = (math.tanh(float(z[-1]) + end) for end in (-half, half))
    return Headline(name, rho, min(low, rho), max(high, rho), n)


def correlation_of_means_headline(
    name: str, x: Sequence[float], y: Sequence[float], units: Sequence[Hashable]
) -> Headline:
    """Spearman's rank correlation of the means of x and y in each unit, with the interval of `correlation_headline`.

    For runs that are alike because they train one model: 3 seeds of 6 models are 6 observations, not 18.

    Args:
        name: what it is.
        x: of each run.
        y: of each run.
        units: of each run what it shares with those it is alike: its model, its size.

    Returns:
        n is the number of units.

    Example:
        >>> sizes = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
        >>> str(correlation_of_means_headline("rho", sizes, [size**2 for size in sizes], sizes))
        'rho = 1 [0.6775, 1], n = 6'
    """
    runs: dict[Hashable, list[int]] = {}
    for i, unit in enumerate(units):
        runs.setdefault(unit, []).append(i)
    a, b = ([math.fsum(of[i] for i in part) / len(part) for part in runs.values()] for of in (x, y))
    return correlation_headline(name, a, b)


def _blocks(within: Sequence[Hashable], n: int) -> NDArray[np.intp]:
    """Of each run the number of its block; those that are alone in theirs make one together."""
    import numpy as np

    counts = Counter(within)
    shared = [key for key, count in counts.items() if count > 1]
    number = {key: i for i, key in enumerate(shared)}
    return np.array([number.get(key, len(shared)) for key in within] if len(within) else [0] * n)


def _residual(values: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the regression on `of`, both without mean, leaves of values."""
    power = float(of @ of)
    return values - of * (float(values @ of) / power) if power else values


def _from_means(values: NDArray[np.float64], blocks: NDArray[np.intp]) -> NDArray[np.float64]:
    """The distance of each value from the mean of its block."""
    import numpy as np

    means: NDArray[np.float64] = np.bincount(blocks, values) / np.bincount(blocks).clip(1)
    return values - means[blocks]
