"""The parameter space: a module's named parameters as one vector theta [P], and back."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ParamSpace:
    """Names, shapes and order of a module's parameters.

    Tied parameters appear once, under the first of their names. Flattening reads values in logical (row-major) order,
    so that the memory format of a parameter (channels_last, say) does not change theta.

    Attributes:
        names: parameter names, in `module.named_parameters()` order.
        shapes: their shapes.

    Example:
        >>> space = ParamSpace.of(nn.Linear(3, 2))
        >>> space.size, space.names
        (8, ('weight', 'bias'))
        >>> theta = torch.arange(8.0)
        >>> bool((space.flatten(space.unflatten(theta)) == theta).all())
        True
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, module: nn.Module) -> ParamSpace:
        """Parameter space of all of `module`'s parameters."""
        named = list(module.named_parameters())
        return cls(tuple(name for name, _ in named), tuple(parameter.shape for _, parameter in named))

    @property
    def size(self) -> int:
        """P, the number of scalars."""
        return sum(math.prod(shape) for shape in self.shapes)

    def subset(self, *names: str) -> ParamSpace:
        """The space of some parameters: by name (`0.weight`), a module's prefix (`0`), or pattern (`*.bias`).

        In a pattern, `*` stands for any characters, dots too, `?` for one, `[ab]` for one of these.

        Raises:
            ValueError: a name is neither a parameter nor the prefix of one, or a pattern matches none.

        Example:
            >>> net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
            >>> ParamSpace.of(net).subset("0.bias", "2").names
            ('0.bias', '2.weight', '2.bias')
            >>> ParamSpace.of(net).subset("*.weight").names
            ('0.weight', '2.weight')
        """

        def means(name: str, own: str) -> bool:
            return own == name or own.startswith(f"{name}.") or fnmatch.fnmatchcase(own, name)

        for name in names:
            if not any(means(name, own) for own in self.names):
                raise ValueError(
                    f"names: got {name!r}, expected a name or a prefix of {', '.join(self.names)}: look at space.names"
                )
        return self.only([own for own in self.names if any(means(name, own) for name in names)])

    def only(self, names: Iterable[str]) -> ParamSpace:
        """The space of the parameters with exactly these names, in this space's order; other names are passed over."""
        wanted = set(names)
        kept = [(own, shape) for own, shape in zip(self.names, self.shapes, strict=True) if own in wanted]
        return ParamSpace(tuple(own for own, _ in kept), tuple(shape for _, shape in kept))

    def positions(self, part: ParamSpace) -> Tensor:
        """Where the entries of a subset's theta [p] stand in this space's theta [P]: indices [p].

        Raises:
            ValueError: `part` has a parameter that this space has not, or with another shape.
        """
        return part.flatten(self.unflatten(torch.arange(self.size)))

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named tensors -> theta [P]. Other names in `tensors` are ignored.

        Raises:
            ValueError: a name is missing or has another shape.
        """
        parts = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in tensors:
                raise ValueError(f"no tensor named {name}: got {', '.join(tensors) or 'none'}")
            if tensors[name].shape != shape:
                raise ValueError(f"{name}: got shape {list(tensors[name].shape)}, expected {list(shape)}")
            parts.append(tensors[name].reshape(-1))
        return torch.cat(parts) if parts else torch.empty(0)

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Theta [..., P] -> named tensors [..., *shape], views of theta.

        Raises:
            ValueError: theta's last dimension is not P.
        """
        if theta.shape[-1:] != (self.size,):
            raise ValueError(f"theta: got shape {list(theta.shape)}, expected [..., {self.size}]")
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = torch.split(theta, sizes, dim=-1)
        return {
            name: part.reshape((*theta.shape[:-1], *shape))
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }

    def require_same(self, other: ParamSpace) -> None:
        """Refuse another architecture.

        Raises:
            ValueError: `other` has other names or shapes; the message names the first difference.
        """
        mine, theirs = (
            dict(zip(self.names, self.shapes, strict=True)),
            dict(zip(other.names, other.shapes, strict=True)),
        )
        for name in [*mine, *(name for name in theirs if name not in mine)]:
            if mine.get(name) != theirs.get(name):
                one, two = (f"{name} {list(side[name])}" if name in side else f"no {name}" for side in (mine, theirs))
                raise ValueError(f"networks of different shape: one has {one}, the other {two}")
