"""The evaluated epochs of many runs in a few tables: ten thousand files are not ten thousand DataFrames. No torch."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs.run import Run

_AT_ONCE = 2**24  # bytes of text that are parsed together
_ROWS = 100_000  # of a longer file, that are held together


def evaluated(runs: Sequence[Run], metrics: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The rows of metrics.csv that have an epoch, of runs whose files have the same columns in one table.

    Args:
        runs: that have begun.
        metrics: which are read; the steps' own, say, are not.

    Yields:
        Columns run (position in `runs`), epoch (counted from 0), member where a run has several, and those of the
        metrics that these files have. A run's rows are in the order of its file.

    Raises:
        DamagedError: a file is not what a finished run wrote.
    """
    held: dict[bytes, list[tuple[int, bytes]]] = {}
    size = 0
    for number, run in enumerate(runs):
        file = run.path / "metrics.csv"
        if file.is_file() and file.stat().st_size > _AT_ONCE:
            run.require_history()
            yield from _long(number, file, metrics)
            continue
        header, _, body = run.history_text().partition(b"\n")
        held.setdefault(header, []).append((number, body if body.endswith(b"\n") or not body else body + b"\n"))
        size += len(body)
        if size > _AT_ONCE:
            yield from (_together(header, parts, runs, metrics) for header, parts in held.items())
            held, size = {}, 0
    yield from (_together(header, parts, runs, metrics) for header, parts in held.items())


def _together(
    header: bytes, parts: Sequence[tuple[int, bytes]], runs: Sequence[Run], metrics: Sequence[str]
) -> pd.DataFrame:
    """Files of one header, parsed as one; each by itself where lines are no rows, as with a name of two lines."""
    import numpy as np
    import pandas as pd

    numbers = [body.count(b"\n") for _, body in parts]
    text = b"\n".join([header, b"".join(body for _, body in parts)])
    table = pd.read_csv(io.BytesIO(text), usecols=_wanted(metrics))
    if len(table) == sum(numbers):
        return _with_epoch(table.assign(run=np.repeat([number for number, _ in parts], numbers)), metrics)
    alone = [runs[number].history().assign(run=number) for number, _ in parts]
    return _with_epoch(pd.concat(alone, ignore_index=True), metrics)


def _long(number: int, file: Path, metrics: Sequence[str]) -> Iterator[pd.DataFrame]:
    import pandas as pd

    with pd.read_csv(file, usecols=_wanted(metrics), chunksize=_ROWS) as chunks:
        kept = [_with_epoch(chunk.assign(run=number), metrics) for chunk in chunks]
    yield pd.concat(kept, ignore_index=True)


def _wanted(metrics: Sequence[str]) -> Any:
    names = {"epoch", "member", *metrics}
    return lambda name: name in names


def _with_epoch(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    columns = ["run", "epoch", *(name for name in ("member", *metrics) if name in table)]
    return table.loc[table["epoch"].notna(), columns].astype({"epoch": int})
