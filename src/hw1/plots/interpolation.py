"""Loss and accuracy along the line between two networks."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw1.metrics import ACCURACY, LOSS, QUANTITIES, axis, label, unit
from hw1.plots.style import COLORS, DASHES, MARKERS, style


def draw_interpolation(table: pd.DataFrame, across: str | None, pair_by: str, title: str) -> Figure:
    """Loss above accuracy against alpha, one column for each value of `across`, both ends marked.

    Lines are means over seeds, bands their range.

    Args:
        table: columns alpha, split, loss, accuracy (absent without classes), theta_1, theta_2, seed, data, source,
            n_train, and `across`.
        across: the column whose values stand side by side; None for one column.
        pair_by: name of the setting that tells theta_1 and theta_2 apart.
        title: what this figure holds fixed; may be empty.
    """
    columns = [(None, table)] if across is None else list(table.groupby(across, sort=False))
    rows = [name for name in QUANTITIES if name in table]
    with style():
        figure = Figure(figsize=(max(6.4, 4.0 * len(columns)), 3.1 * len(rows) + 0.9))
        axes = figure.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
        for j, (value, part) in enumerate(columns):
            for i, quantity in enumerate(rows):
                _curves(axes[i, j], part, quantity)
            axes[0, j].set_title("" if across is None else f"{across} = {value:g}" if _is_number(value) else str(value))
            axes[-1, j].set_xlabel(r"$\alpha$ in $(1-\alpha)\,\theta_1+\alpha\,\theta_2$")
        for i, quantity in enumerate(rows):
            scale = "log scale" if quantity == LOSS else ""
            axes[i, 0].set_ylabel(axis(quantity, unit(quantity, classes=ACCURACY in rows), scale))
        ends = list(table[["theta_1", "theta_2"]].drop_duplicates().itertuples(index=False))
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        n = table["seed"].nunique()
        spread = "line: mean, band: range" if n > 1 else "one seed: no spread"
        second = ", ".join(str(two) for _, two in ends)
        figure.suptitle(
            f"{table['data'].iloc[0]} ({table['source'].iloc[0]}, {table['n_train'].iloc[0]:,} training examples): "
            f"{label(pair_by)} {ends[0][0]} (α = 0) to {second} (α = 1)"
            f"\nn = {n} ({spread})" + (f", {title}" if title else ""),
            fontsize=11,
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
            shown = f"{split}" if len(pairs) == 1 else f"{split}, {one} to {two}"
            marker = MARKERS[(2 * k + s) % len(MARKERS)]
            ax.plot(mean.index, mean, DASHES[s], color=color, marker=marker, markersize=3, label=shown)
            ax.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)
            ends = mean.loc[[0.0, 1.0]]
            ax.plot(
                ends.index, ends, linestyle="none", marker=marker, markersize=9, markerfacecolor="white",
                markeredgecolor=color, markeredgewidth=1.8, zorder=5,
            )  # fmt: skip
    for end in (0.0, 1.0):
        ax.axvline(end, color="#888888", linewidth=0.8, zorder=0)
    if quantity == LOSS:
        ax.set_yscale("log")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or hasattr(value, "dtype")
