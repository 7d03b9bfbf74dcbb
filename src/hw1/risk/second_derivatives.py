"""Operations of torch whose second derivative is slow or wrong, each replaced by one that has it right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from hw1.risk.convolution import convolution


class TwiceDifferentiable(TorchFunctionMode):
    """Inside, convolutions, attention and weight normalisation can be differentiated twice; others stay torch's."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for each of its functions."""
        if func in (torch.conv1d, torch.conv2d, torch.conv3d):
            return convolution(func, *args, **(kwargs or {}))
        if func is torch._weight_norm:
            return weight_norm(*args, **(kwargs or {}))
        if func is scaled_dot_product_attention:
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """W = g v / |v| (Salimans & Kingma 2016), the norm over all dimensions but `dim`, -1 for all.

    By elementary operations: the second derivative of torch's fused kernel takes |v| for a constant.
    """
    return v * (g / torch.norm_except_dim(v, 2, dim))
