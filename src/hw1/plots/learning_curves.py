"""Loss and accuracy against epochs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hw1.metrics import axis, unit
from hw1.plots.style import COLORS, DASHES, MARKERS, Look, heading, scale, style

_POINTS = 1_000  # of a line, at about as many columns of pixels

# The first set, the second and a third.
_SETS: tuple[Look, ...] = (
    {"linestyle": DASHES[0], "fillstyle": "full"},
    {"linestyle": DASHES[1], "fillstyle": "none"},
    {"linestyle": DASHES[2], "fillstyle": "none"},
)


def draw_learning_curves(curves: pd.DataFrame, quantities: Sequence[str], title: str, classes: bool = True) -> Figure:
    """One panel a quantity beside each other; colours and markers tell series apart, dashes the sets.

    The markers of all sets but the first are hollow. Where there is one series only, colours tell the sets apart as
    well. Lines are means over seeds, bands their range.

    Args:
        curves: columns series (what a line is called), seed, epoch, split, quantity, value, data, source, n_train,
            network_in_words.
        quantities: which panels: loss, accuracy.
        title: what this figure holds fixed; may be empty.
        classes: whether the loss is in nats.
    """
    series, splits = list(curves["series"].unique()), list(curves["split"].unique())
    one = len(series) == 1
    looks: dict[tuple[str, str], Look] = {}
    for i, name in enumerate(series):
        for s, split in enumerate(splits):
            own = s if one else i
            looks[name, split] = {
                **_SETS[s],
                "color": COLORS[own % len(COLORS)],
                "marker": MARKERS[own % len(MARKERS)],
            }
    with style():
        figure = Figure(figsize=(8.0, 4.4 + 0.25 * len(series)))
        for ax, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
            for (name, split), look in looks.items():
                own = curves["series"].eq(name) & curves["split"].eq(split) & curves["quantity"].eq(quantity)
                _band(ax, curves[own], look)
            note = scale(ax, "y", quantity)
            ax.set(xlabel="epochs", ylabel=axis(quantity, unit(quantity, classes, curves), note))
            ax.set_xlim(left=0)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if one:
            handles = [Line2D([], [], **look, label=f"{split} set") for (_, split), look in looks.items()]
        else:
            handles = [Line2D([], [], **looks[name, splits[0]], label=name) for name in series]
            for of_set, split in zip(_SETS, splits, strict=False):
                grey: Look = {**of_set, "color": "#555555", "marker": "o"}
                handles.append(Line2D([], [], **grey, label=f"{split} set"))
        longest = max(len(str(handle.get_label())) for handle in handles)
        figure.legend(
            handles=handles, loc="outside lower center", ncols=max(1, min(4, 100 // (longest + 8))), handlelength=3
        )
        n = curves.groupby("series")["seed"].nunique()
        count = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
        spread = "line: mean, band: range over seeds" if n.max() > 1 else "one seed: no spread"
        width = bin_width(curves["epoch"].nunique())
        thinned = f"each point: mean and range of {width:,} evaluations" if width > 1 else ""
        heading(figure, curves, f"n = {count} ({spread})", thinned, title)
    return figure


def bin_width(epochs: int) -> int:
    """How many epochs a point of a line stands for: one, unless there are more than a figure has columns for.

    Example:
        >>> bin_width(1_000), bin_width(2_001), bin_width(1_000_000)
        (1, 3, 1000)
    """
    return 1 if epochs <= 2 * _POINTS else -(-epochs // _POINTS)


def _band(ax: Axes, curve: pd.DataFrame, look: Look) -> None:
    over_seeds = curve.groupby("epoch")["value"]
    mean, low, high = over_seeds.mean(), over_seeds.min(), over_seeds.max()
    if (width := bin_width(len(mean))) > 1:
        bins = np.arange(len(mean)) // width
        places = mean.index.to_series().groupby(bins).mean()
        mean, low, high = mean.groupby(bins).mean(), low.groupby(bins).min(), high.groupby(bins).max()
        mean.index = low.index = high.index = pd.Index(places)
    ax.plot(mean.index, mean, **look, markersize=4, markevery=max(1, len(mean) // 10))
    ax.fill_between(mean.index, low, high, color=look["color"], alpha=0.15, linewidth=0)
