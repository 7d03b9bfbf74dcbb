"""docs/claims.md and .csv: what the reports concluded, and what finished sweeps say of it.

Each claim of docs/claims.yaml names an experiment, a statistic and a rule. A statistic is computed for each seed (or
member) from a table of the sweep; the estimate is the mean over seeds with Student's 95% interval. Below three seeds
there is no verdict.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hw1.files import replacing, write_text
from hw1.report.finished import Finished, command_of, finished, named, short
from hw1.studies.protocol import Headline, headline, share_headline
from hw1.training.identity import ConfigError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("claim", "report", "command", "statistic", "n", "estimate", "low", "high", "rule", "verdict", "figure")
NOT_MEASURED = "not measured"
_LEAST_SEEDS = 3


@dataclass(frozen=True)
class Rule:
    """When a claim holds: the whole interval lies in [low, high]; it does not where the interval lies outside."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """`above X`, `below X` or `from X to Y`.

        Raises:
            ConfigError: it is none of these.

        Example:
            >>> Rule.parse("below 0")
            Rule(low=-inf, high=0.0)
        """
        try:
            match text.split():
                case ["above", value]:
                    return cls(float(value), math.inf)
                case ["below", value]:
                    return cls(-math.inf, float(value))
                case ["from", low, "to", high]:
                    return cls(float(low), float(high))
        except ValueError:
            pass
        raise ConfigError(f"holds: got {text!r}, expected 'above X', 'below X' or 'from X to Y'")

    def verdict(self, found: Headline) -> str:
        """`holds`, `does not` or `undecided`."""
        if found.n < _LEAST_SEEDS:
            return f"undecided (n < {_LEAST_SEEDS})"
        if math.isnan(found.low) or math.isnan(found.high):
            return "undecided (no interval)"
        if self.low <= found.low and found.high <= self.high:
            return "holds"
        return "does not" if found.high < self.low or found.low > self.high else "undecided"


def fill(checkout: Path, output: Path) -> list[str]:
    """Write docs/claims.csv and docs/claims.md, with the figures in docs/claims/, from the sweeps below `output`.

    A claim whose experiment has no finished sweep keeps the row that it has; a full one is not replaced by a quick one.

    Returns:
        What a person must look at: claims whose statistic could not be computed.
    """
    docs = checkout / "docs"
    claims = yaml.safe_load((docs / "claims.yaml").read_text(encoding="utf-8"))
    file = docs / "claims.csv"
    earlier = {}
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as text:
            earlier = {_identity(row): row for row in csv.DictReader(text)}
    found = finished(output)
    rows, problems = [], []
    for claim in claims:
        one = found.get(claim["experiment"])
        row = _unmeasured(claim)
        before = earlier.get(_identity(row))
        quick = one is not None and one.budget != "full"
        if before and before["n"] and (one is None or (quick and "budget" not in before["verdict"])):
            rows.append(before)
            continue
        if one is not None:
            try:
                row |= _measured(claim, one, docs)
            except (ConfigError, KeyError, ValueError, FileNotFoundError) as error:
                problems.append(f"docs/claims.yaml: {claim['claim']}: {' '.join(str(error).split())}")
        rows.append(row)
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(docs / "claims.md", page(rows))
    return problems


def _identity(row: Mapping[str, str]) -> tuple[str, ...]:
    """What makes a row that row: an earlier one of another statistic is not kept."""
    return row["claim"], row["report"], row["statistic"], row["rule"]


def _unmeasured(claim: Mapping[str, Any]) -> dict[str, str]:
    return dict.fromkeys(COLUMNS, "") | {
        "claim": claim["claim"],
        "report": str(claim["report"]),
        "command": command_of(claim["experiment"]),
        "statistic": describe(claim["statistic"]),
        "rule": claim["holds"],
        "verdict": NOT_MEASURED,
    }


def _measured(claim: Mapping[str, Any], one: Finished, docs: Path) -> dict[str, str]:
    found = statistic(claim["statistic"], one)
    verdict = Rule.parse(claim["holds"]).verdict(found)
    row = {"command": one.command, "n": str(found.n), "estimate": short(found.value)}
    row |= {"low": short(found.low), "high": short(found.high)}
    row["verdict"] = verdict if one.budget == "full" else f"{verdict} ({one.budget} budget)"
    pictures = [name for name in one.sweep.record["files"] if name.endswith(".png")]
    wanted = [name for name in pictures if name.startswith(claim.get("figure", ""))] or pictures
    if wanted:
        copy = docs / "claims" / f"{claim['experiment'].replace('/', '_')}_{wanted[0]}"
        with replacing(copy) as temporary:
            shutil.copyfile(one.sweep.path / wanted[0], temporary)
        row["figure"] = f"claims/{copy.name}"
    return row


def page(rows: Sequence[Mapping[str, str]]) -> str:
    """docs/claims.md."""
    lines = [
        "# What the reports concluded, and what is measured",
        "",
        "Written by `python -m hw1 claims` from finished sweeps and [claims.yaml](claims.yaml). The estimate is a mean",
        "over n seeds with its 95% interval. A claim holds where the whole interval obeys the rule, does not where all",
        "of it breaks the rule, and is undecided otherwise, and always with fewer than three seeds.",
        "",
        "| report | claim | statistic | n | estimate [95% interval] | rule | verdict | figure |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = f" [{row['low']}, {row['high']}]" if row["low"] else ""
        figure = f"[figure]({_link(row['figure'])})" if row["figure"] else ""
        statistic = f"{row['statistic']}, `{row['command']}`".replace("|", "\\|")
        cells = [row["report"], row["claim"], statistic, row["n"], row["estimate"] + interval, row["rule"]]
        lines.append(f"| {' | '.join([*cells, row['verdict'], figure])} |")
    return "\n".join(lines) + "\n"


def _link(path: str) -> str:
    """A path that Markdown takes as one."""
    return "".join(f"%{ord(sign):02X}" if sign in " ()[]<>" else sign for sign in path)


# Statistics


def describe(node: Mapping[str, Any]) -> str:
    """A statistic in words.

    Example:
        >>> describe({"trend": "test/accuracy", "against": "dataset.batch_size", "where": {"seed": 1}})
        'rank correlation of test/accuracy with dataset.batch_size, where seed = 1'
    """

    def values(part: Mapping[str, Any]) -> str:
        return ", ".join(f"{key} = {value}" for key, value in part.items())

    match node:
        case {"trend": of, "against": against}:
            text = f"rank correlation of {of} with {against}"
        case {"difference": of, "at": at, "from": start}:
            text = f"{of} at {values(at)} minus at {values(start)}"
        case {"mean": of}:
            text = f"mean {of}"
        case {"smallest": of}:
            text = f"smallest {of}"
        case {"peak": of, "against": against, "inside": [low, high]}:
            text = f"share of seeds whose highest {of} is at {against} from {low} to {high}"
        case {"headline": name, "minus": other}:
            text = f"{name} minus {other}"
        case {"headline": name}:
            text = str(name)
        case _:
            raise ConfigError(
                f"statistic: got {dict(node)}, expected one of headline; mean; smallest; trend, against; "
                "difference, at, from; peak, against, inside"
            )
    where = node.get("where")
    return text.replace("`", "") + (f", where {values(where)}" if where else "")


def statistic(node: Mapping[str, Any], one: Finished) -> Headline:
    """The statistic of a claim with its interval, over the seeds of a finished sweep.

    Raises:
        ConfigError: no such statistic, table, column or headline, or no rows to compute it from.
    """
    name = describe(node)
    if "headline" in node:
        return _of_headlines(node, one)
    table = _table(one, node.get("table", "runs"))
    for key, value in (node.get("where") or {}).items():
        table = table[_equal(table, key, value)]
    if table.empty:
        raise ConfigError(f"{name}: no rows are left")
    values = _by_seed(node, table).dropna()
    if values.empty:
        raise ConfigError(f"{name}: no seed gives a value")
    if "peak" in node:
        return share_headline(name, int(values.sum()), len(values))
    return headline(name, values.tolist())


def _by_seed(node: Mapping[str, Any], table: pd.DataFrame) -> pd.Series:
    """One value a seed: over all its rows, or the mean of those for each value of the keys `within`."""
    import pandas as pd

    of = next(node[kind] for kind in ("trend", "difference", "mean", "smallest", "peak") if kind in node)
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
                top = part.groupby("_x")["_value"].mean().idxmax()
                return float(low <= top <= high)

        case {"smallest": _}:

            def compute(part: pd.DataFrame) -> float:
                return float(part["_value"].min())

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
    frames = []
    for run in sweep.complete().runs:
        history = run.history()
        member = history.get("member", 0)
        own = {key: sweep.cell(run, key) for key in sweep.swept if key != "seed"}
        frames.append(history.assign(seed=run.value("seed") + member, **own))
    return pd.concat(frames, ignore_index=True)


def _column(table: pd.DataFrame, of: str) -> pd.Series:
    """A column, or with columns in backticks an expression of several."""
    if "`" in of:
        return table.eval(of)
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
