"""Training batches as they are drawn from a set: transformed where that was asked for, by any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hw1 import preemption
from hw1.data.batches import Batch, Drawing, EpochBatches, Indices, Shares
from hw1.data.protocol import ExampleSet
from hw1.data.randomness import kept, seed_all, seeded
from hw1.seeds import generator

Transform = Callable[[Tensor], Tensor]  # an input -> one of the same shape


class Drawn(NamedTuple):
    """Rows of a set ([B], [R, B] or a slice), in an epoch."""

    rows: Indices
    epoch: int


class WithEpoch(Sampler[Drawn]):
    """Batches with the epoch that they are drawn in: processes that read them know no other."""

    def __init__(self, batches: EpochBatches | Shares) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Drawn]:
        epoch = self._batches.epoch()
        for rows in self._batches:
            yield Drawn(rows, epoch)


class RandomDrawing(Dataset[Batch]):
    """A set of which an example differs from epoch to epoch: transformed, or random by itself.

    What an example becomes depends on the seed, the epoch and its number alone: not on its batch, the process that
    reads it or what was drawn before. A member gets what a single run with its seed gets.

    Args:
        examples: the set.
        transform: of each input; None for none.
        seeds: of each member.
        members: whether batches have a leading dimension for members; then always [R, B, ...].
    """

    def __init__(self, examples: ExampleSet, transform: Transform | None, seeds: Sequence[int], members: bool) -> None:
        self.examples, self._transform, self._seeds, self._members = examples, transform, seeds, members
        self._table: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, batch: Drawn) -> Batch:
        rows = torch.arange(len(self))[batch.rows] if isinstance(batch.rows, slice) else batch.rows
        each = rows.expand(len(self._seeds), -1) if rows.ndim == 1 else rows  # [R, B]
        seeds = self._of_epoch(batch.epoch).gather(1, each)
        x, y = self.examples.take(each.flatten(), seeds.flatten())
        if self._transform is not None and len(x):  # a share of a batch may be empty
            with kept():
                x = torch.stack([self._one(*one) for one in zip(x, seeds.flatten().tolist(), strict=True)])
        if self._members:
            return x.unflatten(0, each.shape), y.unflatten(0, each.shape)
        return x, y

    def _one(self, x: Tensor, seed: int) -> Tensor:
        assert self._transform is not None
        seed_all(seed ^ 1)  # another stream than that of the example itself
        return self._transform(x)

    def _of_epoch(self, epoch: int) -> Tensor:
        """The seed of every example for every member in this epoch, [R, N]."""
        if self._table is None or self._table[0] != epoch:
            rows = [
                torch.randint(2**62, (len(self),), generator=generator(seed, "examples", epoch)) for seed in self._seeds
            ]
            self._table = epoch, torch.stack(rows)
        return self._table[1]


def training_loader(
    examples: ExampleSet,
    transform: Transform | None,
    batches: EpochBatches | Shares,
    seeds: Sequence[int],
    workers: int,
) -> DataLoader[Batch]:
    """A DataLoader of training batches [x, y], stacked; with a leading dimension where there are several seeds."""
    # With batch_size=None the sampler's items go to the dataset as they are.
    several = len(seeds) > 1
    if transform is None and not getattr(examples, "random", False):
        return _loader(Drawing(examples, several), batches, workers)
    return _loader(RandomDrawing(examples, transform, seeds, several), WithEpoch(batches), workers)


def _loader(drawing: Dataset[Batch], sampler: Sampler[Any], workers: int) -> DataLoader[Batch]:
    return DataLoader(drawing, sampler=sampler, batch_size=None, num_workers=workers, worker_init_fn=preemption.serve)


def try_on(transform: Transform, x: Tensor) -> None:
    """Transform one input, which stays as it is.

    Raises:
        ValueError: the transform refuses it, or makes something of another shape or type of it.
    """
    with seeded(0):
        try:
            made = transform(x.clone())
        except Exception as error:  # whatever a user's transform raises
            raise ValueError(f"{type(error).__name__} on an input {list(x.shape)}: {error}") from error
    if not isinstance(made, Tensor) or (made.shape, made.dtype) != (x.shape, x.dtype):
        kind = f"{made.dtype} {list(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise ValueError(f"got {kind} from an input {x.dtype} {list(x.shape)}, expected the same type and shape")
