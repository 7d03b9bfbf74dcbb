import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw1.curvature import EmpiricalRisk
from hw1.risk.second_derivatives import TwiceDifferentiable
from hw1.vectors import ParamSpace

torch.set_num_threads(1)

LAYERS = {
    "1d": (nn.Conv1d(2, 4, 3, stride=2, padding=1), (2, 9)),
    "2d": (nn.Conv2d(2, 4, 3), (2, 6, 6)),
    "no_bias": (nn.Conv2d(2, 4, 3, bias=False), (2, 6, 6)),
    "stride_and_padding": (nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(0, 1)), (2, 7, 6)),
    "dilation": (nn.Conv2d(2, 4, 2, dilation=2), (2, 6, 6)),
    "groups": (nn.Conv2d(2, 4, 3, groups=2), (2, 6, 6)),
    "depthwise": (nn.Conv2d(2, 2, 3, groups=2, padding="valid"), (2, 6, 6)),
    "same": (nn.Conv2d(2, 4, 3, padding="same"), (2, 5, 5)),
    "reflect": (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 5, 5)),
    "channels_last": (nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last), (2, 6, 6)),
    "3d": (nn.Conv3d(2, 3, 2), (2, 4, 4, 4)),
    "transposed": (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 3, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_products_are_those_of_torchs_own_convolutions(name):
    layer, shape = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, *shape, dtype=torch.float64, generator=generator)
    y = torch.randint(0, 3, (7,), generator=generator)
    torch.manual_seed(1)
    first = nn.Sequential(nn.Conv1d(2, 2, 1) if len(shape) == 2 else nn.Identity(), nn.Tanh())
    width = layer(torch.zeros(1, *shape)).numel()
    net = nn.Sequential(first, layer, nn.Tanh(), nn.Flatten(), nn.Linear(width, 3)).double()
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)], chunk_size=4)
    theta, space = risk.theta, ParamSpace.of(net)

    def loss(t):
        return F.cross_entropy(torch.func.functional_call(net, space.unflatten(t), (x,)), y)

    v = torch.randn(len(theta), 2, dtype=torch.float64, generator=generator)
    expected = torch.stack([torch.autograd.functional.vhp(loss, theta, column)[1] for column in v.T], 1)
    for found in (risk.hvp(theta, v), torch.stack([risk.hvp(theta, column) for column in v.T], 1)):
        assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_an_image_without_a_batch_and_derivatives_by_the_input():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 2).double()
    image = torch.randn(2, 4, 4).double()
    with TwiceDifferentiable():
        torch.testing.assert_close(layer(image), layer(image[None])[0])

    def through(x, w):
        with TwiceDifferentiable():
            return F.conv2d(x, w, stride=2).tanh()

    x, w = torch.randn(2, 2, 5, 5).double(), torch.randn(3, 2, 2, 2).double()
    arguments = (x.requires_grad_(), w.requires_grad_())
    assert torch.autograd.gradcheck(through, arguments)
    assert torch.autograd.gradgradcheck(through, arguments)
