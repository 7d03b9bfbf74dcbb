"""What float32 made of the products that a measure was taken with, beside its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hw1.risk.precision_error import PrecisionError

PRECISION = "precision.json"


def precision_file(errors: Sequence[PrecisionError | Mapping[str, Any] | None]) -> Mapping[str, bytes]:
    """`precision.json`: of each member the errors against float64, and how float32 was multiplied; null if unknown.

    Args:
        errors: one a member, as its estimates carry them, or as `row_of` made of it.

    Example:
        >>> precision_file([None])
        {'precision.json': b'[null]'}
    """
    rows = [error if error is None or isinstance(error, Mapping) else row_of(error) for error in errors]
    return {PRECISION: json.dumps(rows).encode()}


def row_of(error: PrecisionError | None) -> dict[str, Any] | None:
    """What the file holds of one member."""
    if error is None:
        return None
    return {
        "dtype": str(error.dtype).removeprefix("torch."),
        "precision": error.precision,
        "examples": error.examples,
        "relative_value": error.relative_value,
        "relative_gradient": error.relative_gradient,
        "relative_product": error.relative_product,
    }
