import hashlib
import math

from hw1.data.protocol import TrainTest


class Spirals:
    """Noisy points of the plane on the arms of a spiral, one class an arm."""

    kind = "classes"
    name = "spirals"
    source = "made"
    in_shape = (2,)

    def __init__(self, arms: int, points: int, noise: float) -> None:
        if arms < 2:
            raise ValueError(f"arms: got {arms}, expected at least 2")
        self.out_features, self.points, self.noise = arms, points, noise

    def loss(self, outputs, targets, reduction="mean"):
        """Left out, it is that of the kind: cross-entropy."""
        from my_losses import poly  # here, so that planning a sweep need not load torch

        return poly(outputs, targets, reduction)

    def prepare(self) -> None:
        """Nothing to download."""

    def identity(self) -> str:
        """Other settings are other examples."""
        return hashlib.sha256(repr((self.out_features, self.points, self.noise)).encode()).hexdigest()

    def load(self) -> TrainTest:
        """Inputs [N, 2] float32 and classes [N] int64, twice: as many test points as training points."""
        import torch

        generator = torch.Generator().manual_seed(0)  # the same points for every seed of a training

        def draw():
            y = torch.arange(self.points) % self.out_features
            radius = torch.rand(self.points, generator=generator).sqrt()
            angle = 2 * math.pi * (radius + y / self.out_features)
            x = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
            return x + self.noise * torch.randn(x.shape, generator=generator), y

        return TrainTest(*draw(), *draw())
