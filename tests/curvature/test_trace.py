import pytest
import torch
import torch.nn.functional as F

from hw1.curvature import (
    Dense,
    EmpiricalRisk,
    Estimate,
    Hessian,
    dense_hessian,
    hutchinson_trace,
    hutchpp_trace,
    spectrum,
)
from hw1.models import Mlp


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def symmetric(size=50, seed=0):
    matrix = torch.randn(size, size, dtype=torch.float64, generator=seeded(seed))
    return Dense((matrix + matrix.T) / 2)


def decaying(size=50):
    q, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=seeded(1)))
    matrix = q @ torch.diag(1.0 / torch.arange(1, size + 1).double() ** 2) @ q.T
    return Dense((matrix + matrix.T) / 2)


METHODS = {
    "hutchinson": lambda op, n, seed: hutchinson_trace(op, probes=n, generator=seeded(seed)),
    "hutch++": lambda op, n, seed: hutchpp_trace(op, products=n, generator=seeded(seed)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("op", [symmetric(), decaying()], ids=["full", "decaying"])
def test_unbiased_and_the_stated_error_covers_the_truth(method, op):
    truth = op.matrix.trace().item()
    estimates = [METHODS[method](op, 90, seed) for seed in range(200)]
    values = torch.tensor([estimate.value for estimate in estimates]).double()
    assert abs(values.mean().item() - truth) < 4 * values.std().item() / 200**0.5
    one, two = (
        sum(abs(estimate.value - truth) <= factor * estimate.standard_error for estimate in estimates) / 200
        for factor in (1, 2)
    )
    assert 0.58 <= one <= 0.78  # 0.68
    assert 0.90 <= two <= 0.99  # 0.95


def test_the_error_of_hutchinson_is_the_formula():
    op = symmetric()
    off = op.matrix - torch.diag(op.matrix.diag())
    expected = (2 * off.square().sum() / 4000).sqrt().item()
    assert hutchinson_trace(op, probes=4000, generator=seeded(0)).standard_error == pytest.approx(expected, rel=0.05)


def test_hutchpp_is_better_where_the_spectrum_decays():
    op = decaying()
    plain = hutchinson_trace(op, probes=60, generator=seeded(0)).standard_error
    assert hutchpp_trace(op, products=60, generator=seeded(0)).standard_error < plain / 20


def test_hutchpp_with_more_products_than_the_size_is_exact():
    op = symmetric(6)
    estimate = hutchpp_trace(op, products=60, generator=seeded(0))
    assert estimate.value == pytest.approx(op.matrix.trace().item(), abs=1e-12)
    assert estimate.standard_error < 1e-12


def test_the_trace_of_a_network():
    torch.manual_seed(0)
    net = Mlp((3,), 2, hidden=[8], activation="tanh").double()
    x, y = torch.randn(30, 3).double(), torch.randn(30, 2).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    matrix = dense_hessian(risk, risk.theta)
    truth = matrix.trace().item()
    assert spectrum(matrix).sum().item() == pytest.approx(truth, rel=1e-10)
    for method in METHODS.values():
        estimate = method(Hessian(risk, risk.theta), 120, 0)
        assert abs(estimate.value - truth) < 3.5 * estimate.standard_error


def test_an_estimate_is_mean_and_standard_error():
    assert Estimate.of(torch.tensor([1.0, 2.0, 3.0, 6.0])) == Estimate(3.0, pytest.approx((14 / 3 / 4) ** 0.5))


def test_too_few_products_are_refused():
    with pytest.raises(ValueError, match=r"^probes: got 1, expected at least 2: the standard error"):
        hutchinson_trace(symmetric(), probes=1, generator=seeded(0))
    with pytest.raises(ValueError, match=r"^products: got 5, expected at least 6: a third of them are samples$"):
        hutchpp_trace(symmetric(), products=5, generator=seeded(0))
