"""The error of float32 against float64, checked by closed forms and by double backward on one total loss."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from hw1.curvature import (
    Dense,
    Hessian,
    extreme_eigenpairs,
    hutchinson_trace,
    hutchpp_trace,
    spectral_density,
    xtrace,
)
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.guard import twice_differentiable
from hw1.risk.nested import cast
from hw1.risk.precision import forward_in, multiplied_in
from hw1.risk.precision_error import SINGLES, PrecisionError, precision_error
from hw1.vectors import ParamSpace

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic:
    """c + g . theta + theta . H theta / 2, to which float32 adds known errors."""

    def __init__(self, scale, value=0.0, gradient=0.0, product=0.0):
        self.scale, self.errors = scale, (value, gradient, product)

    def _with_error(self, exact, number):
        return exact + self.errors[number] if exact.dtype == torch.float32 else exact

    def __call__(self, theta):
        return self._with_error(self.scale * theta.square().sum() / 2, 0)

    def gradient(self, theta):
        return self._with_error(self.scale * theta, 1)

    def hvp(self, theta, v):
        return self._with_error(self.scale * v, 2)


@pytest.mark.parametrize(("reduction", "share"), [("mean", 1), ("sum", 50)])
def test_errors_and_shares_by_closed_form(reduction, share):
    theta = torch.tensor([3.0, 4.0])
    risk = Quadratic(0.5, value=0.25, gradient=0.5, product=2.0)
    singles = [Quadratic(1.0), Quadratic(-7.0)]  # root mean square 5
    error = precision_error(
        risk, singles, theta, generator(), examples=50, precision="tf32", reduction=reduction
    )  # fmt: skip
    assert error.value == pytest.approx(0.25, rel=1e-6)
    assert error.gradient == pytest.approx(0.5 * math.sqrt(2), rel=1e-6)
    assert error.product == pytest.approx(2 * math.sqrt(2), rel=1e-6)
    assert error.relative_value == pytest.approx(0.25 / (12.5 * 5) / share, rel=1e-6)
    assert error.relative_gradient == pytest.approx(0.5 * math.sqrt(2) / (5 * 5) / share, rel=1e-6)
    assert error.relative_product == pytest.approx(2 * math.sqrt(2) / 5 / share, rel=1e-6)
    assert (error.examples, error.precision, error.dtype) == (50, "tf32", torch.float32)


def test_a_share_of_nothing():
    theta = torch.tensor([3.0, 4.0])
    error = precision_error(
        Quadratic(0.0, gradient=1.0), [Quadratic(0.0)], theta, generator(), examples=1, precision="ieee"
    )
    assert (error.relative_value, error.relative_gradient, error.relative_product) == (0.0, math.inf, 0.0)


def test_float64_has_nothing_to_be_compared_with():
    theta = torch.tensor([3.0, 4.0]).double()
    error = precision_error(Quadratic(1.0), [Quadratic(1.0)], theta, generator(), examples=1, precision="tf32")
    assert (error.value, error.gradient, error.product, error.relative_gradient) == (0, 0, 0, 0)
    assert str(error) == "float64"


def test_what_is_said_is_one_line():
    error = PrecisionError(1e-6, 2e-3, 3e-2, 1e-5, 2e-4, 3e-3, 64, "bfloat16", torch.float32)
    assert str(error) == (
        "float32 multiplied in bfloat16, off float64 on 64 examples by: value 1.0e-06 (1.0e-05 of an example's), "
        "gradient 2.0e-03 (2.0e-04 of an example's), product 3.0e-02 (3.0e-03 of an example's)"
    )


def test_singles_are_asked_for():
    with pytest.raises(ValueError, match=r"singles: got none, expected .*risk\.draw"):
        precision_error(Quadratic(1.0), [], torch.ones(2), generator(), examples=1, precision="ieee")


class Multiplied:
    """A classifier's mean loss whose float32 is multiplied in a precision."""

    def __init__(self, net, x, y, precision):
        self.net, self.x, self.y, self.precision = net, x, y, precision
        self.space = ParamSpace.of(net)

    def _loss(self, theta):
        named = self.space.unflatten(theta)
        net = copy.deepcopy(self.net).to(theta.dtype)
        with forward_in(self.precision, CPU):
            outputs = torch.func.functional_call(net, named, (self.x.to(theta),))
        return F.cross_entropy(cast(outputs, theta), self.y)

    def __call__(self, theta):
        with multiplied_in(self.precision), torch.no_grad():
            return self._loss(theta)

    def gradient(self, theta):
        theta = theta.clone().requires_grad_()
        with multiplied_in(self.precision):
            return torch.autograd.grad(self._loss(theta), theta)[0]

    def hvp(self, theta, v):
        theta = theta.clone().requires_grad_()
        with multiplied_in(self.precision), twice_differentiable(CPU, self.net):
            (gradient,) = torch.autograd.grad(self._loss(theta), theta, create_graph=True)
            return torch.autograd.grad(gradient, theta, v)[0]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.layer(x.flatten(2).transpose(1, 2))[0][:, -1])


def convolutions():
    return nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.GELU(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)
    )


def attention():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True)
    return nn.Sequential(nn.Flatten(2), nn.Linear(36, 8), layer, nn.Flatten(), nn.Linear(32, 3)).eval()


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 20), nn.ReLU(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3))


