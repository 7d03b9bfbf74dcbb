"""The numbers that studies give, each with its 95% interval, and how the parts of a table are called. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 1e-12  # of the largest: values no further apart are equal


@dataclass(frozen=True)
class Headline:
    """One number that a study found.

    Attributes:
        name: what it is.
        value: a mean over seeds or members, unless its study's `headlines` says that it is a median, a share or a rank
            correlation.
        low: lower end of its 95% interval; NaN where there is none: n is too small, or all values are equal.
        high: upper end.
        n: number of what is independent: seeds or members; of a correlation of means the models.
    """

    name: str
    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """`name = value [low, high], n = N`, or `name = value (no interval), n = N`."""
        none = math.isnan(self.low) and math.isnan(self.high)
        interval = "(no interval)" if none else f"[{self.low:.4g}, {self.high:.4g}]"
        return f"{self.name} = {self.value:.4g} {interval}, n = {self.n}"


def headline(name: str, values: Sequence[float], least: float = -math.inf, level: float = 0.95) -> Headline:
    """Mean of `values` with Student's interval, NaN where there are fewer than two, or all are equal.

    Equal ones do not say how far another would lie: where one net in ten slips, five of accuracy 1 are frequent, and an
    interval without width misses the mean. The interval is cut at `least`, below which no value can lie: that takes
    nothing from its coverage.

    Args:
        name: what it is.
        values: any number, above 0.
        least: the lowest value that there can be.
        level: of the interval; above 95% where several are read together.

    Example:
        >>> str(headline("barrier", [1.0, 2.0, 3.0]))
        'barrier = 2 [-0.4841, 4.484], n = 3'
    """
    n, mean = len(values), math.fsum(values) / len(values)
    half = math.nan
    if n > 1:
        from scipy.stats import t

        variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
        if max(values) - min(values) > ROUNDING * max(map(abs, values)):
            half = float(t.ppf((1 + level) / 2, n - 1)) * math.sqrt(variance / n)
    low = mean - half
    return Headline(name, mean, low if math.isnan(low) else max(low, least), mean + half, n)


def bounded_headline(name: str, values: Sequence[float], least: float, most: float) -> Headline:
    """Mean of values in [least, most], an accuracy or a correlation, with a 95% interval that stays there.

    The interval is Student's for the logit of the mean's place between the two (delta method: the standard error over
    place (1 - place)); of a correlation that is Fisher's z. With 5 or 10 accuracies near 1 it covers their mean more
    often than Student's own does. NaN where there are fewer than two values, or all are equal.

    Args:
        name: what it is.
        values: any number, above 0.
        least: the lowest value that there can be.
        most: the highest.

    Example:
        >>> str(bounded_headline("accuracy", [0.9995, 0.995, 1.0], 0, 1))
        'accuracy = 0.9982 [0.9283, 1], n = 3'
    """
    return bounded(headline(name, values), least, most)


def bounded(found: Headline, least: float, most: float) -> Headline:
    """A mean with a symmetric interval as one that stays in [least, most]: by the logit of its place, as above."""
    width = most - least
    place = (found.value - least) / width
    if math.isnan(found.low) or not 0 < place < 1:  # rounded to a bound, it has no logit
        return replace(found, low=math.nan, high=math.nan)
    half = (found.high - found.value) / width / (place * (1 - place))
    logit = math.log(place / (1 - place))
    low, high = (least + width / (1 + math.exp(-end)) for end in (logit - half, logit + half))
    return replace(found, low=low, high=high)


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

    It covers the median also where many values are equal, so one without width is right here.

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
    """Share of hits in `a` minus the share in `b`, of the same units, with an interval from McNemar's exact test.

    The difference is a product: q, the share of units that hit in one of the two alone, times s, by how much more often
    that is `a` than `b`. s has the interval of the exact test (Clopper & Pearson's of a sign test), q has Wilson's, and
    the product that of both (MOVER, Zou & Donner 2008). It excludes 0 only where the exact test rejects at 5%. Where no
    unit differs there is none.

    Args:
        name: what it is.
        a: of each unit, whether it hits under one setting.
        b: of the same units in the same order, whether it hits under the other.

    Raises:
        ValueError: a and b are not of one length.

    Example:
        >>> str(paired_headline("collapsed", [True] * 9 + [False] * 3, [True] + [False] * 11))
        'collapsed = 0.6667 [0.102, 0.8619], n = 12'
    """
    from scipy.stats import binomtest

    only_a = sum(one and not other for one, other in zip(a, b, strict=True))
    only_b = sum(other and not one for one, other in zip(a, b, strict=True))
    n, differ = len(a), only_a + only_b
    if not differ:
        return Headline(name, 0.0, math.nan, math.nan, n)
    q, s = differ / n, (only_a - only_b) / differ
    of_q = binomtest(differ, n).proportion_ci(0.95, "wilson")
    of_s = binomtest(only_a, differ).proportion_ci(0.95, "exact")
    nearer, further = (q - of_q.low, of_q.high - q) if s > 0 else (of_q.high - q, q - of_q.low)
    below = math.hypot(q * (s - (2 * of_s.low - 1)), s * nearer)
    above = math.hypot(q * (2 * of_s.high - 1 - s), s * further)
    return Headline(name, q * s, max(q * s - below, -1.0), min(q * s + above, 1.0), n)


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
