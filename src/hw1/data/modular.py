"""Modular arithmetic as sequences of three tokens, the task on which networks grok (Power et al. 2022)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import ClassVar

from hw1.data.protocol import TrainTest
from hw1.kinds import IGNORED, Kind

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
}


class Modular:
    """All p^2 sequences a, b, = with the token (a o b) mod p behind the last one; the other targets are ignored.

    Tokens 0 to p - 1 are the numbers, p is the sign =. A random part of the sequences is the training set.

    Args:
        p: the modulus.
        operation: a key of `OPERATIONS`.
        train_fraction: share of the sequences that is the training set, between 0 and 1; Power et al. vary it.
        split_seed: of the choice.

    Raises:
        ValueError: a value is out of range; the message begins with its name.
    """

    kind: ClassVar[Kind] = "tokens"
    source = "computed"
    in_shape = (3,)

    def __init__(self, p: int, operation: str, train_fraction: float, split_seed: int) -> None:
        if p < 2:
            raise ValueError(f"p: got {p}, expected a modulus of at least 2")
        if operation not in OPERATIONS:
            raise ValueError(f"operation: got {operation!r}, expected one of {', '.join(OPERATIONS)}")
        self._train = round(train_fraction * p * p)
        if not 0 < self._train < p * p:
            raise ValueError(f"train_fraction: got {train_fraction}, expected a share of {p * p} sequences, not all")
        self._p, self._operation, self._seed = p, operation, split_seed
        self.name = f"{operation} mod {p}"
        self.out_features = p + 1

    def prepare(self) -> None:
        """Nothing to fetch."""

    def identity(self) -> str:
        """SHA-256 of the settings, which decide everything."""
        known = (self._p, self._operation, self._train, self._seed)
        return hashlib.sha256(repr(("modular", known)).encode()).hexdigest()

    def load(self) -> TrainTest:
        """Sequences [N, 3] and targets [N, 3], of which the last counts."""
        import torch

        from hw1.seeds import generator

        p, operation = self._p, OPERATIONS[self._operation]
        x = torch.tensor([[a, b, p] for a in range(p) for b in range(p)])
        y = torch.full_like(x, IGNORED)
        y[:, 2] = torch.tensor([operation(a, b) % p for a in range(p) for b in range(p)])
        order = torch.randperm(len(x), generator=generator(self._seed, "modular"))
        train, test = order[: self._train].sort().values, order[self._train :].sort().values
        return TrainTest(x[train], y[train], x[test], y[test])