def examples(number=64):
    return torch.randn(number, 4, 6, 6, generator=generator(1)), torch.randint(3, (number,), generator=generator(2))


def oracle(net, x, y, v, bfloat16=False):
    """Value, gradient and product of the one total loss, in the dtype of the net, by torch alone."""
    parameters = list(net.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            outputs = net(x)
        loss = F.cross_entropy(outputs.to(x.dtype), y)
        # An LSTM's kernel that is differentiated once rounds otherwise than that which is differentiated twice.
        once = torch.autograd.grad(loss, parameters, retain_graph=True)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
        product = torch.autograd.grad(gradient @ v, parameters)
    return loss.detach(), *(torch.cat([part.flatten() for part in parts]) for parts in (once, product))


@pytest.mark.parametrize("make", [convolutions, Recurrent, attention, mlp])
@pytest.mark.parametrize(("precision", "low", "high"), [("ieee", 1e-8, 1e-6), ("bfloat16", 1e-3, 3e-2)])
def test_float32_against_float64_by_double_backward(make, precision, low, high):
    torch.manual_seed(0)
    net = make()
    x, y = examples()
    theta = ParamSpace.of(net).flatten(dict(net.named_parameters())).detach()
    singles = [Multiplied(net, x[n : n + 1], y[n : n + 1], precision) for n in range(SINGLES)]
    risk = Multiplied(net, x, y, precision)
    error = precision_error(risk, singles, theta, generator(), examples=64, precision=precision)
    # The same v, by its definition: normal, of norm 1, rounded to float32.
    v = torch.randn(len(theta), generator=generator(), dtype=torch.float64)
    v = (v / v.norm()).float()
    double = copy.deepcopy(net).double()
    exact = oracle(double, x.double(), y, v.double())
    rounded = oracle(net, x, y, v, bfloat16=precision == "bfloat16")
    each = [oracle(double, x[n : n + 1].double(), y[n : n + 1], v.double()) for n in range(SINGLES)]
    own = risk(theta), risk.gradient(theta), risk.hvp(theta, v)
    for name, mine, a, b, parts in zip(
        ("value", "gradient", "product"), own, rounded, exact, zip(*each, strict=True), strict=True
    ):
        found, expected = getattr(error, name), (a.double() - b).norm().item()
        assert found == pytest.approx((mine.double() - b).norm().item(), rel=1e-3, abs=1e-13)
        # Other kernels round otherwise: the same size is all that two ways can agree on, and no more than its order
        # for the single number.
        if name == "value":
            assert abs(found - expected) < (3e-7 if precision == "ieee" else 1e-3)
        else:
            assert expected / 3 < found < 3 * expected
        scale = torch.stack([part.norm() for part in parts]).square().mean().sqrt().item()
        assert getattr(error, f"relative_{name}") == pytest.approx(found / scale, rel=1e-6)
    assert low / 10 < error.relative_gradient < high and low / 10 < error.relative_product < high
    assert error.relative_value < high


def test_a_risk_of_the_house_at_a_minimum_where_the_mean_gradient_vanishes():
    x, y = examples()
    x = x.flatten(1)[:, :5]
    y = torch.randn(64, 1, generator=generator(3))
    solution = torch.linalg.lstsq(x.double(), y.double()).solution.float()
    net = nn.Linear(5, 1, bias=False)
    risk = EmpiricalRisk(net, F.mse_loss, [(x[:50], y[:50]), (x[50:], y[50:])])
    theta = solution.flatten()
    draws = generator(4)
    few = risk.draw(64, draws)
    singles = [few.draw(1, draws) for _ in range(SINGLES)]
    error = precision_error(few, singles, theta, generator(), examples=64, precision="ieee")
    residual = x.double() @ theta.double()[:, None] - y.double()
    gradient = 2 / 64 * x.double().T @ residual
    assert error.gradient > 1e-2 * gradient.norm()  # a share of the mean gradient would say: wrong
    assert error.relative_gradient < 1e-6  # and each example's is right to float32


def test_estimates_carry_it_and_bare_products_do_not():
    one = zoo.case("tanh")
    risk = EmpiricalRisk(one.net.float(), one.loss, [(one.x.float(), one.y)])
    hessian, generator = Hessian(risk, risk.theta), torch.Generator().manual_seed(0)
    found = [
        hutchinson_trace(hessian, probes=4, generator=generator),
        hutchpp_trace(hessian, products=9, generator=generator),
        xtrace(hessian, products=8, generator=generator),
        extreme_eigenpairs(hessian, 1, generator=generator),
        spectral_density(hessian, probes=2, steps=4, generator=generator),
    ]
    for estimate in found:
        assert estimate.precision is not None and 0 < estimate.precision.relative_product < 1e-5
        assert estimate.precision.examples == zoo.N and estimate.precision.precision == "ieee"
    exact = hutchinson_trace(Hessian(risk, risk.theta.double()), probes=2, generator=generator).precision
    assert exact is not None and exact.dtype == torch.float64 and exact.product == 0
    dense = hutchinson_trace(Dense(torch.eye(3)), probes=2, generator=generator)
    assert dense.precision is None and isinstance(hessian.matvec(risk.theta), torch.Tensor)
