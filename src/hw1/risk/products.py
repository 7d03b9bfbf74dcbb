"""One chunk's share of a curvature matrix, as a product with vectors on a kept graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from hw1.risk.nested import map_tensors, tensors_of


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
    """J^T L'' J v, with J v as the derivative of J^T u by u (the double-backward trick, any differentiable layer).

    Args:
        leaves: the parameters.
        outputs: the network's, a tensor or several in any structure, with the graph to the leaves.
        loss: outputs -> the chunk's share of the loss, [].
    """

    def __init__(self, leaves: tuple[Tensor, ...], outputs: Any, loss: Callable[[Any], Tensor]) -> None:
        self.leaves = leaves
        self.outputs = [part for part in tensors_of(outputs) if part.requires_grad]
        self.cut = [part.detach().requires_grad_() for part in self.outputs]
        self.u = [torch.zeros_like(part, requires_grad=True) for part in self.outputs]
        self.pulled: tuple[Tensor | None, ...] = (None,) * len(leaves)
        self.slope: tuple[Tensor | None, ...] = (None,) * len(self.cut)
        if self.outputs:
            following = iter(self.cut)
            value = loss(map_tensors(outputs, lambda part: next(following) if part.requires_grad else part))
            if value.requires_grad:
                self.slope = torch.autograd.grad(value, self.cut, create_graph=True, allow_unused=True)
            self.pulled = torch.autograd.grad(self.outputs, leaves, self.u, create_graph=True, allow_unused=True)
        self.used = [pulled is not None for pulled in self.pulled]

    def times(self, parts: Sequence[Tensor], *, batched: bool) -> Sequence[Tensor | None]:
        """The product, as in `Product`."""
        nothing: Sequence[Tensor | None] = [None] * len(self.leaves)
        pairs = [(g, v) for g, v in zip(self.pulled, parts, strict=True) if g is not None]
        slopes = [(own, i) for i, own in enumerate(self.slope) if own is not None and own.requires_grad]
        if not pairs or not slopes:
            return nothing

        def grad(of: Any, by: Any, along: Any) -> tuple[Tensor | None, ...]:
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                of, by, along, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )
            return found

        pulled, vectors = zip(*pairs, strict=True)
        pushed = grad(pulled, self.u, vectors)  # J v, in the shape of the outputs
        moved = [(own, pushed[i]) for own, i in slopes if pushed[i] is not None]
        if not moved:
            return nothing
        curved = grad([own for own, _ in moved], self.cut, [along for _, along in moved])  # L'' J v
        back = [(out, along) for out, along in zip(self.outputs, curved, strict=True) if along is not None]
        if not back:
            return nothing
        return grad([out for out, _ in back], self.leaves, [along for _, along in back])  # J^T L'' J v
