import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from hw1.landscape import displacements, fit_pca

torch.set_num_threads(1)


def points(*shape, seed=0, decay=0.7):
    """Random points [..., P] in float32 whose variances differ, so that the axes are unique."""
    generator = torch.Generator().manual_seed(seed)
    scales = decay ** torch.arange(shape[-1]).clamp(max=40)
    return torch.randn(shape, generator=generator) * scales + 3


@pytest.mark.parametrize("shape", [(4, 5, 300), (4, 5, 7), (2, 10, 20), (1, 6, 5000), (8, 11, 3)])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_it_is_scikit_learns_pca(shape, k):
    x = points(*shape)
    flat = x.reshape(-1, shape[-1]).double().numpy()
    oracle = PCA(k, svd_solver="full").fit(flat)
    pca = fit_pca(x, k)
    assert pca.mean.numpy() == pytest.approx(oracle.mean_, abs=1e-12)
    assert pca.explained.numpy() == pytest.approx(oracle.explained_variance_ratio_, rel=1e-9)
    assert pca.axes.numpy() == pytest.approx(oracle.components_, abs=1e-8)  # the signs too
    assert pca.project(x).shape == (*shape[:-1], k)
    assert pca.project(x).reshape(-1, k).numpy() == pytest.approx(oracle.transform(flat), abs=1e-7)


def test_two_axes_explain_a_two_dimensional_quadratic():
    """Gradient descent on f(a, b) = (a^2 + 10 b^2) / 2, seen from 50 dimensions."""
    generator = torch.Generator().manual_seed(1)
    plane = torch.linalg.qr(torch.randn(50, 2, generator=generator, dtype=torch.float64)).Q  # [50, 2]
    curvature = torch.tensor([1.0, 10.0], dtype=torch.float64)
    starts = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    steps = torch.arange(20, dtype=torch.float64)[:, None]
    paths = starts[:, None] * (1 - 0.05 * curvature) ** steps  # [3, 20, 2], the closed form
    pca = fit_pca(paths @ plane.T, 2)
    assert f"{pca.explained.sum():.3f}" == "1.000" and pca.explained.sum() == pytest.approx(1, abs=1e-12)
    assert pca.project(paths @ plane.T).diff(dim=1).norm(dim=-1).numpy() == pytest.approx(
        paths.diff(dim=1).norm(dim=-1).numpy(), abs=1e-12
    )  # nothing is lost


def test_the_axes_are_orthonormal_also_where_points_fill_fewer_dimensions():
    line = torch.outer(torch.linspace(0, 1, 6, dtype=torch.float64), torch.ones(9, dtype=torch.float64))
    for x in (line, line[:, :3]):
        pca = fit_pca(x, 3)
        assert (pca.axes @ pca.axes.T).numpy() == pytest.approx(np.eye(3), abs=1e-12)
        assert pca.explained.numpy() == pytest.approx([1, 0, 0], abs=1e-12)
        assert pca.project(x)[:, 1:].abs().max() < 1e-12


def test_more_weights_than_are_taken_at_a_time():
    x = points(1, 5, 2**16 + 3, decay=0.999)
    oracle = PCA(2, svd_solver="full").fit(x[0].double().numpy())
    pca = fit_pca(x, 2)
    assert pca.axes.numpy() == pytest.approx(oracle.components_, abs=1e-9)
    assert pca.explained.numpy() == pytest.approx(oracle.explained_variance_ratio_, rel=1e-10)


def test_weights_far_from_the_origin_lose_no_digits():
    x = points(3, 4, 60)
    near, far = fit_pca(x.double(), 2), fit_pca(x.double() + 1e6, 2)
    assert far.explained.numpy() == pytest.approx(near.explained.numpy(), rel=1e-8)


@pytest.mark.parametrize(
    ("x", "k", "message"),
    [
        (torch.rand(2, 3, 4), 0, "k: got 0, expected 1 to 4"),
        (torch.rand(2, 3, 4), 5, "k: got 5, expected 1 to 4"),
        (torch.rand(1, 2, 9), 3, "k: got 3, expected 1 to 2"),
        (torch.ones(2, 3, 4), 2, "trajectories: got 6 points that are all the same"),
        (torch.full((2, 3, 4), math.nan), 2, "trajectories: got weights that are infinite or NaN"),
    ],
)
def test_what_has_no_axes_is_refused(x, k, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        fit_pca(x, k)


def test_displacements_are_the_lengths_of_the_steps():
    path = points(5, 40)
    expected = [math.dist(path[t].tolist(), path[t + 1].tolist()) for t in range(4)]
    assert displacements(path).tolist() == pytest.approx(expected, rel=1e-12)
