"""The training examples that a measure is taken on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from hw1.data import DataModule


def check_examples(examples: int | None) -> None:
    """Refuse a number of examples that is none.

    Raises:
        ValueError: it is neither positive nor None.
    """
    if examples is not None and examples < 1:
        raise ValueError(f"examples: got {examples}, expected a positive integer or null (all)")


def training_part(data: DataModule, examples: int | None, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Inputs [N, ...] and targets [N, ...] of a random part of the training set, stratified by class.

    Args:
        data: loaded.
        examples: N; None for all.
        seed: of the choice.
        purpose: what the examples are for, so that two measures choose independently.
    """
    from hw1.data.labels import subset
    from hw1.seeds import generator

    x, y = data.train_tensors
    if examples is None or examples >= len(x):
        return x, y
    kept = subset(y, examples, generator(seed, purpose))
    return x[kept], y[kept]
