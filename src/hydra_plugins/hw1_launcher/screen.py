"""What several workers say, on one terminal: a bar for each at its bottom, whole lines above; in a file, lines alone.

Hydra imports this file at every start: it stays free of torch.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from hw1.stages import bar

_EVERY = 0.2  # seconds between two drawings, at least


@dataclass
class _Bar:
    """A run, or a stage of it: what it said last, and when and at which step it was first heard of."""

    name: str
    step: int
    total: int
    notes: tuple[str, ...]
    first: int
    since: float = field(default_factory=time.monotonic)


class Screen:
    """Lines as they come and, where standard error is a terminal, the bars of the runs that train."""

    def __init__(self) -> None:
        self._bars: dict[int, _Bar] = {}
        self._drawn = 0  # lines below the cursor that are bars
        self._last = 0.0
        self._tty = sys.stderr.isatty()

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._clear()
        sys.stderr.flush()

    def line(self, stream: str, text: str) -> None:
        """A line that a worker printed, to `stdout` or `stderr`."""
        self._clear()
        sys.stderr.flush()
        print(text, file=getattr(sys, stream), flush=True)
        self._draw()

    def told(self, number: int, message: Any) -> None:
        """How far run `number` has come: (name, step, steps in all, notes); None when it has ended."""
        if message is None:
            if self._bars.pop(number, None) is not None:
                self._draw()
            return
        name, step, total, notes = message
        known = self._bars.get(number)
        if known is not None and known.name == name:
            known.step, known.total, known.notes = step, total, notes
        else:
            self._bars[number] = _Bar(name, step, total, notes, first=step)
        if time.monotonic() - self._last > _EVERY:
            self._draw()

    def _draw(self) -> None:
        if not self._tty or not (self._bars or self._drawn):
            return
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
        columns, rows = columns or 80, rows or 24  # a terminal without a size
        bars, now = self._bars.values(), time.monotonic()
        shown = [
            bar(name, one.step, one.total, now - one.since, columns - 1, one.notes, one.first)
            for name, one in zip(told_apart([one.name for one in bars]), bars, strict=True)
        ]
        if len(shown) > rows - 2:
            shown = [*shown[: rows - 3], f"... and {len(shown) - rows + 3} more runs"]
        # In one piece, over what stands there: cleared first, bars would flicker.
        up = f"\r\x1b[{self._drawn}A" if self._drawn else "\r"  # the terminal may have shown a ^C
        sys.stderr.write(up + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J")
        sys.stderr.flush()
        self._drawn, self._last = len(shown), time.monotonic()

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\r\x1b[{self._drawn}A\x1b[J")  # up to the first bar, and away with all below
            self._drawn = 0


def told_apart(names: Sequence[str]) -> list[str]:
    """Names of runs without the settings that all of them end with.

    Example:
        >>> told_apart(["seed=1_mlp_digits", "seed=2_mlp_digits"])
        ['seed=1', 'seed=2']
    """
    same = 0  # letters that all end with
    for letters in zip(*(name[::-1] for name in names), strict=False):
        if len(set(letters)) > 1:
            break
        same += 1
    end = names[0][len(names[0]) - same :] if names else ""
    end = end[end.find("_") :] if "_" in end else ""
    short = [name.removesuffix(end) for name in names]
    return short if len(set(names)) > 1 and all(short) else list(names)
