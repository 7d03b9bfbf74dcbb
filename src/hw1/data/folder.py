"""Images in folders of one's own, decoded once and cached."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hw1.bounds import IMAGE_PIXELS, special
from hw1.data.identities import cache_folder
from hw1.data.protocol import TrainTest
from hw1.data.source import data_root, sha256
from hw1.files import replacing
from hw1.kinds import Kind
from hw1.memory import problem_of
from hw1.stages import stage, through

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor


_MODES = {1: "L", 3: "RGB"}
# What Pillow decodes by itself, whatever a file is called: of PostScript (EPS), say, it starts another program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
_DIGITS = 16  # of the hash in a cache's name
_LARGE = 2**24  # pixels, from which on images are decoded one at a time


class ImageFolder:
    """A classification of images that lie in `<root>/<folder>/{train,test}/<class>/*`.

    Classes are numbered in the order of their sorted folder names. The decoded images are cached as bytes in $HW1_CACHE
    (else the user's cache folder), under a key that changes with the files' names, sizes and times.

    Args:
        root: the data's root, see `hw1.data.source.data_root`.
        folder: name below the root (or an absolute path) of the folder that holds `train` and `test`. Unlike the root
            it says which data these are, so it is part of a run's key.
        size: height and width in pixels that images are resized to (bilinear, anti-aliased; the aspect is not kept).
        channels: 1 (grey) or 3 (RGB).

    Raises:
        ValueError: a value is out of range, a folder is missing, a class is empty, or train and test differ in classes;
            on `load`, an image cannot be read. The message begins with the argument's name.
    """

    kind: ClassVar[Kind] = "classes"
    source = "folder"

    def __init__(self, root: str | Path | None, folder: str | Path, size: int, channels: int) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size: got {size!r}, expected a positive number of pixels")
        if channels not in _MODES:
            raise ValueError(f"channels: got {channels!r}, expected 1 (grey) or 3 (RGB)")
        self.root = data_root(root) / Path(folder).expanduser()
        self.name = self.root.name
        self.in_shape = (int(channels), size, size)
        self._sha256 = ""  # of the cache, once it is known
        classes, test_classes = (_classes(self.root / split) for split in ("train", "test"))
        if classes != test_classes:
            only = ", ".join(sorted(set(classes) ^ set(test_classes)))
            raise ValueError(f"folder: {self.root}/train and /test differ in their class folders: {only}")
        self.out_features = len(classes)

    @cached_property
    def _samples(self) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """(path, class) of every training and every test image."""
        from torchvision import datasets

        try:
            train, test = (datasets.ImageFolder(self.root / split).samples for split in ("train", "test"))
        except FileNotFoundError as error:  # a class folder without an image; torchvision names it
            raise ValueError(f"folder: {self.root}: {error}") from error
        return train, test

    @cached_property
    def _images(self) -> Path:
        """The cached [N + M, C, H, W] uint8 images, training before test; decoded if they are not there."""
        import numpy as np

        paths = [Path(path) for split in self._samples for path, _ in split]
        stem = f"images-{self._key(paths)}"
        shape = (len(paths), *self.in_shape)
        for known in sorted(cache_folder().glob(f"{stem}*.npy")):
            if _holds(known, shape) and known.stem == f"{stem}-{self._hash(known)}":
                return known
            known.unlink(missing_ok=True)  # damaged, or of an earlier version, whose name says nothing of its content
        # Bytes, and the float32 that `load` makes of them.
        if problem := problem_of(5 * math.prod(shape)):
            raise ValueError(f"size: {problem} (for {len(paths)} images of {list(self.in_shape)})")
        images = np.empty(shape, dtype=np.uint8)
        with stage(f"decoding the images of {self.name}"):
            _decode(paths, images)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(images))
        hashed = hashlib.sha256((len(header.getvalue()) + images.nbytes).to_bytes(8, "big"))  # as `sha256` of the file
        hashed.update(header.getvalue())
        hashed.update(images.data)
        self._sha256 = hashed.hexdigest()
        cache = cache_folder() / f"{stem}-{self._sha256[:_DIGITS]}.npy"
        with replacing(cache) as temporary, temporary.open("wb") as file:
            np.save(file, images)
        return cache

    def _hash(self, cache: Path) -> str:
        """The end of the name of a cache with this content."""
        self._sha256 = sha256([cache])  # which the identity needs anyway
        return self._sha256[:_DIGITS]

    def _key(self, paths: Sequence[Path]) -> str:
        entries = [(str(path.relative_to(self.root)), *_size_and_time(path)) for path in paths]
        return hashlib.sha256(repr((self.in_shape, entries)).encode()).hexdigest()[:32]

    def files(self) -> Iterator[str]:
        """Every file below `train` and `test`, and the folders that list them."""
        for split in ("train", "test"):
            for folder, _, names in os.walk(self.root / split, followlinks=True):
                yield folder
                yield from (os.path.join(folder, name) for name in names)

    def identity(self) -> str:
        """SHA-256 of the decoded images and their labels."""
        labels = bytes(",".join(str(label) for split in self._samples for _, label in split), "ascii")
        cache = self._images
        return hashlib.sha256((self._sha256 or sha256([cache])).encode() + labels).hexdigest()

    def prepare(self) -> None:
        """Decode and cache the images."""
        self._images  # noqa: B018 - cached_property does the work

    def load(self) -> TrainTest:
        """The images, [N, C, H, W] float32 in [0, 1], and their classes."""
        import numpy as np
        import torch

        train, test = self._samples
        images = torch.from_numpy(np.load(self._images)).float().div_(255)
        return TrainTest(images[: len(train)], _labels(train), images[len(train) :], _labels(test))


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ValueError(f"folder: there is no folder {folder}; expected train/<class>/ and test/<class>/ there")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not classes:
        raise ValueError(f"folder: {folder} has no class folders")
    return classes


def _labels(samples: Sequence[tuple[str, int]]) -> Tensor:
    import torch

    return torch.tensor([label for _, label in samples])


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    if kind := special(status.st_mode):  # a pipe, say, whose reader waits
        raise ValueError(f"folder: {path}: got {kind}, expected a file; remove it")
    return status.st_size, status.st_mtime_ns


def _holds(cache: Path, shape: tuple[int, ...]) -> bool:
    """Whether `cache` is a whole array of `shape`; what is not (an older format, a damaged disk) is decoded again."""
    import numpy as np

    try:
        return bool(np.load(cache, mmap_mode="r").shape == shape)
    except (OSError, ValueError, EOFError):
        return False


def _alone(image: Image.Image, one: threading.Lock) -> contextlib.AbstractContextManager[Any]:
    """What holds back other large images while a large one is decoded."""
    return one if image.width * image.height > _LARGE else contextlib.nullcontext()


@contextlib.contextmanager
def _pillow_refuses_large() -> Iterator[None]:
    """Inside, Pillow refuses where it warns otherwise, from our bound on; of the whole process, as its own bound is."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, IMAGE_PIXELS.most
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _decode(paths: Sequence[Path], images: NDArray[np.uint8]) -> None:
    """Decode `paths` into `images` [N, C, H, W] uint8."""
    import numpy as np
    from PIL import Image

    _, channels, height, width = images.shape

    one = threading.Lock()
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]  # some are not compiled in everywhere

    def decode(index: int) -> None:
        try:
            with Image.open(paths[index], formats=formats) as file, _alone(file, one):
                image = file.convert(_MODES[channels])
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            said = re.search(r"\((\d+) pixels\)", str(error))
            problem = IMAGE_PIXELS.problem(int(said[1]) if said else IMAGE_PIXELS.most + 1)
            raise ValueError(f"folder: {paths[index]}: {problem}") from error
        except (OSError, SyntaxError, ValueError, OverflowError, MemoryError, struct.error) as error:  # of decoders
            raise ValueError(f"folder: {paths[index]} cannot be read as an image; replace or delete it") from error
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        images[index] = pixels.reshape(height, width, channels).transpose(2, 0, 1)

    # Pillow decodes without the interpreter's lock. Not torchvision.io.decode_image: deprecated since 0.29.
    with _pillow_refuses_large(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in through(pool.map(decode, range(len(paths))), len(paths)):
            pass
