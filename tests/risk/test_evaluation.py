"""`EmpiricalRisk.metrics`: values over whole sets, fast, as functions of theta alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from hw1.curvature import EmpiricalRisk
from hw1.landscape import WholeSet, evaluate, segment
from hw1.models import Cnn

torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["relu", "tanh", "cnn_batch_norm", "channels_last", "rnn", "tied", "attention"])
@pytest.mark.parametrize("statistics", [False, True])
def test_they_are_those_of_the_whole_set_to_the_bit(name, statistics):
    one = zoo.case(name)
    kind = None if one.y.is_floating_point() else "classes"
    inputs = 2 * one.x if statistics or name == "cnn_batch_norm" else None
    risk = EmpiricalRisk(
        one.net, one.loss, [(one.x, one.y)], kind=kind, chunk_size=10, statistics_inputs=inputs
    )  # fmt: skip
    whole = WholeSet(one.net, one.loss, one.x, one.y, batch_size=10, statistics_inputs=inputs)
    assert risk.columns == whole.columns == (("loss",) if kind is None else ("loss", "accuracy"))
    for theta in (risk.theta, 2 * risk.theta, risk.theta.double(), risk.theta):
        found = risk.metrics(theta)
        assert found.dtype == torch.float64 and torch.equal(found, whole(theta))


@pytest.mark.parametrize("name", ["tanh", "cnn_batch_norm", "rnn", "tokens"])
@pytest.mark.parametrize("loader", [False, True])
def test_loss_and_accuracy_by_hand(name, loader):
    one = zoo.case(name)
    net = copy.deepcopy(one.net).double().eval()
    kind = "tokens" if name == "tokens" else "classes"
    dataset = TensorDataset(one.x, one.y)
    batches = DataLoader(dataset, batch_size=6, shuffle=True) if loader else zoo.ragged(one.x, one.y)
    randomness = torch.get_rng_state()
    risk = EmpiricalRisk(net, one.loss, batches, kind=kind, chunk_size=4)
    loss, accuracy = risk.metrics(risk.theta).tolist()
    assert torch.equal(torch.get_rng_state(), randomness)
    outputs = net(one.x)
    best = outputs.argmax(-1 if kind == "tokens" else 1)
    assert loss == pytest.approx(one.loss(outputs, one.y).item(), rel=1e-12)
    assert accuracy == pytest.approx((best == one.y).double().mean().item(), rel=1e-12)


@pytest.mark.parametrize("kind", [None, "values"])
def test_integers_alone_are_no_classes(kind):
    net, x = nn.Linear(2, 1).double(), torch.randn(9, 2).double()
    counts = torch.randint(0, 5, (9, 1))
    risk = EmpiricalRisk(net, lambda o, y: (o - y).square().mean(), [(x, counts)], kind=kind)
    assert risk.columns == ("loss",)
    assert risk.metrics(risk.theta).tolist() == pytest.approx([(net(x) - counts).square().mean().item()])


def test_some_parameters_alone_and_restricted():
    one = zoo.case("tanh")
    whole = one.risk(kind="classes")
    part = one.risk(kind="classes", space=whole.space.subset("3"))
    moved = one.theta() + 0.5
    torch.testing.assert_close(part.metrics(part.theta), whole.metrics(whole.theta))
    block, own = whole.restricted(moved, "3")
    torch.testing.assert_close(block.metrics(own), whole.metrics(moved), rtol=1e-5, atol=1e-6)
    other = moved.clone()
    other[whole.space.positions(block.space)] = own + 1
    torch.testing.assert_close(block.metrics(own + 1), whole.metrics(other), rtol=1e-5, atol=1e-6)


class Renamed(nn.Module):
    """A network whose state has other names than its parameters."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 3)

    def forward(self, x):
        return self.net(x)


class StateOfItsOwn(Renamed):
    def state_dict(self, *args, **options):
        return {f"model.{name}": value for name, value in super().state_dict(*args, **options).items()}

    def load_state_dict(self, state, strict=True, assign=False):
        own = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        return super().load_state_dict(own, strict=False)


class LoadsNothing(Renamed):
    def _load_from_state_dict(self, *args):
        pass


def with_hooks():
    net = Renamed()

    def add_prefix(module, state, prefix, metadata):
        for name in list(state):
            state[f"model.{name}"] = state.pop(name)

    def drop_prefix(state, prefix, *rest):
        for name in list(state):
            if name.startswith("model."):
                state[name.removeprefix("model.")] = state.pop(name)
            else:
                del state[name]

    net._register_state_dict_hook(add_prefix)
    net.net._register_load_state_dict_pre_hook(drop_prefix)
    return net


def tied():
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.Linear(2, 3))
    net[2].weight = net[0].weight
    return net


def normed():
    return nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))


@pytest.mark.parametrize("make", [StateOfItsOwn, LoadsNothing, with_hooks, tied, normed])
def test_a_segment_between_networks_whatever_their_state_is_called(make):
    torch.manual_seed(0)
    one, two = make().double(), make().double()
    x, y = torch.randn(20, 2).double(), torch.randint(0, 3, (20,))
    risk = EmpiricalRisk(one, F.cross_entropy, [(x, y)], kind="classes")
    whole = WholeSet(one, F.cross_entropy, x, y)
    function = zoo.in_one_piece(one, F.cross_entropy, x, y)
    points = list(segment(one, two, [0, 0.5, 1]))
    expected = [function(theta).item() for theta in points]
    assert expected[0] == pytest.approx(F.cross_entropy(one(x), y).item(), rel=1e-12)
    assert expected[2] == pytest.approx(F.cross_entropy(two(x), y).item(), rel=1e-12)
    assert len({round(value, 6) for value in expected}) == 3
    for metrics in (risk.metrics, whole):
        assert evaluate(metrics, points)[:, 0].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_memory_format_survives_and_is_computed_in():
    net = Cnn((1, 8, 8), 3, layers=["c3(4)", "p2", "c3(5)"]).to(memory_format=torch.channels_last)
    seen = []
    net[2].register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    x, y = zoo.images()
    risk = EmpiricalRisk(net, F.cross_entropy, [(x.float(), y)], kind="classes")
    theta = torch.randn_like(risk.theta)
    seen.clear()
    risk.metrics(theta)
    assert seen and all(outputs.is_contiguous(memory_format=torch.channels_last) for outputs in seen)


def test_a_theta_that_is_not_finite_has_a_loss_that_is_not():
    risk = zoo.case("tanh").risk(kind="classes")
    theta = risk.theta
    theta[-1] = torch.nan
    assert risk.metrics(theta)[0].isnan()
    assert risk.metrics(risk.theta).isfinite().all()  # and nothing of it stays


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_a_callers_switches_change_nothing(mode):
    one = zoo.case("cnn_batch_norm")
    expected = one.risk(kind="classes", statistics_inputs=one.x).metrics(one.theta())
    with mode():
        risk = one.risk(kind="classes", statistics_inputs=one.x)
        assert torch.equal(risk.metrics(one.theta()), expected)


def test_another_shape_is_refused():
    risk = zoo.case("tanh").risk()
    for bad in (torch.zeros(7), torch.zeros(2, len(risk.theta))):
        with pytest.raises(ValueError, match=r"^theta: got shape \[.*\], expected \[\d+\]: begin with risk\.theta$"):
            risk.metrics(bad)
