import pytest
import torch
from torch import nn

from hw1.models import Cnn, Mlp
from hw1.vectors import ParamSpace


def named(module):
    return dict(module.named_parameters())


def test_theta_is_the_parameters_one_after_the_other_in_row_major_order():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    expected = [value for parameter in net.parameters() for value in parameter.detach().flatten().tolist()]
    assert ParamSpace.of(net).flatten(named(net)).tolist() == expected
    assert ParamSpace.of(net).names == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert ParamSpace.of(net).size == 13


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_round_trip_whatever_the_memory_format(memory_format):
    net = Cnn((3, 8, 8), 2, layers=["c3(4)", "bn", "p2", 5])
    plain = ParamSpace.of(net).flatten(named(net)).detach().clone()
    net = net.to(memory_format=memory_format)
    space = ParamSpace.of(net)
    theta = space.flatten(named(net))
    assert torch.equal(theta, plain)  # logical order: the layout of memory does not show
    back = space.unflatten(theta)
    assert list(back) == list(named(net))
    assert all(torch.equal(back[name], parameter) for name, parameter in named(net).items())


def test_unflatten_gives_views():
    space = ParamSpace.of(nn.Linear(3, 2))
    theta = torch.zeros(8)
    space.unflatten(theta)["bias"].fill_(7.0)
    assert theta.tolist() == [0.0] * 6 + [7.0] * 2


@pytest.mark.parametrize("leading", [(1,), (4,), (2, 3)])
def test_unflatten_a_batch_of_thetas(leading):
    net = Mlp((2,), 1, hidden=[3])
    space = ParamSpace.of(net)
    thetas = torch.arange(float(torch.Size(leading).numel() * space.size)).reshape(*leading, space.size)
    batch = space.unflatten(thetas)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in leading)).reshape(-1, len(leading)).tolist():
        single = space.unflatten(thetas[tuple(index)])
        assert all(torch.equal(batch[name][tuple(index)], single[name]) for name in space.names)


def test_a_parameter_without_dimensions():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.scale = nn.Linear(1, 1), nn.Parameter(torch.tensor(3.0))

    space = ParamSpace.of(Scale())
    for theta in (torch.tensor([5.0, 6.0, 7.0]), torch.tensor([[5.0, 6.0, 7.0]])):
        assert space.unflatten(theta)["scale"].tolist() == theta[..., space.names.index("scale")].tolist()
        assert space.unflatten(theta)["scale"].shape == theta.shape[:-1]
    assert torch.equal(space.flatten(space.unflatten(torch.arange(3))), torch.arange(3))


def test_tied_weights_appear_once():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    space = ParamSpace.of(net)
    assert space.names == ("0.weight", "2.bias") and space.size == 12
    theta = torch.randn(12)
    outputs = torch.func.functional_call(net, space.unflatten(theta), (torch.eye(3),))
    weight, bias = theta[:9].reshape(3, 3), theta[9:]
    torch.testing.assert_close(outputs, torch.tanh(weight.T) @ weight.T + bias)


def test_gradients_flow_through_flatten():
    net = nn.Linear(3, 2).double()
    ParamSpace.of(net).flatten(named(net)).square().sum().backward()
    assert torch.equal(net.weight.grad, 2 * net.weight)


def test_other_names_are_ignored_and_no_parameters_are_an_empty_theta():
    net = nn.Linear(1, 1)
    theta = ParamSpace.of(net).flatten({"running_mean": torch.zeros(3), **named(net)})
    assert theta.shape == (2,)
    empty = ParamSpace.of(nn.ReLU())
    assert empty.size == 0 and empty.flatten({}).shape == (0,) and empty.unflatten(torch.empty(0)) == {}


def test_wrong_tensors_are_refused():
    space = ParamSpace.of(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"^no tensor named bias: got weight$"):
        space.flatten({"weight": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"^no tensor named weight: got none$"):
        space.flatten({})
    with pytest.raises(ValueError, match=r"^weight: got shape \[3, 2\], expected \[2, 3\]$"):
        space.flatten({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})
    for theta in (torch.zeros(7), torch.zeros(8, 1), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"^theta: got shape .*, expected \[\.\.\., 8\]$"):
            space.unflatten(theta)


def test_require_same_names_the_first_difference():
    one = ParamSpace.of(nn.Linear(3, 2))
    one.require_same(ParamSpace.of(nn.Linear(3, 2)))
    shape = r"^networks of different shape: one has weight \[2, 3\], the other weight \[2, 4\]$"
    with pytest.raises(ValueError, match=shape):
        one.require_same(ParamSpace.of(nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"one has bias \[2\], the other no bias$"):
        one.require_same(ParamSpace.of(nn.Linear(3, 2, bias=False)))
    with pytest.raises(ValueError, match=r"one has no bias, the other bias \[2\]$"):
        ParamSpace.of(nn.Linear(3, 2, bias=False)).require_same(one)


def test_a_subset_by_names_and_prefixes_keeps_the_order():
    net = nn.ModuleDict({"1": nn.Linear(2, 3), "10": nn.Linear(3, 1)})
    space = ParamSpace.of(net)
    assert space.subset("10", "1.bias").names == ("1.bias", "10.weight", "10.bias")
    assert space.subset("1").shapes == (torch.Size([3, 2]), torch.Size([3]))  # not 10
    assert space.subset(*space.names) == space
    with pytest.raises(ValueError, match=r"^names: got 'head', expected a name or a prefix of 1\.weight, 1\.bias,"):
        space.subset("1", "head")


def test_positions_of_a_subset():
    space = ParamSpace.of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    part = space.subset("0.bias", "1.bias")
    assert space.positions(part).tolist() == [6, 7, 8, 12]
    theta = torch.randn(13)
    assert torch.equal(theta[space.positions(part)], part.flatten(space.unflatten(theta)))
    with pytest.raises(ValueError, match=r"^no tensor named 0\.weight: got 0\.bias, 1\.bias$"):
        part.positions(space)
