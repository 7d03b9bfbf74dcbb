"""Minimal ratio against loss, one point a network."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from hw1.metrics import LOSS, axis
from hw1.plots.style import COLORS, broken, heading, inches_of, scale, style
from hw1.words import counted

# Reason why the search stopped -> marker, colour, words. Converged points are filled, the others are open.
REASONS = {
    "converged": ("o", COLORS[0], "converged: no gradient left"),
    "flat": ("D", COLORS[4], "flat along the gradient"),
    "stalled": ("^", COLORS[1], "no step goes further down"),
    "not converged": ("s", COLORS[2], "gradient not yet zero"),
}
_NARROWEST = 0.02  # of an axis of shares: below, only the error of the estimate is seen
_TITLES = {
    "training": "after training",
    "gradient_norm": "after minimising |g|²",
    "search": "where the search stopped",
}


def draw_minimal_ratio(points: pd.DataFrame, title: str, notes: Mapping[str, str]) -> Figure:
    """Loss against the share of positive eigenvalues (upper row) and of higher neighbours (lower row), by phase.

    Args:
        points: columns phase, loss, positive, positive_error (where it is estimated), sampled, sampled_error, reason,
            constant, parameters, data, source, n_train; loss_unit, as nats, where it has one.
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
                _shares_axis(ax)
                ax.set_xlabel(label)
            share = f"{int(part['counted'].sum())} of {len(part)} converged and not constant"
            lines = [_TITLES[phase], share, *([notes[phase]] if phase in notes else [])]
            axes[0, j].set_title(broken("\n".join(lines), inches_of(axes[0, j])))
        of_loss = next((str(one) for one in points.get("loss_unit", pd.Series(dtype=str)).dropna()), "")
        note = scale(axes[0, 0], "y", LOSS)
        for ax in axes[:, 0]:
            ax.set_ylabel(axis(LOSS, of_loss, note))
        handles = _legend(points)
        longest = max(len(str(handle.get_label())) for handle in handles) if handles else 1
        fitting = int(figure.get_figwidth() / (0.08 * longest + 0.6))
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(len(handles), fitting)))
        heading(figure, points, counted(int(points.groupby("phase").size().max()), "network"), title)
    return figure


def _scatter(ax: Axes, points: pd.DataFrame, column: str) -> None:
    error = f"{column}_error"
    for reason, (marker, color, _) in REASONS.items():
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


def _shares_axis(ax: Axes) -> None:
    """Shares lie between 0 and 1; few numbers, as small ones are long, and none as a difference from another."""
    low, high = ax.get_xlim()
    if high - low < _NARROWEST:
        low, high = (low + high - _NARROWEST) / 2, (low + high + _NARROWEST) / 2
    margin = 0.04 * (high - low)
    ax.set_xlim(max(low, -margin), min(high, 1 + margin))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _legend(points: pd.DataFrame) -> list[Line2D]:
    handles = []
    for reason, (marker, color, words) in REASONS.items():
        count = int((points["reason"] == reason).sum())
        if count:
            fill = color if reason == "converged" else "none"
            handles.append(
                Line2D([], [], label=words, linestyle="none", marker=marker, color=color, markerfacecolor=fill)
            )
    if points["constant"].any():
        handles.append(Line2D([], [], linestyle="none", marker="X", color="#555555", markerfacecolor="none",
                              label="constant predictor"))  # fmt: skip
    return handles
