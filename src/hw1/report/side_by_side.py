"""A comparison of two sweeps as it is shown: as tables in a terminal, and as a page. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import wrap

from hw1.files import write_text
from hw1.paper import command_of, style, template
from hw1.report.compare import Comparison
from hw1.report.differences import Difference
from hw1.runs import Sweep
from hw1.terminal import table
from hw1.words import count, printable, width


def lines(found: Comparison, cells: int | None) -> list[str]:
    """A comparison for a terminal.

    Args:
        found: it.
        cells: width of the terminal; None where lines may be of any length.
    """
    two = (("A", found.a), ("B", found.b))
    head = [f"{letter}: {_name(sweep)}: {command_of(sweep.record)}" for letter, sweep in two]
    said = [printable(line) for line in (*head, *found.notes)]
    settings = [[one.name, one.a, one.b] for one in found.settings]
    said += ["", *(table(["differs", "A", "B"], settings, cells, {"A": 8, "B": 8}) or ["no setting differs"])]
    numbers = _table("number", "n", found.numbers, None) if found.numbers else []
    if cells is not None and max(map(width, numbers), default=0) > cells:  # their names are long
        told = [printable(f"{one.name}: {_sentence(one)}") for one in found.numbers]
        numbers = [line for one in told for line in wrap(one, cells, subsequent_indent="  ")]
    said += ["", *numbers] if numbers else []
    if cells is None:  # a file or a pipe: every line says all
        settings_of = {"setting": [one.setting for one in found.metrics]}
        said += ["", *_table("quantity", "seeds", found.metrics, None, settings_of)] if found.metrics else []
    else:
        said += _below_settings(found, cells)
    return [*said, "", found.summary]


def _table(
    title: str,
    of: str,
    part: Sequence[Difference],
    cells: int | None,
    before: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Lines of differences; where all columns are wider than the terminal, B and what `of` counts are left out."""
    columns = {
        **(before or {}),
        title: [one.name for one in part],
        "A": [shown(one.a) for one in part],
        "B": [shown(one.b) for one in part],
        "B - A": [shown(one.value) for one in part],
        "95% interval": [interval(one) for one in part],
        of: [one.seeds if all(one.n) else "" for one in part],
        "so": [one.reading for one in part],
    }
    lines = table(list(columns), list(zip(*columns.values(), strict=True)), None, {})
    if cells is None or max(map(width, lines), default=0) <= cells:
        return lines
    narrow = {name: values for name, values in columns.items() if name not in ("B", of)}
    return table(list(narrow), list(zip(*narrow.values(), strict=True)), cells, {title: 14, "so": 9})


def _sentence(one: Difference) -> str:
    named = {"A": one.a, "B": one.b, "B - A": one.value}
    values = ", ".join(f"{name} {shown(value) or '-'}" for name, value in named.items())
    return f"{values} {interval(one)}: {one.reading}" if one.how else f"{values}: {one.reading}"


def _by_setting(found: Comparison) -> list[tuple[str, list[Difference]]]:
    """Metrics by the setting at which they were taken, in their order."""
    return [(setting, list(part)) for setting, part in groupby(found.metrics, lambda one: one.setting)]


def _below_settings(found: Comparison, cells: int) -> list[str]:
    """Metrics below the settings at which they were taken: on the lines there is no room for both."""
    said = _table("quantity", "seeds", found.metrics, cells)
    rows = iter(said[1:])
    lines = ["", *said[:1]]
    for setting, part in _by_setting(found):
        lines += [printable(f"{setting}:")] if setting else []
        lines += [next(rows) for _ in part]
    return lines if said else []


def shown(value: float) -> str:
    """A number for a table; nothing for one that is not there."""
    return "" if value != value else f"{value:.4g}"


def interval(one: Difference) -> str:
    """`[low, high]`, or nothing."""
    return f"[{one.low:.3g}, {one.high:.3g}]" if one.how else ""


def _name(sweep: Sweep) -> str:
    return f"{sweep.path.absolute().parent.parent.name}, {sweep.path.name}"


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
                "command": command_of(sweep.record),
                "runs": f"{len(sweep.complete().runs)} of {count(len(sweep.record['runs']), 'run')} complete",
                "budget": str(sweep.record.get("budget", "full")),
                "page": os.path.relpath(report, file.parent) if report.is_file() else None,
            }
        )
    text = template("hw1.report", "compare.html.j2").render(
        style=style(),
        sides=sides,
        found=found,
        by_setting=_by_setting(found),
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
