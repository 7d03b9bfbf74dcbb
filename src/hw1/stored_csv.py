"""CSV that somebody may have written: the one way in which stored tables are read. No torch; pandas on first use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hw1.bounds import COLUMNS, special
from hw1.memory import problem_of
from hw1.records import DamagedError

if TYPE_CHECKING:
    import pandas as pd

TIMES = 8  # bytes that a table takes in memory for each byte of its file: `0,` is a float64 and its share of a parse
LINE = 2**24  # bytes of a header


def read_csv(file: Path, needed: Sequence[str] = ()) -> pd.DataFrame:
    """A table that hw1 wrote.

    Args:
        file: it.
        needed: columns that it must have.

    Raises:
        OSError: it is not there, or not to be read.
        DamagedError: it is no such table, larger or wider than it may be, or no file at all.
    """
    import pandas as pd

    again = "delete it and run its command again"
    status = os.stat(file)
    if kind := special(status.st_mode):
        raise DamagedError(f"{file}: got {kind}, expected a table; {again}")
    if problem := problem_of(TIMES * status.st_size):
        raise DamagedError(f"{file}: {problem}")
    with open(file, "rb") as opened:
        header = opened.readline(LINE)
    if problem := COLUMNS.problem(header.count(b",") + 1):
        raise DamagedError(f"{file}: {problem}")
    try:
        table = pd.read_csv(file)
    except (ValueError, OverflowError) as error:  # pandas' own are ValueErrors
        raise DamagedError(f"{file}: got no table ({' '.join(str(error).split())[:120]}); {again}") from error
    if missing := [name for name in needed if name not in table]:
        raise DamagedError(f"{file}: got no column {missing[0]!r}, expected one; {again}")
    return table
