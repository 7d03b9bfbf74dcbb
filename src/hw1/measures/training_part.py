"""The training examples that a measure is taken on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from hw1.data import DataModule
    from hw1.data.batches import EvaluationBatches


@dataclass(frozen=True)
class Part:
    """Examples that a measure is taken on.

    Attributes:
        batches: (inputs [B, ...], targets [B, ...]), one batch of all that are in memory; of a stream many, read again
            at every pass.
        size: number of examples.
        held: whether they are in memory.
    """

    batches: Sequence[tuple[Tensor, Tensor]] | EvaluationBatches
    size: int
    held: bool


def check_examples(examples: int | None) -> None:
    """Refuse a number of examples that is none.

    Raises:
        ValueError: it is neither positive nor None.
    """
    if examples is not None and examples < 1:
        raise ValueError(f"examples: got {examples}, expected a positive integer or null (all)")


def training_part(data: DataModule, examples: int | None, seed: int, purpose: str) -> Part:
    """A random part of the training set, stratified by class.

    Args:
        data: loaded.
        examples: N; None for all.
        seed: of the choice.
        purpose: what the examples are for, so that two measures choose independently.
    """
    from hw1.data.labels import subset
    from hw1.seeds import generator

    size = data.sizes["train"]
    if examples is None or examples >= size:
        return Part(data.batches("train"), size, held=not data.streamed)
    kept = subset(data.targets("train"), examples, generator(seed, purpose))
    return Part([data.examples_of("train", rows=kept)], examples, held=True)
