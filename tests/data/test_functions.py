import math

import numpy as np
import pytest
import torch

from hw1.data import Function
from hw1.data.functions import FUNCTIONS


def draw(function="sinc_5pi", domain=(-5, 5), points=500, noise=0.0, noise_seed=0, test_points=1000):
    return Function(function, domain, points, noise, noise_seed, test_points)


# Off 0 and off the jumps of sgn(sin 5 pi x), where the plain quotient is defined and the sign is certain.
X = np.array([-4.93, -1.01, -0.33, 0.07, 0.77, 2.51, 4.9])
ORACLES = {
    "sinc_5pi": np.sin(5 * np.pi * X) / (5 * np.pi * X),
    "sgn_sin_5pi": np.where((5 * X) % 2 < 1, 1.0, -1.0),
    "cos_1_5": np.cos(1.5 * X),
    "sin_2": np.sin(2 * X),
    "sinc_plus_sin": np.sin(np.pi * X) / (np.pi * X) + np.sin(X / 2),
    "sinc_plus_square": np.sin(np.pi * X) / (np.pi * X) + 0.7 * X**2,
    "sin_2pi_plus_cos_3pi": np.sin(2 * np.pi * X) + np.cos(3 * np.pi * X) / 2,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name):
    np.testing.assert_allclose(FUNCTIONS[name](torch.from_numpy(X)).numpy(), ORACLES[name], rtol=1e-12, atol=1e-13)


def test_sinc_is_one_at_zero():
    zero = torch.zeros(1)
    assert [FUNCTIONS[name](zero).item() for name in ("sinc_5pi", "sinc_plus_sin", "sinc_plus_square")] == [1, 1, 1]


def test_training_targets_have_the_known_variance():
    y = draw().load().train_y
    assert y.dtype == torch.float32 and y.shape == (500, 1)
    assert y.double().var(correction=0).item() == pytest.approx(0.0194743, abs=5e-8)


def test_grids():
    loaded = draw(domain=(0, 1), points=5, test_points=4).load()
    assert loaded.train_x.flatten().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert loaded.test_x.flatten().tolist() == [0.125, 0.375, 0.625, 0.875]
    loaded = draw().load()
    assert not np.intersect1d(loaded.train_x, loaded.test_x).size


def test_noise_is_on_training_targets_only_and_has_its_seed():
    clean, noisy, again, other = (
        draw(points=10_000, noise=noise, noise_seed=seed).load()
        for noise, seed in ((0, 1), (0.1, 1), (0.1, 1), (0.1, 2))
    )
    residual = noisy.train_y - clean.train_y
    assert residual.std().item() == pytest.approx(0.1, rel=4 / math.sqrt(20_000))  # 4 standard errors
    assert abs(residual.mean().item()) < 4 * 0.1 / 100
    assert torch.equal(noisy.test_y, clean.test_y)
    assert torch.equal(noisy.train_y, again.train_y) and not torch.equal(noisy.train_y, other.train_y)


def test_identity_changes_with_what_changes_the_examples_alone():
    base = draw().identity()
    assert base == draw(noise_seed=5).identity()  # without noise the seed is without effect
    changes = ({"function": "sin_2"}, {"domain": (-5, 4)}, {"points": 499}, {"noise": 0.1}, {"test_points": 10})
    assert len({base, *(draw(**change).identity() for change in changes)}) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"function": "sinc"},
        {"domain": (1, 1)},
        {"domain": (0, 1, 2)},
        {"points": 0},
        {"test_points": 2.5},
        {"noise": -1},
    ],
)
def test_errors_begin_with_the_name(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: got "):
        draw(**wrong)
