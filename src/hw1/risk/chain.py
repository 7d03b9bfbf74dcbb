"""A fully connected network as a chain of affine layers and elementwise activations, read off an nn.Sequential."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from hw1.models.mlp import Mlp
from hw1.vectors import ParamSpace

Part = TypeVar("Part", bound=nn.Module)

ELEMENTWISE = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU,
    nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh,
    nn.AlphaDropout, nn.Dropout, nn.Identity,  # the identity in evaluation mode
)  # fmt: skip
AROUND = (
    *ELEMENTWISE, nn.Flatten, nn.Unflatten, nn.LogSoftmax, nn.Softmax, nn.Softmin,
    nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Softshrink, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip
# What decides what a call of a module computes: by a class of its own, or on the instance, it may be anything.
CALLED = {
    "__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward", "forward", "__iter__", "__getattr__",
    "__getattribute__", "_modules", "_parameters", "weight", "bias", "train", "eval", "training",
}  # fmt: skip
ON_INSTANCES = CALLED - {"_modules", "_parameters", "training"}  # those three are where nn.Module has them
HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


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
        """The chain that the module is, if its parameters are those of `space`; None if it may be something else.

        Every part is exactly what it says: of a known class (or of a subclass of nn.Sequential or nn.Linear that leaves
        alone how it is called), in evaluation mode, without hooks, parametrizations or a forward of its own.
        """
        if not all(_plain(part) for part in module.modules()) or hooked_everywhere():
            return None
        if not _acts_as(module, nn.Sequential) and not _acts_as(module, nn.Linear):
            return None
        parts = list(_parts(copy.deepcopy(module).double(), ""))
        for _, part in parts:
            if "inplace" in vars(part):
                vars(part)["inplace"] = False  # the caller's inputs and what is kept for derivatives stay
        linear = [(index, prefix, own) for index, (prefix, own) in enumerate(parts) if _acts_as(own, nn.Linear)]
        layers: list[Layer] = []
        names: list[str] = []
        start = 0
        for number, (index, prefix, own) in enumerate(linear):
            between = [part for _, part in parts[index + 1 : linear[number + 1][0]]] if number + 1 < len(linear) else []
            if not all(type(part) in ELEMENTWISE for part in between):
                return None
            phi = nn.Sequential(*between) if between else None
            bias = None if own.bias is None else start + own.weight.numel()
            layers.append(Layer(own.weight.shape[1], own.weight.shape[0], start, bias, phi))
            names += [f"{prefix}weight"] if own.bias is None else [f"{prefix}weight", f"{prefix}bias"]
            start += own.weight.numel() + (0 if own.bias is None else own.bias.numel())
        if not layers or names != list(space.names) or ParamSpace.of(module) != space:
            return None  # frozen, shared or other parameters
        head, tail = parts[: linear[0][0]], parts[linear[-1][0] + 1 :]
        if not all(type(part) in AROUND for _, part in (*head, *tail)):
            return None
        return cls(_sequence(head), tuple(layers), _sequence(tail))


def hooked_everywhere() -> bool:
    """Whether torch calls hooks on every module of the process."""
    return any(getattr(torch_module, f"_global_{name}", None) for name in HOOKS)


def _acts_as(part: nn.Module, base: type[Part]) -> TypeGuard[Part]:
    """Whether a call of `part` is one of `base`: of the class itself, or a subclass that does not say otherwise."""
    order = type(part).__mro__
    if base not in order:
        return False
    # Mlp's forward is nn.Sequential's, with types.
    return not any(
        CALLED & vars(kind).keys() - ({"forward"} if kind is Mlp else set()) for kind in order[: order.index(base)]
    )


def _plain(part: nn.Module) -> bool:
    """Whether nothing about this instance changes what its class computes in evaluation mode."""
    if part.training or any(getattr(part, f"_{name}", None) for name in HOOKS) or ON_INSTANCES & vars(part).keys():
        return False
    return all(type(parameter) is nn.Parameter for parameter in part.parameters(recurse=False))


def _sequence(parts: list[tuple[str, nn.Module]]) -> nn.Sequential:
    return nn.Sequential(*(part for _, part in parts))


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules that follow one another, with the prefix of their parameters' names."""
    if _acts_as(module, nn.Sequential):
        for name, part in module._modules.items():
            assert part is not None  # nn.Sequential calls every one of them
            yield from _parts(part, f"{prefix}{name}.")
    else:
        yield prefix, module
