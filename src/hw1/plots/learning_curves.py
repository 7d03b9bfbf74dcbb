"""Loss and accuracy against epochs."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hw1.plots.style import COLORS, DASHES, MARKERS, style

LABELS = {"loss": "loss (nats, log scale)", "accuracy": "accuracy"}


def draw_learning_curves(curves: pd.DataFrame, quantities: Sequence[str]) -> Figure:
    """One panel a quantity beside each other; colours and markers tell series apart, dashes the sets.

    Lines are means over seeds, bands their range.

    Args:
        curves: columns series, seed, epoch, split, quantity, value, data, source, n_train.
        quantities: which panels: loss, accuracy.
    """
    series, splits = list(curves["series"].unique()), list(curves["split"].unique())
    with style():
        figure = Figure(figsize=(8.0, 4.6 + 0.2 * len(series)))
        for ax, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
            for i, name in enumerate(series):
                for split, dash in zip(splits, DASHES, strict=False):
                    own = curves["series"].eq(name) & curves["split"].eq(split) & curves["quantity"].eq(quantity)
                    _band(ax, curves[own], i, dash)
            ax.set(xlabel="epochs", ylabel=LABELS[quantity])
            if quantity == "loss":
                ax.set_yscale("log")
        shown = [Line2D([], [], color=_color(i), marker=_marker(i), label=name) for i, name in enumerate(series)]
        shown += [
            Line2D([], [], color="#555555", linestyle=dash, label=f"{split} set")
            for split, dash in zip(splits, DASHES, strict=False)
        ]
        columns = 1 if max(map(len, series)) > 60 else 2 if max(map(len, series)) > 20 else 4
        figure.legend(handles=shown, loc="outside lower center", ncols=columns, handlelength=3)
        n = curves.groupby("series")["seed"].nunique()
        count = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
        spread = "line: mean, band: range over seeds" if n.max() > 1 else "one seed: no spread"
        first = curves.iloc[0]
        figure.suptitle(
            f"{first['data']} ({first['source']}, {first['n_train']:,} training examples), n = {count} ({spread})",
            fontsize=11,
        )
    return figure


def _band(ax: Axes, curve: pd.DataFrame, i: int, dash: str) -> None:
    over_seeds = curve.groupby("epoch")["value"]
    mean, low, high = over_seeds.mean(), over_seeds.min(), over_seeds.max()
    every = max(1, len(mean) // 10)
    ax.plot(mean.index, mean, dash, color=_color(i), marker=_marker(i), markersize=4, markevery=every)
    ax.fill_between(mean.index, low, high, color=_color(i), alpha=0.15, linewidth=0)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _marker(i: int) -> str:
    return MARKERS[i % len(MARKERS)]
