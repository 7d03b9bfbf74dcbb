"""What a DataModule is made of: the examples, and the things that know how to load them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hw1.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor

# What of a node `dataset` goes to `hw1.data.DataModule`; the rest goes to the source at its `_target_`.
OF_DATAMODULE = ("batch_size", "train_size", "corruption", "val_fraction", "seed", "workers", "eval_batch_size")


@dataclass(frozen=True, eq=False)
class TrainTest:
    """A training and a test set in memory. Treat the tensors as read-only: runs of one process share them.

    Attributes:
        train_x: [N, ...] float32; images are [N, C, H, W] in [0, 1].
        train_y: [N] int64 classes or counts, [N, out_features] float32 values, [N, T] int64 tokens, or [N] of 0 and 1.
        test_x: [M, ...], like `train_x`.
        test_y: [M, ...], like `train_y`.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


class ExampleSource(Protocol):
    """Anything a `DataModule` can be built on. Its attributes are known before a file of examples is read.

    A class may say more, read by `getattr` and cheap to import, since planning a sweep reads it:

    - `loss`: (outputs [B, ...], targets [B, ...], reduction="mean") -> [], where it is not `hw1.kinds.loss_of(kind)`
    - `large`: True for tens of thousands of examples, of which a budget's `train_size` then keeps some
    - `choose_source(root, source)`, static: what `source="auto"` is on this machine; a sweep asks once
    - `files()`: the files and folders that it reads, where Python does not open them itself; none for what is computed

    A source without `kind` has classes if its `loss` is torch's cross_entropy, else values.

    Attributes:
        kind: of task: "classes", "values", "tokens", "binary" or "counts", see `hw1.kinds.loss_of`.
        name: of the data set, for people.
        source: which variant is read ("full", "bundled", "archive", "folder", ...).
        in_shape: shape of one input, without the batch.
        out_features: classes, or the length of a target.
    """

    @property
    def kind(self) -> Kind: ...  # noqa: D102 - see Attributes

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102

    @property
    def in_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def out_features(self) -> int: ...  # noqa: D102

    def prepare(self) -> None:
        """Download what is missing. In multi-process runs, called in one process only."""

    def identity(self) -> str:
        """Hex SHA-256 of what is read; equal means equal examples."""

    def load(self) -> TrainTest:
        """Read all examples into memory."""


class ExampleSet(Protocol):
    """What a DataModule draws batches from: numbered examples (input, target).

    Attributes:
        targets: [N, ...]; of a stream, read once where nothing else says them.
    """

    @property
    def targets(self) -> Tensor: ...  # noqa: D102 - see Attributes

    def __len__(self) -> int: ...

    def take(self, rows: Tensor | slice, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs [B, ...] and targets [B, ...] of rows [B]; random ones as `seeds` [B] say, else as evaluations do."""

    def select(self, rows: Tensor) -> ExampleSet:
        """The set of rows [M] alone."""

    def relabelled(self, targets: Tensor) -> ExampleSet:
        """The set with other targets [N]."""
