import copy

import pytest
import torch
import torch.nn.functional as F
from subjects import broken

from hw1.measures.finite import finite, float64_device, in_float64
from hw1.models import Mlp

X = torch.linspace(-1, 1, 600)[:, None]


@pytest.mark.parametrize("how", ["weights", "loss"])
def test_what_diverged_is_not_finite(how):
    net = Mlp((1,), 1, hidden=[3])
    assert finite(net, F.mse_loss, [(X, X.sin())]) and not finite(broken(net, how), F.mse_loss, [(X, X.sin())])


def test_the_last_example_counts_and_the_network_is_left_alone():
    net = Mlp((1,), 1, hidden=[3]).train()
    state, chance = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    targets = X.sin()
    assert finite(net, F.mse_loss, [(X, targets)])
    targets[-1] = 1e30
    assert not finite(net, F.mse_loss, [(X, targets)]) and finite(net.double(), F.mse_loss, [(X, targets)])
    assert net.training and torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())


def test_only_apples_gpus_leave_float64_to_the_cpu():
    net = Mlp((1,), 1, hidden=[3])
    assert in_float64(net) is net
    assert [float64_device(torch.device(name)).type for name in ("cpu", "cuda", "mps")] == ["cpu", "cuda", "cpu"]
