"""What every study is. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hw1.settings.construct import call
from hw1.trust import judge_study, reading, ready

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Sweep
    from hw1.settings import RunSettings
    from hw1.studies.answers import Answer
    from hw1.studies.headlines import Headline


class Study(Protocol):
    """A question to several finished runs. Constructing one imports neither torch nor pandas.

    Which columns of a table were swept is told by `keys`, the dotted keys of the sweep, the seed among them if it was
    swept: no column is taken for one by its name or its place.
    """

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Refuse a sweep that cannot answer the question, before anything trains.

        Args:
            runs: the settings of the planned runs.
            swept: the swept keys.

        Raises:
            ConfigError: names the key and the remedy.
        """

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables by name from a sweep whose runs have ended, well or not; {} where too few are complete.

        Args:
            sweep: it.
            cache: for what takes long to compute.
        """

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """Figures by name, from the tables alone.

        Args:
            tables: what `measure` gave.
            keys: the swept keys.
        """

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """The numbers that answer the question.

        Args:
            tables: what `measure` gave.
            keys: the swept keys.
        """


class Answering(Protocol):
    """What a study may have besides: an answer in words, and which networks it needs for one."""

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """The rows of `learned.training` whose networks must have learned something.

        Args:
            training: one row a member.
            tables: what `measure` gave.
        """

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """The answer in words.

        Args:
            tables: what `measure` gave.
            keys: the swept keys.
            numbers: what `headlines` gave.
        """


class Part(Protocol):
    """A piece of what a study measures, see `hw1.measures.pieces`."""

    @property
    def label(self) -> str:
        """What tells it from the others of the sweep."""

    def keep(self) -> None:
        """Compute it into its file, unless it is there."""


class InParts(Protocol):
    """What a study may have besides, whose measurement takes long: pieces that any process may compute beforehand."""

    def pieces(self, sweep: Sweep, cache: Cache) -> Sequence[Part]:
        """Those that lack, each once; [] where `measure` does it in a moment.

        Args:
            sweep: as `measure` gets it.
            cache: as there.
        """


# A sweep that is drawn anew has the study that it was made with, which may be from before a class had its present name
# and before reported values stood in docs/reported.yaml alone.
_RENAMED = {"hw1.studies.GradientNorm": "hw1.studies.GradientNormCurves"}
_DROPPED = {
    "hw1.studies.ActualTask": ("reported",),
    "hw1.studies.SimulateFunction": ("reported", "swapped"),
}


def make(node: Mapping[str, Any]) -> Study:
    """The study of a config node, also of one that an earlier version wrote.

    Raises:
        ConfigError: an unknown setting or a refused value, by its key.
    """
    study: Study = call(of_today(node), "study")
    return study


def of_sweep(sweep: Sweep) -> Study:
    """The study of a finished sweep; of one that is not the user's, hw1's alone.

    Raises:
        TrustError: it is another one; nothing of it was imported.
        ConfigError: an unknown setting or a refused value, by its key.
    """
    node = of_today(sweep.record["study"])
    ready()
    if why := sweep.why_not_own:
        judge_study(node, reading().trusted, why)
    return make(node)


def of_today(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config node of a study that an earlier version may have written, as it would be written now."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if target in _RENAMED:
        return {**node, "_target_": _RENAMED[target]}
    if target in _DROPPED:
        return {name: value for name, value in node.items() if name not in _DROPPED[target]}
    return node
