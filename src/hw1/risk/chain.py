"""A fully connected network as a chain of affine layers and elementwise activations, read off an nn.Sequential."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hw1.vectors import ParamSpace

ELEMENTWISE = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU,
    nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh,
    nn.AlphaDropout, nn.Dropout, nn.Identity,  # the identity in evaluation mode
)  # fmt: skip


class Piece(NamedTuple):
    """Inputs first, ..., last - 1 of a layer: the weight of unit a stands at start + a stride + (input - first)."""

    first: int
    last: int
    start: int
    stride: int


@dataclass(frozen=True)
class Layer:
    """z [out] = W h [in] + b, then phi(z).

    Attributes:
        fan_in: length of h.
        fan_out: length of z.
        weight: where W begins in theta.
        bias: where b begins in theta, or None.
        phi: the activation, which acts on each number alone; None for the identity.
    """

    fan_in: int
    fan_out: int
    weight: int
    bias: int | None
    phi: nn.Module | None

    def matrix(self, theta: Tensor) -> Tensor:
        """W of each member: [r, P] -> [r, out, in]."""
        return theta[:, self.weight : self.weight + self.fan_out * self.fan_in].reshape(-1, self.fan_out, self.fan_in)

    def affine(self, theta: Tensor, h: Tensor) -> Tensor:
        """W h + b of each member: theta [r, P], h [r, in, n] -> [r, out, n]."""
        if self.bias is None:
            return torch.bmm(self.matrix(theta), h)
        return torch.baddbmm(theta[:, self.bias : self.bias + self.fan_out, None], self.matrix(theta), h)

    def activate(self, z: Tensor) -> Tensor:
        """phi(z)."""
        h: Tensor = z if self.phi is None else self.phi(z)
        return h

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """phi(z), phi'(z) and phi''(z), None if that is zero: those of autograd, its conventions at kinks too."""
        if self.phi is None:
            return z, torch.ones_like(z), None
        z = z.detach().requires_grad_()
        h: Tensor = self.phi(z)
        (slope,) = torch.autograd.grad(h.sum(), z, create_graph=True)
        bend = torch.autograd.grad(slope.sum(), z, allow_unused=True)[0] if slope.requires_grad else None
        return h.detach(), slope.detach(), bend

    def pieces(self, first: int, last: int) -> Iterator[Piece]:
        """The weights of inputs first, ..., last - 1 of [h, 1]: a piece of W, b, or both."""
        if first < self.fan_in:
            yield Piece(first, min(last, self.fan_in), self.weight + first, self.fan_in)
        if self.bias is not None and last > self.fan_in:
            yield Piece(self.fan_in, last, self.bias, 1)


@dataclass(frozen=True)
class Chain:
    """x -> tail(layers(head(x))), where theta is the layers' W and b one after another.

    Attributes:
        head: what stands before the first layer: [B, ...] -> [B, in].
        layers: at least one.
        tail: what follows the last layer, its activation too: [B, out] -> outputs.
    """

    head: nn.Sequential
    layers: tuple[Layer, ...]
    tail: nn.Sequential

    @classmethod
    def of(cls, module: nn.Module, space: ParamSpace) -> Chain | None:
        """The chain that the module's parts say, if its parameters are those of `space`; None if they say none.

        A module with a forward of its own may compute something else with these parts.
        """
        if not isinstance(module, nn.Linear | nn.Sequential):
            return None
        parts = list(_parts(copy.deepcopy(module).double(), ""))
        for _, part in parts:
            if "inplace" in vars(part):
                vars(part)["inplace"] = False  # the caller's inputs and what is kept for derivatives stay
        linear = [(index, prefix, own) for index, (prefix, own) in enumerate(parts) if isinstance(own, nn.Linear)]
        layers: list[Layer] = []
        names: list[str] = []
        start = 0
        for number, (index, prefix, own) in enumerate(linear):
            between = [part for _, part in parts[index + 1 : linear[number + 1][0]]] if number + 1 < len(linear) else []
            if not all(type(part) in ELEMENTWISE for part in between):
                return None
            phi = nn.Sequential(*between) if between else None
            bias = None if own.bias is None else start + own.weight.numel()
            layers.append(Layer(own.in_features, own.out_features, start, bias, phi))
            names += [f"{prefix}weight"] if own.bias is None else [f"{prefix}weight", f"{prefix}bias"]
            start += own.weight.numel() + (0 if own.bias is None else own.bias.numel())
        if not layers or names != list(space.names) or ParamSpace.of(module) != space:
            return None  # frozen, shared or other parameters
        return cls(_sequence(parts[: linear[0][0]]), tuple(layers), _sequence(parts[linear[-1][0] + 1 :]))


def _sequence(parts: list[tuple[str, nn.Module]]) -> nn.Sequential:
    return nn.Sequential(*(part for _, part in parts))


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules that follow one another, with the prefix of their parameters' names."""
    if isinstance(module, nn.Sequential):
        for name, part in module._modules.items():
            yield from _parts(part, f"{prefix}{name}.")
    else:
        yield prefix, module
