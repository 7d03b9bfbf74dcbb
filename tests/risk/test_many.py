import pytest
import torch
import torch.nn.functional as F

import zoo
from hw1.curvature import EmpiricalRisk
from hw1.models import Mlp
from hw1.risk.many import FunctionRisk, OneByOne, batched

torch.set_num_threads(1)


def problem():
    torch.manual_seed(0)
    net = Mlp((1,), 1, hidden=[3], activation="tanh").double()
    x = torch.linspace(-1, 1, 9).double()[:, None]
    y = torch.sin(3 * x)
    risk = EmpiricalRisk(net, F.mse_loss, [(x[:5], y[:5]), (x[5:], y[5:])])
    return risk, zoo.in_one_piece(net, F.mse_loss, x, y), torch.randn(4, risk.space.size, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["function", "one by one", "many"])
def test_against_autograd(kind):
    risk, f, theta = problem()
    make = {
        "function": lambda: FunctionRisk(f, 10),
        "one by one": lambda: OneByOne(risk),
        "many": lambda: batched(risk),
    }
    many = make[kind]()
    assert many.size == 10
    hessians = many.hessian(theta)
    assert hessians.dtype == torch.float64 and torch.equal(hessians, hessians.mT)
    for r, one in enumerate(theta):
        torch.testing.assert_close(many(theta)[r], f(one))
        torch.testing.assert_close(many.gradient(theta)[r], zoo.gradient(f, one))
        torch.testing.assert_close(hessians[r], zoo.hessian(f, one))


def test_float32_thetas_are_taken_in_float64():
    risk, f, theta = problem()
    for many in (FunctionRisk(f, 10), OneByOne(risk)):
        for result in (many(theta.float()), many.gradient(theta.float()), many.hessian(theta.float())):
            assert result.dtype == torch.float64 and not result.requires_grad


def test_what_overflows_is_no_number_and_costs_the_others_nothing():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.LayerNorm(2), torch.nn.Linear(2, 1)).double()
    x, y = torch.randn(9, 1).double(), torch.randn(9, 1).double()
    risk, function = EmpiricalRisk(net, F.mse_loss, [(x, y)]), zoo.in_one_piece(net, F.mse_loss, x, y)
    many = batched(risk)
    assert isinstance(many, OneByOne)
    thetas = torch.stack([risk.theta, 1e200 * risk.theta, 2 * risk.theta])
    for result, expected in ((many.gradient(thetas), zoo.gradient), (many.hessian(thetas), zoo.hessian)):
        assert not result[1].isfinite().any()
        for number in (0, 2):
            torch.testing.assert_close(result[number], expected(function, thetas[number]))
    with pytest.raises(ValueError, match=r"^theta: got 1 of 11 values that are not finite"):
        many.gradient(torch.cat([torch.full((1, 1), torch.nan), torch.zeros(1, 10)], 1))
