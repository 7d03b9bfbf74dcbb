"""Numbers that a finished sweep gives, from its tables: means over seeds, or rank correlations over runs.

See docs/claims.yaml for how a statistic is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.reproduction.finished import Finished, named
from hw1.settings import ConfigError
from hw1.studies.headlines import Headline, correlation_headline, headline, share_headline

if TYPE_CHECKING:
    import pandas as pd


def in_words(node: Mapping[str, Any]) -> str:
    """A statistic in words.

    Example:
        >>> in_words({"trend": "test/accuracy", "against": "dataset.batch_size", "where": {"seed": 1}})
        'rank correlation of test/accuracy with dataset.batch_size in each run, where seed = 1'
    """

    def values(part: Mapping[str, Any]) -> str:
        return ", ".join(f"{key} = {value}" for key, value in part.items())

    match node:
        case {"correlation": of, "against": against}:
            text = f"rank correlation of {of} with {against} over all runs"
        case {"trend": of, "against": against}:
            text = f"rank correlation of {of} with {against} in each run"
        case {"difference": of, "at": at, "from": start}:
            text = f"{of} at {values(at)} minus at {values(start)}"
        case {"mean": of}:
            text = f"mean {of}"
        case {"smallest": of}:
            text = f"smallest {of}"
        case {"largest": of}:
            text = f"largest {of}"
        case {"peak": of, "against": against, "inside": [low, high]}:
            text = f"highest {of} at {against} from {low} to {high} minus highest elsewhere"
        case {"headline": name, "minus": other}:
            text = f"{name} minus {other}"
        case {"headline": name}:
            text = str(name)
        case _:
            raise ConfigError(
                f"statistic: got {dict(node)}, expected one of headline; mean; smallest; largest; correlation, "
                "against; trend, against; difference, at, from; peak, against, inside"
            )
    where = node.get("where")
    return text.replace("`", "") + (f", where {values(where)}" if where else "")


def statistic(node: Mapping[str, Any], one: Finished) -> Headline:
    """The statistic of a claim with its interval, over the seeds of a finished sweep.

    Raises:
        ConfigError: no such statistic, table, column or headline, or no rows to compute it from.
    """
    name = in_words(node)
    if "headline" in node:
        return _of_headlines(node, one)
    table = _where(_table(one, node.get("table", "runs")), node.get("where") or {})
    if table.empty:
        raise ConfigError(f"{name}: no rows are left")
    if "correlation" in node:
        table = table.assign(_x=_column(table, node["against"]), _y=_column(table, node["correlation"]))
        both = table.dropna(subset=["_x", "_y"])  # a measurement may be missing
        return replace(correlation_headline(name, list(both["_x"]), list(both["_y"])), n=both["seed"].nunique())
    values = _by_seed(node, table).dropna()
    if values.empty:
        raise ConfigError(f"{name}: no seed gives a value")
    found = headline(name, values.tolist())
    if "trend" in node:  # no rank correlation lies beyond 1, and equal ones are too coarse to have a spread
        no_spread = found.low == found.high
        low, high = (math.nan, math.nan) if no_spread else (max(found.low, -1.0), min(found.high, 1.0))
        return replace(found, low=low, high=high)
    return found


def share_at_or_below(value: float, among: Mapping[str, Any], one: Finished) -> Headline:
    """The share of members whose number is at most `value`, with Wilson's 95% interval.

    Args:
        value: as a report gives it.
        among: column, table and, unless it is all rows, where: {column: value}.
        one: a finished sweep.

    Raises:
        ConfigError: no such table or column, or no rows are left.
    """
    table = _where(_table(one, among["table"]), among.get("where") or {})
    name = f"{among['column']} at or below {value:g}"
    if table.empty:
        raise ConfigError(f"{name}: no rows are left")
    return share_headline(name, int((_column(table, among["column"]) <= value).sum()), len(table))


def _where(table: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    for key, value in values.items():
        table = table[_equal(table, key, value)]
    return table


def _by_seed(node: Mapping[str, Any], table: pd.DataFrame) -> pd.Series:
    """One value a seed: over all its rows, or the mean of those for each value of the keys `within`."""
    import pandas as pd

    of = next(node[kind] for kind in ("trend", "difference", "mean", "smallest", "largest", "peak") if kind in node)
    table = table.assign(_value=_column(table, of))
    compute: Callable[[pd.DataFrame], float]
    match node:
        case {"trend": _, "against": against}:
            table = table.assign(_x=_column(table, against))

            def compute(part: pd.DataFrame) -> float:
                both = part[["_x", "_value"]].dropna()
                varies = len(both) > 1 and both["_x"].nunique() > 1 and both["_value"].nunique() > 1
                return float(both["_x"].corr(both["_value"], "spearman")) if varies else math.nan

        case {"difference": _, "at": at, "from": start}:
            masks = [_all_equal(table, at), _all_equal(table, start)]
            table = table.assign(_at=masks[0], _from=masks[1])

            def compute(part: pd.DataFrame) -> float:
                return float(part.loc[part["_at"], "_value"].mean() - part.loc[part["_from"], "_value"].mean())

        case {"peak": _, "against": against, "inside": [low, high]}:
            table = table.assign(_x=_column(table, against))

            def compute(part: pd.DataFrame) -> float:
                means = part.groupby("_x")["_value"].mean()
                inside = means.index.to_series().between(low, high)
                return float(means[inside].max() - means[~inside].max())

        case {"smallest": _}:

            def compute(part: pd.DataFrame) -> float:
                return float(part["_value"].min())

        case {"largest": _}:

            def compute(part: pd.DataFrame) -> float:
                return float(part["_value"].max())

        case _:

            def compute(part: pd.DataFrame) -> float:
                return float(part["_value"].mean())

    groups = ["seed", *node.get("within", [])]
    if missing := [key for key in groups if key not in table]:
        raise ConfigError(f"{', '.join(missing)}: no such column; expected some of {', '.join(table)}")
    values = pd.Series({key: compute(part) for key, part in table.groupby(groups)})
    return values.groupby(level=0).mean()


def _table(one: Finished, name: str) -> pd.DataFrame:
    """A table of the sweep; `history` is the metrics.csv of all its runs."""
    import pandas as pd

    sweep = one.sweep
    if name != "history":
        file = sweep.path / f"{name}.csv"
        if not file.is_file():
            known = ", ".join(Path(table).stem for table in sweep.record["files"] if table.endswith(".csv"))
            raise ConfigError(f"table: got {name}, expected history or one of {known}")
        return pd.read_csv(file)
    frames = [member.history().assign(**{**member.cells, "seed": member.seed}) for member in sweep.members()]
    return pd.concat(frames, ignore_index=True)


def _column(table: pd.DataFrame, of: str) -> pd.Series:
    """A column, or with columns in backticks an expression of several."""
    if "`" in of:
        try:
            return table.eval(of)
        except (NameError, SyntaxError, TypeError) as error:
            raise ConfigError(f"{of}: {error}; expected columns among {', '.join(table)}") from error
    if of not in table:
        raise ConfigError(f"{of}: no such column; expected some of {', '.join(table)}")
    return table[of]


def _equal(table: pd.DataFrame, key: str, value: Any) -> pd.Series:
    column = _column(table, key)
    return (column == value) | (column.astype(str) == str(value))


def _all_equal(table: pd.DataFrame, values: Mapping[str, Any]) -> pd.Series:
    masks = [_equal(table, key, value) for key, value in values.items()]
    together = masks[0]
    for mask in masks[1:]:
        together = together & mask
    if not together.any():
        raise ConfigError(f"{dict(values)}: no such row")
    return together


def _of_headlines(node: Mapping[str, Any], one: Finished) -> Headline:
    """A headline, or the difference of two with the interval that theirs give (Zou & Donner 2008, MOVER)."""
    found = []
    for pattern in (node["headline"], *([node["minus"]] if "minus" in node else [])):
        number = named(pattern, one.numbers)
        if number is None:
            names = "; ".join(number.name for number in one.numbers) or "none"
            raise ConfigError(f"headline: got {pattern!r}, expected one of: {names}")
        found.append(number)
    if len(found) == 1:
        return found[0]
    a, b = found
    low = math.hypot(a.value - a.low, b.high - b.value)
    high = math.hypot(a.high - a.value, b.value - b.low)
    value = a.value - b.value
    return Headline(f"{a.name} minus {b.name}", value, value - low, value + high, min(a.n, b.n))
