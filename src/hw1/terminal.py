"""Text for a terminal: without control characters, in columns that fit its width. No torch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from hw1.words import cut, printable, width

_GAP = "  "


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print texts, each of its lines `printable`: what a file or a name holds is shown, and obeyed by no terminal.

    Args:
        *lines: each may hold several.
        file: standard output unless said.
    """
    for line in "\n".join(map(str, lines)).split("\n") if lines else ():
        print(printable(line), file=file, flush=True)


def agreed(question: str, otherwise: str, yes: str) -> bool:
    """Ask whether to go on; without a terminal nothing is asked, and it is no.

    Args:
        question: that yes answers.
        otherwise: what to say has not been done.
        yes: what `--yes` does.
    """
    if not sys.stdin.isatty():
        print(f"{otherwise}: --yes {yes}", file=sys.stderr)
        return False
    if input(f"{question} [y/N] ").strip().lower() in ("y", "yes"):
        return True
    print(otherwise)
    return False


def columns() -> int | None:
    """The width of the terminal that standard output is; None where it is a file or a pipe: nothing is cut there."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], cells: int | None, least: Mapping[str, int]
) -> list[str]:
    r"""Lines of a table; columns without any content are left out.

    Args:
        header: of the columns.
        rows: their cells, made `printable`.
        cells: width that no line exceeds; None for any.
        least: {name of a column that may become narrower: to what width}, the first to give way first.

    Example:
        >>> print("\n".join(table(["run", "epoch", "note"], [["batch_size=1024_seed=1", "3", ""]], 20, {"run": 8})))
        run            epoch
        batch_…seed=1  3
    """
    clean = [[printable(cell) for cell in row] for row in rows]
    kept = [i for i in range(len(header)) if any(row[i] for row in clean)]
    widths = {i: max(width(header[i]), *(width(row[i]) for row in clean)) for i in kept}
    for name, smallest in least.items():
        i = list(header).index(name) if name in header else -1
        if i in widths and cells is not None:
            over = sum(widths.values()) + len(_GAP) * (len(kept) - 1) - cells
            widths[i] = min(widths[i], max(smallest, widths[i] - max(0, over)))
    lines = []
    for row in [header, *clean] if rows else []:
        shown = [cut(row[i], widths[i]) for i in kept]
        padded = [text + " " * (widths[i] - width(text)) for i, text in zip(kept, shown, strict=True)]
        line = _GAP.join(padded).rstrip()
        lines.append(line if cells is None else cut(line, cells))
    return lines


def size(bytes_: float) -> str:
    """Bytes as a reader says them.

    Example:
        >>> size(0), size(1234), size(2.5e9)
        ('0 B', '1.23 kB', '2.5 GB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= scale:
            return f"{bytes_ / scale:.3g} {unit}"
    return f"{bytes_:.0f} B"
