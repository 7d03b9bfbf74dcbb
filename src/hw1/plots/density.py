"""The spectral density of a matrix, from quadrature nodes and weights."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hw1.metrics import axis
from hw1.plots.style import COLORS, scale, style

FLOOR = 1e-6  # densities below this share of the highest are left out
POINTS = 2000


def draw_density(nodes: NDArray[np.float64], weights: NDArray[np.float64], sigma: float | None = None) -> Figure:
    """Density of the eigenvalues on a logarithmic axis, as in Ghorbani et al. 2019; its area is 1.

    Each node becomes a Gaussian. The line is the mean over probes, the band their range.

    Args:
        nodes: [probes, steps].
        weights: [probes, steps], each row sums to 1.
        sigma: width of the Gaussians; a hundredth of the nodes' range, unless said.

    Raises:
        ValueError: the shapes differ or are not [probes, steps], or sigma is not positive.
    """
    if nodes.shape != weights.shape or nodes.ndim != 2:
        raise ValueError(
            f"nodes, weights: got shapes {nodes.shape} and {weights.shape}, expected [probes, steps] twice"
        )
    low, high = float(nodes.min()), float(nodes.max())
    if sigma is None:
        sigma = 0.01 * (high - low) or 0.01 * (abs(high) or 1.0)
    if not sigma > 0:
        raise ValueError(f"sigma: got {sigma}, expected a positive width, in the unit of the eigenvalues")
    grid = np.linspace(low - 5 * sigma, high + 5 * sigma, POINTS)
    curves = np.stack([_smoothed(grid, *probe, sigma) for probe in zip(nodes, weights, strict=True)])  # [probes, grid]
    mean = curves.mean(0)
    with style():
        figure = Figure(figsize=(6.4, 3.6))
        ax = figure.subplots()
        ax.fill_between(grid, curves.min(0), curves.max(0), color=COLORS[0], alpha=0.2, linewidth=0)
        ax.plot(grid, mean, color=COLORS[0])
        ax.set_ylim(FLOOR * mean.max(), 2 * curves.max())
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel(axis("density", scale(ax, "y", "density")))
        spread = "line: mean, band: range" if len(nodes) > 1 else "one probe: no spread"
        ax.set_title(f"{len(nodes)} probes of {nodes.shape[1]} steps ({spread}), Gaussians of width {sigma:.2g}")
    return figure


def _smoothed(
    grid: NDArray[np.float64], nodes: NDArray[np.float64], weights: NDArray[np.float64], sigma: float
) -> NDArray[np.float64]:
    """Sum of weighted Gaussians at the nodes [steps] on the grid [G]."""
    z = (grid[:, None] - nodes) / sigma
    return np.asarray(np.exp(-0.5 * z**2) @ weights / (sigma * np.sqrt(2 * np.pi)))
