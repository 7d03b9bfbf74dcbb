"""How far a command has come, in a notebook: a bar for each run that trains, below the last lines of runs. No torch."""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections import deque
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from hw1.lease import is_held
from hw1.records import read_record
from hw1.runs import ended
from hw1.runs.standing import named_runs, read_progress
from hw1.stages import duration
from hw1.training.contents import RESULT
from hw1.words import printable

_LINES = 5  # about runs that have ended: a long sweep's would fill the notebook
_JOB = re.compile(r"\[\d+/\d+\] ")


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel: what is displayed can be replaced."""
    made = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(made, "kernel")


class Live:
    """What stands in a cell's output while its command is at work, and is drawn over."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._handle: Any = None

    def takes(self, line: str) -> bool:
        """Whether it shows a line that the command has said: one about a run that has ended well."""
        if not _JOB.match(line) or "FAILED" in line:
            return False
        self._lines.append(line)
        return True

    def draw(self, bars: Sequence[tuple[str, float, str]] = ()) -> None:
        """Show the last lines and bars: (name, share that is done, what stands behind it)."""
        rows = [f"<div>{escape(printable(line))}</div>" for line in self._lines]
        rows += [
            f'<div><progress max="1" value="{share:.4f}"></progress> {escape(printable(f"{name} {note}"))}</div>'
            for name, share, note in bars
        ]
        if not rows and self._handle is None:
            return
        shown = importlib.import_module("IPython.display")
        page = shown.HTML(f'<div style="font-family: monospace">{"".join(rows)}</div>')
        if self._handle is None:
            self._handle = shown.display(page, display_id=True)
        else:
            self._handle.update(page)


class Watch:
    """The runs of a sweep that a command trains, read off their folders.

    Args:
        sweep: its folder.
    """

    def __init__(self, sweep: Path) -> None:
        record = read_record(sweep / "sweep.json")
        launched = set(record.get("launched", []))
        self._record = record
        runs = sweep.parent.parent / "runs"
        self._left = [runs / name for name, _ in named_runs(record) if name in launched]
        self._all = len(self._left)

    def bars(self) -> list[tuple[str, float, str]]:
        """(name, share that is done, what stands behind it) of those at work; of all, where there are several."""
        self._left = [folder for folder in self._left if not self._has_ended(folder)]
        found = []
        for folder in self._left:
            # What an earlier, interrupted command left says nothing of this one.
            if not is_held(folder) or (far := read_progress(folder, time.time())) is None:
                continue
            left = f", about {duration(far.left)} left" if far.left == far.left else ""
            said = f"epoch {far.epoch} of {far.epochs}{left}"
            found.append((folder.name.rpartition("-")[0], far.step / far.steps, said))
        if self._all > 1 and self._left:
            done = self._all - len(self._left)
            found.insert(
                0, ("runs", (done + sum(share for _, share, _ in found)) / self._all, f"{done} of {self._all}")
            )
        return found

    def _has_ended(self, folder: Path) -> bool:
        return (folder / RESULT).is_file() and ended(folder, self._record)
