"""Loss and accuracy against the size of networks."""

import pandas as pd
from matplotlib.figure import Figure

from hw1.metrics import LOSS, QUANTITIES, SPLITS, axis, unit
from hw1.plots.style import COLORS, DASHES, MARKERS, log_scale, style


def draw_sizes(points: pd.DataFrame, against: str, title: str) -> Figure:
    """Loss and, beside it, accuracy of the training and the test set; lines are means over seeds, bands their range.

    Networks of one size that differ otherwise stand above each other.

    Args:
        points: columns parameters, depth, architecture, series, seed, train/loss, test/loss, train/accuracy,
            test/accuracy, data, source, n_train.
        against: the column on the x axis: parameters (logarithmic), or depth.
        title: what this figure holds fixed; may be empty.
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
            logarithmic = {"x": against == "parameters", "y": quantity == LOSS}
            notes = {side: "log scale" if log else "" for side, log in logarithmic.items()}
            ax.set(xlabel=axis(against, notes["x"]), ylabel=axis(quantity, unit(quantity, classes=True), notes["y"]))
            if logarithmic["x"]:
                ax.set_xscale("log")
            if logarithmic["y"]:
                log_scale(ax)
            handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=3)
        first, n = points.iloc[0], points["seed"].nunique()
        spread = "line: mean, band: range over seeds" if n > 1 else "one seed: no spread"
        counts = sorted(points["parameters"].unique())
        sizes = f"{len(counts)} sizes of {counts[0]:,} to {counts[-1]:,} parameters"
        figure.suptitle(
            f"{first['data']} ({first['source']}, {first['n_train']:,} training examples), {sizes}"
            f"\nn = {n} ({spread})" + (f", {title}" if title else ""),
            fontsize=11,
        )
    return figure
