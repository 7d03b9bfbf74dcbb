"""Files of data as a user names them: found, and tables read, CSV or parquet, if they are what they claim."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hw1.bounds import COLUMNS, special
from hw1.data.source import data_root
from hw1.memory import problem_of
from hw1.stored_csv import LINE, TIMES

if TYPE_CHECKING:
    import pandas as pd

_Read = TypeVar("_Read")


def find(root: str | Path | None, file: str, argument: str, *, folder: bool = False) -> Path:
    """A file, or a folder, as it is written, else below the data's root.

    Raises:
        ValueError: neither is there, or it is of another kind; the message begins with `argument`.
    """
    written = Path(file).expanduser()
    below = data_root(root) / written
    if (found := next((path for path in (written, below) if path.exists()), None)) is None:
        others = f" nor {below}" if below != written else ""
        wanted = "expected one there" if below == written else "expected one at either"
        raise ValueError(f"{argument}: there is no {written.absolute()}{others}; {wanted}")
    if folder and not found.is_dir():
        raise ValueError(f"{argument}: got {found.absolute()}, which is no folder, expected one")
    if not folder and (kind := special(found.stat().st_mode)):
        raise ValueError(f"{argument}: got {found.absolute()}, which is {kind}, expected a file")
    return found.absolute()


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns."""
    return _columns_of(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _columns_of(path: Path, time: int) -> list[str]:
    if path.suffix == ".parquet":
        names = _read_parquet(path, lambda parquet: [str(name) for name in parquet.read_schema(path).names])
        _refuse_wide(path, len(names))
        return names
    import csv

    with path.open("rb") as opened:
        _refuse_wide(path, opened.readline(LINE).count(b",") + 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"file: {path} cannot be read as CSV ({error})") from error


def read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a table.

    Raises:
        ValueError: the file is no such table.
    """
    import pandas as pd

    if path.suffix == ".parquet":
        rows = _read_parquet(path, lambda parquet: parquet.read_metadata(path).num_rows)
        _refuse_large(path, 2 * 8 * rows * len(columns))
        return _read_parquet(path, lambda parquet: pd.read_parquet(path, columns=list(columns)))
    _refuse_large(path, TIMES * path.stat().st_size)
    try:
        return pd.read_csv(path, usecols=list(columns), encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"file: {path} cannot be read as CSV ({' '.join(str(error).split())})") from error


def _refuse_wide(path: Path, columns: int) -> None:
    if problem := COLUMNS.problem(columns):
        raise ValueError(f"file: {path}: {problem}")


def _refuse_large(path: Path, size: int) -> None:
    """Refuse a table that takes more memory than there is; packed, it may be a small file."""
    if problem := problem_of(size):
        raise ValueError(f"file: {path}: {problem}")


def _read_parquet(path: Path, read: Callable[[Any], _Read]) -> _Read:
    """What is read of a parquet file.

    Raises:
        ValueError: it is none.
    """
    parquet = _parquet()
    try:
        return read(parquet)
    except (ValueError, OSError) as error:  # pyarrow's own are these
        raise ValueError(f"file: {path} cannot be read as parquet ({' '.join(str(error).split())[:120]})") from error


def _parquet() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError("file: reading parquet needs pyarrow, which is not installed: pip install pyarrow") from error
    return parquet
