"""Whether gradients are those of the values, and products those of the gradients: by central differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hw1.vectors import ParamSpace

MOVE = 0.05  # of a parameter's root mean square, at least MOVE^2: how far from its own theta a module is looked at
TRIES = 3  # points and directions, of which one must agree: a kink between two steps spoils a difference


@dataclass(frozen=True)
class Steps:
    """How differences are taken, and what they must agree to.

    Attributes:
        lengths: of a step, relative to a parameter's root mean square; one of them must agree.
        tolerance: relative to the derivative.
        rounding: of a value, relative to its magnitude.
    """

    lengths: tuple[float, ...]
    tolerance: float
    rounding: float


IN_FLOAT64 = Steps((1e-5, 1e-7, 1e-3), 1e-4, 1e-14)
IN_FLOAT32 = Steps((1e-2, 1e-1), 0.1, 1e-5)


def moved(space: ParamSpace, theta: Tensor, generator: torch.Generator, by: float = MOVE) -> Tensor:
    """Theta [P] with noise on every number, so that nothing is zero by how it was initialised."""
    noise = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    return theta + by * scales(space, theta) * noise


def scales(space: ParamSpace, theta: Tensor) -> Tensor:
    """Each parameter's root mean square, at least MOVE: [P]."""
    parts = space.unflatten(theta).values()
    sizes = [part.square().mean().sqrt().clamp_min(MOVE).expand(part.numel()) for part in parts if part.numel()]
    return torch.cat(sizes) if sizes else theta


def wrong_gradient(
    value: Callable[[Tensor], Tensor],
    gradient: Callable[[Tensor], Tensor],
    space: ParamSpace,
    theta: Tensor,
    steps: Steps,
    generator: torch.Generator,
) -> tuple[float, float] | None:
    """None if the gradient is the derivative of the value; else (slope by the gradient, slope by differences).

    Along a direction with a part of every parameter's own gradient, so that one that is missing or reversed shows, and
    a random part as long.

    Args:
        value: theta [P] -> [].
        gradient: theta [P] -> [P].
        space: the parameters.
        theta: [P], where to look.
        steps: of the differences.
        generator: for points and directions.
    """
    found: tuple[float, float] | None = None
    for attempt in range(TRIES):
        at = theta if attempt == 0 else moved(space, theta, generator, MOVE / 5)
        own = gradient(at)
        direction = _direction(space, at, own, generator)
        slope = (own.double() @ direction.double()).item()
        level = abs(value(at).item())
        for length in steps.lengths:
            ahead, behind = value(at + length * direction).double(), value(at - length * direction).double()
            difference = ((ahead - behind) / (2 * length)).item()
            allowed = steps.tolerance * max(abs(slope), abs(difference)) + steps.rounding * level / length
            if abs(slope - difference) <= allowed:
                return None
            found = found or (slope, difference)
    return found


def wrong_product(
    gradient: Callable[[Tensor], Tensor],
    product: Callable[[Tensor, Tensor], Tensor],
    space: ParamSpace,
    theta: Tensor,
    steps: Steps,
    generator: torch.Generator,
) -> tuple[str, float] | None:
    """None if products are derivatives of the gradient; else the parameter and how far it is off, relatively.

    Args:
        gradient: theta [P] -> [P].
        product: theta [P], v [P] -> [P].
        space: the parameters.
        theta: [P], where to look.
        steps: of the differences.
        generator: for points and directions.
    """
    found: tuple[str, float] | None = None
    for attempt in range(TRIES):
        at = theta if attempt == 0 else moved(space, theta, generator, MOVE / 5)
        own = gradient(at)
        direction = _direction(space, at, own, generator)
        level = own.double().norm().item()
        del own  # each of these vectors is as large as the network
        parts = space.unflatten(product(at, direction).double())
        for length in steps.lengths:
            ahead, behind = gradient(at + length * direction).double(), gradient(at - length * direction).double()
            differences = space.unflatten((ahead - behind) / (2 * length))
            del ahead, behind
            largest = max((part.norm().item() for part in differences.values()), default=0.0)
            worst: tuple[str, float] | None = None
            for name, part in parts.items():
                off = (part - differences[name]).norm().item()
                size = max(part.norm().item(), differences[name].norm().item())
                floor = 1e-3 * steps.tolerance * largest + steps.rounding * level / length
                if not off <= steps.tolerance * size + floor and (worst is None or off / size > worst[1]):
                    worst = (name, off / size)
            if worst is None:
                return None
            found = found or worst
    return found


def _direction(space: ParamSpace, theta: Tensor, gradient: Tensor, generator: torch.Generator) -> Tensor:
    """In every parameter its gradient's direction and a random one, as long as the parameter is: [P]."""
    noise = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    direction = torch.zeros_like(theta)
    own = space.unflatten(direction)
    for (name, slope), random in zip(space.unflatten(gradient).items(), space.unflatten(noise).values(), strict=True):
        if slope.numel():
            own[name] += random / random.norm()
            if slope.norm() > 0:
                own[name] += slope / slope.norm()
    return direction * scales(space, theta)
