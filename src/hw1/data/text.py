"""Characters of a text, to be predicted from those before them."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hw1.data.protocol import TrainTest
from hw1.data.source import data_root
from hw1.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor


class Characters:
    """Windows of a text, [N, T] int64, and the same windows one character further on as targets.

    The text is cut once: its beginning is the training set, the rest the test set. Windows do not overlap, and what is
    left at the end of each part is left out. A token is a character, numbered in the order of Unicode; the vocabulary
    is that of the whole text.

    Args:
        file: of a text in UTF-8, below the data's root or absolute; None for the one that ships with scikit-learn, a
            dependency of hw1: the descriptions of its data sets (43,000 characters of English, BSD licence).
        root: the data's root, see `hw1.data.source.data_root`; only of a file.
        length: T, characters a window.
        test_fraction: share of the text that is the test set, between 0 and 1.

    Raises:
        ValueError: a value is out of range, or the file is no such text; the message begins with the argument's name.
    """

    kind: ClassVar[Kind] = "tokens"

    def __init__(self, file: str | None, root: str | None, length: int, test_fraction: float) -> None:
        if length < 1:
            raise ValueError(f"length: got {length}, expected a positive number of characters")
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction: got {test_fraction}, expected a share between 0 and 1")
        self._file = None if file is None else data_root(root) / Path(file).expanduser()
        self._length, self._fraction = length, test_fraction
        self.source = "bundled" if self._file is None else "file"
        self.name = "characters" if self._file is None else self._file.stem
        self.in_shape = (length,)

    @cached_property
    def text(self) -> str:
        """The whole of it."""
        if self._file is None:
            return _bundled()
        try:
            return self._file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"file: {self._file} cannot be read as a text in UTF-8 ({error}); give another") from error

    @cached_property
    def vocabulary(self) -> str:
        """The characters, in the order of their numbers."""
        return "".join(sorted(set(self.text)))

    @property
    def out_features(self) -> int:
        """Number of characters in the vocabulary."""
        return len(self.vocabulary)

    def prepare(self) -> None:
        """Refuse a text that is too short.

        Raises:
            ValueError: a part holds no whole window.
        """
        for part in self._parts():
            if len(part) <= self._length:
                raise ValueError(
                    f"length: got {self._length}, expected less than {len(part)}, the characters of a part of the text"
                )

    def identity(self) -> str:
        """SHA-256 of the text and of how it is cut."""
        cut = repr((self._length, self._fraction)).encode()
        return hashlib.sha256(cut + self.text.encode()).hexdigest()

    def load(self) -> TrainTest:
        """Windows [N, T] and [M, T], and their successors."""
        (train_x, train_y), (test_x, test_y) = (self._windows(part) for part in self._parts())
        return TrainTest(train_x, train_y, test_x, test_y)

    def _parts(self) -> tuple[str, str]:
        cut = round(len(self.text) * (1 - self._fraction))
        return self.text[:cut], self.text[cut:]

    def _windows(self, part: str) -> tuple[Tensor, Tensor]:
        import torch

        number = {character: i for i, character in enumerate(self.vocabulary)}
        tokens = torch.tensor([number[character] for character in part])
        whole = (len(tokens) - 1) // self._length * self._length
        return tuple(tokens[first : first + whole].reshape(-1, self._length) for first in (0, 1))  # type: ignore[return-value]  # two of them


def _bundled() -> str:
    """The descriptions of scikit-learn's data sets, in alphabetical order of their names."""
    import sklearn

    folder = Path(sklearn.__file__).parent / "datasets" / "descr"
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.rst")))
