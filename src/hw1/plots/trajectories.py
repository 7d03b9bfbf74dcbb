"""Paths of weights in the plane of two principal axes, and how far they go between snapshots."""

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hw1.metrics import TEST_ACCURACY, TEST_LOSS, noted
from hw1.plots.style import Look, heading, panels, scale, seed_looks, style

_ACROSS = 4  # enlarged paths in a row
_LABEL_SIZE = 7.5  # points
_APART = 8.0  # points between two labelled places of a path, else it is not seen whose a label is
_HALO = [withStroke(linewidth=1.5, foreground="white")]  # where a line passes below a label
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))  # where a label may stand


def draw_trajectories(table: pd.DataFrame, title: str, seeds: Iterable[int]) -> Figure:
    """All runs' paths in one plane, their displacements between snapshots beside it, each path enlarged below.

    Beside the points stands the test accuracy in percent, or the test loss where there are no classes: in the common
    plane at starts and ends, in the enlarged ones at all points. A label that would cover a point or another label is
    left out; those of starts and ends come first.

    Args:
        table: columns seed, weights, parameters, epoch, pc1, pc2, explained_1, explained_2, displacement, test/loss,
            test/accuracy (absent without classes), called (the weights in words), data, source, n_train.
        title: what this figure holds fixed; may be empty.
        seeds: all of the sweep: each has one look in all of its figures.
    """
    percent = TEST_ACCURACY in table
    texts = (100 * table[TEST_ACCURACY]).map("{:.1f}".format) if percent else table[TEST_LOSS].map(_short)
    table = table.assign(text=texts.where(texts != "nan", ""))  # not every epoch need end in an evaluation
    looks = seed_looks(seeds)
    runs = [run for _, run in table.groupby("seed", sort=False)]
    rows = math.ceil(len(runs) / _ACROSS) if len(runs) > 1 else 0
    with style():
        figure = Figure(figsize=(12, 7 + 3 * rows))
        parts = figure.subfigures(2 if rows else 1, 1, height_ratios=[7, 3 * rows] if rows else None, squeeze=False)
        plane, steps = parts[0, 0].subplots(1, 2, width_ratios=[2, 1])
        enlarged = panels(parts[1, 0], len(runs), _ACROSS) if rows else []
        for i, run in enumerate(runs):
            look = looks[int(run["seed"].iloc[0])]
            steps.plot(run["epoch"].iloc[1:], run["displacement"].iloc[1:], **look, markersize=4)
            _path(plane, run, look)
            if rows:
                _path(enlarged[i], run, look)
                enlarged[i].set_title(f"seed {run['seed'].iloc[0]}, enlarged")
                enlarged[i].tick_params(labelsize=8)
                enlarged[i].locator_params(nbins=4)
        for i, axis in enumerate((plane.xaxis, plane.yaxis), 1):
            axis.set_label_text(f"principal axis {i} ({table[f'explained_{i}'].iloc[0]:.1%} of the variance)")
        _dress_steps(steps, runs[0]["epoch"].tolist())
        _legend(parts[0, 0], plane)
        whole = "" if table["weights"].iloc[0] == "all" else "the "
        weights = f"paths of {whole}{table['called'].iloc[0]} ({table['parameters'].iloc[0]:,})"
        beside = "accuracy in %" if percent else "loss"
        paths = "one path each, principal axes common to all" if len(runs) > 1 else "one path, on its own axes"
        heading(
            parts[0, 0],
            table,
            f"{weights}; {title}" if title else weights,
            f"n = {len(runs)} ({paths}); beside points: test {beside}",
        )
        figure.draw_without_rendering()  # the layout decides where labels collide
        ends = pd.concat([run.iloc[[0, -1]] for run in runs])
        _label(plane, table, ends if rows else table)
        for ax, run in zip(enlarged, runs, strict=False):
            _label(ax, run, run)
    return figure


def _short(loss: float) -> str:
    return f"{loss:#.3g}" if not loss < 1e-3 else f"{loss:.1e}".replace("e-0", "e-")  # NaN stays `nan`


