"""Coloured images [3, S, S] of a few classes that a small network tells apart, as a data set of one's own."""

import torch

from hw1.data.protocol import TrainTest


class MadeImages:
    """Noise around one random image a class."""

    kind = "classes"
    name = "made_images"
    source = "made"

    def __init__(self, size: int = 8, classes: int = 3, train: int = 24, test: int = 12) -> None:
        self.in_shape, self.out_features = (3, size, size), classes
        self._train, self._test = train, test

    def prepare(self) -> None:
        """Nothing to do."""

    def identity(self) -> str:
        return str((self.in_shape, self.out_features, self._train, self._test))

    def load(self) -> TrainTest:
        generator = torch.Generator().manual_seed(0)
        centres = torch.rand(self.out_features, *self.in_shape, generator=generator)
        y = torch.arange(self._train + self._test) % self.out_features
        x = centres[y] + 0.3 * torch.randn(len(y), *self.in_shape, generator=generator)
        return TrainTest(x[: self._train], y[: self._train], x[self._train :], y[self._train :])
