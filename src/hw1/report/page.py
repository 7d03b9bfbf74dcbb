"""One HTML page a sweep: what was asked, what was found, with which settings. One file, readable without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, select_autoescape

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs import Sweep

_ROWS_SHOWN = 40
_OF_THE_COMMAND = ("study", "measures", "output", "sweep", "measured_sweep", "name")  # no settings of a run


def page(
    sweep: Sweep,
    tables: Mapping[str, pd.DataFrame],
    figures: Sequence[str],
    headlines: Sequence[str],
    failed: Mapping[str, str],
) -> str:
    """The page of a sweep.

    Args:
        sweep: the sweep, its folder holding the figures.
        tables: by name; each stands beside the page as `<name>.csv`.
        figures: file names; PNGs are embedded, the others linked.
        headlines: the numbers that answer the question.
        failed: error by run's folder.
    """
    template = Environment(
        autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True
    ).from_string(files("hw1.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    images = [
        {
            "name": name.removesuffix(".png"),
            "data": base64.b64encode((sweep.path / name).read_bytes()).decode(),
            "vector": name.replace(".png", ".svg"),
        }
        for name in figures
        if name.endswith(".png")
    ]
    first = sweep.runs[0].settings.plain if sweep.runs else {}
    shared = {key: value for key, value in first.items() if key not in _OF_THE_COMMAND}
    measures = {ask.name + ask.label: dict(ask.node) for ask in sweep.asks}
    return template.render(
        name=sweep.record["name"],
        time=sweep.path.name,
        budget=sweep.record.get("budget", "full"),
        command=" ".join(["python train.py", *sweep.record["command"]]),
        headlines=headlines,
        images=images,
        failed=failed,
        tables=[
            {"name": name, "html": _html(table), "rows": len(table), "cut": len(table) > _ROWS_SHOWN}
            for name, table in sorted(tables.items(), key=lambda item: len(item[1]))
        ],
        shown=_ROWS_SHOWN,
        swept={key: sorted({str(run.value(key)) for run in sweep.runs}, key=_natural) for key in sweep.keys},
        measures=yaml.safe_dump(measures, sort_keys=False) if measures else "",
        study=yaml.safe_dump(sweep.record["study"], sort_keys=False) if sweep.record["study"] else "",
        settings=yaml.safe_dump(shared, sort_keys=False),
        versions=next((run.result["versions"] for run in sweep.runs if "versions" in run.result), {}),
        git=next((run.result["git"] for run in sweep.runs if run.result.get("git")), None),
    )


def _html(table: pd.DataFrame) -> str:
    return str(
        table.head(_ROWS_SHOWN).to_html(index=False, border=0, float_format=lambda value: f"{value:.5g}", na_rep="–")
    )


def _natural(text: str) -> Any:
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)
