"""The numbers that studies give, each with its 95% interval, and how the parts of a table are called. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Headline:
    """One number that a study found.

    Attributes:
        name: what it is.
        value: a mean over seeds or members, unless its study's `headlines` says that it is a median, a share or a rank
            correlation.
        low: lower end of its 95% interval; NaN where n is too small for one.
        high: upper end.
        n: number of what is independent: seeds or members; of a correlation of means the models.
    """

    name: str
    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """`name = value [low, high], n = N`."""
        return f"{self.name} = {self.value:.4g} [{self.low:.4g}, {self.high:.4g}], n = {self.n}"


def headline(name: str, values: Sequence[float], least: float = -math.inf) -> Headline:
    """Mean of `values` with Student's 95% interval, NaN where there are fewer than two.

    The interval is cut at `least`, below which no value can lie: that takes nothing from its coverage.

    Example:
        >>> str(headline("barrier", [1.0, 2.0, 3.0]))
        'barrier = 2 [-0.4841, 4.484], n = 3'
    """
    n, mean = len(values), math.fsum(values) / len(values)
    half = math.nan
    if n > 1:
        from scipy.stats import t

        variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
        half = float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    return Headline(name, mean, max(mean - half, least), mean + half, n)


def bounded_headline(name: str, values: Sequence[float], least: float, most: float) -> Headline:
    """Mean of values in [least, most], an accuracy or a correlation, with a 95% interval that stays there.

    The interval is Student's for the logit of the mean's place between the two (delta method: the standard error over
    place (1 - place)); of a correlation that is Fisher's z. With 5 or 10 accuracies near 1 it covers their mean more
    often than Student's own does. NaN where there are fewer than two values; where all lie on one bound, that bound.

    Args:
        name: what it is.
        values: any number, above 0.
        least: the lowest value that there can be.
        most: the highest.

    Example:
        >>> str(bounded_headline("accuracy", [0.9995, 0.995, 1.0], 0, 1))
        'accuracy = 0.9982 [0.9283, 1], n = 3'
    """
    plain, width = headline(name, values), most - least
    place = (plain.value - least) / width
    if len(values) < 2 or not 0 < place < 1:
        return plain
    half = (plain.high - plain.value) / width / (place * (1 - place))
    logit = math.log(place / (1 - place))
    low, high = (least + width / (1 + math.exp(-end)) for end in (logit - half, logit + half))
    return Headline(name, plain.value, low, high, plain.n)


def geometric_headline(name: str, values: Sequence[float]) -> Headline:
    """Geometric mean of positive, skewed values with Student's 95% interval of their logarithm; NaN below two.

    Raises:
        ValueError: a value is not positive.

    Example:
        >>> str(geometric_headline("final_loss", [1e-3, 1e-2, 1e-1]))
        'final_loss = 0.01 [3.28e-05, 3.049], n = 3'
    """
    if min(values) <= 0:
        raise ValueError(f"{name}: got {min(values)}, expected values above 0")
    logs = headline(name, [math.log(value) for value in values])
    return Headline(name, math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.n)


def median_headline(name: str, values: Sequence[float]) -> Headline:
    """Median of `values` with the exact 95% interval of order statistics, NaN where there are too few (below 6).

    Example:
        >>> str(median_headline("final_loss", [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]))
        'final_loss = 3.5 [1, 9], n = 6'
    """
    import numpy as np
    from scipy.stats import quantile_test

    found = quantile_test(list(values), p=0.5).confidence_interval(0.95)
    return Headline(name, float(np.median(values)), float(found.low), float(found.high), len(values))


def share_headline(name: str, hits: int, n: int) -> Headline:
    """Share of `hits` in `n` with Wilson's 95% interval.

    Example:
        >>> str(share_headline("constant_predictors", 7, 8))
        'constant_predictors = 0.875 [0.5291, 0.9776], n = 8'
    """
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(0.95, "wilson")
    return Headline(name, hits / n, float(found.low), float(found.high), n)


def paired_headline(name: str, a: Sequence[bool], b: Sequence[bool]) -> Headline:
    """Share of hits in `a` minus the share in `b`, of the same units, with the interval of McNemar's exact test.

    Only the m units that hit in one of the two alone tell them apart, and of these without an effect half hit in `a`:
    a sign test. The interval is that of Clopper & Pearson for their share, in terms of the difference: it excludes 0
    where the exact test rejects at 5%. Where no unit differs there is none.

    Args:
        name: what it is.
        a: of each unit, whether it hits under one setting.
        b: of the same units in the same order, whether it hits under the other.

    Raises:
        ValueError: a and b are not of one length.

    Example:
        >>> str(paired_headline("collapsed", [True] * 9 + [False] * 3, [True] + [False] * 11))
        'collapsed = 0.6667 [0.1741, 0.6667], n = 12'
    """
    from scipy.stats import binomtest

    only_a = sum(one and not other for one, other in zip(a, b, strict=True))
    only_b = sum(other and not one for one, other in zip(a, b, strict=True))
    n, differ = len(a), only_a + only_b
    low = high = math.nan
    if differ:
        found = binomtest(only_a, differ).proportion_ci(0.95, "exact")
        low, high = ((2 * float(share) - 1) * differ / n for share in (found.low, found.high))
    return Headline(name, (only_a - only_b) / n, low, high, n)


def correlation_headline(
    name: str, x: Sequence[float], y: Sequence[float], within: Sequence[Hashable] = (), resamples: int = 4999
) -> Headline:
    """Spearman's rank correlation, x against y, with an interval from orders exchanged within what is alike.

    Runs of a seed are alike: they may share initial weights and the order of the data. Where they differ in x, what
    can be exchanged when x changes nothing is the order of their y, within each seed. So of x's ranks and of y the
    mean of their seed is taken off, y's are ranked, and the correlation of the two is set against those of such
    exchanges (aligned ranks: Hodges & Lehmann 1962; restricted permutations: Winkler et al. 2015). Fisher's
    z = artanh(rho) has about one spread whatever rho is; the interval is z +- the 95% quantile of |z| under exchange,
    so it excludes 0 exactly where the permutation test rejects at 5%, which keeps its level at any number of runs.
    Resampling does not: pairs, since they are not independent; seeds, since three of them have ten resamples.

    Runs that share their seed with no other are exchanged with one another; without `within` all are. Where all runs
    of a model have one x, and are alike, see `correlation_of_means_headline`.

    Args:
        name: what it is.
        x: of each run.
        y: of each run.
        within: of each run what it shares with those it is alike, its seed; () where runs are independent.
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
    if len(x) < 3 or np.isnan([*x, *y]).any():
        return Headline(name, math.nan, math.nan, math.nan, n)
    if not np.isfinite(levels).all():
        levels = rankdata(levels)  # inf, of a diverged run, has no distance from a mean
    distances = _from_means(levels, blocks)
    ties = distances.round(12 - math.ceil(math.log10(np.abs(levels).max() or 1)))  # no rounding error tells two apart
    a, b = _from_means(rankdata(x), blocks), rankdata(ties) - (len(x) + 1) / 2
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


