"""The numbers that studies give, each with its 95% interval, and how the parts of a table are called. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Headline:
    """One number that a study found.

    Attributes:
        name: what it is.
        value: a mean over seeds or members, unless its study's `headlines` says that it is a median, a share or a rank
            correlation.
        low: lower end of its 95% interval; NaN where n is too small for one.
        high: upper end.
        n: number of seeds, members or, of a correlation, points.
    """

    name: str
    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """`name = value [low, high], n = N`."""
        return f"{self.name} = {self.value:.4g} [{self.low:.4g}, {self.high:.4g}], n = {self.n}"


def headline(name: str, values: Sequence[float]) -> Headline:
    """Mean of `values` with Student's 95% interval, NaN where there are fewer than two.

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
    return Headline(name, mean, mean - half, mean + half, n)


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


def correlation_headline(name: str, x: Sequence[float], y: Sequence[float], resamples: int = 2000) -> Headline:
    """Spearman's rank correlation with its 95% percentile bootstrap interval over pairs; NaN below 5 pairs.

    Example:
        >>> str(correlation_headline("rho", list(range(9)), [0, 2, 1, 3, 5, 4, 6, 8, 7])).split("[")[0]
        'rho = 0.95 '
    """
    import numpy as np
    from scipy.stats import rankdata

    a, b, n = np.asarray(x, dtype=float), np.asarray(y, dtype=float), len(x)
    if n < 5 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Headline(name, math.nan, math.nan, math.nan, n)
    picked = np.random.default_rng(0).integers(0, n, (resamples, n))
    picked[0] = np.arange(n)  # the first resample is the sample itself
    ranks = [rankdata(values[picked], axis=1) for values in (a, b)]
    one, two = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        rho = (one * two).sum(axis=1) / scale
    low, high = np.nanquantile(rho[1:], [0.025, 0.975])
    return Headline(name, float(rho[0]), float(low), float(high), n)


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
