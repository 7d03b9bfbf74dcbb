import numpy as np
import pytest
import torch

from hw1.curvature import Density
from hw1.plots.density import draw_density


def rules(probes=3, steps=5):
    generator = np.random.default_rng(0)
    weights = generator.random((probes, steps))
    return generator.normal(size=(probes, steps)), weights / weights.sum(1, keepdims=True)


def test_the_line_is_the_density_and_its_area_is_one():
    nodes, weights = rules()
    axes = draw_density(nodes, weights, sigma=0.2).axes[0]
    grid, mean = axes.lines[0].get_data()
    expected = Density(torch.tensor(nodes), torch.tensor(weights), 100).evaluate(torch.tensor(grid), 0.2)
    np.testing.assert_allclose(mean, expected.numpy(), rtol=1e-12)
    assert np.trapezoid(mean, grid) == pytest.approx(1, abs=1e-5)
    assert axes.get_yscale() == "log"
    assert axes.get_title() == "3 probes of 5 steps (line: mean, band: range), Gaussians of width 0.2"


def test_the_width_unless_said():
    nodes, weights = rules()
    grid, mean = draw_density(nodes, weights).axes[0].lines[0].get_data()
    sigma = 0.01 * np.ptp(nodes)
    assert grid[0] == pytest.approx(nodes.min() - 5 * sigma)
    assert mean[np.abs(grid - nodes.max()).argmin()] > 0
    flat = draw_density(np.zeros((1, 4)), np.full((1, 4), 0.25)).axes[0]
    assert "one probe: no spread" in flat.get_title()


def test_bad_input_is_refused():
    nodes, weights = rules()
    with pytest.raises(
        ValueError, match=r"^nodes, weights: got shapes \(3, 5\) and \(2, 5\), expected \[probes, steps"
    ):
        draw_density(nodes, weights[:2])
    with pytest.raises(ValueError, match=r"^sigma: got 0, expected a positive width"):
        draw_density(nodes, weights, 0)
