"""One style for all figures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from matplotlib.typing import FillStyleType, LineStyleType

from hw1.files import replacing

# Okabe & Ito 2008: told apart with any kind of colour vision. Markers and dashes differ too, for grey print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[LineStyleType, ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "hw1",  # the same figure gives the same file
}


class Look(TypedDict, total=False):
    """What tells a line from the others, as keywords of matplotlib's lines."""

    color: str
    marker: str
    linestyle: LineStyleType
    fillstyle: FillStyleType


@contextmanager
def style() -> Iterator[None]:
    """Figures made inside have hw1's look."""
    with matplotlib.rc_context(_STYLE):
        yield


def log_scale(ax: Axes) -> None:
    """A logarithmic y axis for what is drawn, with plain numbers on it where that spans less than a decade."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < 10 * low:
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.minorticks_off()


def entitle(figure: Figure, note: str) -> None:
    """Add a line to a figure's title, in its size; a figure without a title gets one."""
    title = figure.get_suptitle()
    if not title:
        figure.suptitle(note, fontsize=10)
    for text in figure.texts:
        if title and text.get_text() == title:
            text.set_text(f"{title}\n{note}")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.png` (150 dots an inch) and `<stem>.svg`; returns both."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for path in paths:
        with replacing(path) as temporary, style():
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)
    return paths
