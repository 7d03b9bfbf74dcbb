import pytest
import torch
import torch.nn.functional as F

from hw1.curvature import EmpiricalRisk
from hw1.curvature.points import Function, OneByOne, many_points
from hw1.models import Mlp

torch.set_num_threads(1)


def problem():
    torch.manual_seed(0)
    net = Mlp((1,), 1, hidden=[3], activation="tanh").double()
    x = torch.linspace(-1, 1, 9).double()[:, None]
    y = torch.sin(3 * x)
    risk = EmpiricalRisk(net, F.mse_loss, [(x[:5], y[:5]), (x[5:], y[5:])])

    def f(theta):
        return F.mse_loss(torch.func.functional_call(net, risk.space.unflatten(theta), (x,)), y)

    return risk, f, torch.randn(4, risk.space.size, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["function", "one by one", "many"])
def test_against_autograd(kind):
    risk, f, theta = problem()
    make = {
        "function": lambda: Function(f, 10),
        "one by one": lambda: OneByOne(risk),
        "many": lambda: many_points(risk),
    }
    points = make[kind]()
    assert points.size == 10
    hessians = points.hessian(theta)
    assert hessians.dtype == torch.float64 and torch.equal(hessians, hessians.mT)
    for r, point in enumerate(theta):
        torch.testing.assert_close(points(theta)[r], f(point))
        torch.testing.assert_close(points.gradient(theta)[r], torch.autograd.functional.jacobian(f, point))
        torch.testing.assert_close(hessians[r], torch.autograd.functional.hessian(f, point))


def test_float32_points_are_taken_in_float64():
    risk, f, theta = problem()
    for points in (Function(f, 10), OneByOne(risk)):
        for result in (points(theta.float()), points.gradient(theta.float()), points.hessian(theta.float())):
            assert result.dtype == torch.float64 and not result.requires_grad
