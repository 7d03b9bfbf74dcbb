"""metrics.csv: every metric of a run, one row a step, kept across interruptions."""

import contextlib
import csv
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from hw1.files import replacing
from hw1.records import DamagedError


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
        kept = []
        if recorded is not None:
            self._columns, *kept = csv.reader(io.StringIO(recorded_part(self._path, recorded), newline=""))
        elif self._path.exists():  # of a run of an earlier version
            with self._path.open(newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                self._columns = next(reader, self._columns)
                # A last line cut off by a kill lacks cells, or belongs to a step from which training starts again.
                whole = [row for row in reader if len(row) == len(self._columns) and row[1].isdigit()]
                kept = [row for row in whole if int(row[1]) < first_step]
        self._rewrite(kept)

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

    def _append(self, steps: list[int]) -> None:
        if not steps:
            return
        values = [{"step": step, **self._pending.pop(step)} for step in steps]
        new = [name for row in values for name in row if name not in self._columns]
        if new:  # a column's first values have the whole file written again, atomically
            with self._path.open(newline="", encoding="utf-8") as file:
                old = list(csv.reader(file))[1:]
            self._columns += list(dict.fromkeys(new))
            self._rewrite([row + [""] * (len(self._columns) - len(row)) for row in old] + self._rows(values))
        else:
            text = _text(self._rows(values))
            with self._path.open("ab") as file:
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

    def _rewrite(self, rows: list[list[Any]]) -> None:
        text = _text([self._columns, *rows])
        with replacing(self._path) as temporary:
            temporary.write_bytes(text)
        self._size, self._hash = 0, hashlib.sha256()
        self._count(text)


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


def recorded_part(file: Path, recorded: Mapping[str, Any]) -> str:
    """The part of a metrics.csv that stood there when `MetricsCsv.record` was made.

    Columns that came later stand behind the others, and are empty there: without them the text is what it was.

    Raises:
        DamagedError: it is not there.
    """
    content = file.read_bytes() if file.is_file() else b""
    with contextlib.suppress(UnicodeDecodeError, csv.Error):
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        if rows and len(rows[0]) > recorded["columns"]:
            content = _text([row[: recorded["columns"]] for row in rows])
    part = content[: recorded["bytes"]]
    if len(part) < recorded["bytes"] or hashlib.sha256(part).hexdigest() != recorded["sha256"]:
        raise DamagedError(
            f"{file} is damaged: it does not begin with what its run's last checkpoint recorded; "
            "delete the run's folder and run its command again"
        )
    return part.decode()


def _text(rows: list[list[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
