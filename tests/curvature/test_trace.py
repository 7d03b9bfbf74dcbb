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
    spectral_density,
    spectrum,
    xtrace,
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
    "xtrace": lambda op, n, seed: xtrace(op, products=n, generator=seeded(seed)),
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


def test_xtrace_is_better_than_hutchpp_with_few_products():
    op = decaying(150)
    truth = op.matrix.trace().item()
    errors = {
        name: torch.tensor([METHODS[name](op, 30, seed).value - truth for seed in range(60)]).square().mean().sqrt()
        for name in ("hutch++", "xtrace")
    }
    assert errors["xtrace"] < 0.7 * errors["hutch++"]


@pytest.mark.parametrize("rank", [0, 1, 5, 14, 15, 16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_xtrace_where_images_depend_on_each_other(rank, dtype):
    q, _ = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=seeded(1)))
    values = torch.cat([torch.arange(1.0, rank + 1) * (-1) ** torch.arange(rank), torch.zeros(40 - rank)]).double()
    matrix = (q * values) @ q.T
    for seed in range(20):
        estimate = xtrace(Dense(((matrix + matrix.T) / 2).to(dtype)), products=30, generator=seeded(seed))
        rounding = 1e3 * torch.finfo(dtype).eps * values.abs().sum().item()
        assert abs(estimate.value - values.sum().item()) <= 4 * estimate.standard_error + rounding
        if rank < 14:  # any 13 of the 15 vectors see all of it
            assert estimate.standard_error <= rounding


@pytest.mark.parametrize("size", [1, 2, 6])
def test_xtrace_with_more_products_than_the_size_is_exact(size):
    op = symmetric(size)
    estimate = xtrace(op, products=60, generator=seeded(0))
    assert estimate.value == pytest.approx(op.matrix.trace().item(), abs=1e-11)
    assert estimate.standard_error < 1e-10


def test_few_probes_of_an_outlier_do_not_understate_their_error():
    """From the scatter of ten samples alone, one in twenty is off by more than three standard errors."""
    q = torch.randn(100, dtype=torch.float64, generator=seeded(3))
    op = Dense(torch.outer(q, q) / q.square().sum())
    for make in (
        lambda seed: hutchinson_trace(op, probes=10, generator=seeded(seed)),
        lambda seed: spectral_density(op, probes=10, steps=4, generator=seeded(seed)).moment(1),
    ):
        found = [make(seed) for seed in range(300)]
        truth = 1.0 if make(0).value > 0.05 else 0.01
        assert sum(abs(one.value - truth) > 3 * one.standard_error for one in found) <= 8


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
        assert abs(estimate.value - truth) < 3.5 * estimate.standard_error + 1e-12 * abs(truth)  # XTrace may be exact


def test_an_estimate_is_mean_and_standard_error():
    assert Estimate.of(torch.tensor([1.0, 2.0, 3.0, 6.0])) == Estimate(3.0, pytest.approx((14 / 3 / 4) ** 0.5))


def test_too_few_products_are_refused():
    with pytest.raises(ValueError, match=r"^probes: got 1, expected at least 2: the standard error"):
        hutchinson_trace(symmetric(), probes=1, generator=seeded(0))
    with pytest.raises(ValueError, match=r"^products: got 5, expected at least 6: a third of them are samples$"):
        hutchpp_trace(symmetric(), products=5, generator=seeded(0))
    with pytest.raises(ValueError, match=r"^products: got 3, expected at least 4: two for each estimate$"):
        xtrace(symmetric(), products=3, generator=seeded(0))
