import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw1.landscape import WholeSet
from hw1.models import Cnn, Mlp
from hw1.vectors import ParamSpace

N = 103


def flat(net):
    return torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()])


def images(count=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, 3, (count,), generator=generator)


def test_it_is_the_mean_over_all_examples_one_by_one_with_dropout_off():
    net = Cnn((1, 8, 8), 3, layers=["c3(4)", "p2", "drop2d", 6, "drop"], activation="tanh").double().train()
    x, y = images()
    losses, hits = [], []
    conv, dense, last = net[0], net[5], net[8]
    for image, label in zip(x, y, strict=True):
        hidden = F.conv2d(image[None], conv.weight, conv.bias).tanh()
        hidden = F.max_pool2d(hidden, 2).flatten() @ dense.weight.T + dense.bias
        logits = hidden.tanh() @ last.weight.T + last.bias
        losses.append((logits.logsumexp(0) - logits[label]).item())
        hits.append(float(logits.argmax() == label))
    risk = WholeSet(net, F.cross_entropy, x, y, batch_size=25)  # a last batch of 3
    loss, accuracy = risk(flat(net)).tolist()
    assert risk.columns == ("loss", "accuracy")
    assert loss == pytest.approx(sum(losses) / N, rel=1e-12)
    assert accuracy == pytest.approx(sum(hits) / N, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 25, 103, 1000])
def test_the_batch_size_changes_nothing(batch_size):
    net = Mlp((1, 8, 8), 3, hidden=[5]).double()
    x, y = images()
    whole = F.cross_entropy(net(x), y).item()
    assert WholeSet(net, F.cross_entropy, x, y, batch_size=batch_size)(flat(net))[0].item() == pytest.approx(
        whole, 1e-12
    )


def test_theta_decides_not_the_module():
    net, other = (Mlp((1, 8, 8), 3, hidden=[5]).double() for _ in range(2))
    x, y = images()
    risk = WholeSet(net, F.cross_entropy, x, y)
    assert risk(flat(other))[0].item() == pytest.approx(F.cross_entropy(other(x), y).item(), rel=1e-12)
    with torch.no_grad():
        net[1].weight.zero_()  # the caller may go on with the module
    assert risk(flat(other))[0].item() == pytest.approx(F.cross_entropy(other(x), y).item(), rel=1e-12)


def test_regression_has_a_loss_alone():
    net = Mlp((2,), 1, hidden=[4]).double()
    x, y = torch.randn(11, 2, dtype=torch.float64), torch.randn(11, 1, dtype=torch.float64)
    risk = WholeSet(net, F.mse_loss, x, y, batch_size=4)
    assert risk.columns == ("loss",)
    values = risk(flat(net))
    assert values.shape == (1,) and values.dtype == torch.float64
    assert values.item() == pytest.approx((net(x) - y).square().mean().item(), rel=1e-12)


def test_float32_nets_are_summed_in_float64():
    net = Mlp((1, 8, 8), 3, hidden=[5])
    x, y = images()
    value = WholeSet(net, F.cross_entropy, x.float(), y, batch_size=10)(flat(net))
    assert value.dtype == torch.float64
    double = copy.deepcopy(net).double()
    assert value[0].item() == pytest.approx(F.cross_entropy(double(x), y).item(), rel=1e-6)


def test_tied_weights():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    net[2].weight = net[0].weight
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 4, (9,))
    theta = torch.randn(ParamSpace.of(net).size, dtype=torch.float64)
    weight, one, two = theta[:16].reshape(4, 4), theta[16:20], theta[20:]
    expected = F.cross_entropy(torch.tanh(x @ weight.T + one) @ weight.T + two, y).item()
    assert WholeSet(net, F.cross_entropy, x, y, batch_size=4)(theta)[0].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norm", [[], ["bn"]])
def test_the_callers_module_gradients_and_randomness_are_left_alone(norm):
    net = Cnn((1, 8, 8), 3, layers=["c3(4)", *norm, "p2", "drop", 5]).double().train()
    net[-1].eval()  # a mode of its own for one layer
    x, y = images()
    F.cross_entropy(net(x), y).backward()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    modes = [module.training for module in net.modules()]
    randomness = torch.get_rng_state()
    theta = (2 * flat(net)).requires_grad_()
    value = WholeSet(net, F.cross_entropy, x, y, batch_size=25, statistics_inputs=x)(theta)
    assert not value.requires_grad and torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), randomness)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(net.parameters(), grads, strict=True))
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_bad_sets_are_refused():
    net = Mlp((1, 8, 8), 3, hidden=[5]).double()
    x, y = images()
    with pytest.raises(ValueError, match=r"^inputs and targets: got 0 and 0 examples"):
        WholeSet(net, F.cross_entropy, x[:0], y[:0])
    with pytest.raises(ValueError, match=r"^inputs and targets: got 103 and 102 examples"):
        WholeSet(net, F.cross_entropy, x, y[1:])
    with pytest.raises(ValueError, match=r"^theta: got shape \[7\], expected"):
        WholeSet(net, F.cross_entropy, x, y)(torch.zeros(7, dtype=torch.float64))
