import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw1.models import ResNet


def count(blocks, channels, colours=3, classes=10):
    """Parameters by the layers of He et al. 2016 with 1x1 shortcuts where the shape changes."""
    total, before = colours * channels * 9 + 2 * channels, channels
    for stage, number in enumerate(blocks):
        out = channels * 2**stage
        for _ in range(number):
            total += before * out * 9 + out * out * 9 + 4 * out + (before * out + 2 * out if before != out else 0)
            before = out
    return total + before * classes + classes


@pytest.mark.parametrize(("blocks", "width"), [([1], 1), ([2, 1], 1), ([1, 1, 1], 0.5)])
def test_parameters_and_shapes(blocks, width):
    net = ResNet((3, 9, 8), 10, blocks=blocks, channels=8, width=width)
    assert sum(parameter.numel() for parameter in net.parameters()) == count(blocks, int(8 * width))
    assert net(torch.rand(2, 3, 9, 8)).shape == (2, 10)


def test_a_block_adds_to_its_input():
    net = ResNet((1, 6, 6), 3, blocks=[1], channels=4).eval()
    block = net.blocks[0]
    nn.init.zeros_(block.bn_2.weight)
    x = torch.rand(2, 1, 6, 6)
    stem = F.relu(F.conv2d(x, net.conv.weight, padding=1) / (1 + 1e-5) ** 0.5)  # fresh statistics: mean 0, variance 1
    assert torch.allclose(net(x), net.head(stem.mean((2, 3))), atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"in_shape": (8,)}, r"in_shape: got \(8,\)"), ({"blocks": []}, r"blocks: got \[\]"),
        ({"blocks": [1, 0]}, "blocks: got"), ({"channels": 0}, "channels: got 0"), ({"width": 0}, "width: got 0"),
    ],
)  # fmt: skip
def test_refusals(changed, said):
    with pytest.raises(ValueError, match=said):
        ResNet(**{"in_shape": (1, 8, 8), "out_features": 2, "blocks": [1], "channels": 4, **changed})
