"""What a density says of shares, and how well: against all eigenvalues."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F

from hw1.curvature import Dense, Density, EmpiricalRisk, dense_hessian, quadrature_ratio, spectral_density
from hw1.models import Mlp


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def with_spectrum(values, seed=0):
    values = torch.as_tensor(values, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=seeded(seed)))
    matrix = q @ torch.diag(values) @ q.T
    return Dense((matrix + matrix.T) / 2)


def own_masses(op, probes, seed, lo, hi):
    """What `spectral_density`'s own start vectors have in [lo, hi], by all eigenvectors."""
    values, vectors = torch.linalg.eigh(op.matrix)
    generator = seeded(seed)
    inside = (values >= lo) & (values <= hi)
    masses = []
    for _ in range(probes):
        signs = 2 * torch.randint(0, 2, (op.size, 1), generator=generator, dtype=torch.int8).double()[:, 0] - 1
        masses.append(((vectors.T @ signs).square() * inside).sum().item() / op.size)
    return sum(masses) / probes


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("spectrum", ["gapless", "decades", "cluster", "repeated"])
def test_the_resolution_bounds_what_the_quadrature_misses(steps, spectrum):
    op = with_spectrum(
        {
            "gapless": torch.linspace(-1, 1, 90),
            "decades": 10.0 ** torch.linspace(-9, 0, 90).double(),
            "cluster": torch.cat([1e-4 * torch.randn(70, generator=seeded(1)), torch.linspace(0.1, 2, 20)]),
            "repeated": torch.tensor([-1.0] * 20 + [0.0] * 50 + [3.0] * 20),
        }[spectrum]
    )
    density = spectral_density(op, probes=4, steps=steps, generator=seeded(5))
    without = Density(density.nodes, density.weights, density.size)
    for lo, hi in ((-0.5, 0.3), (-1e-3, 1e-3), (0.02, 1.01), (1e-6, 10.0), (-math.inf, 0.05), (2.5, 9.0), (5.0, 4.0)):
        truth = own_masses(op, 4, 5, lo, hi)
        for one in (density, without):
            mass = one.mass(lo, hi)
            assert abs(mass.value - truth) <= mass.resolution + 1e-9
            assert 0 <= mass.value <= 1 and 0 <= mass.resolution <= 1 + 1e-12
        assert density.mass(lo, hi).resolution <= without.mass(lo, hi).resolution + 1e-9


def test_a_bound_in_a_gap_is_resolved():
    op = with_spectrum(torch.cat([torch.linspace(-0.1, 0.1, 90), torch.linspace(5, 6, 10)]))
    density = spectral_density(op, probes=3, steps=20, generator=seeded())
    assert density.mass(2.0, 10.0).resolution < 1e-12
    assert density.mass(0.0, 10.0).resolution > 1e-3


def test_where_a_krylov_space_ends_the_mass_is_exact():
    op = with_spectrum([-2.0] * 5 + [0.0] * 30 + [1.0] * 10 + [9.0] * 5)
    density = spectral_density(op, probes=30, steps=20, generator=seeded())
    assert density.mass(-0.5, 0.5).resolution == 0
    assert density.mass(-3.0, 10.0).value == pytest.approx(1)
    whole = spectral_density(with_spectrum(torch.linspace(0, 1, 30)), probes=3, steps=30, generator=seeded())
    assert whole.mass(0.0, 0.5).resolution == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zero = spectral_density(Dense(torch.zeros(5, 5)), probes=2, steps=9, generator=seeded())
    assert zero.mass(0, 0).value == 1 and zero.mass(0, 0).resolution == 0


def test_the_standard_error_of_a_share_is_that_of_even_eigenvectors():
    op = with_spectrum(torch.linspace(0, 1, 60))
    masses = [spectral_density(op, probes=4, steps=60, generator=seeded(seed)).mass(0.7, 2) for seed in range(120)]
    values = torch.tensor([mass.value for mass in masses])
    assert values.std().item() == pytest.approx(masses[0].standard_error, rel=0.15)
    assert sum(mass.interval()[0] <= 0.3 <= mass.interval()[1] for mass in masses) >= 110


