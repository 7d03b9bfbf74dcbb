"""A comparison of two sweeps as it is shown: as tables in a terminal, and as a page. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hw1.files import write_text
from hw1.paper import command, style, template
from hw1.report.compare import Comparison
from hw1.report.differences import Difference
from hw1.report.terminal import table
from hw1.runs import Sweep
from hw1.words import count, printable


def lines(found: Comparison, cells: int | None) -> list[str]:
    """A comparison for a terminal.

    Args:
        found: it.
        cells: width of the terminal; None where lines may be of any length.
    """
    head = [f"{letter}: {_name(sweep)}: {_command(sweep)}" for letter, sweep in (("A", found.a), ("B", found.b))]
    said = [printable(line) for line in (*head, *found.notes)]
    settings = [[one.name, one.a, one.b] for one in found.settings]
    said += ["", *(table(["differs", "A", "B"], settings, cells, {"A": 8, "B": 8}) or ["no setting differs"])]
    for title, of, part in (("number", "n", found.numbers), ("quantity", "seeds", found.metrics)):
        rows = [
            [
                *(one.setting, one.name, shown(one.a), shown(one.b), shown(one.value)),
                *(interval(one), one.seeds if all(one.n) else "", one.reading),
            ]
            for one in part
        ]
        header = ["setting", title, "A", "B", "B - A", "95% interval", of, "so"]
        said += ["", *table(header, rows, cells, {"setting": 14, title: 14, of: 5})] if rows else []
    return [*said, "", found.summary]


def shown(value: float) -> str:
    """A number for a table; nothing for one that is not there."""
    return "" if value != value else f"{value:.4g}"


def interval(one: Difference) -> str:
    """`[low, high]`, or nothing."""
    return f"[{one.low:.3g}, {one.high:.3g}]" if one.how else ""


def _name(sweep: Sweep) -> str:
    return f"{sweep.path.absolute().parent.parent.name}, {sweep.path.name}"


def _command(sweep: Sweep) -> str:
    return command(["train.py", *sweep.record["command"]])


def write_page(found: Comparison, file: Path) -> None:
    """Write a comparison as one HTML file, which needs no network.

    Args:
        found: it.
        file: where to.
    """
    sides = []
    for letter, sweep in (("A", found.a), ("B", found.b)):
        report = sweep.path / "report.html"
        sides.append(
            {
                "letter": letter,
                "name": _name(sweep),
                "command": _command(sweep),
                "runs": f"{len(sweep.complete().runs)} of {count(len(sweep.record['runs']), 'run')} complete",
                "budget": str(sweep.record.get("budget", "full")),
                "page": os.path.relpath(report, file.parent) if report.is_file() else None,
            }
        )
    text = template("hw1.report", "compare.html.j2").render(
        style=style(),
        sides=sides,
        found=found,
        bars=_bars([*found.numbers, *found.metrics]),
        shown=shown,
        interval=interval,
        id=id,
        title=" and ".join(dict.fromkeys(sweep.about.title for sweep in (found.a, found.b))),
    )
    write_text(file, text)


def _bars(found: Sequence[Difference]) -> dict[int, tuple[float, float, float]]:
    """{id of a difference: low, value, high in percent of its bar}, one scale a quantity, 0 in the middle."""
    most: dict[str, float] = {}
    for one in found:
        if one.how:
            most[one.name] = max(most.get(one.name, 0.0), abs(one.low), abs(one.high))
    return {
        id(one): (50 + 48 * one.low / scale, 50 + 48 * one.value / scale, 50 + 48 * one.high / scale)
        for one in found
        if one.how and (scale := most[one.name]) > 0
    }
