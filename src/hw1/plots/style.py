"""One style for all figures: looks, scales, titles and how panels stand."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter, SymmetricalLogLocator
from matplotlib.typing import FillStyleType, LineStyleType

from hw1.files import replacing
from hw1.metrics import BATCH_SIZE, GRADIENT_NORM, LEARNING_RATE, LOSS
from hw1.words import NETWORK

# Okabe & Ito 2008: told apart with any kind of colour vision. Markers and dashes differ too, for grey print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[LineStyleType, ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# The quantities whose axis is logarithmic, in every figure: positive ones whose ratios matter. All others are linear:
# accuracies and shares, which may be 0 or 1; differences, as gaps; counts of epochs and layers; function values; and
# eigenvalues of either sign. Looked up by `is_log`.
LOGARITHMIC = frozenset(
    {LOSS, GRADIENT_NORM, "displacement", "sensitivity", "sharpness", "density"}
    | {"parameters", "iteration", "model.width", BATCH_SIZE, LEARNING_RATE, "optimizer.weight_decay"}
)
_DECADES_IN_PLAIN_NUMBERS = 3
_LONGEST = 1e4  # from here on numbers on an x axis are powers of ten
_LETTER = 0.0076  # width of a letter in inches, of text in a size of one point

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


def is_log(quantity: str) -> bool:
    """Whether a quantity's axis is logarithmic: by its own name, that of its measure, or what of which set it is.

    Example:
        >>> is_log("train/loss"), is_log("sharpness/trace"), is_log("test/accuracy"), is_log("loss_gap")
        (True, True, False, False)
    """
    return not LOGARITHMIC.isdisjoint({quantity, quantity.partition("/")[0], quantity.rpartition("/")[2]})


def scale(ax: Axes, side: Literal["x", "y"], quantity: str) -> str:
    """Give an axis the scale of the quantity that is drawn on it, and say so: a note for its label, "" if it is linear.

    Of a quantity that should be logarithmic and is negative somewhere, what lies about as near to 0 as its negative
    values is linear; a line that goes to 0 leaves the panel at its lower edge. Numbers are plain where they span few
    decades.

    Args:
        ax: with everything drawn.
        side: which of its axes.
        quantity: what is drawn there, see `is_log`.
    """
    if not is_log(quantity):
        return ""
    axis = ax.xaxis if side == "x" else ax.yaxis
    sharing = (ax.get_shared_x_axes() if side == "x" else ax.get_shared_y_axes()).get_siblings(ax)
    values = np.concatenate([[], *(_drawn(other, side) for other in sharing)])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) and (values < 0).any():
        near = 10.0 ** math.floor(math.log10(-values.min()))
        (ax.set_xscale if side == "x" else ax.set_yscale)("symlog", linthresh=near)
        axis.set_major_locator(SymmetricalLogLocator(linthresh=near, base=10))
        low, high = axis.get_transform().transform([values.min(), values.max()])
        pad = 0.05 * (high - low)
        limits = axis.get_transform().inverted().transform([low - pad, high + pad])
        (ax.set_xlim if side == "x" else ax.set_ylim)(*limits)
        return f"log scale, linear below {near:g}"
    ax.set(**{f"{side}scale": "log"})
    note = "log scale, 0 is below it" if len(positive) < len(values) else "log scale"
    low, high = ax.get_xlim() if side == "x" else ax.get_ylim()
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    elif high < 10**_DECADES_IN_PLAIN_NUMBERS * low and (side == "y" or high < _LONGEST):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        return note
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
    return note


def _drawn(ax: Axes, side: str) -> np.ndarray:
    """The positions on an axis of all points of lines, but for those that run from edge to edge, and of bands."""
    number = 0 if side == "x" else 1
    lines = [line for line in ax.lines if line.get_transform().contains_branch_seperately(ax.transData)[number]]
    found = [np.asarray(line.get_data()[number], dtype=float) for line in lines]
    bands = [band for band in ax.collections if isinstance(band, PolyCollection)]
    found += [np.asarray(path.vertices, dtype=float)[:, number] for band in bands for path in band.get_paths()]
    return np.concatenate(found) if found else np.empty(0)


def seed_looks(seeds: Iterable[int]) -> dict[int, Look]:
    """A look for each seed of a sweep, the same in all of its figures; colours come round after 7, looks do not."""
    looks: dict[int, Look] = {}
    for i, seed in enumerate(sorted(set(seeds))):
        again = i // len(COLORS)
        looks[seed] = {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[(i + again) % len(MARKERS)],
            "linestyle": DASHES[again % len(DASHES)],
        }
    return looks


def panels(figure: Figure | SubFigure, number: int, across: int) -> list[Axes]:
    """So many panels, at most `across` in a row; rows have equal numbers or one apart and fill the width."""
    rows = math.ceil(number / across)
    counts = [number // rows + (row < number % rows) for row in range(rows)]
    grid = figure.add_gridspec(rows, math.lcm(*counts))
    found = []
    for row, count in enumerate(counts):
        each = grid.ncols // count
        found += [figure.add_subplot(grid[row, i * each : (i + 1) * each]) for i in range(count)]
    return found


def ticks(ax: Axes, values: Sequence[float]) -> None:
    """A tick at each value of an x axis, with plain numbers; those that would run into one another have none.

    Args:
        ax: its x axis has its scale and all that is drawn.
        values: in rising order; the first and the last keep their numbers.
    """
    low, high = ax.transScale.transform([(limit, 1.0) for limit in ax.get_xlim()])[:, 0]
    places = ax.transScale.transform([(value, 1.0) for value in values])[:, 0] * inches_of(ax) / (high - low)
    halves = [0.5 * 10 * _LETTER * (len(f"{value:g}") + 1) for value in values]
    last, kept = len(values) - 1, [0]
    for i in range(1, last):
        clear = places[i] - halves[i] > places[kept[-1]] + halves[kept[-1]]
        if clear and places[i] + halves[i] < places[last] - halves[last]:
            kept.append(i)
    ax.set_xticks(values, [f"{value:g}" if i in {*kept, last} else "" for i, value in enumerate(values)])
    ax.xaxis.set_minor_locator(NullLocator())


def inches_of(ax: Axes) -> float:
    """About how wide the inside of a panel of a grid will be."""
    spec = ax.get_subplotspec()
    share = len(spec.colspan) / spec.get_gridspec().ncols if spec else 1.0
    return float(ax.figure.bbox.width / ax.figure.dpi * share - 0.5)


def broken(text: str, inches: float, size: float = 10) -> str:
    """A text with line breaks where it would be wider than this in a size; those that it has stay."""
    letters = max(1, int(inches / (_LETTER * size)))
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


def heading(figure: Figure | SubFigure, table: pd.DataFrame, *lines: str) -> None:
    """A figure's title: the data, the network where there is one, and more lines; broken where they are too long.

    Args:
        figure: it.
        table: columns data, source, n_train and, where it is known, network_in_words.
        *lines: empty ones are left out.
    """
    first = table.iloc[0]
    nets = list(table[NETWORK].unique()) if NETWORK in table else []
    data = f"{first['data']} ({first['source']}, {first['n_train']:,} training examples)"
    shown = ["; ".join([data, *(nets if len(nets) == 1 else [])]), *lines]
    inches = figure.bbox.width / figure.dpi - 0.2
    figure.suptitle(broken("\n".join(line for line in shown if line), inches, 11), fontsize=11)


def entitle(figure: Figure, note: str) -> None:
    """Add a line to a figure's title, in its size; a figure without a title gets one."""
    titled = next((part for part in (figure, *figure.subfigs) if part.get_suptitle()), None)
    if titled is None:
        figure.suptitle(note, fontsize=10)
        return
    title = titled.get_suptitle()
    for text in titled.texts:
        if text.get_text() == title:
            text.set_text(f"{title}\n{note}")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.png` (150 dots an inch) and `<stem>.svg`; returns both."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for path in paths:
        with replacing(path) as temporary, style():
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)
    return paths
