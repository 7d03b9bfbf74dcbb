"""What torchvision.transforms.v2 lacks, for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


class PaddedCrop:
    """An image [C, H, W], padded with zeros and cropped to its former size at a random place (He et al. 2016).

    Args:
        padding: pixels on each side.

    Raises:
        ValueError: it is negative.
    """

    def __init__(self, padding: int) -> None:
        if padding < 0:
            raise ValueError(f"padding: got {padding}, expected a number of pixels of at least 0")
        self.padding = padding

    def __call__(self, x: Tensor) -> Tensor:
        """The image [C, H, W], moved."""
        height, width = x.shape[-2:]
        top, left = torch.randint(2 * self.padding + 1, (2,)).tolist()
        return pad(x, [self.padding] * 4)[..., top : top + height, left : left + width]
