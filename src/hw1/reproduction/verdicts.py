"""When a claim holds. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw1.settings import ConfigError
from hw1.studies.headlines import Headline

HOLDS, DOES_NOT, UNDECIDED, DEPENDS = "holds", "does not hold", "undecided", "depends on the comparison"
TO_RUN = "to be run again"


@dataclass(frozen=True)
class Rule:
    """When a claim holds: the whole interval lies in [low, high]; it does not where the interval lies outside.

    `above X` and `below X` leave X out: their end is the number next to it.
    """

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """`above X`, `below X`, or `from X to Y` with both ends.

        Raises:
            ConfigError: it is none of these.

        Example:
            >>> Rule.parse("from 0 to 1"), Rule.parse("below 1")
            (Rule(low=0.0, high=1.0), Rule(low=-inf, high=0.9999999999999999))
        """
        try:
            match text.split():
                case ["above", value]:
                    return cls(math.nextafter(float(value), math.inf), math.inf)
                case ["below", value]:
                    return cls(-math.inf, math.nextafter(float(value), -math.inf))
                case ["from", low, "to", high]:
                    return cls(float(low), float(high))
        except ValueError:
            pass
        raise ConfigError(f"holds: got {text!r}, expected 'above X', 'below X' or 'from X to Y'")

    def verdict(self, found: Headline) -> str:
        """`holds`, `does not hold` or `undecided`."""
        if math.isnan(found.low) or math.isnan(found.high):
            return f"{UNDECIDED} (no interval)"
        if self.low <= found.low and found.high <= self.high:
            return HOLDS
        return DOES_NOT if found.high < self.low or found.low > self.high else UNDECIDED


def both(one: str, other: str) -> str:
    """The verdict of two comparisons that are both fair: theirs where they agree.

    Example:
        >>> both("holds", "does not hold"), both("holds", "undecided"), both("holds", "to be run again")
        ('depends on the comparison', 'undecided', 'to be run again')
    """
    if one == other:
        return one
    if TO_RUN in (one, other):
        return TO_RUN
    return DEPENDS if {one, other} == {HOLDS, DOES_NOT} else UNDECIDED
