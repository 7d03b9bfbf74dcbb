"""What every study is, and what it may lean on: cached measurements and numbers with their intervals. No torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hw1.files import replacing
from hw1.training.construct import call

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.runs import Sweep

MEASUREMENT_FORMAT = 1


@dataclass(frozen=True)
class Headline:
    """One number that a study found.

    Attributes:
        name: what it is.
        value: the mean over seeds.
        low: lower end of the 95% interval of the mean; NaN where n < 2.
        high: upper end.
        n: number of seeds (or members).
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


class Measurements:
    """A study's tables on disk, by hash of what they were measured on: nothing is measured twice.

    Args:
        folder: `multirun/<name>/measurements`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def table(self, identity: Mapping[str, Any], compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The table of `identity`, computed if it is not there yet.

        Args:
            identity: run keys, digests of the weights and settings of the measurement: all that it depends on.
            compute: measures it.
        """
        import pandas as pd

        text = json.dumps({**identity, "format": MEASUREMENT_FORMAT}, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        for file in self._folder.glob(f"{name}-*.csv"):  # the number of rows stands in the name: a damaged file shows
            try:
                table = pd.read_csv(file)
            except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError):
                continue
            if len(table) == int(file.stem.partition("-")[2]) and not table.isna().all(axis=None):
                return table
        table = compute()
        with replacing(self._folder / f"{name}-{len(table)}.csv") as temporary:
            table.to_csv(temporary, index=False)
        return table


class Study(Protocol):
    """A question to several finished runs. Constructing one imports neither torch nor pandas."""

    def check(self, runs: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> None:
        """Refuse a sweep that cannot answer the question, before anything trains.

        Args:
            runs: the resolved settings of the planned runs.
            swept: the swept keys.

        Raises:
            ConfigError: names the key and the remedy.
        """

    def measure(self, sweep: Sweep, measurements: Measurements) -> dict[str, pd.DataFrame]:
        """Tables by name from a sweep whose runs have ended, well or not; {} where too few are complete."""

    def draw(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
        """Figures by name, from the tables alone."""

    def headlines(self, tables: Mapping[str, pd.DataFrame]) -> list[Headline]:
        """The numbers that answer the question."""


def make(node: Mapping[str, Any]) -> Study:
    """The study of a config node.

    Raises:
        ConfigError: an unknown setting or a refused value, by its key.
    """
    study: Study = call(node, "study")
    return study
