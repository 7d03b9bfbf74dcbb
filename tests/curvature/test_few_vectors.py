"""Curvature with fewer vectors in memory than usual, against the dense matrix."""

import pytest
import torch

from hw1.curvature import hutchpp_trace, spectral_density
from hw1.curvature import trace as trace_file
from hw1.curvature.checkpoint import Checkpoint
from hw1.curvature.operators import Dense

OUTLIERS = torch.tensor([50.0, 20.0, 8.0, 3.0, -2.0]).double()
VALUES = torch.cat([OUTLIERS, torch.linspace(-0.1, 0.1, 395).double()])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def matrix():
    q, _ = torch.linalg.qr(torch.randn(len(VALUES), len(VALUES), generator=seeded(7), dtype=torch.float64))
    dense = (q * VALUES) @ q.T
    return (dense + dense.T) / 2


@pytest.mark.parametrize("kept", [2, 5, 12])
def test_a_density_with_few_vectors_tells_the_same(kept, matrix):
    density = spectral_density(Dense(matrix), probes=20, steps=60, generator=seeded(), basis_size=kept)
    assert density.nodes.max().item() == pytest.approx(50, abs=1e-9)
    assert density.nodes.min().item() == pytest.approx(-2, abs=1e-9)
    whole = spectral_density(Dense(matrix), probes=20, steps=60, generator=seeded())
    for n in (1, 2, 5):
        assert density.moment(n).value == pytest.approx(whole.moment(n).value, rel=1e-9)
        truth = (VALUES**n).mean().item()
        assert abs(density.moment(n).value - truth) < 4 * density.moment(n).standard_error
    share = density.mass(1, 100)
    assert abs(share.value - 4 / len(VALUES)) < 4 * share.standard_error + share.resolution


def test_all_vectors_kept_are_the_usual_bits(matrix):
    usual, all_kept = (
        spectral_density(Dense(matrix), probes=2, steps=15, generator=seeded(), basis_size=size) for size in (None, 15)
    )
    assert torch.equal(usual.nodes, all_kept.nodes) and torch.equal(usual.weights, all_kept.weights)


def test_a_density_with_few_vectors_goes_on_to_the_same_bits(matrix, tmp_path):
    def density(**more):
        return spectral_density(Dense(matrix), probes=2, steps=15, generator=seeded(), basis_size=4, **more)

    def stop(progress):
        if progress.products == 24:
            raise KeyboardInterrupt

    kept = Checkpoint(tmp_path / "density", seconds=1e9)
    with pytest.raises(KeyboardInterrupt):
        density(checkpoint=kept, progress=stop)
    assert torch.equal(density(checkpoint=kept).nodes, density().nodes)


def test_a_sketch_made_in_place_spans_what_qr_s_does(matrix, monkeypatch):
    monkeypatch.setattr(trace_file, "BLOCK", 1)  # the same signs
    usual = hutchpp_trace(Dense(matrix), products=30, generator=seeded())
    monkeypatch.setattr(trace_file, "BASIS_BYTES", 0)
    found = hutchpp_trace(Dense(matrix), products=30, generator=seeded())
    assert found.value == pytest.approx(usual.value, rel=1e-9)
    assert found.standard_error == pytest.approx(usual.standard_error, rel=1e-6)
    v = torch.arange(8.0).double()  # of rank one, so that the sketch has one column in truth
    one = hutchpp_trace(Dense(torch.outer(v, v)), products=12, generator=seeded())
    assert one.value == pytest.approx(140) and one.standard_error < 1e-9


def test_a_smaller_sketch_states_a_larger_error_that_holds(matrix):
    few = [hutchpp_trace(Dense(matrix), products=30, generator=seeded(seed), basis_size=2) for seed in range(60)]
    usual = hutchpp_trace(Dense(matrix), products=30, generator=seeded())
    truth = VALUES.sum().item()
    off = torch.tensor([(one.value - truth) / one.standard_error for one in few])
    assert few[0].standard_error > 2 * usual.standard_error
    assert 0.6 < off.square().mean().sqrt() < 1.5 and abs(off.mean()) < 0.5


def test_too_few_vectors_are_refused(matrix):
    with pytest.raises(ValueError, match="basis_size: got 1, expected at least 2"):
        spectral_density(Dense(matrix), generator=seeded(), basis_size=1)
    with pytest.raises(ValueError, match="basis_size: got 0, expected at least 1"):
        hutchpp_trace(Dense(matrix), generator=seeded(), basis_size=0)
