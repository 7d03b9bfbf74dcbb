"""Loss, accuracy, sensitivity and sharpness against a setting; measures of flatness against the test gap."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from hw1.metrics import LOSS, SPLITS, TEST_ACCURACY, axis, label, noted, unit
from hw1.plots.style import COLORS, DASHES, MARKERS, Look, style

Parts = Sequence[tuple[str, pd.DataFrame]]  # (name of a combination of settings, its points)

Measures = Mapping[str, tuple[str, str]]  # column -> (label, unit)

_MEANS = "line: mean over seeds, band: their range"


def draw_quality(parts: Parts, quantity: str, across: str, right: Mapping[str, str]) -> Figure:
    """Train and test loss or accuracy (left axis) and sensitivity (right axis) against a setting, a column a part.

    Lines are means over seeds, bands their range; members that never reached their train loss stand as crosses.

    Args:
        parts: points with columns x, seed, reached, train/<quantity>, test/<quantity>, the measures, epochs, data,
            source, n_train.
        quantity: loss or accuracy.
        across: name of the setting on the x axis.
        right: sensitivities for the right axis, column -> label.
    """
    with style():
        figure = Figure(figsize=(max(7.4, 3.9 * len(parts) + 0.6), 4.9))
        left_axes = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        right_axes = [ax.twinx() for ax in left_axes]
        for (name, part), left, other in zip(parts, left_axes, right_axes, strict=True):
            if other is not right_axes[0]:
                other.sharey(right_axes[0])
            for i, split in enumerate(SPLITS):
                _line(left, part, f"{split}/{quantity}", i, f"{split} {quantity}")
            for i, (measure, called) in enumerate(right.items(), 2):
                _line(other, part, measure, i, f"{called} (right)")
            if quantity == LOSS:
                _log_if_wide(left)
            _log_if_wide(other)
            other.spines["right"].set_visible(True)
            other.grid(visible=False)
            _setting_axis(left, part["x"], across)
            left.set_title(name)
        own_unit = unit(quantity, classes=TEST_ACCURACY in parts[0][1])
        for ax, name, of in ((left_axes[0], quantity, own_unit), (right_axes[-1], "sensitivity", "")):
            ax.set_ylabel(axis(name, of, "log scale" if ax.get_yscale() == "log" else ""))
        for ax in right_axes[:-1]:
            ax.tick_params(labelright=False)
        together = [axes.get_legend_handles_labels() for axes in (left_axes[0], right_axes[0])]
        handles, labels = ([item for pair in together for item in pair[i]] for i in (0, 1))
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        figure.suptitle(_title(figure, parts, _MEANS), fontsize=11)
    return figure


def draw_measures(parts: Parts, across: str, measures: Measures, over: Mapping[str, int]) -> Figure:
    """A panel a measure against a setting, a line a part: means over seeds, bands their range.

    Args:
        parts: points as in `draw_quality`.
        across: name of the setting on the x axis.
        measures: column -> (label, unit).
        over: measure -> number of random training examples that it takes, for the title.
    """
    with style():
        figure, axes = _panels(measures, 2.7)
        for ax, (measure, called) in zip(axes, measures.items(), strict=True):
            for i, (name, part) in enumerate(parts):
                _line(ax, part, measure, i, name or "mean over seeds")
            _log_if_wide(ax)
            _setting_axis(ax, pd.concat([part["x"] for _, part in parts]), across)
            ax.set_title(noted(*called))
        _finish(figure, axes[0], parts, _MEANS, over)
    return figure


def draw_gap(parts: Parts, gap: str, measures: Measures, over: Mapping[str, int]) -> Figure:
    """A panel a measure against the gap between train and test set, one point a run, a marker a part.

    Args:
        parts: points with the columns `gap` and `measures`.
        gap: loss_gap or accuracy_gap.
        measures: column -> (label, unit).
        over: as in `draw_measures`.
    """
    with style():
        figure, axes = _panels(measures, 2.5)
        for ax, (measure, called) in zip(axes, measures.items(), strict=True):
            for i, (name, part) in enumerate(parts):
                used = part[part["reached"]]
                ax.plot(used[gap], used[measure], linestyle="none", label=name or "runs", markersize=6, **_look(i))
            _log_if_wide(ax)
            ax.set_title(noted(*called))
            ax.set_xlabel(label(gap))
        _finish(figure, axes[0], parts, "one point a network", over)
    return figure


def _panels(measures: Measures, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(3, len(measures))
    rows = math.ceil(len(measures) / columns)
    figure = Figure(figsize=(max(7.4, 3.3 * columns), height * rows + 1.2))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid[len(measures) :]:
        ax.set_axis_off()
    return figure, list(grid[: len(measures)])


def _finish(figure: Figure, first: Axes, parts: Parts, spread: str, over: Mapping[str, int]) -> None:
    handles, labels = first.get_legend_handles_labels()
    if len(parts) > 1:
        fitting = int(figure.get_figwidth() / (0.09 * max(map(len, labels)) + 0.7))  # inches a label
        figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(3, fitting)))
    if over:
        each = [f"{name} over {examples:,} random training examples" for name, examples in over.items()]
        spread += f"; {', '.join(each)}"
    figure.suptitle(_title(figure, parts, spread), fontsize=11)


def _look(i: int) -> Look:
    marker = MARKERS[(i + i // len(COLORS)) % len(MARKERS)]  # no colour comes twice with the same marker
    return {"color": COLORS[i % len(COLORS)], "marker": marker}


def _line(ax: Axes, part: pd.DataFrame, column: str, i: int, called: str) -> None:
    """Mean and range over the seeds that reached their train loss; crosses for the others."""
    used = part[part["reached"]].groupby("x")[column]
    mean = used.mean()
    ax.plot(mean.index, mean, linestyle=DASHES[i % len(DASHES)], markersize=5, label=called, **_look(i))
    ax.fill_between(mean.index, used.min(), used.max(), color=COLORS[i % len(COLORS)], alpha=0.15, linewidth=0)
    others = part[~part["reached"]]
    ax.plot(others["x"], others[column], linestyle="none", marker="x", color=COLORS[i % len(COLORS)], markersize=7)


def _log_if_wide(ax: Axes) -> None:
    """A logarithmic y axis where its values are positive and span more than a decade."""
    heights = [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]
    values = pd.Series(np.concatenate(heights) if heights else [], dtype=float).dropna()
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.max() < 1000 * values.min() else (1,)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.minorticks_off()


def _setting_axis(ax: Axes, values: pd.Series, across: str) -> None:
    ticks = sorted(set(values))
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.minorticks_off()
    ax.set_xlabel(axis(across, "log scale"))


def _title(figure: Figure, parts: Parts, spread: str) -> str:
    points = pd.concat([part for _, part in parts])
    first, low, high = points.iloc[0], points["epochs"].min(), points["epochs"].max()
    epochs = f"{low}" if low == high else f"{low} to {high}"
    seeds = points["seed"].nunique()
    size = f", {first['parameters']:,} parameters" if points["parameters"].nunique() == 1 else ""
    text = (
        f"{first['data']} ({first['source']}, {first['n_train']:,} training examples){size}, {epochs} epochs"
        f"\n{len(points)} networks, {seeds} seed{'s' * (seeds > 1)}: {spread}"
    )
    missed = [(name, part[~part["reached"]]) for name, part in parts]
    if sum(len(part) for _, part in missed):
        named = []
        for name, part in missed:
            for x, some in part.groupby("x"):
                seeds = f"seed{'s' * (len(some) > 1)} {', '.join(map(str, some['seed']))}"
                named.append(f"{name} {x:g} ({seeds})".strip())
        line = f"Never reached the train loss (crosses, not in the means): {'; '.join(named)}"
        text += "\n" + textwrap.fill(line, int(12 * figure.get_figwidth()))
    return text
