"""What the networks share: activations by name, and hidden sizes times `width`."""

from collections.abc import Sequence

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def activation_class(name: str) -> type[nn.Module]:
    """The module class of an activation.

    Raises:
        ValueError: no such activation.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: got {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def check_width(width: float) -> float:
    """`width`, if it is a finite positive number.

    Raises:
        ValueError: it is not.
    """
    if not 0 < width < float("inf"):
        raise ValueError(f"width: got {width}, expected a number above 0 (it multiplies every hidden size)")
    return width


def scaled(size: int, width: float) -> int:
    """A hidden size times `width`, rounded to the nearest integer and at least 1."""
    return max(1, round(size * width))


def check_hidden(hidden: Sequence[int]) -> None:
    """Refuse hidden sizes below 1.

    Raises:
        ValueError: one of them is not positive.
    """
    if any(size < 1 for size in hidden):
        raise ValueError(f"hidden: got {list(hidden)}, expected positive sizes")
