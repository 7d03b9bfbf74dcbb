"""docs/claims.md and .csv: what the reports concluded, and what finished sweeps say of it.

Each claim of docs/claims.yaml names an experiment, a statistic and a rule. A statistic is computed from a table of the
sweep: for each seed (or member), and the estimate is their mean with Student's 95% interval, or a rank correlation over
all runs with the bootstrap's. Below three seeds there is no verdict.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from hw1.files import replacing, write_text
from hw1.reproduction.finished import Finished, command_of, finished, short
from hw1.reproduction.statistic import in_words, statistic
from hw1.settings import ConfigError
from hw1.studies.headlines import Headline

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
        "statistic": in_words(claim["statistic"]),
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
        with replacing(copy) as temporary, Image.open(one.sweep.path / wanted[0]) as picture:
            # 128 colours are enough for lines and bands, and a third of the size.
            picture.convert("RGB").quantize(128).save(temporary, format="PNG", optimize=True)
        row["figure"] = f"claims/{copy.name}"
    return row


def page(rows: Sequence[Mapping[str, str]]) -> str:
    """docs/claims.md."""
    lines = [
        "# What the reports concluded, and what is measured",
        "",
        "Written by `python -m hw1 claims` from finished sweeps and [claims.yaml](claims.yaml). The estimate is a mean",
        "over n seeds with its 95% interval, or a rank correlation over all runs of n seeds with the bootstrap's. A",
        "claim holds where the whole interval obeys the rule, does not where all of it breaks the rule, and is",
        "undecided otherwise, and always with fewer than three seeds.",
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
