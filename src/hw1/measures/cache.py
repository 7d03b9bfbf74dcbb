"""Tables that studies measured before, by what they were measured on: nothing is measured twice. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.files import file_digest, replacing
from hw1.measures.pieces import Pieces, key_of_pieces
from hw1.records import DamagedError
from hw1.seeds import digest
from hw1.stored_csv import read_csv

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs import Run

FORMAT = 2
_DIGITS = 16  # of the hash in a file's name


Formerly = Callable[[str, int, Sequence[Sequence[str]], Mapping[str, Any]], Iterable[str]]


class Cache:
    """A study's tables on disk.

    Args:
        folder: `multirun/<name>/measurements`.
        formerly: (name, version, [key, digest of weights, digest of data] of each run, settings) -> stems of files
            under which an earlier version may have kept the table: it is taken over.

    Attributes:
        used: the files that were read or written.
    """

    def __init__(self, folder: Path, formerly: Formerly | None = None) -> None:
        self._folder = folder
        self._formerly = formerly or (lambda name, version, on, settings: ())
        self.used: set[Path] = set()

    def table(
        self,
        name: str,
        version: int,
        runs: Sequence[Run],
        settings: Mapping[str, Any],
        compute: Callable[[], pd.DataFrame],
    ) -> pd.DataFrame:
        """The table of a measurement, computed if it is not there yet.

        Args:
            name: of the measurement.
            version: of the code that measures; another one measures again.
            runs: whose weights and data it is made on.
            settings: what else it depends on.
            compute: measures it.
        """
        on = _on(runs)
        stem = stem_of(name, version, on, settings)
        for known in dict.fromkeys((stem, *self._formerly(name, version, on, settings))):
            for file in sorted(self._folder.glob(f"{known}-*.csv")):
                table = _read(file)
                if table is not None:
                    return self._keep(stem, table, file)
        return self._keep(stem, compute())

    def pieces(self, name: str, version: int, runs: Sequence[Run], settings: Mapping[str, Any]) -> Pieces:
        """Where the pieces of a table stand until it is whole; see `table`."""
        stem = stem_of(name, version, _on(runs), settings)
        return Pieces(self._folder / f".{stem}.pieces", key_of_pieces(stem))

    def _keep(self, stem: str, table: pd.DataFrame, source: Path | None = None) -> pd.DataFrame:
        """Write a table, or the content of `source`, under its hash, which its name holds: damage shows."""
        content = table.to_csv(index=False).encode() if source is None else source.read_bytes()
        file = self._folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:_DIGITS]}.csv"
        if file != source:
            with replacing(file) as temporary:
                temporary.write_bytes(content)
            if source is not None:  # of an earlier version, or under a run's earlier key
                source.unlink(missing_ok=True)
        self.used.add(file)
        return table


def _on(runs: Sequence[Run]) -> list[list[str]]:
    """What tables are made on."""
    return [[run.key, run.weights_digest(), run.result["dataset"]["sha256"]] for run in runs]


def stem_of(name: str, version: int, on: Sequence[Sequence[str]], settings: Mapping[str, Any]) -> str:
    """The beginning of a table's file name, a hash of all that it depends on; see `Cache.table`."""
    return digest([FORMAT, name, version, on, settings])[:16]


def _is_hashed(file: Path) -> bool:
    """Whether a file's name ends with a hash; those of an earlier version end with the number of rows."""
    return len(file.stem.partition("-")[2]) == _DIGITS


def _read(file: Path) -> pd.DataFrame | None:
    """A table; None where the file is damaged."""
    mark = file.stem.partition("-")[2]
    if _is_hashed(file) and not file_digest(file).startswith(mark):
        return None
    try:
        table = read_csv(file)
    except DamagedError:
        return None
    whole = _is_hashed(file) or (len(table) == int(mark) and not table.isna().all(axis=None))
    return table if whole else None
