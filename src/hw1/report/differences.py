"""The difference of two sweeps in one quantity, with its 95% interval. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from hw1.studies.headlines import ROUNDING, Headline

PAIRED, WELCH, INTERVALS = "paired by seed", "Welch", "from the two intervals"


@dataclass(frozen=True)
class Difference:
    """A quantity of two sweeps, A and B, at one setting.

    Attributes:
        name: of the quantity.
        setting: where it was taken, in words; "" where nothing was swept.
        a: of A; a mean over seeds where it is a metric; NaN where A has none.
        b: of B.
        low: lower end of the 95% interval of b - a; NaN where there is none.
        high: upper end.
        n: numbers of seeds of A and of B, which are the same seeds where they are paired; of a headline, its n.
        how: the interval comes about: one of `PAIRED`, `WELCH` and `INTERVALS`; "" where there is none.
        asked: numbers of seeds of A and of B that have a value, finite or not.
        lost: in how many of these it is not finite.
    """

    name: str
    setting: str
    a: float
    b: float
    low: float
    high: float
    n: tuple[int, int]
    how: str
    asked: tuple[int, int] = (0, 0)
    lost: tuple[int, int] = (0, 0)

    @property
    def value(self) -> float:
        """The difference b - a."""
        return self.b - self.a

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def reading(self) -> str:
        """What the interval says, and no more."""
        if not all(self.n):
            never = " and ".join(
                letter for letter, n, lost in zip("AB", self.n, self.lost, strict=True) if lost and not n
            )
            return f"{never} never finite" if never else "only B" if self.n[1] else "only A"
        if self.uneven:
            return "not finite in {} of {} and {} of {}: no verdict".format(
                *(number for pair in zip(self.lost, self.asked, strict=True) for number in pair)
            )
        if not self.how:
            return "n = 1: no interval" if 1 in self.n else "no interval"
        if self.decided:
            return "B is higher" if self.low > 0 else "B is lower"
        return "the same" if self.same else "undecided"

    @property
    def same(self) -> bool:
        """Whether there is no difference at all, in any seed."""
        return self.low == self.high == 0

    @property
    def uneven(self) -> bool:
        """Whether another share of seeds is not finite in A than in B: what is left of them is not alike."""
        return self.lost[0] * self.asked[1] != self.lost[1] * self.asked[0]

    @property
    def seeds(self) -> str:
        """`3 pairs`, or `3 and 5`."""
        return f"{self.n[0]} pairs" if self.how == PAIRED else " and ".join(map(str, self.n))


def of_seeds(name: str, setting: str, a: Mapping[int, float], b: Mapping[int, float], most: float) -> Difference:
    """The difference of means over seeds.

    Where at least two seeds are in both, the interval is Student's of their differences, and nothing else counts: what
    seeds have in common (data, starts) falls out. Otherwise it is Welch's.

    Values that are not finite are left out, and counted. There is no interval where another share of A's than of B's is
    left out, for those that are left were chosen by it; nor where all differences are one number, which is too coarse a
    quantity to have a spread, unless every seed has the very same value in both.

    Args:
        name: of the quantity.
        setting: where it was taken.
        a: value by seed.
        b: value by seed.
        most: the largest difference that there can be, 1 for accuracies; infinity for what has none.

    Example:
        >>> found = of_seeds("loss", "", {0: 1.0, 1: 2.0, 2: 9.0}, {0: 1.5, 1: 3.0}, math.inf)
        >>> found.value, round(found.low, 3), found.how, found.n
        (0.75, -2.427, 'paired by seed', (2, 2))
    """
    asked = (len(a), len(b))
    a = {seed: value for seed, value in a.items() if math.isfinite(value)}
    b = {seed: value for seed, value in b.items() if math.isfinite(value)}
    lost = (asked[0] - len(a), asked[1] - len(b))
    both = sorted(a.keys() & b.keys())
    low = high = math.nan
    how = ""
    if len(both) > 1:
        from scipy.stats import t

        a, b = {seed: a[seed] for seed in both}, {seed: b[seed] for seed in both}
        apart = [b[seed] - a[seed] for seed in both]
        mean = fmean(apart)
        variance = math.fsum((one - mean) ** 2 for one in apart) / (len(both) - 1)
        half = float(t.ppf(0.975, len(both) - 1)) * math.sqrt(variance / len(both))
        low, high, how = mean - half, mean + half, PAIRED
    elif len(a) > 1 and len(b) > 1:
        from scipy.stats import t

        parts = []
        for values in (a, b):
            mean = fmean(values.values())
            variance = math.fsum((one - mean) ** 2 for one in values.values()) / (len(values) - 1)
            parts.append(variance / len(values))
        total, half = sum(parts), 0.0
        if total > 0:  # Welch and Satterthwaite's degrees of freedom
            freedom = total**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True))
            half = float(t.ppf(0.975, freedom)) * math.sqrt(total)
        mean = fmean(b.values()) - fmean(a.values())
        low, high, how = mean - half, mean + half, WELCH
    means = [fmean(values.values()) if values else math.nan for values in (a, b)]
    largest = max(map(abs, (*a.values(), *b.values())), default=0.0)
    coarse = high - low <= ROUNDING * largest and not (how == PAIRED and low == high == 0)
    low, high = max(low, -most), min(high, most)  # NaN stays: it is the first of the two
    found = Difference(name, setting, means[0], means[1], low, high, (len(a), len(b)), how, asked, lost)
    return replace(found, low=math.nan, high=math.nan, how="") if coarse or found.uneven else found


def of_headlines(name: str, a: Headline, b: Headline) -> Difference:
    """The difference of two numbers that each carry an interval, of whatever kind, taken as independent.

    The squares of the distances to the nearer ends are added (MOVER: Zou and Donner 2008, equation 3). Where both
    sweeps share seeds, and hence luck, the interval is wider than it need be.

    Example:
        >>> found = of_headlines("barrier", Headline("", 1.0, 0.7, 1.3, 3), Headline("", 2.0, 1.6, 2.4, 3))
        >>> found.low, found.high
        (0.5, 1.5)
    """
    low = high = math.nan
    how = ""
    if all(math.isfinite(end) for one in (a, b) for end in (one.low, one.high)):
        low = b.value - a.value - math.hypot(b.value - b.low, a.high - a.value)
        high = b.value - a.value + math.hypot(b.high - b.value, a.value - a.low)
        how = INTERVALS
    return Difference(name, "", a.value, b.value, low, high, (a.n, b.n), how)
