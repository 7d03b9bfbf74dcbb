"""MNIST as a regression: how bright is an image?"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hw1.data.images import Mnist
from hw1.data.protocol import TrainTest
from hw1.kinds import Kind

if TYPE_CHECKING:
    import torch
    from torch import Tensor


TARGETS = ("mean", "sigmoid_mean")


class MnistMean:
    """MNIST's images with m, the mean of their 784 pixels, as target, [1]: m + noise, or sigmoid(m) + noise.

    Training and test targets both have noise: no network's mean squared error can stay below its variance on the test
    set. The means of MNIST have a standard deviation of 0.044, their sigmoids of 0.011.

    Args:
        root: data folder with `MNIST/raw/`; see `hw1.data.source.data_root`.
        source: "full", "bundled", or "auto", as of `Mnist`.
        target: "mean" or "sigmoid_mean".
        noise: standard deviation of the Gaussian noise on the targets, in units of the target.
        noise_seed: seed of that noise.
        test_size: number of test images, drawn once and for all with MNIST's class frequencies; None for all.

    Raises:
        ValueError: a value is out of range; the message begins with its name. `test_size` is compared with the number
            of images on `load`.
        FileNotFoundError: on `prepare` or `load`, as `Mnist`.
    """

    kind: ClassVar[Kind] = "values"
    large = True
    choose_source = staticmethod(Mnist.choose_source)
    in_shape = Mnist.in_shape
    out_features = 1

    def __init__(
        self, root: str | Path | None, source: str, target: str, noise: float, noise_seed: int, test_size: int | None
    ) -> None:
        if target not in TARGETS:
            raise ValueError(f"target: got {target!r}, expected {' or '.join(TARGETS)}")
        if not isinstance(noise, int | float) or not 0 <= noise < math.inf:
            raise ValueError(f"noise: got {noise!r}, expected a standard deviation of at least 0")
        if test_size is not None and (not isinstance(test_size, int) or test_size < 1):
            raise ValueError(f"test_size: got {test_size!r}, expected a positive integer or null (all)")
        self.images = Mnist(root, source)
        self.name = f"mnist_{target}"
        self.target, self.test_size = target, test_size
        self.noise, self.noise_seed = float(noise), noise_seed

    @property
    def source(self) -> str:
        """Which MNIST is read; what "auto" became is known once the data are prepared."""
        return self.images.source

    def prepare(self) -> None:
        """As `Mnist`."""
        self.images.prepare()

    def files(self) -> list[Path]:
        """Those of the images."""
        return self.images.files()

    def identity(self) -> str:
        """SHA-256 of the images' identity and of what makes the targets."""
        noise = (self.noise, self.noise_seed) if self.noise else None
        definition = repr((self.images.identity(), self.target, self.test_size, noise))
        return hashlib.sha256(definition.encode()).hexdigest()

    def load(self) -> TrainTest:
        """Images [N, 1, 28, 28] in [0, 1] and targets [N, 1]."""
        import torch

        from hw1.data.labels import subset

        digits = self.images.load()
        test_x = digits.test_x
        if self.test_size is not None:
            if self.test_size > len(test_x):
                raise ValueError(f"test_size: got {self.test_size}, expected at most {len(test_x)}")
            test_x = test_x[subset(digits.test_y, self.test_size, torch.Generator().manual_seed(0))]
        generator = torch.Generator().manual_seed(self.noise_seed)
        # The test set first: its noise is then the same for the full and the bundled training set.
        test_y, train_y = (self._targets(x, generator) for x in (test_x, digits.train_x))
        return TrainTest(digits.train_x, train_y, test_x, test_y)

    def _targets(self, images: Tensor, generator: torch.Generator) -> Tensor:
        import torch

        values = images.flatten(1).mean(1, keepdim=True, dtype=torch.float64)
        if self.target == "sigmoid_mean":
            values = values.sigmoid()
        return (values + self.noise * torch.randn(values.shape, generator=generator, dtype=torch.float64)).float()
