"""Operations whose second derivative torch has wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from hw1.curvature import EmpiricalRisk

torch.set_num_threads(1)

LAYERS = {
    "linear": (weight_norm(nn.Linear(12, 3)), nn.Flatten(), (1,)),
    "linear_all": (weight_norm(nn.Linear(12, 3), dim=None), nn.Flatten(), (0, 1)),
    "linear_columns": (weight_norm(nn.Linear(12, 3), dim=1), nn.Flatten(), (0,)),
    "convolution": (weight_norm(nn.Conv2d(3, 3, 2)), nn.Identity(), (1, 2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_hessian_through_weight_normalisation(name):
    layer, before, dims = LAYERS[name]
    layer = layer.double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, 2, 2, dtype=torch.float64, generator=generator)
    y = torch.randint(0, 3, (7,), generator=generator)
    net = nn.Sequential(before, layer, nn.Flatten(), nn.Tanh(), nn.Linear(3, 3).double())
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)], chunk_size=4)
    theta = risk.theta + 0.1 * torch.randn(len(risk.theta), dtype=torch.float64, generator=generator)

    def loss(t):  # Salimans & Kingma's formula, written out
        bias, g, v, weight, last = risk.space.unflatten(t).values()
        w = g * v / v.square().sum(dims, keepdim=True).sqrt()
        z = F.conv2d(x, w, bias).flatten(1) if w.ndim == 4 else F.linear(x.flatten(1), w, bias)
        return F.cross_entropy(F.linear(z.tanh(), weight, last), y)

    assert risk(theta).item() == pytest.approx(loss(theta).item(), rel=1e-12)
    expected = torch.autograd.functional.hessian(loss, theta)
    found = risk.hvp(theta, torch.eye(len(theta), dtype=torch.float64))
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
