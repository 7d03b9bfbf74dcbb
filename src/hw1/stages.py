"""How far a long stage of a command has come: decoding images, planning, measuring, a study's points. No torch.

A stage that takes more than a few seconds shows a bar with the time left on a terminal and says one line elsewhere; in
a worker it gives word of itself to the process that draws the bars of all. Commands open it (`stage`); what they call
says how far it is (`at`), and outside of a stage nobody hears that.

Example:
    >>> with stage("counting"):
    ...     for number in range(3):
    ...         at(number, 3)
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from hw1 import preemption
from hw1.words import cut

AFTER = 5.0  # seconds, after which a stage is worth a word
EVERY = 0.5  # seconds between two drawings, at least

# In a worker: who is told (name, done, in all, notes) instead of a bar's being drawn here.
watcher: Callable[[tuple[str, int, int, tuple[str, ...]]], None] | None = None

_T = TypeVar("_T")
_open: list[_Stage] = []  # the innermost last


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Something that may take long; `at` counts in the innermost of those that are open.

    Args:
        name: what is done, as `decoding images`.
    """
    mine = _Stage(name)
    _open.append(mine)
    try:
        yield
    finally:
        _open.remove(mine)
        mine.end()


def at(done: int, total: int) -> None:
    """Of the stage that is open, so many parts of `total` are done; a job that was asked to stop does so between them.

    Raises:
        Preempted: it was.
    """
    preemption.require()
    if _open:
        _open[-1].done, _open[-1].total = done, total


def note(text: str) -> None:
    """A line of the stage that is open, behind its name: what to know before it has come far."""
    if _open:
        clear = "\r\x1b[K" if draws() else ""
        print(f"{clear}{_open[-1].name}: {text}", file=sys.stderr, flush=True)


def through(items: Iterable[_T], total: int) -> Iterator[_T]:
    """The items, of which `at` is told as they are used up."""
    for done, item in enumerate(items):
        at(done, total)
        yield item
    at(total, total)


class _Stage:
    """A stage, and the thread that speaks for it: the stage itself is busy, often outside of Python."""

    def __init__(self, name: str) -> None:
        self.done, self.total = 0, 0
        self.name, self._begun = name, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Take the bar away."""
        self._ended.set()
        self._thread.join()

    def _speak(self) -> None:
        if self._ended.wait(AFTER):
            return
        if watcher is not None:
            while not self._ended.wait(EVERY):
                if _open[-1:] == [self]:
                    watcher((self.name, self.done, self.total, ()))
        elif not draws():
            if multiprocessing.current_process().name == "MainProcess":
                print(self._said(), file=sys.stderr, flush=True)
        else:
            line = Line()
            while not self._ended.wait(EVERY):
                seconds = time.monotonic() - self._begun
                if _open[-1:] == [self]:
                    line.draw(self.name, self.done, self.total, seconds)
                else:
                    line.clear()
            line.clear()

    def _said(self) -> str:
        seconds = time.monotonic() - self._begun
        if not self.done or not self.total:
            return f"{self.name} ..."
        left = seconds / self.done * (self.total - self.done)
        return f"{self.name}: {self.done} of {self.total} in {duration(seconds)}, about {duration(left)} left"


def draws() -> bool:
    """Whether this process draws bars: standard error is its terminal, and it is no worker."""
    return sys.stderr.isatty() and multiprocessing.current_process().name == "MainProcess"


class Line:
    """The last line of the terminal, drawn over until it is cleared."""

    def __init__(self) -> None:
        self._shown = False

    def draw(self, name: str, done: int, total: int, seconds: float, notes: Sequence[str] = (), first: int = 0) -> None:
        """Show a bar, see `bar`."""
        sys.stderr.write(f"\r{bar(name, done, total, seconds, _columns() - 1, notes, first)}\x1b[K")
        sys.stderr.flush()
        self._shown = True

    def clear(self) -> None:
        """Take it away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._shown = False


def _columns() -> int:
    """Of the terminal that standard error is; 80 where it does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def bar(name: str, done: int, total: int, seconds: float, width: int, notes: Sequence[str] = (), first: int = 0) -> str:
    """A bar of `width` columns at most: a long name is shortened, notes that do not fit are left out.

    Args:
        name: what stands before it.
        done: parts of `total`.
        total: parts; 0 where nobody knows.
        seconds: since `first` were done.
        width: columns.
        notes: what stands behind it.
        first: parts that were done before.
    """
    from tqdm import tqdm

    room = max(8, min(width * 3 // 8, width - 34))  # the rest has 29 columns, or more from an hour on
    text = cut(name, room).ljust(room)
    if total:
        shape = "{desc} {percentage:3.0f}%|{bar:10}| {elapsed}<{remaining}"
        meter: dict[str, Any] = {"prefix": text, "ncols": width, "bar_format": shape, "initial": first}
        text = str(tqdm.format_meter(done, total, seconds, **meter))
    else:
        text += f" {tqdm.format_interval(int(seconds))}"
    for note in notes:
        if len(text) + 1 + len(note) <= width:
            text += f" {note}"
    return text[:width]


def duration(seconds: float) -> str:
    """Seconds as a reader says them.

    Example:
        >>> duration(2.04), duration(75), duration(7300), duration(200000)
        ('2 s', '1 min 15 s', '2 h 01 min', '2 d 7 h')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.2g} s" if seconds < 9.5 else f"{rest} s"
