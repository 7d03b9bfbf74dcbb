"""What is random about one example, whoever draws it: torch's, NumPy's and Python's generators, seeded for a moment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def kept() -> Iterator[None]:
    """The CPU's generators of torch, NumPy and Python are afterwards what they were."""
    states = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.default_generator.set_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def seed_all(seed: int) -> None:
    """Seed them; not torch's other devices, which no worker process may touch."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, they are seeded; afterwards they are what they were."""
    with kept():
        seed_all(seed)
        yield
