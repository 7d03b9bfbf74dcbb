"""Loss and gradient norm against iterations, on one axis."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hw1.metrics import GRADIENT_NORM, LOSS, STEP_LOSS, TRAIN_ACCURACY, axis, label, noted, unit
from hw1.plots.style import COLORS, DASHES, Look, heading, scale, style
from hw1.words import NETWORK, counted, setting_in_words


def draw_gradient_norm(curves: pd.DataFrame, ends: pd.DataFrame, across: str | None, title: str) -> Figure:
    """Three panels below each other with a common x axis: loss, gradient norm, gradient norm of each layer.

    Args:
        curves: columns quantity, layer (what the layer of the quantity is called), iteration, median, low, high, n;
            data, source, n_train; and `across`.
        ends: one row a member; columns constant, network_in_words and `across`.
        across: the column that gives the figure's columns; None for one column.
        title: what all of the figure has in common.
    """
    columns = list(curves[across].unique()) if across else [None]
    with style():
        figure = Figure(figsize=(max(8.0, 3.6 * len(columns) + 1.2), 7.6))
        axes = figure.subplots(3, len(columns), sharex="col", sharey="row", squeeze=False)
        of_layers = curves[curves["quantity"].str.startswith(f"{GRADIENT_NORM}/")]
        layers = list(of_layers["layer"].unique())
        for column, value in enumerate(columns):
            part = curves[curves[across] == value] if across else curves
            own = ends[ends[across] == value] if across else ends
            _band(axes[0, column], part[part["quantity"] == STEP_LOSS], COLORS[0], "-")
            _band(axes[1, column], part[part["quantity"] == GRADIENT_NORM], COLORS[1], "-")
            for layer, curve in part.loc[part.index.intersection(of_layers.index)].groupby("layer", sort=False):
                curve = curve.sort_values("iteration")
                axes[2, column].plot(curve["iteration"], curve["median"], **_look(layers.index(layer)), linewidth=1.2)
            constant = int(own["constant"].sum())
            dead = f", {counted(constant, 'constant predictor')}" if constant else ""
            setting = f"{setting_in_words(across, value)}\n" if across else ""
            axes[0, column].set_title(f"{setting}n = {int(part['n'].max())}{dead}")
            axes[2, column].set_xlabel(axis("iteration", scale(axes[2, column], "x", "iteration")))
        nats = unit(LOSS, classes=TRAIN_ACCURACY in ends, table=ends)
        rows = ((LOSS, label(STEP_LOSS), nats), (GRADIENT_NORM, label(GRADIENT_NORM), ""))
        for ax, (quantity, called, of) in zip(
            axes[:, 0], (*rows, (GRADIENT_NORM, f"{label(GRADIENT_NORM)} of each layer", "")), strict=True
        ):
            ax.set_ylabel(noted(f"{called}\n", of, scale(ax, "y", quantity)).replace("\n ", "\n"))
        if layers:
            handles = [Line2D([], [], **_look(i), label=layer) for i, layer in enumerate(layers)]
            axes[2, -1].legend(handles=handles, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        nets = ends[NETWORK].unique() if NETWORK in ends else []
        table = curves.assign(**{NETWORK: nets[0]}) if len(nets) == 1 else curves
        several = curves["n"].max() > 1
        heading(figure, table, title, "line: median, band: range over seeds" if several else "one seed: no spread")
    return figure


def _look(i: int) -> Look:
    return {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i % len(DASHES)]}


def _band(ax: Axes, curve: pd.DataFrame, color: str, dash: str) -> None:
    curve = curve.sort_values("iteration")
    ax.plot(curve["iteration"], curve["median"], dash, color=color)
    ax.fill_between(curve["iteration"], curve["low"], curve["high"], color=color, alpha=0.25, linewidth=0)
