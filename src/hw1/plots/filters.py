"""Convolution filters as images."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hw1.plots.style import heading, style


def draw_filters(table: pd.DataFrame, title: str) -> Figure:
    """The filters of the first seed: one row of panels a layer, one column a moment of the training.

    Both panels of a layer share a colour scale that is symmetric about 0.

    Args:
        table: columns seed, layer, moment, epoch, gradient_norm, filter, row, column, value, called
            (the layer in words), data, source, n_train.
        title: what this figure holds fixed; may be empty.
    """
    first = table.iloc[0]
    shown = table[table["seed"] == first["seed"]]
    moments = list(shown["moment"].unique())
    with style():
        layers = list(shown.groupby("called", sort=False))
        figure = Figure(figsize=(4.6 * len(moments) + 0.8, 4.2 * len(layers) + 1.0))
        axes = figure.subplots(len(layers), len(moments), squeeze=False)
        for i, (layer, of_layer) in enumerate(layers):
            largest = of_layer["value"].abs().max()
            for j, (moment, part) in enumerate(of_layer.groupby("moment", sort=False)):
                ax = axes[i, j]
                image = ax.imshow(_tiled(part), cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
                ax.set_title(
                    f"{layer}: {moment}\nepoch {part['epoch'].iloc[0]}, norm {part['gradient_norm'].iloc[0]:.3g}"
                )
                ax.set_axis_off()
            figure.colorbar(image, ax=list(axes[i]), label=str(layer), shrink=0.85)
        others = table["seed"].nunique() - 1
        heading(
            figure,
            shown,
            title,
            f"filters as the first input channel sees them, seed {first['seed']}"
            + (f" (n = 1; {others} more in the table)" if others else " (n = 1)"),
            "norm: median of the mini-batch gradient norms in the epoch",
        )
    return figure


def _tiled(part: pd.DataFrame) -> NDArray[np.float64]:
    """All filters [O, h, w] of a table in a near-square grid, [rows (h + 1) - 1, columns (w + 1) - 1]; gaps are NaN."""
    count, height, width = (int(part[name].max()) + 1 for name in ("filter", "row", "column"))
    across = math.ceil(math.sqrt(count))
    tiles = np.full((math.ceil(count / across), across, height + 1, width + 1), np.nan)
    filters = part["filter"].to_numpy()
    tiles[filters // across, filters % across, part["row"], part["column"]] = part["value"]
    return tiles.swapaxes(1, 2).reshape(tiles.shape[0] * (height + 1), -1)[:-1, :-1]
