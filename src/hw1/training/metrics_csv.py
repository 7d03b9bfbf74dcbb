"""metrics.csv: every metric of a run, one row a step, kept across interruptions.

However long the file is, no more than a block of it is in memory: a run may log a million steps.
"""

import csv
import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from hw1 import lease
from hw1.files import replacing, sync_file, sync_folder
from hw1.records import DamagedError

_BLOCK = 2**20  # bytes that are read at once
_ROWS = 4_096  # that are written at once


class MetricsCsv(Logger):
    """Lightning logger that appends to `<folder>/metrics.csv`.

    Columns are `epoch`, `step` and the metrics in the order of their first appearance; a cell is empty where a metric
    has no value at that step. A value that is a list over members becomes one row a member, numbered in a column
    `member`. Lightning's CSVLogger deletes the file of an interrupted run; this one goes on with it.

    Args:
        folder: the run's folder.
        first_step: rows at or after this step, left by a killed process, are dropped.
        members: number of members of the run.
        recorded: `record` of the checkpoint from which training goes on: the file is cut to what it was then.

    Raises:
        DamagedError: the file does not begin with what was recorded.
    """

    takes_members = True

    def __init__(
        self, folder: Path, first_step: int = 0, members: int = 1, recorded: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self._path = folder / "metrics.csv"
        self._members = members
        self._columns = ["epoch", "step"] if members == 1 else ["epoch", "step", "member"]
        self._pending: dict[int, dict[str, Any]] = {}
        self._size, self._hash = 0, hashlib.sha256()  # of the file, as it grows
        if recorded is not None:
            self._replace(recorded_blocks(self._path, recorded))
            self._columns = _header(self._path)
        elif self._path.exists():  # of a run of an earlier version
            self._columns = _header(self._path) or self._columns
            # A last line cut off by a kill lacks cells, or belongs to a step from which training starts again.
            whole = (row for row in _rows(self._path) if len(row) == len(self._columns) and row[1].isdigit())
            self._rewrite(row for row in whole if int(row[1]) < first_step)
        else:
            self._rewrite([])

    @property
    def name(self) -> str:
        """Not used: the file stands in the run's folder."""
        return ""

    @property
    def version(self) -> str:
        """Not used: the file stands in the run's folder."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds the settings."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add values to the row of `step`."""
        self._pending.setdefault(0 if step is None else step, {}).update(metrics)
        if len(self._pending) >= 2000:  # the newest may still get values that are fetched late
            self._append(sorted(self._pending)[:1000])

    def save(self) -> None:
        """Nothing: Lightning calls it after every evaluation, before the epoch's step values are fetched."""

    def write(self) -> None:
        """Append all pending rows to the file."""
        self._append(sorted(self._pending))

    def sync(self) -> None:
        """Write what is pending and have all of it on the disk: a checkpoint is to say what stands here."""
        self.write()
        try:
            sync_file(self._path)
            sync_folder(self._path.parent)
        except FileNotFoundError:  # whoever took the run over writes the file anew
            lease.require(self._path)
            raise

    def _append(self, steps: list[int]) -> None:
        if not steps:
            return
        values = [{"step": step, **self._pending.pop(step)} for step in steps]
        new = [name for row in values for name in row if name not in self._columns]
        if new:  # a column's first values have the whole file written again, atomically
            self._columns += list(dict.fromkeys(new))
            old = (row + [""] * (len(self._columns) - len(row)) for row in _rows(self._path))
            self._rewrite(itertools.chain(old, self._rows(values)))
        else:
            text = _text(self._rows(values))
            # Opened first: who takes the run over writes the file anew, and this one is then nobody's.
            with self._path.open("ab") as file:
                lease.require(self._path)
                file.write(text)
            self._count(text)

    def record(self) -> dict[str, Any]:
        """What a checkpoint holds of the file, whose later rows, and columns, may be those of a killed process."""
        return {"columns": len(self._columns), "bytes": self._size, "sha256": self._hash.hexdigest()}

    def _count(self, text: bytes) -> None:
        self._size += len(text)
        self._hash.update(text)

    def _rows(self, steps: list[dict[str, Any]]) -> list[list[Any]]:
        """Cells in the order of the columns, one row a step and member."""
        rows = []
        for values in steps:
            cells = [values.get(name, "") for name in self._columns]
            if self._members > 1:
                cells[2] = list(range(self._members))
            rows += [[cell[r] if isinstance(cell, list) else cell for cell in cells] for r in range(self._members)]
        return rows

    def finalize(self, status: str) -> None:
        """Write what is pending."""
        self.write()

    def _rewrite(self, rows: Iterable[list[Any]]) -> None:
        self._replace(_texts(itertools.chain([self._columns], rows)))

    def _replace(self, blocks: Iterable[bytes]) -> None:
        """Put a file of these blocks in place of the one that stands there, which they may be read from."""
        size, hashed = 0, hashlib.sha256()
        with replacing(self._path) as temporary, temporary.open("wb") as file:
            for block in blocks:
                file.write(block)
                size += len(block)
                hashed.update(block)
            file.flush()
        self._size, self._hash = size, hashed


def last_values(folder: Path) -> tuple[dict[str, float], int]:
    """(the last value of each metric but those of single steps, completed epochs) in a run's metrics.csv."""
    last: dict[str, float] = {}
    epochs = 0
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            epochs = max(epochs, int(row["epoch"] or -1) + 1)
            last |= {name: float(value) for name, value in row.items() if value and not _is_of_step(name)}
    return last, epochs


def _is_of_step(name: str) -> bool:
    return name in ("epoch", "step", "member") or name.startswith("train_step/")


def require_recorded(file: Path, recorded: Mapping[str, Any]) -> None:
    """Compare a metrics.csv with what `MetricsCsv.record` said of it.

    Raises:
        DamagedError: it does not begin with what stood there.
    """
    for _ in recorded_blocks(file, recorded):
        pass


def recorded_blocks(file: Path, recorded: Mapping[str, Any]) -> Iterator[bytes]:
    """The part of a metrics.csv that stood there when `MetricsCsv.record` was made, block by block.

    Columns that came later stand behind the others, and are empty there: without them the text is what it was.

    Raises:
        DamagedError: it is not there; said behind the last block.
    """
    left, hashed = int(recorded["bytes"]), hashlib.sha256()
    try:
        for block in _as_of(file, recorded["columns"]) if file.is_file() else ():
            part = block[:left]
            hashed.update(part)
            left -= len(part)
            yield part
            if not left:
                break
    except (UnicodeDecodeError, csv.Error):
        left = -1
    if left or hashed.hexdigest() != recorded["sha256"]:
        raise DamagedError(
            f"{file} is damaged: it does not begin with what its run's last checkpoint recorded; "
            "delete the run's folder and run its command again"
        )


def _as_of(file: Path, columns: int) -> Iterator[bytes]:
    """The text of a metrics.csv when it had so many columns."""
    header = _header(file)
    if len(header) > columns:
        yield from _texts(row[:columns] for row in itertools.chain([header], _rows(file)))
        return
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            yield block


def _header(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8") as opened:
        return next(csv.reader(opened), [])


def _rows(file: Path) -> Iterator[list[str]]:
    """The rows of a file without its header."""
    with file.open(newline="", encoding="utf-8") as opened:
        yield from itertools.islice(csv.reader(opened), 1, None)


def _texts(rows: Iterable[list[Any]]) -> Iterator[bytes]:
    left = iter(rows)
    while block := list(itertools.islice(left, _ROWS)):
        yield _text(block)


def _text(rows: list[list[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
