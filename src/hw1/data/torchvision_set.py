"""Any image classification that torchvision has, by the name of its class."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hw1.data.downloads import why_not
from hw1.data.protocol import TrainTest
from hw1.data.source import data_root
from hw1.kinds import Kind
from hw1.stages import stage, through

if TYPE_CHECKING:
    from torch import Tensor

# (channels, height and width, classes) that are known without a file; 0: images of many sizes.
KNOWN = {
    "CIFAR10": (3, 32, 10),
    "CIFAR100": (3, 32, 100),
    "DTD": (3, 0, 47),
    "EuroSAT": (3, 64, 10),
    "FashionMNIST": (1, 28, 10),
    "Flowers102": (3, 0, 102),
    "FGVCAircraft": (3, 0, 100),
    "Food101": (3, 0, 101),
    "GTSRB": (3, 0, 43),
    "Imagenette": (3, 0, 10),
    "KMNIST": (1, 28, 10),
    "MNIST": (1, 28, 10),
    "OxfordIIITPet": (3, 0, 37),
    "PCAM": (3, 96, 2),
    "QMNIST": (1, 28, 10),
    "STL10": (3, 96, 10),
    "SVHN": (3, 32, 10),
    "StanfordCars": (3, 0, 196),
    "USPS": (1, 16, 10),
}
_MODES = {1: "L", 3: "RGB"}
_PARTS = {"train": ("train", "trainval"), "test": ("test", "val", "valid", "validation")}


class TorchvisionSet:
    """The training and the test set of a class in `torchvision.datasets`, as images [C, size, size] in [0, 1].

    What tells the two apart is found in the class: an argument `train`, or `split` (or `image_set`, `mode`).

    Args:
        root: folder of the data, see `hw1.data.source.data_root`; what is missing is downloaded to it.
        set: the name of the class, as SVHN.
        size: height and width that images are resized to; None for those of the set, if all have one.
        channels: 1 (grey) or 3 (RGB); None for those of the set.
        classes: their number; None for that of the set, if it is known here.
        train: value of the argument that picks the training set; None to find it.
        test: that of the test set.
        options: further arguments of the class, as {partition: 2}.
        stream: whether images stay on disk, each decoded when it is needed: for what memory does not hold.

    Raises:
        ValueError: there is no such class, or a value is missing or out of range; the message begins with the
            argument's name.
    """

    kind: ClassVar[Kind] = "classes"
    source = "torchvision"
    large = True

    def __init__(
        self,
        root: str | Path | None,
        set: str,
        size: int | None,
        channels: int | None,
        classes: int | None,
        train: str | None,
        test: str | None,
        options: Mapping[str, Any],
        stream: bool,
    ) -> None:
        known = KNOWN.get(set, (0, 0, 0))
        found = {"size": size or known[1], "channels": channels or known[0], "classes": classes or known[2]}
        for name, value in found.items():
            if value < 1:
                why = "whose images have many sizes" if set in KNOWN else "of which hw1 does not know it"
                raise ValueError(f"{name}: got null for {set}, {why}, expected a number")
        if found["channels"] not in _MODES:
            raise ValueError(f"channels: got {channels!r}, expected 1 (grey) or 3 (RGB)")
        self.root, self.name, self.streamed = data_root(root), set.lower(), stream
        self._set, self._options, self._asked = set, dict(options), {"train": train, "test": test}
        self.in_shape = (found["channels"], found["size"], found["size"])
        self.out_features = found["classes"]

    @cached_property
    def _class(self) -> Any:
        from torchvision import datasets

        made = getattr(datasets, self._set, None)
        if self._set.startswith("_") or not inspect.isclass(made):
            import difflib

            names = [name for name in dir(datasets) if inspect.isclass(getattr(datasets, name))]
            close = difflib.get_close_matches(self._set, names, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"set: got {self._set}, expected a class of torchvision.datasets{hint}")
        return made

    def _arguments(self, part: str) -> dict[str, Any]:
        """What makes the class the training or the test set."""
        inits = [one.__init__ for one in self._class.__mro__[:-1]]  # EMNIST hands `train` on to MNIST
        takes = {name for init in inits for name in inspect.signature(init).parameters}
        told = next((name for name in ("train", "split", "image_set", "mode") if name in takes), None)
        if told in self._options:
            told = next((name for name in ("split", "image_set", "mode") if name in takes and name != told), None)
        asked = self._asked[part]
        if told is None:
            raise ValueError(f"set: got {self._set}, expected one with a training and a test set, or torch_dataset")
        if told == "train":
            return {"train": part == "train"}
        return {told: asked or next(iter(_PARTS[part]))}

    def _made(self, part: str, download: bool = False) -> Any:
        arguments = {**self._options, **self._arguments(part)}
        if "download" in inspect.signature(self._class).parameters:
            arguments["download"] = download
        problem: Exception | None = None
        choices = (None,) if self._asked[part] or "train" in arguments else _PARTS[part]
        for choice in choices:
            if choice is not None:
                arguments = {k: choice if v in _PARTS[part] else v for k, v in arguments.items()}
            try:
                return self._class(self.root, **arguments)
            except ValueError as error:  # this set calls it by another name
                problem = problem or error
            except (RuntimeError, OSError) as error:
                raise FileNotFoundError(f"root: {self._set} is not whole in {self.root}: {error}") from error
        raise ValueError(f"{part}: {self._set}: {problem}")

    def prepare(self) -> None:
        """Download what is missing."""
        for part in _PARTS:
            try:
                self._made(part)
            except FileNotFoundError as error:
                if reason := why_not():
                    raise FileNotFoundError(f"{error}; {reason}") from error
                self._made(part, download=True)

    def identity(self) -> str:
        """SHA-256 of all images, as they are read, and their classes."""
        total = hashlib.sha256(repr((self._set, self.in_shape, self._options)).encode())
        for images in self._parts():
            for number in range(len(images)):
                pixels, label = images.raw(number)
                total.update(pixels.tobytes() + str(label).encode())
        return total.hexdigest()

    @cached_property
    def _both(self) -> tuple[Images, Images]:
        train, test = (Images(self._made(part), self.in_shape) for part in _PARTS)
        return train, test

    def _parts(self) -> Iterator[Images]:
        yield from self._both

    def load(self) -> TrainTest:
        """Images [N, C, H, W] in [0, 1] and their classes."""
        with stage(f"reading the images of {self.name}"):
            (train_x, train_y), (test_x, test_y) = (images.all() for images in self._parts())
        return TrainTest(train_x, train_y, test_x, test_y)

    def datasets(self) -> tuple[Images, Images]:
        """The same, decoded one by one."""
        return self._both


class Images:
    """A torchvision set as tensors [C, H, W] in [0, 1] and classes.

    Args:
        made: gives (PIL image, class) by number.
        shape: [C, H, W].
    """

    def __init__(self, made: Any, shape: tuple[int, int, int]) -> None:
        self.made, self.shape = made, shape

    def __len__(self) -> int:
        return len(self.made)

    @property
    def targets(self) -> Any:
        """The classes, where the set has them at hand."""
        return next((getattr(self.made, name) for name in ("targets", "labels") if hasattr(self.made, name)), None)

    def raw(self, number: int) -> tuple[Any, int]:
        """Bytes [C, H, W] as a NumPy array, and the class."""
        import numpy as np
        from PIL import Image

        image, label = self.made[number]
        channels, height, width = self.shape
        image = image.convert(_MODES[channels])
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1), int(label)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        import torch

        pixels, label = self.raw(number)
        return torch.from_numpy(pixels.copy()).float().div_(255), label

    def all(self) -> tuple[Tensor, Tensor]:
        """All of them, [N, C, H, W], and their classes [N]."""
        import torch

        x, y = torch.empty(len(self), *self.shape), torch.empty(len(self), dtype=torch.int64)
        for number in through(range(len(self)), len(self)):
            x[number], y[number] = self[number]
        return x, y
