"""Numbers that were estimated from samples, with their errors: a mean, and a share between 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from hw1.risk.precision_error import PrecisionError

ROUNDED = 1e-9  # a share so near to 0 or 1 is there


@dataclass(frozen=True)
class Estimate:
    """An estimate and its error. Rounding, about eps times the largest summand, is not in it.

    Attributes:
        value: the estimate.
        standard_error: standard deviation of `value` over repetitions, itself estimated from the samples.
        resolution: bound on what repetitions do not average out, |mean of value - truth|; 0 where it is unbiased.
        degrees: degrees of freedom of the standard error; infinite where it was not measured over samples.
        precision: what float32 makes of the operator's products, where it says so (`Hessian`, `GaussNewton`).
    """

    value: float
    standard_error: float
    resolution: float = field(default=0.0, repr=False)
    degrees: float = field(default=math.inf, repr=False, compare=False)
    precision: PrecisionError | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, samples: Tensor) -> Estimate:
        """Mean of independent samples [n], n >= 2, and its standard error s / sqrt(n).

        Example:
            >>> import torch
            >>> Estimate.of(torch.tensor([1.0, 3.0]))
            Estimate(value=2.0, standard_error=1.0)
        """
        samples = samples.double()
        error = samples.std().item() / math.sqrt(len(samples))
        return cls(samples.mean().item(), error, degrees=len(samples) - 1)

    @property
    def error(self) -> float:
        """One number for both: standard error + resolution."""
        return self.standard_error + self.resolution

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Value +- (t * standard_error + resolution), t Student's quantile at the degrees of freedom.

        Raises:
            ValueError: the level is not between 0 and 1.

        Example:
            >>> low, high = Estimate(2.0, 1.0, degrees=1).interval()  # two samples say little
            >>> round(low, 2), round(high, 2)
            (-10.71, 14.71)
        """
        from scipy.special import ndtri, stdtrit

        check_level(level)
        at = (1 + level) / 2
        quantile = float(ndtri(at) if math.isinf(self.degrees) else stdtrit(self.degrees, at))
        half = quantile * self.standard_error + self.resolution
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Share:
    """An estimated share, between 0 and 1.

    Attributes:
        value: the estimate.
        trials: number of draws that tell as much about it: of variance share (1 - share) / trials.
        resolution: as an `Estimate`'s.
    """

    value: float
    trials: float
    resolution: float = 0.0

    @property
    def standard_error(self) -> float:
        """sqrt(p (1 - p) / trials) at p = (successes + 1) / (trials + 2): not zero where all draws agree."""
        likely = (self.value * self.trials + 1) / (self.trials + 2)
        return math.sqrt(likely * (1 - likely) / self.trials)

    @property
    def error(self) -> float:
        """One number for both: standard error + resolution."""
        return self.standard_error + self.resolution

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval of Clopper & Pearson (1934), widened by the resolution, within [0, 1].

        It holds with at least this probability at every share and number of draws, 0 of n as well.

        Raises:
            ValueError: the level is not between 0 and 1.

        Example:
            >>> low, high = Share(0.0, 20).interval()  # 0 of 20
            >>> low, round(high, 4)
            (0.0, 0.1684)
        """
        from scipy.special import betaincinv

        check_level(level)
        if math.isnan(self.value):
            return math.nan, math.nan
        tail = (1 - level) / 2
        hits = min(max(self.value, 0.0), 1.0) * self.trials
        misses = self.trials - hits
        none = ROUNDED * self.trials
        low = float(betaincinv(hits, misses + 1, tail)) if hits > none else 0.0
        high = float(betaincinv(hits + 1, misses, 1 - tail)) if misses > none else 1.0
        return max(0.0, low - self.resolution), min(1.0, high + self.resolution)


def check_level(level: float) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, expected a probability between 0 and 1: give 0.95, say")


def check_probes(probes: int, least: int = 2) -> None:
    """Refuse too few probes for a standard error.

    Raises:
        ValueError: fewer than `least`.
    """
    if probes < least:
        raise ValueError(f"probes: got {probes}, expected at least {least}: the standard error is measured over them")


def precision_of(op: object) -> PrecisionError | None:
    """What float32 makes of an operator's products, where it says so: at most 64 examples in float64, once a theta."""
    said = getattr(op, "precision", None)
    return said if isinstance(said, PrecisionError) else None
