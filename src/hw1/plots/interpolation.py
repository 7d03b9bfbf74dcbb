"""Loss and accuracy along the line between two networks."""

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw1.metrics import ACCURACY, LOSS, QUANTITIES, STATISTICS, STATISTICS_NOTE, axis, unit
from hw1.plots.style import COLORS, DASHES, MARKERS, broken, heading, inches_of, scale, style
from hw1.words import ends_in_words, setting_in_words

_TICKS = 0.5  # alphas between two numbers
_ROUNDING = 1e-6  # of the loss: lower barriers have no bar
_CHORD = "straight line between the ends"


def draw_interpolation(
    table: pd.DataFrame, across: str | None, pair_by: str, title: str, barriers: Mapping[tuple[object, ...], str]
) -> Figure:
    """Loss above accuracy against alpha, one column for each value of `across`, both ends marked and named.

    Lines are means over seeds, bands their range. The barrier of the mean test loss is a bar that rises from the
    chord between the ends, a dotted line, where it is highest.

    Args:
        table: columns alpha, split, loss, accuracy (absent without classes), theta_1, theta_2, seed, data, source,
            n_train, and `across`; network_in_words where it is known, `STATISTICS` where there is batch-norm.
        across: the column whose values stand side by side; None for one column.
        pair_by: name of the setting that tells theta_1 and theta_2 apart.
        title: what this figure holds fixed; may be empty.
        barriers: (value of `across`, where there is one, theta_1, theta_2) -> height of the barrier in words.
    """
    columns = [(None, table)] if across is None else list(table.groupby(across, sort=False))
    rows = [name for name in QUANTITIES if name in table]
    with style():
        figure = Figure(figsize=(max(8.0, 4.0 * len(columns)), 3.1 * len(rows) + 1.2))
        axes = figure.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
        for j, (value, part) in enumerate(columns):
            for i, quantity in enumerate(rows):
                _curves(axes[i, j], part, quantity)
            lines = [] if across is None else [setting_in_words(across, value)]
            pairs = list(part[["theta_1", "theta_2"]].drop_duplicates().itertuples(index=False, name=None))
            for pair in pairs:
                height = barriers[pair if across is None else (value, *pair)]
                between = f" between {pair[0]} and {pair[1]}" if len(pairs) > 1 else ""
                lines.append(f"barrier{between} {height}")
            axes[0, j].set_title(broken("\n".join(lines), inches_of(axes[0, j])))
            _name_ends(axes[-1, j], part, pair_by)
            axes[-1, j].set_xlabel(r"$\alpha$ in $(1-\alpha)\,\theta_1+\alpha\,\theta_2$")
        for i, quantity in enumerate(rows):
            note = scale(axes[i, 0], "y", quantity)
            axes[i, 0].set_ylabel(axis(quantity, unit(quantity, classes=ACCURACY in rows, table=table), note))
        named = {line.get_label(): line for ax in axes[0] for line in ax.get_legend_handles_labels()[0]}
        labels = sorted(named, key=lambda label: label == _CHORD)  # last
        handles = [named[label] for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
        n = table["seed"].nunique()
        spread = f"n = {n} (line: mean, band: range over seeds)" if n > 1 else "n = 1 (one seed: no spread)"
        heading(
            figure,
            table,
            f"{spread}; {title}" if title else spread,
            "black bar: barrier of the test loss above the straight line between its ends",
            STATISTICS_NOTE if STATISTICS in table else "",
        )
    return figure


def _curves(ax: Axes, part: pd.DataFrame, quantity: str) -> None:
    pairs = list(part.groupby(["theta_1", "theta_2"], sort=False))
    for k, ((one, two), pair) in enumerate(pairs):
        for s, (split, curve) in enumerate(pair.groupby("split", sort=False)):
            over_seeds = curve.groupby("alpha")[quantity]
            mean, low, high = over_seeds.mean(), over_seeds.min(), over_seeds.max()
            look = k if len(pairs) > 1 else s  # colours tell pairs apart where there are several, else the sets
            color = COLORS[look % len(COLORS)]
            shown = f"{split} set" if len(pairs) == 1 else f"{split} set, {one} to {two}"
            marker = MARKERS[(2 * k + s) % len(MARKERS)]
            ax.plot(mean.index, mean, DASHES[s], color=color, marker=marker, markersize=3, label=shown)
            ax.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)
            ends = mean.loc[[0.0, 1.0]]
            ax.plot(
                ends.index, ends, linestyle="none", marker=marker, markersize=9, markerfacecolor="white",
                markeredgecolor=color, markeredgewidth=1.8, zorder=5,
            )  # fmt: skip
            if quantity == LOSS and split == "test":
                _mark_barrier(ax, mean, color, first=k == 0)
    for end in (0.0, 1.0):
        ax.axvline(end, color="#888888", linewidth=0.8, zorder=0)


def _mark_barrier(ax: Axes, mean: pd.Series, color: str, *, first: bool) -> None:
    """A bar from the chord to the mean curve where it rises highest above it; none where it does not."""
    inside = mean.loc[0.0:1.0]
    chord = pd.Series(np.interp(inside.index, [0.0, 1.0], inside.loc[[0.0, 1.0]]), inside.index)
    height = inside - chord
    if not height.max() > _ROUNDING * abs(inside).max():
        return
    top = height.idxmax()
    ax.plot(chord.index, chord, ":", color=color, linewidth=1.2, label=_CHORD if first else None)
    arrow = {"arrowstyle": "|-|,widthA=0.3,widthB=0.3", "color": "black", "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (top, inside[top]), (top, chord[top]), arrowprops=arrow, zorder=6)


def _name_ends(ax: Axes, part: pd.DataFrame, pair_by: str) -> None:
    """What lies at alpha = 0 and 1, below these numbers."""
    low, high = part["alpha"].min(), part["alpha"].max()
    others = list(part["theta_2"].unique())
    names = dict(zip((0.0, 1.0), ends_in_words(pair_by, part["theta_1"].iloc[0], others), strict=True))
    numbers = np.arange(np.ceil(low / _TICKS), np.floor(high / _TICKS) + 1) * _TICKS
    labels = [
        f"{number:g}\n{textwrap.fill(names[number], 13)}" if number in names else f"{number:g}" for number in numbers
    ]
    ax.set_xticks(numbers, labels)
