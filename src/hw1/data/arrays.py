"""NumPy files: inputs and targets of a training and a test set."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hw1.data.protocol import TrainTest
from hw1.data.source import sha256
from hw1.data.table_files import find
from hw1.memory import problem_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_OF_ARCHIVES = (OSError, ValueError, EOFError, OverflowError, zipfile.BadZipFile, zlib.error)
KINDS = ("classes", "values", "tokens", "binary", "counts")
PARTS = ("train_x", "train_y", "test_x", "test_y")


class Arrays:
    """Four arrays [N, ...], [N, ...], [M, ...] and [M, ...] in .npy files, or in .npz files.

    Inputs are taken as float32; bytes (uint8), as of images, are scaled to [0, 1], and are [N, C, H, W].

    Args:
        root: folder that files are looked for in, see `hw1.data.source.data_root`; one that is there as it is written,
            from where the command is given, comes first.
        train_x: a file `x.npy`, or `data.npz` whose array has this argument's name, or `data.npz:name`.
        train_y: as `train_x`.
        test_x: as `train_x`.
        test_y: as `train_x`.
        kind: of targets, see `hw1.kinds.loss_of`.
        classes: their number; None to find it in the targets.
        mmap: whether inputs stay on disk, and each batch is read when it is needed: for what memory does not hold;
            `.npy` only.

    Raises:
        ValueError: a value is out of range, a file is missing, shapes or types do not fit; the message begins with the
            argument's name.
    """

    source = "arrays"

    def __init__(
        self,
        root: str | Path | None,
        train_x: str,
        train_y: str,
        test_x: str,
        test_y: str,
        kind: Literal["classes", "values", "tokens", "binary", "counts"],
        classes: int | None,
        mmap: bool,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
        self.kind, self._classes, self.streamed = kind, classes, mmap
        self._places = {}
        for part, text in zip(PARTS, (train_x, train_y, test_x, test_y), strict=True):
            file, _, name = text.rpartition(":") if ".npz:" in text else (text, "", part)
            path = find(root, file, part)
            if path.suffix not in (".npy", ".npz") or (mmap and path.suffix == ".npz"):
                expected = "a .npy file, which alone can stay on disk" if mmap else "a .npy or .npz file"
                raise ValueError(f"{part}: got {path.name}, expected {expected}")
            self._places[part] = path, name
        self.name = self._places["train_x"][0].stem
        shapes = {part: self._array(part).shape for part in ("train_x", "test_x")}
        if shapes["train_x"][1:] != shapes["test_x"][1:]:
            got = " and ".join(str(list(shape)) for shape in shapes.values())
            raise ValueError(f"test_x: got inputs of other shapes than train_x, {got}, expected the same but for N")
        self.in_shape: tuple[int, ...] = tuple(shapes["train_x"][1:])
        for split in ("train", "test"):
            x, y = self._array(f"{split}_x"), self._array(f"{split}_y")
            if len(x) != len(y) or not len(x):
                raise ValueError(f"{split}_y: got {len(y)} targets of {len(x)} inputs, expected as many, and some")

    def _array(self, part: str) -> NDArray[Any]:
        """One of the four, on disk where that is possible."""
        import numpy as np

        path, name = self._places[part]
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except _OF_ARCHIVES as error:
            raise ValueError(f"{part}: {path} cannot be read as an array ({' '.join(str(error).split())})") from error
        if path.suffix == ".npz":
            if name not in found:
                there = ", ".join(found.files)
                raise ValueError(f"{part}: {path} has no array {name!r}, expected {path.name}:NAME, one of {there}")
            self._refuse_large(part, _inflated(found, name))
            try:
                found = found[name]
            except _OF_ARCHIVES as error:
                said = " ".join(str(error).split())
                raise ValueError(f"{part}: {path} cannot be read as an array ({said})") from error
        array: NDArray[Any] = found
        return array

    def _refuse_large(self, part: str, size: int) -> None:
        """Refuse what memory does not hold."""
        if problem := problem_of(size):
            remedy = "" if self._places[part][0].suffix == ".npz" else ", or mmap=true, which leaves inputs on disk"
            raise ValueError(f"{part}: {self._places[part][0]}: {problem}{remedy}")

    @cached_property
    def _y(self) -> tuple[Tensor, Tensor]:
        """The targets of both sets, in the type of their kind."""
        import torch

        made = []
        for part in ("train_y", "test_y"):
            self._refuse_large(part, 2 * 8 * self._array(part).size)
            values = torch.from_numpy(self._array(part).copy())
            if self.kind == "values":
                made.append(values.float() if values.ndim > 1 else values.float()[:, None])
                continue
            if self.kind == "classes" and values.ndim == 2 and values.shape[1] == 1:
                values = values[:, 0]
            whole = not values.is_floating_point() or bool((values % 1 == 0).all())
            if not whole or values.min() < 0 or (self.kind == "classes" and values.ndim != 1):
                raise ValueError(
                    f"{part}: got {self._array(part).dtype} {list(values.shape)}, expected {self.kind} as integers >= 0"
                )
            made.append(values.long())
        return made[0], made[1]

    @property
    def out_features(self) -> int:
        """Number of classes, or of targets."""
        train, test = self._y
        if self.kind not in ("classes", "tokens"):
            return train[0].numel()
        found = max(int(train.max()), int(test.max())) + 1
        if self._classes is not None and self._classes < found:
            raise ValueError(f"classes: got {self._classes}, expected at least {found}, as there are in the targets")
        return self._classes or found

    def prepare(self) -> None:
        """Nothing to download."""

    def files(self) -> list[Path]:
        """The files, each once."""
        return list(dict.fromkeys(path for path, _ in self._places.values()))

    def identity(self) -> str:
        """SHA-256 of the files and of which array is which."""
        places = [(path.name, name) for path, name in self._places.values()]
        return hashlib.sha256(repr((sha256(self.files()), places, self.kind)).encode()).hexdigest()

    def load(self) -> TrainTest:
        """Inputs [N, ...] float32 and their targets."""
        import torch

        for part in ("train_x", "test_x"):  # a copy, and float32 of it
            array = self._array(part)
            self._refuse_large(part, (array.itemsize + 4) * array.size)
        train, test = (as_input(torch.from_numpy(self._array(part).copy())) for part in ("train_x", "test_x"))
        return TrainTest(train, self._y[0], test, self._y[1])

    def datasets(self) -> tuple[Rows, Rows]:
        """The same, read from disk a batch at a time."""
        parts = ("train_x", "test_x")
        train, test = (Rows(self._array(part), y) for part, y in zip(parts, self._y, strict=True))
        return train, test


class Rows:
    """Rows of an array on disk with their targets, a map-style data set that reads a batch at once.

    Args:
        x: [N, ...].
        targets: [N, ...].
    """

    def __init__(self, x: NDArray[Any], targets: Tensor) -> None:
        self.x, self.targets = x, targets

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x, y = self.gather(self.targets.new_tensor([row]).long())
        return x[0], y[0]

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [B, ...] and targets [B, ...] of rows [B]."""
        import torch

        return as_input(torch.from_numpy(self.x[rows.numpy()])), self.targets[rows]


def as_input(values: Tensor) -> Tensor:
    """float32; bytes in [0, 1]."""
    import torch

    return values.float().div_(255) if values.dtype == torch.uint8 else values.float()


def _inflated(archive: Any, name: str) -> int:
    """The size that an array of an .npz archive has when it is read; packed, zeros are a thousandth of it."""
    entries = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.zip.infolist()}
    return int(entries.get(name, 0))
