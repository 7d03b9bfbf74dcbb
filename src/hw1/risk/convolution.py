"""Convolutions whose second derivative costs what the first does.

Torch differentiates the weight's gradient by a convolution of the transposed examples, a kernel as large as the image:
two fifths of the time of a small CNN's Hessian product. Here the gradients of a convolution are operations of their
own, and the derivatives of either are again the three fast kernels: <g, x * w> is linear in each of g, x and w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Geometry(NamedTuple):
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


def _convolve(x: Tensor, w: Tensor, b: Tensor | None, at: _Geometry) -> Tensor:
    nothing = [0] * len(at.stride)
    y: Tensor = torch.ops.aten.convolution(x, w, b, at.stride, at.padding, at.dilation, False, nothing, at.groups)
    return y


def _pull(g: Tensor, x: Tensor, w: Tensor, at: _Geometry, mask: list[bool]) -> Tensor:
    nothing = [0] * len(at.stride)
    parts: Sequence[Tensor] = torch.ops.aten.convolution_backward(
        g, x, w, None, at.stride, at.padding, at.dilation, False, nothing, at.groups, mask
    )
    return parts[mask.index(True)]


def _to_input(g: Tensor, x: Tensor, w: Tensor, at: _Geometry) -> Tensor:
    """Gradient of <g, x * w> by x, which lends its shape alone."""
    return _pull(g, x, w, at, [True, False, False])


def _to_weight(g: Tensor, x: Tensor, w: Tensor, at: _Geometry) -> Tensor:
    """Gradient of <g, x * w> by w, which lends its shape alone."""
    return _pull(g, x, w, at, [False, True, False])


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, at: _Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.at = at
        return _convolve(x, w, b, at)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        by_x, by_w, by_b, _ = ctx.needs_input_grad
        to_input: Callable[..., Tensor] = _to_input
        to_weight: Callable[..., Tensor] = _to_weight
        if torch.is_grad_enabled():  # a second derivative will follow; without one the kernels alone, which vmap knows
            to_input, to_weight = _ToInput.apply, _ToWeight.apply
        return (
            to_input(g, x, w, ctx.at) if by_x else None,
            to_weight(g, x, w, ctx.at) if by_w else None,
            g.sum([0, *range(2, g.ndim)]) if by_b else None,
            None,
        )


class _ToInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, at: _Geometry) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.at = at
        return _to_input(g, x, w, at)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, w = ctx.saved_tensors
        by_g, _, by_w, _ = ctx.needs_input_grad
        return (
            _convolve(v, w, None, ctx.at) if by_g else None,
            None,
            _to_weight(g, v, w, ctx.at) if by_w else None,
            None,
        )


class _ToWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, at: _Geometry) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.at = at
        return _to_weight(g, x, w, at)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, x = ctx.saved_tensors
        by_g, by_x, _, _ = ctx.needs_input_grad
        return (
            _convolve(x, v, None, ctx.at) if by_g else None,
            _to_input(g, x, v, ctx.at) if by_x else None,
            None,
            None,
        )


def convolution(
    usual: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution of any dimension with the operations of this file; `usual`, torch's, where they do not know it."""
    dims = weight.ndim - 2
    if padding == "valid":
        padding = 0
    if isinstance(padding, str) or input.ndim != weight.ndim:
        out: Tensor = usual(input, weight, bias, stride, padding, dilation, groups)
        return out
    at = _Geometry(_each(stride, dims), _each(padding, dims), _each(dilation, dims), groups)
    out = _Convolution.apply(input, weight, bias, at)
    return out


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    """One value a dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * (dims // len(values))
