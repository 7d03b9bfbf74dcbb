"""Paths through weight space: their common principal axes, and the distances along and between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_COLUMNS = 2**16  # weights at a time


@dataclass(frozen=True)
class Pca:
    """Principal axes of a cloud of points in weight space.

    Attributes:
        mean: the centre of the points [P], float64.
        axes: orthonormal rows [k, P], float64, the direction of largest variance first. The entry of largest size in
            each is positive, as in scikit-learn.
        explained: each axis' share of the total variance [k], float64, in [0, 1].
    """

    mean: Tensor
    axes: Tensor
    explained: Tensor

    def project(self, thetas: Tensor) -> Tensor:
        """Coordinates along the axes: thetas [..., P] -> [..., k], float64."""
        return (thetas.double() - self.mean) @ self.axes.T


def fit_pca(trajectories: Tensor, k: int) -> Pca:
    """PCA of all points of several trajectories together, every point weighing the same.

    What `sklearn.decomposition.PCA(k, svd_solver="full")` gives, also for P in the millions: of the centred points
    X [N, P], the smaller of X X^T [N, N] and X^T X [P, P] is decomposed, in float64. (Li et al. 2018, section 7.2, fit
    the steps of one run, seen from its last point; here the centre is the mean, and runs share their axes.)

    Args:
        trajectories: weights [R, T, P] of R runs at T times, or any [..., P].
        k: number of axes, at most min(N, P) with N = R T.

    Raises:
        ValueError: k is out of range, a weight is not finite, or all points are the same.

    Example:
        >>> line = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])  # one run, two times
        >>> pca = fit_pca(line, 1)
        >>> [round(value, 6) for value in (*pca.axes[0].tolist(), *pca.explained.tolist())]
        [0.6, 0.8, 1.0]
    """
    points = trajectories.reshape(-1, trajectories.shape[-1])  # [N, P]
    n, size = points.shape
    if not 1 <= k <= min(n, size):
        raise ValueError(f"k: got {k}, expected 1 to {min(n, size)} for {n} points of {size} weights")
    mean = points.mean(0, dtype=torch.float64)  # [P]
    if not mean.isfinite().all():
        raise ValueError("trajectories: got weights that are infinite or NaN, expected finite ones")
    if bool((points == points[0]).all()):
        raise ValueError(f"trajectories: got {n} points that are all the same, expected paths that move")

    def centred() -> Iterator[Tensor]:
        """X by columns [N, c]: all of it in float64 would take more memory than the weights themselves."""
        for columns, centre in zip(torch.split(points, _COLUMNS, dim=1), torch.split(mean, _COLUMNS), strict=True):
            yield columns.double() - centre

    if n <= size:
        gram = mean.new_zeros(n, n)
        for x in centred():
            gram += x @ x.T
        variances, vectors = torch.linalg.eigh(gram)  # ascending
        directions = torch.cat([x.T @ vectors[:, -k:] for x in centred()])  # [P, k], of lengths sqrt(variance)
    else:
        x = points.double() - mean
        variances, vectors = torch.linalg.eigh(x.T @ x)
        directions = vectors[:, -k:]
    # Of unit length after QR, and orthogonal also where the points fill fewer than k dimensions.
    axes = torch.linalg.qr(directions.flip(1)).Q.T  # [k, P]
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return Pca(mean, axes * signs, (variances[-k:].flip(0) / variances.sum()).clamp(0, 1))


def displacements(path: Tensor) -> Tensor:
    """Length of each step of a path: points [T, P] -> l2 norms [T - 1], float64; their sum is the path's length.

    Example:
        >>> displacements(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 3.0]]))
        tensor([5., 1.], dtype=torch.float64)
    """
    lengths: Tensor = torch.linalg.vector_norm(path.double().diff(dim=0), dim=1)
    return lengths
