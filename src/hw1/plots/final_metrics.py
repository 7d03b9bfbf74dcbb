"""What the runs of a sweep came to, against each key that was swept."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw1.metrics import QUANTITIES, axis, unit
from hw1.plots.style import COLORS, DASHES, MARKERS, broken, heading, inches_of, scale, style

_MANY = 2_000  # points, from which on they are pixels in the vector graphics too: each would be a hundred bytes
_FAR = 20  # numbers whose largest is so many times the smallest lie on a logarithmic axis


def draw_final_metrics(points: pd.DataFrame, keys: Sequence[str], sets: Sequence[str], classes: bool) -> Figure:
    """A row of panels a quantity, a panel a key: every member is a point; lines join the means of a key's numbers.

    Names, as of models or files, have no order: their means are marks alone.

    Args:
        points: one row a member: the keys, seed, `<set>/<quantity>`, data, source, n_train.
        keys: the swept keys, without the seed.
        sets: which sets, as train and test; those without a column are left out.
        classes: whether the loss is in nats.
    """
    quantities = [name for name in QUANTITIES if any(f"{one}/{name}" in points for one in sets)]
    with style():
        figure = Figure(figsize=(max(5.0, 3.6 * len(keys)), 0.8 + 3.2 * len(quantities)))
        grid = figure.subplots(len(quantities), len(keys), squeeze=False, sharey="row")
        for row, quantity in zip(grid, quantities, strict=True):
            for ax, key in zip(row, keys, strict=True):
                places, note = places_of(ax, points[key])
                joined = _are_numbers(points[key])
                for i, one in enumerate(sets):
                    if (name := f"{one}/{quantity}") in points:
                        look: dict[str, Any] = {"color": COLORS[i], "marker": MARKERS[i]}
                        cloud: dict[str, Any] = {"rasterized": len(points) > _MANY, "alpha": 0.5, "markersize": 4}
                        ax.plot(places, points[name], **look, linestyle="", **cloud)
                        mean = points[name].groupby(places).mean()
                        ax.plot(mean.index, mean, linestyle=DASHES[i] if joined else "", **look, label=f"{one} set")
                ax.set_xlabel(axis(key, note))
            row[0].set_ylabel(axis(quantity, unit(quantity, classes, points), scale(row[0], "y", quantity)))
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), handlelength=3)
        means = "line" if any(_are_numbers(points[key]) for key in keys) else "large mark"
        heading(figure, points, f"n = {len(points)} networks; {means}: mean over all with the value below")
    return figure


def _are_numbers(values: pd.Series) -> bool:
    return bool(pd.to_numeric(values, errors="coerce").notna().all())


def places_of(ax: Axes, values: pd.Series) -> tuple[pd.Series, str]:
    """Where values of a setting stand on an x axis, which gets its scale, and a note for its label.

    Numbers stand at themselves, on a logarithmic axis where they span much; names stand side by side.
    """
    if _are_numbers(values):
        numbers = pd.to_numeric(values)
        far = numbers.min() > 0 and numbers.max() >= _FAR * numbers.min()
        if far:
            ax.set_xscale("log")
        return numbers, "log scale" if far else ""
    names = list(dict.fromkeys(map(str, values)))
    shown = [broken(name, inches_of(ax) / len(names)) for name in names]
    ax.set_xticks(range(len(names)), shown)
    ax.margins(x=0.2)
    return values.map(lambda value: names.index(str(value))), ""
