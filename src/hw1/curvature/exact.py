"""All eigenvalues of a matrix, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from hw1.curvature.operators import require_symmetric


def spectrum(matrix: Tensor) -> Tensor:
    """All eigenvalues of symmetric matrices [..., P, P]: [..., P] float64, ascending.

    Raises:
        ValueError: a matrix is not square, not symmetric or not finite.

    Example:
        >>> spectrum(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist()
        [-1.0, 1.0]
    """
    require_symmetric(matrix)
    values: Tensor = torch.linalg.eigvalsh(matrix.double())
    return values
