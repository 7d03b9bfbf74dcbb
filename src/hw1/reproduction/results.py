"""docs/results.csv and the table of docs/results.md: what the reports measured, and what the experiments do. No torch.

The one place that knows reported values is docs/reported.yaml. Where it says among whom, `at_or_below` is the share of
a sweep's members that are at or below the reported value.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hw1.cells import guarded, original
from hw1.files import write_text
from hw1.markdown import code, text
from hw1.reproduction.finished import Finished, command_of, finished, short
from hw1.reproduction.statistic import share_at_or_below, statistic
from hw1.reproduction.verdicts import TO_RUN
from hw1.reproduction.wording import statistic_in_words
from hw1.settings import ConfigError
from hw1.settings.about import About, experiments

COLUMNS = (
    *("command", "commit", "budget", "seeds", "seconds", "full_hours", "report"),
    *("quantity", "reported", "measured", "low", "high", "at_or_below"),
)
NOT_RUN = "not run"
_TABLE = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def fill(checkout: Path, output: Path) -> list[str]:
    """Write docs/results.csv from the finished sweeps below `output`, and the table of docs/results.md from it.

    An experiment without a finished sweep keeps the rows that it has, and full rows are not replaced by quick ones.

    Returns:
        What a person must look at: reported values that no headline answers.
    """
    file = checkout / "docs" / "results.csv"
    reported = yaml.safe_load((checkout / "docs" / "reported.yaml").read_text(encoding="utf-8")) or {}
    earlier: dict[str, list[dict[str, str]]] = {}
    for row in read(file) if file.is_file() else []:
        earlier.setdefault(experiment_of(row["command"]), []).append(row)
    known, found = experiments(checkout / "conf"), finished(output)
    rows, problems = [], [f"docs/reported.yaml: {name} is no experiment" for name in reported if name not in known]
    for name in known:
        one = found.get(name)
        before = [row for row in earlier.get(name, []) if row["budget"] != NOT_RUN]
        if before and (one is None or (one.budget != "full" and before[0]["budget"] == "full")):
            rows += before
            continue
        made, missing = _rows(name, one, reported.get(name) or [{}], known[name])
        rows += made
        problems += missing
    write_text(file, _csv(rows))
    page = checkout / "docs" / "results.md"
    write_text(page, with_table(page.read_text(encoding="utf-8"), rows))
    return problems


def _rows(
    name: str, one: Finished | None, entries: Sequence[Mapping[str, Any]], about: About
) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of one experiment, one a reported value, and the values that no headline answers."""
    rows, missing = [], []
    for entry in entries:
        row = dict.fromkeys(COLUMNS, "") | {"command": command_of(name), "budget": NOT_RUN}
        row |= {key: str(entry[key]) for key in ("report", "quantity", "reported") if key in entry}
        row |= {"quantity": statistic_in_words(entry["statistic"])} if "statistic" in entry else {}
        if one is not None:
            row |= {"command": one.command, "commit": one.commit, "budget": one.budget, "seeds": str(one.seeds)}
            row |= {"seconds": f"{one.seconds:.0f}"}
            if one.budget != "full":
                try:
                    row["full_hours"] = f"{about.hours:.2g}"
                except ConfigError as error:
                    raise ConfigError(f"conf/experiment/{name}.yaml: {error}") from error
            try:
                number = statistic(entry.get("statistic") or {"headline": entry.get("quantity", "*")}, one)
            except (ConfigError, KeyError, ValueError, FileNotFoundError) as error:
                if entry:  # an experiment that no report measured may have no headline either
                    missing.append(f"docs/reported.yaml: {name}: {error}")
            else:
                row |= {"quantity": number.name, "measured": short(number.value)}
                row |= {"low": short(number.low), "high": short(number.high)}
            if "among" in entry and one.budget == "full":
                try:
                    share = share_at_or_below(leading_number(entry["reported"]), entry["among"], one)
                except (ConfigError, KeyError, FileNotFoundError) as error:
                    missing.append(f"docs/reported.yaml: {name}: {error}")
                else:
                    row["at_or_below"] = short(share.value)
        rows.append(row)
    return rows, missing


def leading_number(reported: str) -> float:
    """The number that a reported value begins with; what is to be known of it may follow.

    Raises:
        ConfigError: it begins with none.

    Example:
        >>> leading_number("0.373 (labelled 1-190-1 in the report's plot)")
        0.373
    """
    try:
        return float(reported.split()[0])
    except (ValueError, IndexError):
        raise ConfigError(f"reported: got {reported!r}, expected a number first") from None


def experiment_of(command: str) -> str:
    """The experiment that a command names; "" if none.

    Example:
        >>> experiment_of("python train.py experiment=min_ratio/cnn seed=1,2")
        'min_ratio/cnn'
    """
    match = re.search(r"\bexperiment=(\S+)", command)
    return match[1] if match else ""


def read(file: Path) -> list[dict[str, str]]:
    """The rows of results.csv.

    Raises:
        ValueError: it has other columns.
    """
    with file.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{file}: got columns {reader.fieldnames}, expected {', '.join(COLUMNS)}; delete it")
        return [{name: original(value) for name, value in row.items()} for row in reader]


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    made = io.StringIO()
    writer = csv.DictWriter(made, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: guarded(value) for name, value in row.items()} for row in rows)
    return made.getvalue()


def with_table(page: str, rows: Sequence[Mapping[str, str]]) -> str:
    """`page` with the table of `rows` between its two comments.

    Raises:
        ValueError: the comments are not there.
    """
    if not _TABLE.search(page):
        raise ValueError("docs/results.md: got no <!-- results -->, <!-- /results -->, expected them around the table")
    lines = ["| report | command | reported | measured [95% interval] |", "|---|---|---|---|"]
    lines += [
        f"| {text(row['report'])} | {code(row['command'])} | {_reported(row)} | {_measured(row)} |" for row in rows
    ]
    table = "\n".join(lines) + "\n"
    return _TABLE.sub(lambda match: f"{match[1]}{table}{match[2]}", page)


def _reported(row: Mapping[str, str]) -> str:
    return f"{text(row['quantity'])}: {text(row['reported'])}" if row["reported"] else ""


def interval_in_words(low: str, high: str) -> str:
    """What stands behind a number: its interval, or that there is no spread, which is none.

    Example:
        >>> interval_in_words("0.1", "0.3"), interval_in_words("1", "1"), interval_in_words("", "")
        (' [0.1, 0.3]', ', the same in all to four digits', '')
    """
    if low and low == high:
        return ", the same in all to four digits"
    return f" [{low}, {high}]" if low else ""


def _measured(row: Mapping[str, str]) -> str:
    if row["budget"] == NOT_RUN:
        return NOT_RUN
    quantity = "" if row["reported"] else f"{text(row['quantity'].rstrip('*'))}: "
    if not row["measured"]:  # where there is a quantity: in a way that is no longer thought right
        again = f"{quantity}{TO_RUN}" if row["quantity"] else ""
        return (
            again if row["budget"] == "full" else f"{again} ({row['budget']} budget; full: {row['full_hours']} hours)"
        )
    interval = interval_in_words(row["low"], row["high"])
    share = f"; {row['at_or_below']} of the members at or below the reported" if row["at_or_below"] else ""
    budget = "" if row["budget"] == "full" else f" ({row['budget']} budget; full: {row['full_hours']} hours)"
    return f"{quantity}{row['measured']}{interval}{share}{budget}"
