"""Equal but for rounding."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def close(a: Tensor, b: Tensor, scale: Tensor | None = None, *, tolerance: float | None = None) -> bool:
    """Equal but for rounding: within a tolerance of the largest finite magnitude; what is not finite is the same.

    Args:
        a: any shape.
        b: the same.
        scale: the magnitude, [].
        tolerance: sqrt(eps) unless given: kernels may change with the batch's size.
    """
    if tolerance is None:
        tolerance = math.sqrt(torch.finfo(a.dtype).eps)
    finite = b.isfinite()
    if not torch.equal(a.isfinite(), finite) or not torch.equal(
        torch.nan_to_num(a[~finite], nan=0.5), torch.nan_to_num(b[~finite], nan=0.5)
    ):
        return False
    a, b = a[finite], b[finite]
    if not a.numel():
        return True
    largest = b.abs().max() if scale is None else scale
    return bool(((a - b).abs() <= tolerance * largest + torch.finfo(a.dtype).tiny).all())
