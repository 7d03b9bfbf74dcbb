"""Conjugate gradients against direct solves in float64."""

import warnings

import pytest
import torch

import zoo
from hw1.curvature import Dense, EmpiricalFisher, GaussNewton, Hessian, solve

torch.set_num_threads(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_spectrum(values, seed=5):
    q, _ = torch.linalg.qr(normal(len(values), len(values), seed=seed))
    matrix = (q * values) @ q.T
    return (matrix + matrix.T) / 2


class Counted:
    """A user's own, that counts its products."""

    def __init__(self, matrix):
        self.matrix, self.size, self.dtype, self.device = matrix, len(matrix), matrix.dtype, matrix.device
        self.products = 0

    def matvec(self, v):
        self.products += v.shape[1] if v.ndim == 2 else 1
        return self.matrix @ v


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 6)])
@pytest.mark.parametrize("damping", [0.0, 0.1, 10.0])
def test_against_a_direct_solve(shape, damping):
    op = Counted(with_spectrum(torch.logspace(-2, 2, 40).double()))
    b = normal(*shape)
    expected = torch.linalg.solve(op.matrix + damping * torch.eye(40).double(), b)
    for tol in (1e-3, 1e-8, 1e-12):
        op.products = 0
        found = solve(op, b, damping=damping, tol=tol)
        assert found.x.shape == b.shape and found.residuals.shape == b.shape[1:]
        residual = (b - op.matrix @ found.x - damping * found.x).norm(dim=0)
        torch.testing.assert_close(found.residuals, residual, rtol=1e-6, atol=1e-13)
        assert found.converged and (residual <= tol * b.norm(dim=0) * (1 + 1e-6)).all()
        assert found.products == op.products
        error = (found.x - expected).norm(dim=0)
        smallest = 0.01 + damping
        assert (error <= residual / smallest + 1e-12).all()


@pytest.mark.parametrize("make", [GaussNewton, EmpiricalFisher])
def test_a_natural_gradient(make):
    case = zoo.case("tanh")
    risk, theta = case.risk(), case.theta()
    op = make(risk, theta)
    found = solve(op, risk.gradient(theta), damping=1e-2, tol=1e-10)
    matrix = op @ torch.eye(op.size).double()
    expected = torch.linalg.solve(matrix + 1e-2 * torch.eye(op.size).double(), zoo.gradient(case.function(), theta))
    assert (found.x - expected).norm() <= found.residuals / 1e-2 + 1e-9
    assert found.converged


def test_as_many_products_as_there_are_different_eigenvalues():
    op = Counted(with_spectrum(torch.tensor([1.0, 2.0, 5.0] * 10).double()))
    found = solve(op, normal(30, 2), tol=1e-9)
    assert found.converged and op.products == 2 * (3 + 1)  # one more measures the residual


@pytest.mark.parametrize("lowest", [-5.0, -0.5, -1e-3])
def test_negative_curvature_is_said_with_the_damping_that_it_asks_for(lowest):
    values = torch.cat([torch.tensor([lowest]), torch.linspace(0.1, 3, 29)]).double()
    op = Dense(with_spectrum(values))
    with pytest.raises(ValueError, match=r"^op: got a direction v with .* = -.*, expected a positive definite"):
        solve(op, normal(30), tol=1e-10)
    enough = solve(op, normal(30), damping=-lowest + 0.1, tol=1e-10)
    assert enough.converged


def test_the_hessian_of_a_saddle_is_refused_and_damped():
    case = zoo.case("tanh")
    risk, theta = case.risk(), case.theta()
    lowest = torch.linalg.eigvalsh(case.hessian())[0].item()
    assert lowest < -1e-3
    with pytest.raises(ValueError, match=r"^op: got a direction v with"):
        solve(Hessian(risk, theta), risk.gradient(theta), tol=1e-10)
    found = solve(Hessian(risk, theta), risk.gradient(theta), damping=2 * abs(lowest), tol=1e-10)
    system = case.hessian() + 2 * abs(lowest) * torch.eye(len(theta)).double()
    torch.testing.assert_close(found.x, torch.linalg.solve(system, risk.gradient(theta)), rtol=1e-6, atol=1e-8)


def test_singular_systems():
    values = torch.cat([torch.zeros(20), torch.linspace(1, 3, 10)]).double()
    matrix = with_spectrum(values)
    inside = matrix @ normal(30)
    found = solve(Dense(matrix), inside, tol=1e-9)  # b in the range
    assert found.converged
    torch.testing.assert_close(found.x, torch.linalg.pinv(matrix, rtol=1e-9) @ inside)
    with pytest.warns(UserWarning, match=r"^the largest residual is .* of \|b\|, above tol = 1.0e-09, after "):
        outside = solve(Dense(matrix), normal(30), tol=1e-9)
    assert not outside.converged and outside.residuals > 1e-9 * normal(30).norm()
    nothing = solve(Dense(matrix), torch.zeros(30, 2).double())
    assert nothing.converged and nothing.products == 0 and (nothing.x == 0).all()
    with pytest.warns(UserWarning, match=r"^the largest residual"):
        zero = solve(Dense(torch.zeros(5, 5).double()), torch.ones(5).double())
    assert (zero.x == 0).all() and not zero.converged


def test_the_residual_in_float32_is_the_true_one():
    matrix = with_spectrum(torch.logspace(-5, 2, 40).double()).float()
    b = normal(40).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may not reach the tolerance
        for tol in (1e-3, 1e-6):
            found = solve(Dense(matrix), b, tol=tol)
            true = (b.double() - matrix.double() @ found.x.double()).norm()
            rounding = 1e-7 * 100 * found.x.norm()
            assert abs(found.residuals - true) <= rounding
            assert found.converged == bool(found.residuals <= tol * b.norm())


def test_a_budget_is_kept():
    op = Counted(with_spectrum(torch.logspace(-8, 2, 60).double()))
    for budget in (1, 4, 13, 50):
        op.products = 0
        with pytest.warns(UserWarning, match=r"products: allow more \(max_products\), damp more, or take theta in"):
            found = solve(op, normal(60, 2), tol=1e-12, max_products=budget)
        assert op.products == found.products <= budget and not found.converged


def test_what_does_not_fit_is_refused():
    op = Dense(torch.eye(3).double())
    for words, message in (
        ((torch.zeros(4).double(),), r"^v: got shape \[4\], expected \[3\]"),
        ((torch.zeros(3),), r"^v: got torch.float32"),
        ((torch.full((3,), torch.nan).double(),), r"^b: got values that are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(op, *words)
    b = torch.ones(3).double()
    for options, message in (
        ({"damping": -1}, r"^damping: got -1, expected a finite number of at least 0: 0 adds nothing$"),
        ({"tol": 0}, r"^tol: got 0, expected a number between 0 and 1: give 1e-6, say$"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(op, b, **options)

    class Overflows(Counted):
        def matvec(self, v):
            return super().matvec(v) * torch.inf

    with pytest.raises(ValueError, match=r"^op: got a product that is not finite"):
        solve(Overflows(torch.eye(3).double()), b)
