"""One HTML page a sweep: what was asked, what was found, with which settings. One file, readable without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from hw1.metrics import label
from hw1.paper import command_of, image, style, template
from hw1.studies.learned import RULE
from hw1.words import count

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs import Sweep
    from hw1.studies.answers import Answer

_ROWS_SHOWN = 40
_VALUES_SHOWN = 40  # of a swept key
_FAILED_SHOWN = 40
_OF_THE_COMMAND = ("about", "study", "measures", "output", "sweep", "measured_sweep", "name")  # no settings of a run


def page(
    sweep: Sweep,
    answer: Answer,
    tables: Mapping[str, pd.DataFrame],
    figures: Sequence[str],
    headlines: Sequence[str],
    failed: Mapping[str, str],
) -> str:
    """The page of a sweep: one file that needs no network and no JavaScript.

    Args:
        sweep: the sweep, its folder holding the figures.
        answer: in words, with captions and the columns that matter.
        tables: by name; each stands beside the page as `<name>.csv`.
        figures: file names; PNGs are embedded, the others linked.
        headlines: the numbers that answer the question.
        failed: error by run's folder.
    """
    first = sweep.runs[0].settings.plain if sweep.runs else {}
    shared = {key: value for key, value in first.items() if key not in _OF_THE_COMMAND}
    measures = {ask.name + ask.label: dict(ask.node) for ask in sweep.asks}
    labels = {column: told["label"] for column, told in sweep.columns().items()}
    rendered = template("hw1.report", "page.html.j2").render(
        about=sweep.about,
        answer=answer,
        rule=RULE,
        name=sweep.record["name"],
        time=sweep.path.name,
        budget=sweep.record.get("budget", "full"),
        command=command_of(sweep.record),
        style=style(),
        headlines=headlines,
        images=[
            image(sweep.path, name, answer.captions, sweep.about.title) for name in figures if name.endswith(".png")
        ],
        failed=dict(list(failed.items())[:_FAILED_SHOWN]),
        more_failed=max(0, len(failed) - _FAILED_SHOWN),
        tables=[
            _shown(name, table, answer.columns.get(name, ()), labels)
            for name, table in sorted(tables.items(), key=lambda item: (item[0] not in answer.columns, len(item[1])))
        ],
        runs=count(len(sweep.runs), "run"),
        swept={key: _values(sweep, key) for key in sweep.keys},
        measures=yaml.safe_dump(measures, sort_keys=False) if measures else "",
        study=yaml.safe_dump(sweep.record["study"], sort_keys=False) if sweep.record["study"] else "",
        settings=yaml.safe_dump(shared, sort_keys=False),
        versions=next((run.result["versions"] for run in sweep.runs if "versions" in run.result), {}),
        git=next((run.result["git"] for run in sweep.runs if run.result.get("git")), None),
    )
    return str(rendered).lstrip()


def _shown(name: str, table: pd.DataFrame, chosen: Sequence[str], labels: Mapping[str, str]) -> dict[str, Any]:
    """A table as text, its first rows; `chosen` are positions of columns, `called` what people call each."""
    columns = [str(column) for column in table.columns]
    return {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "file": f"{name}.csv",
        "columns": columns,
        "called": [labels.get(column) or label(column) for column in columns],
        "rows": [[_cell(value) for value in row] for row in table.head(_ROWS_SHOWN).itertuples(index=False)],
        "length": len(table),
        "chosen": [columns.index(column) for column in dict.fromkeys(chosen) if column in columns],
    }


def _values(sweep: Sweep, key: str) -> list[str]:
    """What the runs have of a swept key; of many values, the first and the last."""
    values = sorted({str(run.value(key)) for run in sweep.runs}, key=_natural)
    if len(values) <= _VALUES_SHOWN:
        return values
    return [*values[: _VALUES_SHOWN - 1], f"... ({count(len(values), 'value')})", values[-1]]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.5g}"
    return "–" if value is None else str(value)


def _natural(text: str) -> Any:
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)
