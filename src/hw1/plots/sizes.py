"""Loss and accuracy against the number of parameters."""

import pandas as pd
from matplotlib.figure import Figure

from hw1.plots.style import COLORS, DASHES, MARKERS, style

SPLITS = ("train", "test")
LABELS = {"loss": "loss (nats, log scale)", "accuracy": "accuracy"}


def draw_sizes(points: pd.DataFrame, title: str) -> Figure:
    """Loss and, beside it, accuracy of the training and the test set; lines are means over seeds, bands their range.

    Args:
        points: columns parameters, architecture, seed, train/loss, test/loss, train/accuracy, test/accuracy, data,
            source, n_train.
        title: what this figure holds fixed; may be empty.
    """
    with style():
        figure = Figure(figsize=(8.0, 4.6))
        for ax, (quantity, label) in zip(figure.subplots(1, 2), LABELS.items(), strict=True):
            for i, split in enumerate(SPLITS):
                values = points.groupby(["parameters", "architecture"])[f"{split}/{quantity}"]
                mean, low, high = values.mean(), values.min(), values.max()
                x = mean.index.get_level_values("parameters")
                ax.plot(x, mean, DASHES[i], color=COLORS[i], marker=MARKERS[i], markersize=5, label=f"{split} set")
                ax.fill_between(x, low, high, color=COLORS[i], alpha=0.2, linewidth=0)
            ax.set(xlabel="parameters (log scale)", ylabel=label, xscale="log")
            if quantity == "loss":
                ax.set_yscale("log")
            handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=3)
        first, n = points.iloc[0], points["seed"].nunique()
        spread = "line: mean, band: range over seeds" if n > 1 else "one seed: no spread"
        count = points.groupby(["parameters", "architecture"]).ngroups
        figure.suptitle(
            f"{first['data']} ({first['source']}, {first['n_train']:,} training examples), {count} sizes, "
            f"n = {n} ({spread})" + (f"\n{title}" if title else ""),
            fontsize=11,
        )
    return figure
