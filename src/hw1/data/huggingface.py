"""HuggingFace datasets on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hw1.data.protocol import TrainTest
from hw1.data.source import sha256
from hw1.data.table_files import find
from hw1.data.torch_dataset import Pairs

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("classes", "values", "binary", "counts")


class HuggingFace:
    """A training and a test set that `datasets.Dataset.save_to_disk` wrote, or in two parquet files.

    Inputs are one column of images, lists or numbers, or several columns of numbers; images become [C, size, size] in
    [0, 1]. Nothing is downloaded, and no code that comes with the data is run.

    Args:
        root: folder that files are looked for in, see `hw1.data.source.data_root`; one that is there as it is written,
            from where the command is given, comes first.
        folder: of a `DatasetDict`; None with `train_file` and `test_file`.
        train: name of the training set in it.
        test: name of the test set.
        train_file: `.parquet`, in place of a folder.
        test_file: `.parquet`.
        inputs: a column, or several columns of numbers.
        target: a column.
        kind: "classes", "values", "binary" or "counts", see `hw1.kinds.loss_of`.
        size: height and width that images are resized to; None for those of the first one.
        channels: 1 (grey) or 3 (RGB).
        stream: whether examples stay on disk, each decoded when it is needed.

    Raises:
        ValueError: the package `datasets` is not installed, a file or column is missing, or a value is out of range;
            the message begins with the argument's name.
    """

    source = "huggingface"

    def __init__(
        self,
        root: str | Path | None,
        folder: str | None,
        train: str,
        test: str,
        train_file: str | None,
        test_file: str | None,
        inputs: str | Sequence[str],
        target: str,
        kind: Literal["classes", "values", "binary", "counts"],
        size: int | None,
        channels: int,
        stream: bool,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
        if channels not in (1, 3):
            raise ValueError(f"channels: got {channels!r}, expected 1 (grey) or 3 (RGB)")
        if (folder is None) == (train_file is None) or (train_file is None) != (test_file is None):
            raise ValueError(f"folder: got {folder!r}, expected a folder, or train_file and test_file instead")
        if folder is not None:
            self._parts = {name: find(root, f"{folder}/{name}", "folder", folder=True) for name in (train, test)}
        else:
            files = {"train_file": train_file or "", "test_file": test_file or ""}
            self._parts = {name: find(root, file, name) for name, file in files.items()}
        self.name = Path(folder or train_file or "").stem
        self._inputs = [inputs] if isinstance(inputs, str) else list(inputs)
        self._target, self.kind, self._size, self._channels = target, kind, size, channels
        self.streamed = stream

    @cached_property
    def _sets(self) -> tuple[Any, Any]:
        try:
            import datasets
        except ImportError as error:
            raise ValueError(
                "folder: reading it needs datasets, which is not installed: pip install datasets"
            ) from error
        made = []
        for name, path in self._parts.items():
            one = datasets.load_from_disk(str(path)) if path.is_dir() else datasets.Dataset.from_parquet(str(path))
            for argument, columns in (("inputs", self._inputs), ("target", [self._target])):
                if missing := [column for column in columns if column not in one.column_names]:
                    there = ", ".join(one.column_names)
                    raise ValueError(f"{argument}: got {missing[0]!r}, expected a column of {name}: {there}")
            made.append(one)
        return made[0], made[1]

    @cached_property
    def _both(self) -> tuple[Pairs, Pairs]:
        size = self._size
        if size is None and hasattr(image := self._sets[0][0][self._inputs[0]], "convert"):
            if image.size[0] != image.size[1]:
                raise ValueError(f"size: got null for an image of {image.size[0]} x {image.size[1]}, expected a number")
            size = image.size[0]
        columns = [*self._inputs, self._target]
        rows = (
            Rows(one.select_columns(columns), self._inputs, self._target, size or 0, self._channels)
            for one in self._sets
        )
        train, test = (Pairs(one, self.kind, "inputs") for one in rows)
        return train, test

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of an input, that of the first example."""
        return tuple(self._both[0][0][0].shape)

    @property
    def out_features(self) -> int:
        """Number of classes, as the column says, or of targets."""
        if self.kind != "classes":
            return self._both[0][0][1].numel() if self.kind == "values" else 1
        named = getattr(self._sets[0].features[self._target], "num_classes", None)
        return int(named) if named else int(max(max(one[self._target]) for one in self._sets)) + 1

    def prepare(self) -> None:
        """Nothing to download."""

    def files(self) -> list[Path]:
        """The files of both sets, and their folders."""
        return [
            file
            for path in self._parts.values()
            for file in ([path, *sorted(path.rglob("*"))] if path.is_dir() else [path])
        ]

    def identity(self) -> str:
        """SHA-256 of the files and of what is made of them."""
        made = [self._inputs, self._target, self.kind, self._size, self._channels]
        content = sha256(file for file in self.files() if file.is_file())
        return hashlib.sha256(repr((content, made)).encode()).hexdigest()

    def load(self) -> TrainTest:
        """All examples."""
        import torch

        (train_x, train_y), (test_x, test_y) = (
            tuple(map(torch.stack, zip(*(pairs[number] for number in range(len(pairs))), strict=True)))
            for pairs in self._both
        )
        return TrainTest(train_x, train_y, test_x, test_y)

    def datasets(self) -> tuple[Pairs, Pairs]:
        """The same, decoded one by one."""
        return self._both


class Rows:
    """Rows of a HuggingFace set as pairs of an array and a target."""

    def __init__(self, rows: Any, inputs: Sequence[str], target: str, size: int, channels: int) -> None:
        self.rows, self.inputs, self.target, self.size, self.channels = rows, inputs, target, size, channels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[Tensor, Any]:
        import numpy as np
        import torch

        row = self.rows[number]
        values = [row[name] for name in self.inputs]
        if hasattr(values[0], "convert"):
            from PIL import Image

            image = values[0].convert({1: "L", 3: "RGB"}[self.channels])
            if image.size != (self.size, self.size):
                image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image).reshape(self.size, self.size, self.channels).transpose(2, 0, 1)
            return torch.from_numpy(pixels.copy()), row[self.target]
        try:
            x = torch.as_tensor(np.asarray(values[0] if len(values) == 1 else values, dtype=np.float32))
        except (TypeError, ValueError) as error:
            got = type(values[0]).__name__
            raise ValueError(f"inputs: got {got} in {self.inputs[0]!r}, expected images or numbers") from error
        return x.reshape(-1) if x.ndim == 0 else x, row[self.target]
