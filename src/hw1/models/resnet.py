"""Residual networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hw1.models.layers import check_width, scaled


class Residual(nn.Module):
    """Two 3x3 convolutions with batch-norm, added to their input: [B, in, H, W] -> [B, out, H / stride, W / stride].

    Where the shape changes, the input goes through a 1x1 convolution with batch-norm (He et al. 2016, option B).
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn_1 = nn.BatchNorm2d(out)
        self.conv_2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn_2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """relu(x + what the convolutions add)."""
        added = self.bn_2(self.conv_2(F.relu(self.bn_1(self.conv_1(x)))))
        return F.relu(added + self.shortcut(x))


class ResNet(nn.Module):
    """Residual network for small images, with batch-norm: [B, C, H, W] -> [B, out_features].

    That of He et al. 2016, section 4.2, with 1x1 shortcuts.
    A 3x3 convolution, then stages of blocks; each stage but the first halves height and width and doubles the channels.
    The mean over what is left goes through a linear layer. Weights start as there, by He et al. 2015.

    Args:
        in_shape: (C, H, W) of one image.
        out_features: number of outputs.
        blocks: number of blocks in each stage; [3, 3, 3] is ResNet-20, of 2 x 9 + 2 layers.
        channels: of the first stage.
        width: factor on them.

    Raises:
        ValueError: a value is out of range; the message begins with its name.

    Example:
        >>> net = ResNet((3, 32, 32), 10, blocks=[3, 3, 3], channels=16)
        >>> sum(p.numel() for p in net.parameters())  # 0.27 million in table 6
        272474
    """

    def __init__(
        self, in_shape: Sequence[int], out_features: int, *, blocks: Sequence[int], channels: int, width: float = 1
    ) -> None:
        super().__init__()
        if len(in_shape) != 3:
            raise ValueError(f"in_shape: got {tuple(in_shape)}, expected an image (C, H, W): choose model=mlp")
        if not blocks or any(number < 1 for number in blocks):
            raise ValueError(f"blocks: got {list(blocks)}, expected a positive number for each stage")
        if channels < 1:
            raise ValueError(f"channels: got {channels}, expected a positive integer")
        size = scaled(channels, check_width(width))
        self.conv = nn.Conv2d(in_shape[0], size, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(size)
        layers, before = list[nn.Module](), size
        for stage, number in enumerate(blocks):
            for block in range(number):
                out = size * 2**stage
                layers.append(Residual(before, out, stride=2 if stage and not block else 1))
                before = out
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(before, out_features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (logits for classes), [B, out_features]."""
        h = self.blocks(F.relu(self.bn(self.conv(x))))
        outputs: Tensor = self.head(h.mean((2, 3)))
        return outputs