def trained():
    torch.manual_seed(0)
    net = Mlp((8,), 3, hidden=[20, 16], activation="tanh").double()
    x = torch.randn(200, 8).double()
    y = (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 1).long()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(600):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)])
    matrix = dense_hessian(risk, risk.theta)
    return Dense((matrix + matrix.T) / 2)


def test_shares_of_a_trained_network_cover_the_truth_at_every_tolerance():
    op = trained()
    values = torch.linalg.eigvalsh(op.matrix)
    held = dict.fromkeys((1e-1, 1e-2, 1e-3), 0)
    coarse = 0.0
    for seed in range(6):
        for step, found in zip(
            held, quadrature_ratio(op, steps=60, most_steps=60, generator=seeded(seed)), strict=True
        ):
            tau = found.tolerance
            for share, mask in (
                (found.positive, values > tau),
                (found.zero, values.abs() <= tau),
                (found.negative, values < -tau),
            ):
                truth = mask.double().mean().item()
                low, high = share.interval()
                held[step] += low <= truth <= high
                assert abs(share.value - truth) <= 3 * share.standard_error + share.resolution
                coarse = max(coarse, share.resolution)
            assert found.positive.value + found.zero.value + found.negative.value == pytest.approx(1, abs=1e-9)
    assert min(held.values()) >= 16  # of 18
    assert coarse > 0.01  # it is the quadrature that is coarse here


def test_a_log_spectrum_by_sign():
    op = with_spectrum([1e-12] * 20 + [1e-3] * 30 + [10.0] * 20 + [-0.1] * 30)
    density = spectral_density(op, probes=60, steps=20, generator=seeded())
    grid = torch.linspace(-5, 3, 1601).double()
    log = density.logarithmic(grid, 0.1, floor=1e-8)
    step = 8 / 1600
    assert log.positive.shape == log.negative.shape == (1601,) and log.floor == 1e-8
    shares = [
        (log.positive[(grid > -4) & (grid < -2)].sum() * step, 0.3),
        (log.positive[grid > 0].sum() * step, 0.2),
        (log.negative.sum() * step, 0.3),
        (log.negative[(grid > -1.5) & (grid < -0.5)].sum() * step, 0.3),
    ]
    for found, expected in shares:
        assert found.item() == pytest.approx(expected, abs=0.03)
    assert abs(log.below.value - 0.2) <= 3 * log.below.standard_error + log.below.resolution
    total = (log.positive + log.negative).sum().item() * step + log.below.value
    assert total == pytest.approx(1, abs=1e-6)
    peak = grid[log.negative.argmax()].item()
    assert peak == pytest.approx(-1, abs=0.02)


def test_what_the_steps_do_not_tell_from_zero_is_in_the_resolution():
    values = 10.0 ** torch.linspace(-12, 0, 150).double()
    log = spectral_density(with_spectrum(values), probes=10, steps=12, generator=seeded()).logarithmic(
        torch.linspace(-9, 1, 10).double(), 0.2, floor=1e-8
    )
    off = abs(log.below.value - (values <= 1e-8).double().mean().item())
    assert off <= 2 * log.below.standard_error + log.below.resolution
    assert log.below.resolution > 0.1


def test_bad_requests_are_refused():
    density = spectral_density(with_spectrum([1.0, 2.0]), probes=2, generator=seeded())
    with pytest.raises(ValueError, match=r"^sigma: got 0, expected a positive width, in decades: give one above 0$"):
        density.logarithmic(torch.zeros(1), 0, floor=1.0)
    with pytest.raises(ValueError, match=r"^floor: got 0, expected a positive eigenvalue"):
        density.logarithmic(torch.zeros(1), 0.1, floor=0)
