import math

from torch import Tensor, nn


class Maxout(nn.Module):
    """One hidden layer of maxima over linear pieces (Goodfellow et al. 2013)."""

    def __init__(
        self, in_shape: tuple[int, ...], out_features: int, *, hidden: int, pieces: int, width: float = 1
    ) -> None:
        super().__init__()
        if pieces < 2:
            raise ValueError(f"pieces: got {pieces}, expected at least 2")
        units = max(1, round(hidden * width))
        self.pieces = nn.Linear(math.prod(in_shape), units * pieces)
        self.unite = nn.Sequential(nn.Unflatten(1, (units, pieces)), nn.AdaptiveMaxPool1d(1), nn.Flatten())
        self.out = nn.Linear(units, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] -> [B, out_features]."""
        return self.out(self.unite(self.pieces(x.flatten(1))))
