import math
import warnings

import pytest
import scipy.sparse.linalg
import torch
import torch.nn.functional as F

from hw1.curvature import Dense, EmpiricalRisk, Hessian, dense_hessian, extreme_eigenpairs, spectral_density, spectrum
from hw1.models import Cnn, Mlp


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def with_spectrum(values, seed=0):
    values = torch.as_tensor(values, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=seeded(seed)))
    matrix = q @ torch.diag(values) @ q.T
    return Dense((matrix + matrix.T) / 2)


def hessian_like(size=300):
    """A bulk at zero, some large outliers, some negative ones."""
    bulk = 0.1 * torch.randn(size - 8, generator=seeded(5)).double()
    return torch.cat([bulk, torch.tensor([30.0, 21.0, 8.0, 7.5, 5.0, -4.0, -2.0, -1.5]).double()])


@pytest.mark.parametrize("which,code", [("largest", "LA"), ("smallest", "SA"), ("both", "BE")])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_against_scipy(which, code, k):
    if which == "both" and k == 1:
        code = "LA"
    op = with_spectrum(hessian_like())
    pairs = extreme_eigenpairs(op, k, which, tol=1e-8, generator=seeded())
    expected = scipy.sparse.linalg.eigsh(op.matrix.numpy(), k=k, which=code, return_eigenvectors=False)
    order = sorted(expected, reverse=which != "smallest")
    assert pairs.values.tolist() == pytest.approx(order, abs=1e-9)
    assert pairs.values.dtype == torch.float64 and pairs.vectors.shape == (300, k) and pairs.residuals.shape == (k,)
    measured = (op.matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
    torch.testing.assert_close(pairs.residuals, measured, rtol=1e-3, atol=1e-12)
    assert pairs.residuals.max() <= 1e-8 * 30
    torch.testing.assert_close(pairs.vectors.T @ pairs.vectors, torch.eye(k).double())


def test_it_stops_at_the_residual_that_was_asked_for():
    op = with_spectrum(hessian_like())
    spent = [extreme_eigenpairs(op, 1, tol=tol, generator=seeded()).products for tol in (1e-1, 1e-3, 1e-8)]
    assert spent[0] < spent[1] < spent[2] < 25


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
def test_restarts_reach_the_same_pairs(which):
    values = torch.linspace(-1, 1, 200).double()  # no gaps: many steps
    op = with_spectrum(values)
    pairs = extreme_eigenpairs(op, 4, which, tol=1e-7, generator=seeded(), basis_size=18)
    expected = {"largest": values.flip(0)[:4], "smallest": values[:4], "both": values[[199, 198, 1, 0]]}[which]
    torch.testing.assert_close(pairs.values, expected, rtol=0, atol=1e-9)
    assert pairs.products > 18


@pytest.mark.parametrize(
    "values",
    [
        [5.0] * 3 + [1.0] * 27,
        [5.0] * 30,
        [0.0] * 30,
        [5.0] * 2 + [-1.0] * 14 + [-7.0] * 14,
        [2.0] + [0.0] * 29,  # a collapsed net
        [3.0] * 6 + list(range(-40, 0)),
        [30.0] * 4 + [0.01 * i for i in range(-150, 150)],  # hidden outliers in a wide bulk
    ],
)
@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("k", [1, 4, 6])
def test_repeated_eigenvalues_are_found_as_often_as_they_are_there(values, which, k):
    pairs = extreme_eigenpairs(with_spectrum(values), k, which, tol=1e-8, generator=seeded(1))
    rising = sorted(values)
    top, bottom = {"largest": (k, 0), "smallest": (0, k), "both": (k - k // 2, k // 2)}[which]
    expected = rising[: -top - 1 : -1] + (rising[:bottom] if which == "smallest" else rising[:bottom][::-1])
    assert pairs.values.tolist() == pytest.approx(expected, abs=1e-7)
    torch.testing.assert_close(pairs.vectors.T @ pairs.vectors, torch.eye(k).double(), atol=1e-8, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_all_pairs_of_a_small_operator(size):
    op = with_spectrum(torch.arange(size) - 2.0)
    pairs = extreme_eigenpairs(op, size, generator=seeded())
    assert pairs.values.tolist() == pytest.approx([size - 3.0 - i for i in range(size)], abs=1e-10)


def test_the_hessian_of_a_network_in_float64_and_float32():
    torch.manual_seed(0)
    net = Cnn((1, 8, 8), 3, layers=["c3(3)", "bn", "p2", 4], activation="tanh").double()
    x, y = torch.randn(40, 1, 8, 8).double(), torch.randint(0, 3, (40,))
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)])
    exact = spectrum(dense_hessian(risk, risk.theta))
    pairs = extreme_eigenpairs(Hessian(risk, risk.theta), 5, "both", tol=1e-7, generator=seeded())
    torch.testing.assert_close(pairs.values, exact[[-1, -2, -3, 1, 0]], rtol=1e-9, atol=1e-11)
    single = extreme_eigenpairs(Hessian(risk, risk.theta.float()), 5, tol=1e-4, generator=seeded())
    assert single.vectors.dtype == torch.float32
    torch.testing.assert_close(single.values, exact.flip(0)[:5], rtol=1e-4, atol=1e-5)


def test_eigenvalues_over_many_decades_are_within_the_tolerance():
    """A small residual alone is that of *an* eigenvalue: searches that stopped there were off in one of six."""
    off = []
    for seed in range(80):
        generator = seeded(seed)
        size = int(torch.randint(40, 250, (1,), generator=generator))
        signs = torch.randn(size, dtype=torch.float64, generator=generator).sign() if seed % 2 else 1.0
        op = with_spectrum(10 ** torch.linspace(-12, 6, size).double() * signs, seed)
        values = torch.linalg.eigvalsh(op.matrix)
        for k, tol in ((1, 1e-1), (1, 1e-2), (8, 1e-2)):
            pairs = extreme_eigenpairs(op, k, "smallest", tol=tol, generator=generator)
            off.append((pairs.values - values[:k]).abs().max().item() / (tol * values.abs().max().item()))
    assert max(off) < 3 and sum(one > 1 for one in off) <= 3  # of 240


def test_what_was_not_reached_is_said():
    op = with_spectrum(torch.linspace(-1, 1, 200))
    with pytest.warns(UserWarning, match=r"^the largest residual is .* above tol = 1\.0e-08, after 12 products: allow"):
        pairs = extreme_eigenpairs(op, 2, tol=1e-8, generator=seeded(), max_products=12)
    assert pairs.residuals.max() > 1e-8 and pairs.products == 12


class Skew(Dense):
    """A product that is not the symmetric one it says it is."""

    def matvec(self, v):
        return super().matvec(v) + 0.05 * v.roll(1)


@pytest.mark.parametrize("kind", [Dense, Skew])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-4, 1e-6])
def test_a_residual_is_that_of_its_pair_also_where_no_product_measures_it(kind, dtype, tol):
    """From the products of the search as they were: the triangle that a symmetric matrix would not need is in it."""
    op = kind(with_spectrum(hessian_like()).matrix.to(dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the skew one reaches no tolerance
        pairs = extreme_eigenpairs(op, 1, tol=tol, generator=seeded(), max_products=60)
    value, vector = pairs.values[0].item(), pairs.vectors[:, 0]
    measured = (op.matvec(vector) - value * vector).norm().item()
    assert pairs.residuals.item() == pytest.approx(measured, rel=0.02)
    assert (pairs.residuals.item() <= tol * 31) == (kind is Dense or tol >= 1e-2)


def test_the_same_generator_gives_the_same_bits():
    op = with_spectrum(hessian_like())
    randomness = torch.get_rng_state()
    one, two = (extreme_eigenpairs(op, 3, generator=seeded(4)) for _ in range(2))
    assert torch.equal(one.vectors, two.vectors)
    assert torch.equal(torch.get_rng_state(), randomness)


# --- a start vector


def test_from_the_exact_eigenvector_fewer_products_are_needed():
    cold, warm, near = [], [], []
    for seed in range(20):
        op = with_spectrum(torch.randn(300, generator=seeded(seed)), seed)
        values, vectors = torch.linalg.eigh(op.matrix)
        noise = torch.randn(300, dtype=torch.float64, generator=seeded(seed + 1))  # the network trained on
        starts = (None, 7 * vectors[:, -1], vectors[:, -1] + 2e-3 * noise)
        for spent, start in zip((cold, warm, near), starts, strict=True):
            pairs = extreme_eigenpairs(op, 1, generator=seeded(seed), start=start)
            assert pairs.values.item() == pytest.approx(values[-1].item(), rel=1e-5)
            assert pairs.residuals.max() <= 1e-4 * values.abs().max()
            spent.append(pairs.products)
    assert sum(warm) < 0.87 * sum(cold) and sum(near) < 0.87 * sum(cold)
    alone = with_spectrum(hessian_like())  # nothing to save, and nothing lost
    vector = torch.linalg.eigh(alone.matrix).eigenvectors[:, -1]
    spent = [extreme_eigenpairs(alone, 1, generator=seeded(), start=start).products for start in (None, vector)]
    assert spent[1] <= spent[0] + 1


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("k", [1, 3])
def test_a_start_beside_what_is_wanted_finds_it_all_the_same(which, k):
    op = with_spectrum(hessian_like())
    vectors = torch.linalg.eigh(op.matrix).eigenvectors
    expected = extreme_eigenpairs(op, k, which, tol=1e-8, generator=seeded())
    for column in (0, 1, 150, -2, -1):  # an exact eigenvector, which Krylov space alone would never leave
        pairs = extreme_eigenpairs(op, k, which, tol=1e-6, generator=seeded(), start=vectors[:, column])
        torch.testing.assert_close(pairs.values, expected.values, rtol=0, atol=1e-6)


def test_without_a_start_the_random_stream_is_as_it_was():
    op, generators = with_spectrum(hessian_like()), [seeded(), seeded()]
    extreme_eigenpairs(op, 1, generator=generators[0])
    torch.randn(300, dtype=torch.float64, generator=generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


@pytest.mark.parametrize("start", [torch.ones(2), torch.zeros(3), torch.tensor([1.0, math.nan, 0.0])])
def test_a_bad_start_is_refused(start):
    with pytest.raises(ValueError, match=r"^start: got shape \[\d\], expected a finite vector \[3\] other than zero"):
        extreme_eigenpairs(with_spectrum([1.0, 2.0, 3.0]), 1, generator=seeded(), start=start)


def test_bad_requests_are_refused():
    op = with_spectrum([1.0, 2.0, 3.0])
    for k in (0, 4):
        with pytest.raises(
            ValueError, match=rf"^k: got {k}, expected 1 to 3, the size of the operator: ask for fewer$"
        ):
            extreme_eigenpairs(op, k, generator=seeded())
    with pytest.raises(ValueError, match=r"^which: got 'LM', expected largest, smallest or both$"):
        extreme_eigenpairs(op, 1, "LM", generator=seeded())
    with pytest.raises(ValueError, match=r"^probes: got 1, expected at least 2: the standard error"):
        spectral_density(op, probes=1, generator=seeded())
    with pytest.raises(ValueError, match=r"^steps: got 0, expected at least 1: give products for each probe$"):
        spectral_density(op, steps=0, generator=seeded())
    with pytest.raises(ValueError, match=r"^sigma: got 0, expected a positive width"):
        spectral_density(op, generator=seeded()).evaluate(torch.zeros(1), 0)
    op.matrix[0, 0] = math.nan
    for call in (
        lambda: extreme_eigenpairs(op, 1, generator=seeded()),
        lambda: spectral_density(op, generator=seeded()),
    ):
        with pytest.raises(ValueError, match=r"^op: got a product that is not finite"):
            call()


# --- density


def network_operator():
    torch.manual_seed(1)
    net = Mlp((3,), 2, hidden=[8, 6], activation="tanh").double()
    x, y = torch.randn(60, 3).double(), torch.randn(60, 2).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    return Hessian(risk, risk.theta), spectrum(dense_hessian(risk, risk.theta))


def test_the_first_two_moments_are_within_two_percent():
    values = torch.linspace(-1, 3, 200).double()
    density = spectral_density(with_spectrum(values), probes=100, steps=10, generator=seeded())
    for n in (1, 2):
        assert density.moment(n).value == pytest.approx(values.pow(n).mean().item(), rel=0.02)
    torch.testing.assert_close(density.weights.sum(1), torch.ones(100).double())
    assert density.moment(0).value == pytest.approx(1, abs=1e-12)


def test_the_moments_of_a_network_are_within_their_errors():
    op, exact = network_operator()
    density = spectral_density(op, probes=100, steps=10, generator=seeded())
    for n in (1, 2, 3):
        moment = density.moment(n)
        assert abs(moment.value - exact.pow(n).mean().item()) < 3.5 * moment.standard_error


def test_the_density_on_a_grid_is_the_smoothed_spectrum():
    op, exact = network_operator()
    matrix = op.matvec(torch.eye(op.size).double())
    density = spectral_density(Dense((matrix + matrix.T) / 2), probes=200, steps=40, generator=seeded())
    sigma = 0.1 * exact.max().item()
    grid = torch.linspace(exact.min().item() - 5 * sigma, exact.max().item() + 5 * sigma, 400).double()
    found = density.evaluate(grid, sigma)
    bumps = torch.exp(-0.5 * ((grid[:, None] - exact) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    assert torch.trapezoid(found, grid).item() == pytest.approx(1, abs=1e-4)
    assert torch.trapezoid((found - bumps.mean(1)).abs(), grid).item() < 0.03


def test_mass_between_gaps_is_the_share_of_eigenvalues():
    op = with_spectrum([-2.0] * 5 + [0.0] * 30 + [1.0] * 10 + [9.0] * 5)  # four distinct values: exact in four steps
    density = spectral_density(op, probes=400, steps=20, generator=seeded())
    for interval, share in (((-3, -1), 0.1), ((-0.5, 0.5), 0.6), ((0.5, 10), 0.3), ((-9, 10), 1.0)):
        mass = density.mass(*interval)
        assert abs(mass.value - share) <= 4 * mass.standard_error + 1e-12
        assert mass.standard_error < 0.01


def test_stated_errors_of_the_moments_cover_the_truth():
    op = with_spectrum(torch.randn(50, generator=seeded(2)))
    values = torch.linalg.eigvalsh(op.matrix)
    for n in (1, 2):
        truth = values.pow(n).mean().item()
        within = 0
        for seed in range(200):
            moment = spectral_density(op, probes=40, steps=2, generator=seeded(seed)).moment(n)
            within += abs(moment.value - truth) <= 1.96 * moment.standard_error
        assert 0.90 <= within / 200 <= 0.99


def test_steps_beyond_the_size_and_operators_without_a_spread():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zero = spectral_density(Dense(torch.zeros(5, 5)), probes=2, steps=9, generator=seeded())
        one = spectral_density(Dense(torch.eye(1)), probes=2, generator=seeded())
    assert zero.nodes.shape == (2, 5) and zero.mass(0, 0).value == 1
    assert one.nodes.tolist() == [[1.0], [1.0]]
