"""What becomes of a row of the table: right unless one of these says otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refused:
    """A ValueError "key: got X, expected Y: remedy" at one of the stages, which says so; what comes before is right."""

    at: str  # construction, gradient or product, a regular expression
    key: str  # a regular expression
    says: str  # in the whole message, a regular expression
    or_right: bool = False  # whether the right number is as good


def at_once(key: str, says: str, or_right: bool = False) -> Refused:
    """Refused at construction."""
    return Refused("construction", key, says, or_right)


def by_gradient(says: str, or_right: bool = False) -> Refused:
    """Refused at the first gradient, values being right."""
    return Refused("gradient", "module|loss|batch_loss|gradient", says, or_right)


def by_product(says: str, or_right: bool = False) -> Refused:
    """Refused at the first product, values and gradients being right."""
    return Refused("product", "module|loss|batch_loss|hvp", says, or_right)


@dataclass(frozen=True)
class Warned:
    """Right, with a UserWarning that says so."""

    says: str
