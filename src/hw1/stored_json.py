"""JSON that somebody may have written: the one way in which stored files are read. No torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hw1.bounds import STORED_BYTES, content_of, depth_problem

_LONG = re.compile(r"[0-9]{19}")  # may be an integer that does not fit 64 bits
_MOST = 2**63


def read_json(file: Path) -> Any:
    """What a stored file says; NaN and infinity are numbers here, as Python writes them.

    Raises:
        OSError: it is not there, or not to be read.
        ValueError: it is no JSON, larger or deeper than it may be, or no file at all; one line that names it.
    """
    try:
        return from_json(content_of(file, STORED_BYTES).decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not valid JSON ({error}); delete it and run the command again") from error
    except ValueError as error:
        kind = "is not valid JSON" if isinstance(error, json.JSONDecodeError) else "cannot be read"
        raise ValueError(f"{file} {kind} ({error}); delete it and run the command again") from error


def from_json(text: str) -> Any:
    """The value that a text is.

    Raises:
        ValueError: it is none, nested deeper than `hw1.bounds.DEPTH`, holds a key twice in one object, or an integer
            of more than 64 bits.
    """
    try:
        value = json.loads(text, parse_int=_integer if _LONG.search(text) else None, object_pairs_hook=_once)
    except RecursionError:  # deeper than Python goes
        value = None
        problem = "got values nested too deep"
    else:
        problem = depth_problem(value)
    if problem:
        raise ValueError(problem)
    return value


def _integer(text: str) -> int:
    """An integer; one that no float and no array holds is refused."""
    if len(text) > 40 or not -_MOST <= int(text) < 2 * _MOST:
        raise ValueError(f"got an integer of {len(text)} digits, expected at most 64 bits")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys stand in it once each: two readers would take different ones."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"got the key {twice[:60]!r} twice")
    return made
