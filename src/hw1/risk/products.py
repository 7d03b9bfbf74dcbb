"""One chunk's share of a curvature matrix, as a product with vectors on a kept graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Product(Protocol):
    """A symmetric linear map on the parameters: one chunk's share of a curvature matrix."""

    @property
    def used(self) -> Sequence[bool]:
        """Whether the chunk's outputs or loss depend on a parameter, one entry each."""

    def times(self, parts: Sequence[Tensor], *, batched: bool) -> Sequence[Tensor | None]:
        """The product, one tensor a parameter, None being zero; of k vectors [k, *shape] at once if batched."""


class HessianProduct:
    """d(g . v)/d theta for the kept gradient g (Pearlmutter 1994)."""

    def __init__(self, leaves: tuple[Tensor, ...], gradients: tuple[Tensor | None, ...]) -> None:
        self.leaves, self.gradients = leaves, gradients
        self.used = [gradient is not None for gradient in gradients]

    def times(self, parts: Sequence[Tensor], *, batched: bool) -> Sequence[Tensor | None]:
        """The product, as in `Product`."""
        pairs = [(g, v) for g, v in zip(self.gradients, parts, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return [None] * len(self.leaves)
        gradients, vectors = zip(*pairs, strict=True)
        return torch.autograd.grad(
            gradients, self.leaves, vectors, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )


class GaussNewtonProduct:
    """J^T L'' J v, with J v as the derivative of J^T u by u (the double-backward trick, any differentiable layer)."""

    def __init__(self, leaves: tuple[Tensor, ...], outputs: Tensor, cut: Tensor, slope: Tensor) -> None:
        self.leaves, self.outputs, self.cut, self.slope = leaves, outputs, cut, slope
        self.u = torch.zeros_like(outputs, requires_grad=True)
        self.pulled: tuple[Tensor | None, ...] = (None,) * len(leaves)
        if outputs.requires_grad:
            self.pulled = torch.autograd.grad(outputs, leaves, self.u, create_graph=True, allow_unused=True)
        self.used = [pulled is not None for pulled in self.pulled]

    def times(self, parts: Sequence[Tensor], *, batched: bool) -> Sequence[Tensor | None]:
        """The product, as in `Product`."""
        pairs = [(g, v) for g, v in zip(self.pulled, parts, strict=True) if g is not None]
        if not pairs or not self.slope.requires_grad:
            return [None] * len(self.leaves)
        pulled, vectors = zip(*pairs, strict=True)
        # J v, in the shape of the outputs; then L'' J v; then J^T L'' J v.
        (pushed,) = torch.autograd.grad(pulled, self.u, vectors, retain_graph=True, is_grads_batched=batched)
        (curved,) = torch.autograd.grad(self.slope, self.cut, pushed, retain_graph=True, is_grads_batched=batched)
        return torch.autograd.grad(
            self.outputs, self.leaves, curved, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )
