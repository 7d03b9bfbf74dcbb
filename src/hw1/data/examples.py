"""What a DataModule is made of: the examples, and the things that know how to load them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Examples:
    """A training and a test set in memory. Treat the tensors as read-only: runs of one process share them.

    Attributes:
        train_x: [N, ...] float32; images are [N, C, H, W] in [0, 1].
        train_y: [N] int64 classes, or [N, out_features] float32 targets.
        test_x: [M, ...], like `train_x`.
        test_y: [M, ...], like `train_y`.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


class ExampleSource(Protocol):
    """Anything a `DataModule` can be built on. Its attributes are known before a file of examples is read.

    Attributes:
        name: of the data set, for people.
        source: which variant is read ("full", "bundled", "archive", "folder", ...).
        in_shape: shape of one input, without the batch.
        out_features: classes, or the length of a target.
        loss: (outputs [B, out_features], targets) -> mean loss []; cross_entropy marks a classification.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see Attributes

    @property
    def source(self) -> str: ...  # noqa: D102

    @property
    def in_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def out_features(self) -> int: ...  # noqa: D102

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]: ...  # noqa: D102

    def prepare(self) -> None:
        """Download what is missing. In multi-process runs, called in one process only."""

    def identity(self) -> str:
        """Hex SHA-256 of what is read; equal means equal examples."""

    def load(self) -> Examples:
        """Read all examples into memory."""
