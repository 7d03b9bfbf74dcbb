"""metrics.csv: every metric of a run, one row a step, kept across interruptions."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from hw1.files import write_text


class MetricsCsv(Logger):
    """Lightning logger that appends to `<folder>/metrics.csv`.

    Columns are `epoch`, `step` and the metrics in the order of their first appearance; a cell is empty where a metric
    has no value at that step. A value that is a list over members becomes one row a member, numbered in a column
    `member`. Lightning's CSVLogger deletes the file of an interrupted run; this one goes on with it.

    Args:
        folder: the run's folder.
        first_step: rows at or after this step, left by a killed process, are dropped.
        members: number of members of the run.
    """

    takes_members = True

    def __init__(self, folder: Path, first_step: int = 0, members: int = 1) -> None:
        super().__init__()
        self._path = folder / "metrics.csv"
        self._members = members
        self._columns = ["epoch", "step"] if members == 1 else ["epoch", "step", "member"]
        self._pending: dict[int, dict[str, Any]] = {}
        kept = []
        if self._path.exists():
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
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(self._rows(values))

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
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self._columns)
        writer.writerows(rows)
        write_text(self._path, text.getvalue())
