"""Training losses of several networks, and what they predict."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hw1.metrics import LOSS, noted
from hw1.plots.style import COLORS, DASHES, MARKERS, broken, inches_of, scale, style

_TRUTH = "#999999"
_MIDDLE = "of each network the member with the median final loss, n = {}"


def draw_losses(curves: pd.DataFrame, networks: pd.DataFrame) -> Figure:
    """Training loss against epochs, log y, all networks in one chart: the median over members, their range as a band.

    A dotted line is the variance of the targets' noise.

    Args:
        curves: columns panel, network, epoch, median, low, high, n; data, source, n_train.
        networks: one row a network and panel; columns panel, network, noise, constant, n.
    """
    panels = list(dict.fromkeys(curves["panel"]))
    names = list(dict.fromkeys(networks["network"]))
    with style():
        figure = Figure(figsize=(8 if len(panels) == 1 else 5 * len(panels), 5.2))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            part, ends = curves[curves["panel"] == panel], networks[networks["panel"] == panel]
            for i, name in enumerate(names):
                curve = part[part["network"] == name].sort_values("epoch")
                if curve.empty:  # its run failed
                    continue
                color = COLORS[i % len(COLORS)]
                ax.plot(curve["epoch"], curve["median"], DASHES[i % len(DASHES)], color=color)
                ax.fill_between(curve["epoch"], curve["low"], curve["high"], color=color, alpha=0.12, linewidth=0)
                for edge in ("low", "high"):  # where bands lie upon each other
                    ax.plot(curve["epoch"], curve[edge], DASHES[i % len(DASHES)], color=color, linewidth=0.5)
            if noise := ends["noise"].iloc[0]:
                ax.axhline(noise**2, color="black", linestyle=":", linewidth=1)
            short = ends["network"].str.rpartition(": ")[2]  # sizes, where they are said
            dead = [
                f"\n{row.constant} of {row.n} constant: {name}"
                for row, name in zip(ends.itertuples(), short, strict=True)
                if row.constant
            ]
            ax.set_title(broken(_heading(part) + "".join(dead), inches_of(ax)))
            ax.set_xlabel("epoch")
        for ax in axes:
            note = scale(ax, "y", LOSS)
        axes[0].set_ylabel(noted("training loss", "mean squared error", note))
        handles = [_line(i, name) for i, name in enumerate(names)]
        if networks["noise"].any():
            handles.append(Line2D([], [], linestyle=":", color="black", label="variance of the noise"))
        figure.legend(handles=handles, loc="outside lower center", ncols=_columns(figure, handles))
        figure.suptitle(f"n = {_members(curves)} members a network; line: median, band: range", fontsize=11)
    return figure


def draw_functions(predictions: pd.DataFrame) -> Figure:
    """Upper row: the function and what the median member of each network makes of it; lower row: the difference.

    Args:
        predictions: columns panel, network, n, x, true, predicted; data, source, n_train.
    """
    panels = list(dict.fromkeys(predictions["panel"]))
    names = list(dict.fromkeys(predictions["network"]))
    with style():
        figure = Figure(figsize=(8 if len(panels) == 1 else 5 * len(panels), 6.6))
        axes = figure.subplots(2, len(panels), sharex="col", squeeze=False, height_ratios=[2, 1])
        for (upper, lower), panel in zip(axes.T, panels, strict=True):
            part = predictions[predictions["panel"] == panel]
            truth = part[part["network"] == part["network"].iloc[0]]
            upper.plot(truth["x"], truth["true"], color=_TRUTH, linewidth=4)
            for i, name in enumerate(names):
                own = part[part["network"] == name]
                look = {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.2}
                upper.plot(own["x"], own["predicted"], **look)
                lower.plot(own["x"], own["predicted"] - own["true"], **look)
            upper.set_title(_heading(part))
            lower.set_xlabel("x")
        axes[0, 0].set_ylabel("f(x) and predictions")
        axes[1, 0].set_ylabel("prediction - f(x)")
        handles = [Line2D([], [], color=_TRUTH, linewidth=4, label="ground truth")]
        handles += [_line(i, name) for i, name in enumerate(names)]
        figure.legend(handles=handles, loc="outside lower center", ncols=_columns(figure, handles))
        figure.suptitle(f"Between the training points; {_MIDDLE.format(predictions['n'].max())}", fontsize=11)
    return figure


def draw_scatter(predictions: pd.DataFrame) -> Figure:
    """Predicted against true on the test set, one row a target, one column a network.

    The line is the identity; the band around it one standard deviation of the noise on the targets.

    Args:
        predictions: columns panel, network, n, noise, true, predicted; data, source, n_train.
    """
    panels = list(dict.fromkeys(predictions["panel"]))
    names = list(dict.fromkeys(predictions["network"]))
    with style():
        figure = Figure(figsize=(max(8, 3.4 * len(names)), 3.6 * len(panels) + 0.6))
        axes = figure.subplots(len(panels), len(names), sharex="row", sharey="row", squeeze=False)
        for row, panel in zip(axes, panels, strict=True):
            part = predictions[predictions["panel"] == panel]
            ends = np.array([part["true"].min(), part["true"].max()])
            for i, (ax, name) in enumerate(zip(row, names, strict=True)):
                own = part[part["network"] == name]
                _scatter(ax, own, i, ends)
                ax.set_xlabel(f"true {panel}")
            row[0].set_ylabel(f"predicted {panel}")
        first, images = predictions.iloc[0], len(predictions) // (len(names) * len(panels))
        data = f"{images:,} test images ({first['source']}; {first['n_train']:,} for training)"
        figure.suptitle(
            f"{data}; {_MIDDLE.format(first['n'])}\n"
            "line: identity; band: one standard deviation of the targets' noise, which no network predicts",
            fontsize=11,
        )
    return figure


def _scatter(ax: Axes, own: pd.DataFrame, i: int, ends: np.ndarray) -> None:
    noise = own["noise"].iloc[0]
    rmse = float(np.sqrt(((own["predicted"] - own["true"]) ** 2).mean()))
    ax.fill_between(ends, ends - noise, ends + noise, color=_TRUTH, alpha=0.3, linewidth=0)
    ax.plot(
        own["true"], own["predicted"], linestyle="none", marker=MARKERS[i % len(MARKERS)], markersize=2.5,
        color=COLORS[i % len(COLORS)], alpha=0.5,
    )  # fmt: skip
    ax.plot(ends, ends, color="black", linewidth=1)
    for edge in (-noise, noise) if noise else ():  # the band lies below the points
        ax.plot(ends, ends + edge, color="black", linewidth=0.7, linestyle=":")
    error = f"RMSE {rmse:.3g}" + (f", noise {noise:g}" if noise else "")
    ax.set_title(broken(f"{own['network'].iloc[0]}\n{error}", inches_of(ax)))


def _heading(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    return f"{first['panel']} ({first['source']}, {first['n_train']:,} training examples)"


def _members(curves: pd.DataFrame) -> str:
    counts = sorted(set(curves["n"]))
    return str(counts[-1]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _columns(figure: Figure, handles: list[Line2D]) -> int:
    """Of a legend, as many as fit."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    return max(1, min(3, int(figure.get_figwidth() / (0.08 * longest + 0.7))))


def _line(i: int, label: str) -> Line2D:
    return Line2D([], [], color=COLORS[i % len(COLORS)], linestyle=DASHES[i % len(DASHES)], label=label)
