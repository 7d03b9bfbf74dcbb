"""How a search went."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hw1.metrics import axis, label
from hw1.plots.final_metrics import places_of
from hw1.plots.style import COLORS, MARKERS, panels, scale, style

_ACROSS = 3


def draw_search(trials: pd.DataFrame, keys: Sequence[str]) -> Figure:
    """The value of each trial with the best so far, then a panel a setting: the value against what was tried.

    Later trials are darker; the best one is ringed. Trials that failed are left out.

    Args:
        trials: columns trial, value, best, metric, direction, and the keys.
        keys: what was tried.
    """
    good = trials.dropna(subset="value")
    metric, lowest = str(trials["metric"].iloc[0]), trials["direction"].iloc[0] == "minimize"
    best = good.loc[[good["value"].idxmin() if lowest else good["value"].idxmax()]]
    rows = -(-(1 + len(keys)) // _ACROSS)
    with style():
        figure = Figure(figsize=(min(_ACROSS, 1 + len(keys)) * 3.6, 0.9 + 3.2 * rows))
        axes = panels(figure, 1 + len(keys), _ACROSS)
        for ax, key in zip(axes, [None, *keys], strict=True):
            places, note = (good["trial"], "") if key is None else places_of(ax, good[key])
            ax.plot(places, good["value"], color="#bbbbbb", marker=MARKERS[0], markersize=4, linestyle="")
            shades: dict[str, Any] = {"c": good["trial"], "cmap": "Blues", "vmin": -len(trials) / 2}
            ax.scatter(places, good["value"], s=16, zorder=2, **shades)
            ring: dict[str, Any] = {"s": 90, "facecolors": "none", "edgecolors": COLORS[1], "zorder": 3}
            ax.scatter(places[best.index], best["value"], **ring, label="best")
            if key is None:
                ax.plot(good["trial"], good["best"], drawstyle="steps-post", color=COLORS[0], label="best so far")
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_xlabel("trial" if key is None else axis(key, note))
            ax.set_ylabel(axis(metric, scale(ax, "y", metric)))
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
        figure.suptitle(f"{label(metric)}: {len(good)} of {len(trials)} trials; later ones are darker", fontsize=11)
    return figure
