"""How sweeps, runs and members show themselves: a table of networks, as text and as HTML. No torch, no pandas."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hw1.terminal import table
from hw1.words import count, cut, printable, width

if TYPE_CHECKING:
    from hw1.runs.run import Run
    from hw1.runs.sweep import Sweep

Cells = Mapping[str, Any]

_ROWS = 20  # networks shown; of more, the first
_WIDE = 120  # columns of a terminal that does not say
_CELL = 40  # columns that a cell takes there; of a longer text, its ends


def rows_of_run(run: Run) -> list[dict[str, Any]]:
    """A row for each member: member, seed, status, why it failed, final metrics, those of the test set first."""
    try:
        several, error, rows = run.count > 1, run.result.get("error"), []
        for number in range(run.count):
            row = {**({"member": number} if several else {}), "seed": run.settings.seed + number}
            metrics = sorted(run.metrics(number).items(), key=lambda item: not item[0].startswith("test/"))
            rows.append({**row, "status": run.status, "error": error, **dict(metrics)})
        return rows
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as problem:  # a file from elsewhere
        return [{"run": run.path.name, "status": "damaged", "error": " ".join(str(problem).split())}]


def rows_of_sweep(sweep: Sweep) -> list[dict[str, Any]]:
    """A row for each network: swept keys, then as `rows_of_run`, and what measures found; all complete, no status."""
    shown = [rows_of_run(run) for run in sweep.runs]
    several = {"member": 0} if any("member" in row for own in shown for row in own) else {}
    rows: list[dict[str, Any]] = []
    for run, own in zip(sweep.runs, shown, strict=True):
        whole = "run" not in own[0]
        found = sweep.found_on(run) if whole else {}
        for member, row in enumerate(own):
            cells = {**sweep.cells(run, member), **several} if whole else {}
            rows.append({**cells, **row, **{name: values[member] for name, values in found.items()}})
    complete = all(row["status"] == "complete" for row in rows)
    return [{name: cell for name, cell in row.items() if name != "status"} if complete else row for row in rows]


def as_text(head: str, rows: Sequence[Cells]) -> str:
    """A line that says what it is, and a row a network; columns that do not fit are named below.

    Example:
        >>> print(as_text("Run('a')", [{"seed": 1, "status": "complete", "test/loss": 0.25, "error": None}]))
        Run('a')
        seed  status    test/loss
        1     complete  0.25
    """
    names, cells = _shown(rows)
    cells = [[cut(cell, _CELL) for cell in row] for row in cells]
    room = shutil.get_terminal_size((_WIDE, 24)).columns
    fitting, used = 0, -2
    for i, name in enumerate(names):
        used += 2 + max(width(name), *(width(row[i]) for row in cells))
        if fitting and used > room:
            break
        fitting += 1
    lines = [printable(head), *table(names[:fitting], [row[:fitting] for row in cells], None, {})]
    lines += [f"... and {count(len(rows) - _ROWS, 'more network')}"] if len(rows) > _ROWS else []
    lines += [f"also: {', '.join(names[fitting:])}"] if fitting < len(names) else []
    return "\n".join(lines)


def as_html(head: str, rows: Sequence[Cells]) -> str:
    """The same as a table of HTML, with all columns; every text is escaped."""
    names, cells = _shown(rows)
    header = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    more = f"<div>... and {count(len(rows) - _ROWS, 'more network')}</div>" if len(rows) > _ROWS else ""
    shown = f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>" if cells else ""
    return f"<div><code>{escape(printable(head))}</code>{shown}{more}</div>"


def _shown(rows: Sequence[Cells]) -> tuple[list[str], list[list[str]]]:
    """(names of columns, cells of the first rows), as text; without columns that are empty."""
    first = rows[:_ROWS]
    known = sorted(dict.fromkeys(name for row in first for name in row), key=lambda name: name != "run")
    names = [name for name in known if any(_said(row, name) for row in first)]
    return [printable(name) for name in names], [[_said(row, name) for name in names] for row in first]


def _said(row: Cells, name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
