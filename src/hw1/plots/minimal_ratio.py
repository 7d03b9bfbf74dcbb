"""Minimal ratio against loss, one point a network."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hw1.plots.style import COLORS, log_scale, style

# Reason why the search stopped -> marker, colour. Converged points are filled, the others are open.
REASONS = {
    "converged": ("o", COLORS[0]),
    "flat": ("D", COLORS[4]),
    "stalled": ("^", COLORS[1]),
    "budget": ("s", COLORS[2]),
}
_TITLES = {
    "training": "after training",
    "gradient_norm": "after minimising |g|²",
    "search": "where the search stopped",
}


def draw_minimal_ratio(points: pd.DataFrame, title: str, notes: Mapping[str, str]) -> Figure:
    """Loss against the share of positive eigenvalues (upper row) and of higher neighbours (lower row), by phase.

    Args:
        points: columns phase, loss, positive, positive_error (where it is estimated), sampled, sampled_error, reason,
            constant, parameters, data, source, n_train.
        title: what this figure holds fixed; may be empty.
        notes: phase -> what was found there, a line above its panels.
    """
    phases = list(dict.fromkeys(points["phase"]))
    quadrature = points["estimator"].eq("quadrature").any()  # a network that is not finite has none
    above = "share of eigenvalues > 0.01 max|λ| (quadrature)" if quadrature else "share of positive eigenvalues (all)"
    rows = {"positive": above, "sampled": "share of higher neighbours (sampled)"}
    with style():
        figure = Figure(figsize=(max(6.4, 4.2 * len(phases)), 7.4))
        axes = figure.subplots(2, len(phases), sharey=True, squeeze=False)
        for j, phase in enumerate(phases):
            part = points[points["phase"] == phase]
            for ax, (column, label) in zip(axes[:, j], rows.items(), strict=True):
                _scatter(ax, part, column)
                ax.set_xlabel(label)
                ax.xaxis.set_major_locator(MaxNLocator(4))  # small shares have long numbers
            share = f"{int(part['counted'].sum())} of {len(part)} converged and not constant"
            lines = [_TITLES[phase], share, *([notes[phase]] if phase in notes else [])]
            axes[0, j].set_title("\n".join(lines))
        for ax in axes[:, 0]:
            ax.set_ylabel("loss (log scale)")
        log_scale(axes[0, 0])
        figure.legend(handles=_legend(points), loc="outside lower center", ncols=5)
        figure.suptitle(
            f"{points['data'].iloc[0]} ({points['source'].iloc[0]}, {points['n_train'].iloc[0]:,} training examples), "
            f"{points['parameters'].iloc[0]:,} parameters, n = {points.groupby('phase').size().max()} networks"
            + (f"\n{title}" if title else ""),
            fontsize=11,
        )
    return figure


def _scatter(ax: Axes, points: pd.DataFrame, column: str) -> None:
    error = f"{column}_error"
    for reason, (marker, color) in REASONS.items():
        for constant in (False, True):
            part = points[(points["reason"] == reason) & (points["constant"] == constant)]
            if part.empty:
                continue
            filled = reason == "converged" and not constant
            shown = "X" if constant else marker
            bars = part[error] if error in part and part[error].notna().all() else None
            ax.errorbar(
                part[column], part["loss"], xerr=bars, linestyle="none", marker=shown, markersize=5, color=color,
                markerfacecolor=color if filled else "none", elinewidth=0.5, alpha=0.8,
            )  # fmt: skip


def _legend(points: pd.DataFrame) -> list[Line2D]:
    handles = []
    for reason, (marker, color) in REASONS.items():
        count = int((points["reason"] == reason).sum())
        if count:
            fill = color if reason == "converged" else "none"
            handles.append(
                Line2D([], [], label=reason, linestyle="none", marker=marker, color=color, markerfacecolor=fill)
            )
    if points["constant"].any():
        handles.append(Line2D([], [], linestyle="none", marker="X", color="#555555", markerfacecolor="none",
                              label="constant predictor"))  # fmt: skip
    return handles