def _path(ax: Axes, run: pd.DataFrame, look: Look) -> None:
    ax.plot(run["pc1"], run["pc2"], **look, markersize=3.5, linewidth=1.1, label=f"seed {run['seed'].iloc[0]}")
    alone: Look = {**look, "linestyle": "none"}
    for end, face in ((0, "white"), (-1, look["color"])):
        ax.plot(
            run["pc1"].iloc[end], run["pc2"].iloc[end], **alone, markersize=9,
            markerfacecolor=face, markeredgewidth=1.8, zorder=5,
        )  # fmt: skip
    ax.set_aspect("equal", adjustable="datalim")  # distances are true in every direction
    ax.margins(0.12)


def _dress_steps(ax: Axes, epochs: Sequence[int]) -> None:
    intervals = [after - before for before, after in itertools.pairwise(epochs)]
    shorter = f"\n(the last interval has {intervals[-1]} instead of {intervals[0]})" if len(set(intervals)) > 1 else ""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"epoch at the interval's end{shorter}")
    ax.set_ylabel(noted("displacement since the snapshot before", "$l_2$ norm", scale(ax, "y", "displacement")))


def _legend(figure: SubFigure, plane: Axes) -> None:
    marks = [
        Line2D([], [], linestyle="none", marker="o", color="#444444", markersize=9, markerfacecolor=face, label=name)
        for face, name in (("white", "start"), ("#444444", "end"))
    ]
    handles = [*plane.get_legend_handles_labels()[0], *marks]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 10))


def _label(ax: Axes, shown: pd.DataFrame, labelled: pd.DataFrame) -> None:
    """Write `text` beside the points of `labelled`: clear of points and of one another, and of lines if it can be.

    Where inner points crowd, as at the end of a path that settles, some go without.
    """
    pixel = ax.figure.dpi / 72  # of a typographic point
    frame = ax.get_window_extent()
    centres = list(ax.transData.transform(shown[["pc1", "pc2"]].to_numpy()))  # of what must stay free
    halves = [np.full(2, 2.0 * pixel)] * len(centres)
    lines = ax.transData.transform(np.concatenate([_samples(np.asarray(line.get_xydata())) for line in ax.lines]))
    named: list[NDArray[np.float64]] = []
    inner = ~labelled["epoch"].isin([labelled["epoch"].min(), labelled["epoch"].max()])
    for _, row in labelled[labelled["text"] != ""].assign(inner=inner).sort_values(["inner", "epoch"]).iterrows():
        here = ax.transData.transform(row[["pc1", "pc2"]].to_numpy(dtype=float))
        if row["inner"] and any(np.hypot(*(here - other)) < _APART * pixel for other in named):
            continue
        half = np.array([0.31 * len(row["text"]) * _LABEL_SIZE, 0.55 * _LABEL_SIZE]) * pixel
        places = [here + np.array(side) * (half + (3 if row["inner"] else 6) * pixel) for side in _SIDES]
        free = [
            place
            for place in places
            if (abs(np.array(centres) - place) > np.array(halves) + half).any(1).all()
            and all(frame.contains(*(place + sign * half)) for sign in (-1, 1))
        ]
        if free:
            crossings = [int((abs(lines - place) <= half).all(1).sum()) for place in free]
            place = free[crossings.index(min(crossings))]
            named.append(here)
            centres.append(place)
            halves.append(half)
            ax.annotate(
                row["text"], row[["pc1", "pc2"]], (place - here) / pixel, textcoords="offset points", ha="center",
                va="center", fontsize=_LABEL_SIZE, color="#333333", zorder=6, path_effects=_HALO,
            ).set_in_layout(False)  # fmt: skip


def _samples(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [.., 2] along the straight lines that join the points of a path [T, 2]."""
    share = np.linspace(0, 1, 12)[:, None, None]
    return np.asarray((1 - share) * path[:-1] + share * path[1:]).reshape(-1, 2)
