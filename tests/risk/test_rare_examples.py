"""Examples that weigh nothing, batches of classes of their own, and what is computed without checks."""

from collections.abc import MutableMapping

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from hw1.curvature import EmpiricalRisk, GaussNewton, Hessian, hutchinson_trace

torch.set_num_threads(1)


def seeded():
    return torch.Generator().manual_seed(0)


def few_labels(count, labelled):
    """Inputs, and classes of which all but `labelled` are ignored."""
    x = torch.randn(count, 3, generator=seeded())
    y = torch.full((count,), -100)
    y[7 : 7 + labelled] = torch.arange(labelled) % 3
    return x, y


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


@pytest.mark.parametrize("size", [1, 50, 1000])
def test_three_labels_among_a_thousand_examples(size):
    x, y = few_labels(1000, 3)
    risk = EmpiricalRisk(net(), F.cross_entropy, list(zip(x.split(size), y.split(size), strict=True)))
    assert risk.size == 3
    function = zoo.in_one_piece(net(), F.cross_entropy, x[7:10], y[7:10])
    theta = risk.theta.double()
    torch.testing.assert_close(risk(theta), function(theta))
    torch.testing.assert_close(risk.hvp(theta, theta), zoo.hessian(function, theta) @ theta)
    trace = hutchinson_trace(Hessian(risk, risk.theta), probes=2, generator=seeded())
    assert trace.precision is not None and trace.precision.relative_product < 1e-4


def test_a_sum_with_a_chunk_that_weighs_nothing():
    x, y = few_labels(40, 3)
    loss = nn.CrossEntropyLoss(reduction="sum")
    risk = EmpiricalRisk(net(), loss, [(x, y)], chunk_size=10)
    assert risk.metrics(risk.theta).item() == pytest.approx(loss(net()(x), y).item(), rel=1e-5)
    assert risk(risk.theta).item() == pytest.approx(loss(net()(x), y).item(), rel=1e-5)


class Stored(MutableMapping):
    """A mapping whose copies share what they hold."""

    def __init__(self, **held):
        self.store = held

    def __getitem__(self, name):
        return self.store[name]

    def __setitem__(self, name, value):
        self.store[name] = value

    def __delitem__(self, name):
        del self.store[name]

    def __iter__(self):
        return iter(self.store)

    def __len__(self):
        return len(self.store)


def test_a_mapping_whose_copies_share_its_store_is_left_alone():
    x, y = torch.randn(9, 3, generator=seeded()).double(), torch.randn(9, 3, generator=seeded()).double()
    batch = Stored(x=x, y=y)
    risk = EmpiricalRisk(net(), batches=[batch], batch_loss=lambda m, b: F.mse_loss(m(b["x"]), b["y"]))
    risk.hvp(risk.theta, risk.theta)
    assert batch["x"] is x and batch["y"] is y and x.dtype == torch.float64


class Half(torch.autograd.Function):
    """tanh whose backward has no derivative by its inputs."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = 1 - x.detach().tanh().square()
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.slope


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inside, self.outside = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.outside(Half.apply(self.inside(x)))


def test_gauss_newton_states_its_own_precision():
    x, y = torch.randn(9, 3, generator=seeded()), torch.randn(9, 3, generator=seeded())
    risk = EmpiricalRisk(Detached(), F.mse_loss, [(x, y)])
    with pytest.raises(ValueError, match=r"^module: got products that are off"):
        risk.hvp(risk.theta, risk.theta)
    trace = hutchinson_trace(GaussNewton(risk, risk.theta), probes=4, generator=seeded())
    assert trace.precision is not None and 0 < trace.precision.relative_product < 1e-5


def test_float32_constants_are_noticed_without_checks():
    class Constant(nn.Linear):
        def forward(self, x):
            return super().forward(x) @ torch.ones(3, 2)

    x, y = torch.randn(9, 3, generator=seeded()), torch.randn(9, 2, generator=seeded())
    risk = EmpiricalRisk(Constant(3, 3), F.mse_loss, [(x, y)], check=False)
    assert hutchinson_trace(Hessian(risk, risk.theta), probes=2, generator=seeded()).precision is None
    with pytest.warns(UserWarning, match="computes in float32"):
        assert risk.gradient(risk.theta.double()).dtype == torch.float64
