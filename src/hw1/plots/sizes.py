"""Loss and accuracy against the size of networks."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hw1.metrics import QUANTITIES, SPLITS, axis, unit
from hw1.plots.style import COLORS, DASHES, MARKERS, heading, is_log, scale, style


def draw_sizes(points: pd.DataFrame, against: str, title: str, notes: Mapping[str, str]) -> Figure:
    """Loss and, beside it, accuracy of the training and the test set; lines are means over seeds, bands their range.

    Networks of one size that differ otherwise stand above each other.

    Args:
        points: columns parameters, depth, architecture, series, seed, train/loss, test/loss, train/accuracy,
            test/accuracy, data, source, n_train.
        against: the column on the x axis: parameters (logarithmic), or depth.
        title: what this figure holds fixed; may be empty.
        notes: loss, accuracy -> what stands above its panel, as correlations.
    """
    with style():
        figure = Figure(figsize=(8.0, 4.6))
        for ax, quantity in zip(figure.subplots(1, 2), QUANTITIES, strict=True):
            for i, split in enumerate(SPLITS):
                values = points.groupby([against, "architecture", "series"])[f"{split}/{quantity}"]
                mean, low, high = values.mean(), values.min(), values.max()
                x = mean.index.get_level_values(against)
                ax.plot(x, mean, DASHES[i], color=COLORS[i], marker=MARKERS[i], markersize=5, label=f"{split} set")
                ax.fill_between(x, low, high, color=COLORS[i], alpha=0.2, linewidth=0)
            ax.set_xlabel(axis("weights" if against == "parameters" else against, scale(ax, "x", against)))
            ax.set_ylabel(axis(quantity, unit(quantity, classes=True, table=points), scale(ax, "y", quantity)))
            if not is_log(against):
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_title(notes.get(quantity, ""))
            handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=3)
        n = points["seed"].nunique()
        spread = "line: mean, band: range over seeds" if n > 1 else "one seed: no spread"
        counts = sorted(points["parameters"].unique())
        sizes = f"{len(counts)} sizes of {counts[0]:,} to {counts[-1]:,} weights"
        size = "the number of weights" if against == "parameters" else "the number of hidden layers"
        ranks = f"ρ: rank correlation with {size}" if any(notes.values()) else ""
        heading(figure, points, sizes, f"n = {n} ({spread})" + (f"; {title}" if title else ""), ranks)
    return figure