def _from_means(values: NDArray[np.float64], blocks: NDArray[np.intp]) -> NDArray[np.float64]:
    """The distance of each value from the mean of its block."""
    import numpy as np

    means: NDArray[np.float64] = np.bincount(blocks, values) / np.bincount(blocks).clip(1)
    return values - means[blocks]


def unseeded(keys: Iterable[str]) -> list[str]:
    """The swept keys other than the seed: what tells settings apart; over seeds numbers are averaged.

    Example:
        >>> unseeded(["optimizer.lr", "seed"])
        ['optimizer.lr']
    """
    return [key for key in keys if key != "seed"]


def told_apart(named: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Names, each followed by the values that tell its settings from others of the same name; most names stay.

    Args:
        named: (name, settings), once or more for each setting.

    Example:
        >>> told_apart([("4", {"model": "mlp_relu"}), ("4", {"model": "mlp_tanh"}), ("8", {"model": "wide"})])
        ['4, model=mlp_relu', '4, model=mlp_tanh', '8']
    """
    seen: dict[str, dict[str, set[str]]] = {}  # name -> key -> values
    for name, values in named:
        for key, value in values.items():
            seen.setdefault(name, {}).setdefault(key, set()).add(str(value))
    return [
        ", ".join([name, *(f"{key.rpartition('.')[2]}={values[key]}" for key in values if len(seen[name][key]) > 1)])
        for name, values in named
    ]


def parts(table: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(values of `keys`, rows) of each of their combinations; the whole table where there are no keys."""
    for values, part in table.groupby(list(keys), sort=False) if keys else [((), table)]:
        yield dict(zip(keys, values, strict=True)), part


def suffix(values: Mapping[str, Any]) -> str:
    """What tells the figure of a part from the others, as the end of a name.

    Example:
        >>> suffix({"optimizer.lr": 0.1, "seed": 2})
        '_lr=0.1_seed=2'
    """
    return "".join(f"_{key.rpartition('.')[2]}={value}" for key, value in values.items())


def titled(values: Mapping[str, Any]) -> str:
    """The same in a title.

    Example:
        >>> titled({"optimizer.lr": 0.1, "seed": 2})
        'optimizer.lr = 0.1, seed = 2'
    """
    return ", ".join(f"{key} = {value}" for key, value in values.items())


def labelled(values: Mapping[str, Any]) -> str:
    """The same in the name of a headline.

    Example:
        >>> f"barrier{labelled({'optimizer.lr': 0.1, 'seed': 2})}"
        'barrier optimizer.lr=0.1 seed=2'
    """
    return "".join(f" {key}={value}" for key, value in values.items())
