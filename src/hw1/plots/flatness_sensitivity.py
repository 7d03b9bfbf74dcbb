"""Loss, accuracy, sensitivity and sharpness against a setting; measures of flatness against the test gap."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw1.metrics import SPLITS, TEST_ACCURACY, axis, unit
from hw1.plots.style import COLORS, DASHES, MARKERS, Look, broken, heading, inches_of, panels, scale, style, ticks
from hw1.words import counted

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
        figure = Figure(figsize=(max(8.0, 3.9 * len(parts) + 0.6), 5.0))
        left_axes = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        right_axes = [ax.twinx() for ax in left_axes]
        for (name, part), left, other in zip(parts, left_axes, right_axes, strict=True):
            if other is not right_axes[0]:
                other.sharey(right_axes[0])
            for i, split in enumerate(SPLITS):
                _line(left, part, f"{split}/{quantity}", i, f"{split} {quantity}")
            for i, (measure, called) in enumerate(right.items(), 2):
                _line(other, part, measure, i, f"{called} (right)")
            other.spines["right"].set_visible(True)
            other.grid(visible=False)
            _setting_axis(left, part["x"], across)
            left.set_title(broken(name, inches_of(left)))
        own_unit = unit(quantity, TEST_ACCURACY in parts[0][1], parts[0][1])
        left_axes[0].set_ylabel(axis(quantity, own_unit, scale(left_axes[0], "y", quantity)))
        right_axes[-1].set_ylabel(axis("sensitivity", scale(right_axes[0], "y", "sensitivity")))
        for ax in right_axes[:-1]:
            ax.tick_params(labelright=False)
        together = [axes.get_legend_handles_labels() for axes in (left_axes[0], right_axes[0])]
        handles, labels = ([item for pair in together for item in pair[i]] for i in (0, 1))
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        _entitle(figure, parts, _MEANS)
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
            _setting_axis(ax, pd.concat([part["x"] for _, part in parts]), across)
            _name(ax, measure, *called)
        _finish(figure, axes[0], parts, _MEANS, over)
    return figure


def draw_gap(
    parts: Parts, gap: str, measures: Measures, over: Mapping[str, int], correlations: Mapping[str, str]
) -> Figure:
    """A panel a measure against the gap between train and test set, one point a run, a marker a part.

    Args:
        parts: points with the columns `gap` and `measures`.
        gap: loss_gap or accuracy_gap.
        measures: column -> (label, unit).
        over: as in `draw_measures`.
        correlations: measure -> its correlation with the gap, in words; may lack some.
    """
    with style():
        figure, axes = _panels(measures, 2.7)
        for ax, (measure, called) in zip(axes, measures.items(), strict=True):
            for i, (name, part) in enumerate(parts):
                used = part[part["reached"]]
                ax.plot(used[gap], used[measure], linestyle="none", label=name or "runs", markersize=6, **_look(i))
            ax.margins(0.08)
            _name(ax, measure, *called, correlations.get(measure, ""))
            ax.set_xlabel(axis(gap, scale(ax, "x", gap)))
        of = "the means of each kind" if len(parts) > 1 else "all of them"
        ranks = f"; ρ: rank correlation over {of}" if any(correlations.values()) else ""
        _finish(figure, axes[0], parts, f"one point a network{ranks}", over)
    return figure


def _panels(measures: Measures, height: float) -> tuple[Figure, list[Axes]]:
    rows = -(-len(measures) // 3)
    figure = Figure(figsize=(max(8.0, 3.3 * min(3, len(measures))), height * rows + 1.2))
    return figure, panels(figure, len(measures), across=3)


def _finish(figure: Figure, first: Axes, parts: Parts, spread: str, over: Mapping[str, int]) -> None:
    handles, labels = first.get_legend_handles_labels()
    if len(parts) > 1:
        fitting = int(figure.get_figwidth() / (0.09 * max(map(len, labels)) + 0.7))  # inches a label
        figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(3, fitting)))
    if over:
        each = [f"{name} over {examples:,} random training examples" for name, examples in over.items()]
        spread += f"\n{', '.join(each)}"
    _entitle(figure, parts, spread)


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


def _name(ax: Axes, measure: str, called: str, of: str, note: str = "") -> None:
    """The panel of a measure: its label and a note above it, unit and scale beside it."""
    ax.set_title(broken(f"{called}\n{note}" if note else called, inches_of(ax)))
    ax.set_ylabel(", ".join(word for word in (of, scale(ax, "y", measure)) if word))


def _setting_axis(ax: Axes, values: pd.Series, across: str) -> None:
    ax.set_xlabel(axis(across, scale(ax, "x", across)))
    ticks(ax, sorted(set(values)))


def _entitle(figure: Figure, parts: Parts, spread: str) -> None:
    points = pd.concat([part for _, part in parts])
    low, high = points["epochs"].min(), points["epochs"].max()
    epochs = f"{low}" if low == high else f"{low} to {high}"
    seeds = counted(points["seed"].nunique(), "seed")
    lines = [f"{counted(len(points), 'network')} of {seeds}, {epochs} epochs: {spread}"]
    missed = [(name, part[~part["reached"]]) for name, part in parts]
    if sum(len(part) for _, part in missed):
        named = []
        for name, part in missed:
            for x, some in part.groupby("x"):
                seeds = f"seed{'s' * (len(some) > 1)} {', '.join(map(str, some['seed']))}"
                named.append(f"{name} {x:g} ({seeds})".strip())
        lines.append(f"Never reached the train loss (crosses, not in the means): {'; '.join(named)}")
    heading(figure, points, *lines)
