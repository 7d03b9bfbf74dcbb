"""Numbers that a finished sweep gives, from its tables: means over seeds, shares, or rank correlations.

See docs/claims.yaml for how a statistic is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.cells import original_table
from hw1.report.differences import of_headlines
from hw1.reproduction.finished import Finished, named
from hw1.reproduction.wording import BY_SEED, bounds, statistic_in_words
from hw1.runs.tables import files_of
from hw1.settings import ConfigError
from hw1.stored_csv import read_csv
from hw1.studies.correlations import correlation_headline, correlation_of_means_headline
from hw1.studies.headlines import (
    Headline,
    bounded_headline,
    geometric_headline,
    headline,
    paired_headline,
    share_headline,
)

if TYPE_CHECKING:
    import pandas as pd


def statistic(node: Mapping[str, Any], one: Finished) -> Headline:
    """The statistic of a claim with its interval, over the seeds of a finished sweep.

    Raises:
        ConfigError: no such statistic, table, column or headline, or no rows to compute it from.
    """
    name = statistic_in_words(node)
    if "headline" in node:
        return _of_headlines(node, one)
    table = _where(_table(one, node.get("table", "runs")), node.get("where") or {})
    if table.empty:
        raise ConfigError(f"{name}: no rows are left")
    if "correlation" in node:
        return _correlation(name, node, table)
    if "share" in node:
        return share_headline(name, int(_column(table, node["share"]).sum()), len(table))
    if "paired" in node:
        return _paired(name, node, table)
    values = _by_seed(node, table).dropna()
    if values.empty:
        raise ConfigError(f"{name}: no seed gives a value")
    if "geometric_mean" in node:
        return geometric_headline(name, values.tolist())
    limits = bounds(node)
    return bounded_headline(name, values.tolist(), *limits) if limits else headline(name, values.tolist())


def _correlation(name: str, node: Mapping[str, Any], table: pd.DataFrame) -> Headline:
    """Over runs, with orders exchanged within each seed; or over the means of what `means` tells apart."""
    table = table.assign(_x=_column(table, node["against"]), _y=_column(table, node["correlation"]))
    both = table.dropna(subset=["_x", "_y"])  # a measurement may be missing
    x, y = list(both["_x"]), list(both["_y"])
    if "means" not in node:
        given = list(_column(both, node["given"])) if "given" in node else []
        return correlation_headline(name, x, y, list(both["seed"]), given=given)
    units = zip(*(_column(both, key).astype(str) for key in node["means"]), strict=True)
    return correlation_of_means_headline(name, x, y, list(units))


def _paired(name: str, node: Mapping[str, Any], table: pd.DataFrame) -> Headline:
    """Of the seeds that both settings have."""
    masks = [_all_equal(table, node[end]) for end in ("at", "from")]
    at, start = (table[mask].assign(_hit=_column(table, node["paired"])).set_index("seed")["_hit"] for mask in masks)
    both = at.to_frame("at").join(start.rename("from"), how="inner")
    if not (at.index.is_unique and start.index.is_unique):
        raise ConfigError(f"{name}: got several nets of one seed, expected one at each setting: narrow it by where")
    return paired_headline(name, list(both["at"]), list(both["from"]))


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

    of = next(node[kind] for kind in BY_SEED if kind in node)
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
        files_of(sweep, ".csv")  # refused where one is not what was written
        return original_table(read_csv(file))
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
    match value.split() if isinstance(value, str) else []:
        case ["above", edge]:
            return column > float(edge)
        case ["below", edge]:
            return column < float(edge)
        case ["from", low, "to", high]:
            return column.between(float(low), float(high))
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
    """A headline, or the difference of two with the interval that theirs give."""
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
    apart = of_headlines(f"{a.name} minus {b.name}", b, a)
    return Headline(apart.name, apart.value, apart.low, apart.high, min(apart.n))
