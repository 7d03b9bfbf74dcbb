"""Loss and gradient norm against iterations, on one axis."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw1.metrics import GRADIENT_NORM, STEP_LOSS, label
from hw1.plots.style import COLORS, DASHES, style


def draw_gradient_norm(curves: pd.DataFrame, ends: pd.DataFrame, across: str | None, title: str) -> Figure:
    """Three panels below each other with a common x axis: loss, gradient norm, gradient norm of each layer.

    Args:
        curves: columns quantity, iteration, median, low, high, n; data, source, n_train; and `across`.
        ends: one row a member; columns constant and `across`.
        across: the column that gives the figure's columns; None for one column.
        title: what all of the figure has in common.
    """
    columns = list(curves[across].unique()) if across else [None]
    with style():
        figure = Figure(figsize=(max(6.4, 3.6 * len(columns)), 7.6))
        axes = figure.subplots(3, len(columns), sharex="col", sharey="row", squeeze=False)
        for column, value in enumerate(columns):
            part = curves[curves[across] == value] if across else curves
            own = ends[ends[across] == value] if across else ends
            loss, norm, layers = axes[:, column]
            _band(loss, part[part["quantity"] == STEP_LOSS], COLORS[0], "-")
            _band(norm, part[part["quantity"] == GRADIENT_NORM], COLORS[1], "-")
            names = [name for name in part["quantity"].unique() if name.startswith(f"{GRADIENT_NORM}/")]
            for i, name in enumerate(names):
                curve = part[part["quantity"] == name].sort_values("iteration")
                layer = name.partition("/")[2]
                color, dash = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
                layers.plot(curve["iteration"], curve["median"], dash, color=color, linewidth=1.2, label=layer)
            n, constant = int(part["n"].max()), int(own["constant"].sum())
            heading = f"{across} = {value}\n" if across else ""
            loss.set_title(f"{heading}n = {n}" + (f", {constant} constant predictors" if constant else ""))
            for ax in (loss, norm, layers):
                ax.set(xscale="log", yscale="log")
            layers.set_xlabel("iteration")
            if names and column == len(columns) - 1:
                layers.legend(title="layer", fontsize=7, title_fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        names = [label(STEP_LOSS), label(GRADIENT_NORM), f"{label(GRADIENT_NORM)}\nof each layer"]
        for ax, name in zip(axes[:, 0], names, strict=True):
            ax.set_ylabel(name)
        first = curves.iloc[0]
        data = f"{first['data']} ({first['source']}, {first['n_train']:,} training examples)"
        spread = "line: median, band: range over seeds"
        figure.suptitle("\n".join(part for part in (title, data, spread) if part), fontsize=10)
    return figure


def _band(ax: Axes, curve: pd.DataFrame, color: str, dash: str) -> None:
    curve = curve.sort_values("iteration")
    ax.plot(curve["iteration"], curve["median"], dash, color=color)
    ax.fill_between(curve["iteration"], curve["low"], curve["high"], color=color, alpha=0.25, linewidth=0)
