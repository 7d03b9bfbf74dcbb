"""Diagonals against those of matrices; the stated errors over 200 seeds."""

import pytest
import torch
from test_operator_contract import OPERATORS, Own

import zoo
from hw1.curvature import Dense, GaussNewton, Hessian, exact_diagonal, hutchinson_diagonal, xdiag
from hw1.curvature import diagonal as module
from sampled import sampled

torch.set_num_threads(1)
P = 60


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def spectra():
    i = torch.arange(1, P + 1).double()
    return {
        "flat": torch.ones(P).double(),
        "of both signs": torch.randn(P, dtype=torch.float64, generator=seeded(1)),
        "1/i": 1 / i,
        "1/i^2": i**-2,
        "0.7^i": 0.7**i,
        "0.3^i": 0.3**i,
        "rank 3": torch.cat([torch.tensor([5.0, 3.0, 1.0]), torch.zeros(P - 3)]).double(),
        "outliers": torch.cat(
            [torch.tensor([100.0, 50.0, -20.0]), 0.1 * torch.randn(P - 3, generator=seeded(2))]
        ).double(),
        "step": torch.cat([torch.ones(10), 1e-3 * torch.ones(P - 10)]).double(),
        "ramp": 3 - 2 * i / P,
    }


def matrix(values):
    q, _ = torch.linalg.qr(torch.randn(P, P, dtype=torch.float64, generator=seeded(99)))
    product = (q * values) @ q.T
    return (product + product.T) / 2


@pytest.mark.parametrize("name", sampled(OPERATORS, 16, seed=1))
def test_the_exact_diagonal(name, monkeypatch):
    monkeypatch.setattr(module, "COLUMNS", 7)
    op = OPERATORS[name]()
    expected = op.matvec(torch.eye(op.size, dtype=op.dtype)).diagonal()
    found = exact_diagonal(op)
    assert found.dtype == op.dtype
    tolerance = 1e-12 if op.dtype == torch.float64 else 1e-5
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_diagonal_of_a_hessian_and_of_gauss_newton():
    case = zoo.case("tanh")
    risk, theta = case.risk(), case.theta()
    torch.testing.assert_close(exact_diagonal(Hessian(risk, theta)), case.hessian().diagonal())
    net = case.net.double()
    outputs = torch.func.functional_call(net, risk.space.unflatten(theta), (case.x,)).softmax(1)
    jacobian = torch.func.jacrev(lambda t: torch.func.functional_call(net, risk.space.unflatten(t), (case.x,)))(theta)
    curvature = torch.diag_embed(outputs) - outputs[:, :, None] * outputs[:, None, :]  # of cross-entropy, [N, C, C]
    expected = torch.einsum("nap,nab,nbp->p", jacobian, curvature, jacobian) / zoo.N
    torch.testing.assert_close(exact_diagonal(GaussNewton(risk, theta)), expected)


ESTIMATES = [(hutchinson_diagonal, {"probes": 20}), (xdiag, {"products": 20}), (xdiag, {"products": 40})]


@pytest.mark.parametrize("name", spectra())
@pytest.mark.parametrize(("estimate", "options"), ESTIMATES)
def test_no_bias_and_errors_that_cover(name, estimate, options):
    op = Dense(matrix(spectra()[name]))
    truth = op.matrix.diagonal()
    rounding = 1e-12 * truth.abs().max()
    found = [estimate(op, generator=seeded(seed), **options) for seed in range(200)]
    values = torch.stack([one.values for one in found])
    errors = torch.stack([one.standard_errors for one in found])
    assert all(one.products == next(iter(options.values())) for one in found)
    assert ((values.mean(0) - truth).abs() <= 4.5 * values.std(0) / 200**0.5 + rounding).all()
    distance = (values - truth).abs()
    if distance.max() <= rounding:  # found exactly
        assert errors.max() <= rounding
        return
    within = (distance <= 2 * errors).double().mean().item()
    assert 0.92 <= within <= 0.98, within
    assert (distance > 3 * errors).double().mean() <= 0.03
    ratio = (values - truth).norm(dim=1) / errors.norm(dim=1)
    assert 0.7 <= ratio.median() <= 1.1


def test_xdiag_is_better_where_few_eigenvalues_are_large():
    for name, gain in (("outliers", 30), ("0.7^i", 4), ("1/i^2", 8)):
        op = Dense(matrix(spectra()[name]))
        errors = [
            torch.stack([(f(op, generator=seeded(s), **o).values - op.matrix.diagonal()).norm() for s in range(30)])
            for f, o in ((hutchinson_diagonal, {"probes": 20}), (xdiag, {"products": 20}))
        ]
        assert errors[0].median() > gain * errors[1].median(), name


def test_small_operators_and_a_users_own():
    op = Own()
    expected = op.matvec(torch.eye(30).double()).diagonal()
    found = xdiag(op, products=30, generator=seeded())  # as many as the exact one takes
    torch.testing.assert_close(found.values, expected)
    assert (found.standard_errors == 0).all() and found.products == 30
    for seed in range(20):
        estimate = xdiag(op, products=28, generator=seeded(seed))
        assert ((estimate.values - expected).abs() <= 2 * estimate.standard_errors).double().mean() >= 0.75
    single = xdiag(Own(dtype=torch.float32), products=20, generator=seeded())
    assert single.values.dtype == torch.float64
    double = xdiag(op, products=20, generator=seeded())
    assert (single.values - double.values).abs().max() <= 1e-4 * double.standard_errors.max()
    low = matrix(spectra()["rank 3"])
    rounded = xdiag(Dense(low.float()), products=20, generator=seeded())
    assert (rounded.values - low.diagonal()).abs().max() <= 1e-6 and rounded.standard_errors.max() <= 1e-6
    zero = xdiag(Dense(torch.zeros(30, 30)), products=10, generator=seeded())
    assert (zero.values == 0).all() and (zero.standard_errors == 0).all()


def test_too_few_probes_are_refused():
    op = Dense(torch.eye(30))
    with pytest.raises(ValueError, match=r"^probes: got 1, expected at least 2"):
        hutchinson_diagonal(op, probes=1, generator=seeded())
    for products in (6, 9):
        with pytest.raises(ValueError, match=rf"^products: got {products}, expected an even number of at least 8"):
            xdiag(op, products=products, generator=seeded())


def test_an_operator_that_has_its_diagonal_spends_no_products():
    class Known(Dense):
        def matvec(self, v):
            raise AssertionError("a product")

    found = xdiag(Known(torch.diag(torch.arange(30.0))), products=30, generator=seeded())
    assert found.products == 0 and found.values.tolist() == list(range(30))
    assert found.values.dtype == torch.float64 and not found.standard_errors.any()
