"""Tables of numbers: CSV or parquet, a row an example."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hw1.data.protocol import TrainTest
from hw1.data.source import sha256
from hw1.data.table_files import columns_of, find, read

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

_SPLITS = ("train", "test")


class Table:
    """Rows of a CSV or parquet file: some columns are the input, others the target.

    Training and test rows come from two files, or are told apart by a column that says `train` or `test`, or are drawn
    once and for all (of classes, with their frequencies in both parts). Classes are numbered in the order of their
    sorted names.

    Args:
        root: folder that files are looked for in, see `hw1.data.source.data_root`; one that is there as it is written,
            from where the command is given, comes first.
        file: `.csv` or `.parquet`.
        target: a column, or several ones of numbers.
        features: columns of the input, in this order; None for all others. Numbers, or truths.
        kind: "classes", "values", "binary" or "counts", see `hw1.kinds.loss_of`.
        test_file: the test rows; None where they stand in `file`.
        split_column: a column of `train` and `test`; it is no feature.
        test_fraction: share of the rows that is drawn for the test, where neither of these says it.
        split_seed: of that.
        standardise: whether inputs, and targets that are values, are shifted and scaled to mean 0 and standard
            deviation 1 over the training rows. A column that is constant there is only shifted.

    Raises:
        ValueError: a value is out of range, a file or column is missing, or holds what is no number; the message begins
            with the argument's name.
    """

    source = "table"
    KINDS: ClassVar = ("classes", "values", "binary", "counts")

    def __init__(
        self,
        root: str | Path | None,
        file: str,
        target: str | Sequence[str],
        features: Sequence[str] | None,
        kind: Literal["classes", "values", "binary", "counts"],
        test_file: str | None,
        split_column: str | None,
        test_fraction: float,
        split_seed: int,
        standardise: bool,
    ) -> None:
        if kind not in self.KINDS:
            raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(self.KINDS)}")
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction: got {test_fraction}, expected a fraction between 0 and 1")
        if test_file is not None and split_column is not None:
            raise ValueError(
                f"split_column: got {split_column!r} beside test_file, expected null with a file of its own"
            )
        self.kind = kind
        self._targets = [target] if isinstance(target, str) else list(target)
        if kind != "values" and len(self._targets) != 1:
            raise ValueError(
                f"target: got {len(self._targets)} columns, expected one of {kind}: several are kind=values"
            )
        self._files = {"file": find(root, file, "file")}
        if test_file is not None:
            self._files["test_file"] = find(root, test_file, "test_file")
        self.name = self._files["file"].stem
        self._split_column, self._test_fraction, self._seed = split_column, test_fraction, split_seed
        self._standardise = standardise
        self._features = self._columns(features)
        self.in_shape = (len(self._features),)

    def _columns(self, features: Sequence[str] | None) -> list[str]:
        """The columns of the input; all that are asked for are there."""
        known = {name: columns_of(path) for name, path in self._files.items()}
        apart = [*self._targets, *([self._split_column] if self._split_column else [])]
        chosen = list(features) if features is not None else [c for c in known["file"] if c not in apart]
        asked = {"target": self._targets, "features": chosen, "split_column": apart[len(self._targets) :]}
        for argument, columns in asked.items():
            for name, path in self._files.items():
                if missing := [column for column in columns if column not in known[name]]:
                    there = ", ".join(known[name][:20]) + (", ..." if known[name][20:] else "")
                    raise ValueError(f"{argument}: got {missing[0]!r}, expected a column of {path}: {there}")
        if both := set(chosen) & set(apart):
            raise ValueError(f"features: got {sorted(both)[0]!r}, which is the target or the split, expected others")
        if not chosen:
            raise ValueError(f"features: got none, expected some columns of {self._files['file']}")
        return chosen

    @property
    def out_features(self) -> int:
        """Number of classes, or of targets."""
        return len(self._names) if self.kind == "classes" else len(self._targets)

    @functools.cached_property
    def _names(self) -> list[Any]:
        """The classes, sorted; numbers before words."""
        found: set[Any] = set()
        for name, path in self._files.items():
            column = read(path, self._targets)[self._targets[0]]
            if column.isna().any():
                raise ValueError(
                    f"target: column {self._targets[0]!r} of {path} has empty cells; fill or drop the rows"
                )
            if column.dtype.kind == "f" and (column % 1 != 0).any():
                raise ValueError(
                    f"kind: got classes, and {column[column % 1 != 0].iloc[0]} in column {self._targets[0]!r} of "
                    f"{path}, expected kind=values for such a target"
                )
            new = set(column.tolist())
            if name == "test_file" and new - found:
                raise ValueError(f"test_file: got class {sorted(new - found, key=str)[0]!r}, which {self.name} has not")
            found |= new
        return sorted(found, key=lambda one: (isinstance(one, str), one))

    def prepare(self) -> None:
        """Nothing to download."""

    def files(self) -> list[Path]:
        """The one or two files."""
        return list(self._files.values())

    def identity(self) -> str:
        """SHA-256 of the files and of what is made of them."""
        made = [self._features, self._targets, self.kind, self._split_column, self._standardise]
        drawn = None if self._split_column or "test_file" in self._files else (self._test_fraction, self._seed)
        return hashlib.sha256(repr((sha256(self.files()), made, drawn)).encode()).hexdigest()

    def load(self) -> TrainTest:
        """Inputs [N, features], and their targets: [N] int64 classes, counts or 0 and 1, or [N, targets] values."""
        import numpy as np
        import torch

        inputs, targets, is_test = self._read()
        if is_test is None:
            from hw1.data.labels import subset
            from hw1.seeds import generator

            size = round(self._test_fraction * len(inputs))
            labels = torch.from_numpy(targets)
            rows = subset(labels, size, generator(self._seed, "test rows")).numpy()
            is_test = np.zeros(len(inputs), dtype=bool)
            is_test[rows] = True
        if is_test.all() or not is_test.any():
            part = "training" if is_test.all() else "test"
            raise ValueError(f"{self._said_by}: got no {part} rows of {len(is_test)}, expected some")
        if self._standardise:
            inputs = _standardised(inputs, inputs[~is_test])
            if self.kind == "values":
                targets = _standardised(targets, targets[~is_test])

        def tensors(rows: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
            y = torch.from_numpy(targets[rows])
            return torch.from_numpy(inputs[rows]).float(), y.float() if self.kind == "values" else y

        return TrainTest(*tensors(~is_test), *tensors(is_test))

    @property
    def _said_by(self) -> str:
        return "split_column" if self._split_column else "test_file" if "test_file" in self._files else "test_fraction"

    def _read(self) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.bool_] | None]:
        """Inputs [N, D], targets, and which rows are the test's; None where they are still to be drawn."""
        import numpy as np

        columns = [*self._features, *self._targets, *([self._split_column] if self._split_column else [])]
        tables = {name: read(path, columns) for name, path in self._files.items()}
        inputs, targets = [], []
        for name, table in tables.items():
            inputs.append(np.stack([_numbers(table, c, "features", self._files[name]) for c in self._features], axis=1))
            targets.append(self._target(table, self._files[name]))
        is_test = None
        if "test_file" in tables:
            is_test = np.repeat([False, True], [len(table) for table in tables.values()])
        elif self._split_column:
            words = tables["file"][self._split_column].astype(str).str.strip().str.lower()
            if other := sorted(set(words) - set(_SPLITS)):
                raise ValueError(f"split_column: got {other[0]!r} in {self._split_column!r}, expected train or test")
            is_test = (words == "test").to_numpy()
        return np.concatenate(inputs), np.concatenate(targets), is_test

    def _target(self, table: pd.DataFrame, path: Path) -> NDArray[Any]:
        import numpy as np

        if self.kind == "classes":
            number = {name: i for i, name in enumerate(self._names)}
            classes: NDArray[Any] = table[self._targets[0]].map(number).to_numpy(dtype=np.int64)
            return classes
        values = np.stack([_numbers(table, column, "target", path) for column in self._targets], axis=1)
        if self.kind == "values":
            return values
        wrong = values[(values % 1 != 0) | (values < 0) | ((values > 1) & (self.kind == "binary"))]
        if wrong.size:
            expected = "0 or 1" if self.kind == "binary" else "integers of at least 0"
            raise ValueError(f"target: got {wrong[0]:g} in {self._targets[0]!r} of {path}, expected {expected}")
        return values[:, 0].astype(np.int64)


def _numbers(table: pd.DataFrame, column: str, argument: str, path: Path) -> NDArray[np.float64]:
    """A column [N] as float64.

    Raises:
        ValueError: it holds something else, or nothing in some row.
    """
    import numpy as np
    import pandas as pd

    values: NDArray[np.float64] = pd.to_numeric(table[column], errors="coerce").to_numpy(
        dtype=np.float64, na_value=math.nan
    )
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(bad.argmax())
        empty = table[column].isna().iloc[row]
        got = "an empty cell" if empty else repr(table[column].iloc[row])
        leave = "fill it" if empty else "write numbers"
        other = f", or name the features without {column!r}" if argument == "features" else ""
        raise ValueError(
            f"{argument}: got {got} in column {column!r} of {path} (row {row + 1}; {int(bad.sum())} such), expected a "
            f"number: {leave}{other}"
        )
    return values


def _standardised(values: NDArray[np.float64], training: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = training.std(axis=0)
    spread[spread == 0] = 1.0
    scaled: NDArray[np.float64] = (values - training.mean(axis=0)) / spread
    return scaled
