"""The one way from a seed to randomness: a stream of its own for every purpose. Imports no torch until it draws."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator whose stream depends on the seed and on all that it is for; neighbouring seeds are unrelated.

    Args:
        seed: at least 0.
        purpose: words and numbers, as "order" and the epoch.

    Example:
        >>> import torch
        >>> one, two = (torch.rand(1, generator=generator(0, "order", epoch)).item() for epoch in (1, 2))
        >>> one == two, one == torch.rand(1, generator=generator(0, "order", 1)).item()
        (False, True)
    """
    import numpy as np
    import torch

    # SeedSequence hashes its words, and the same way on every platform and version (a promise of NumPy's).
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in purpose]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def mixed(*parts: Any) -> int:
    """A 32-bit seed that depends on all `parts` (anything that JSON can hold); 0 and 0.0 are one.

    Example:
        >>> mixed(1, "epoch", 2) == mixed(1.0, "epoch", 2), mixed(1, "epoch", 2) == mixed(1, "epoch", 3)
        (True, False)
    """
    return int(digest(parts)[:8], 16)


def digest(value: Any) -> str:
    """Hex SHA-256 of anything that JSON can hold: the order of a mapping's keys does not matter, nor does 0 or 0.0."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True, default=str).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """`value` with equal numbers written alike."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:  # most
        return value
    if kind is dict or isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
