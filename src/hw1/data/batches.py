"""Batches of examples: their order is a function of a seed and the epoch, and a batch is one gather."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hw1 import preemption
from hw1.data.protocol import ExampleSet
from hw1.seeds import generator

WORTH = 32  # batches a process, from which on a pass pays for starting it

Batch = tuple[Tensor, Tensor]
Indices = Tensor | slice
Share = tuple[int, int]  # (which process of several, how many there are)
ALL: Share = (0, 1)
_Batches = TypeVar("_Batches", "EpochBatches", "OrderedBatches")


class Drawing(Dataset[Batch]):
    """A set, indexed by a whole batch: an index tensor [B] or a slice.

    For several members, batches have a leading dimension: an index tensor [R, B] gives one batch a member, [R, B, ...],
    and a slice one batch for all of them, [1, B, ...].

    Args:
        examples: the set.
        members: whether batches have that dimension.
    """

    def __init__(self, examples: ExampleSet, members: bool) -> None:
        self.examples, self.members = examples, members

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, batch: Indices) -> Batch:
        if isinstance(batch, slice):  # a view: nothing is copied
            x, y = self.examples.take(batch)
            return (x[None], y[None]) if self.members else (x, y)
        if batch.ndim == 2:
            x, y = self.examples.take(batch.flatten())
            return x.unflatten(0, batch.shape), y.unflatten(0, batch.shape)
        return self.examples.take(batch)


class EpochBatches(Sampler[Indices]):
    """Every example once an epoch, in random batches of `batch_size`; the last one holds what is left.

    The order of epoch e depends on `seed` and e alone, so a resumed training sees the batches it would have seen.
    `epoch` is asked when the first batch is drawn. If one batch holds everything, its order is of no consequence, and
    it is the slice of the whole set.

    Args:
        size: number of examples.
        batch_size: examples a batch; None for all of them.
        seeds: of the order; of several, each member has its own order.
        epoch: () -> number of the epoch that begins.
        behind: () -> batches of that epoch that a resumed training has behind it: they are left out.
    """

    def __init__(
        self,
        size: int,
        batch_size: int | None,
        seeds: Sequence[int],
        epoch: Callable[[], int],
        behind: Callable[[], int] = lambda: 0,
    ) -> None:
        self.size, self.batch_size, self.seeds, self.epoch = size, min(batch_size or size, size), seeds, epoch
        self._behind = behind

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Indices]:
        if self.batch_size == self.size:
            yield slice(0, self.size)
        else:
            epoch = self.epoch()
            orders = [torch.randperm(self.size, generator=generator(seed, "order", epoch)) for seed in self.seeds]
            order = orders[0] if len(orders) == 1 else torch.stack(orders)  # [N], or [R, N]
            yield from order.split(self.batch_size, dim=-1)[self._behind() :]


class OrderedBatches(Sampler[Indices]):
    """Every example once, in order, in slices of `batch_size`; the last one holds what is left."""

    def __init__(self, size: int, batch_size: int) -> None:
        self.size, self.batch_size = size, batch_size

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Indices]:
        for start in range(0, self.size, self.batch_size):
            yield slice(start, min(start + self.batch_size, self.size))


class Shares(Sampler[Indices]):
    """The part of every batch that is one process's: the parts of all, one behind the other, are the batch.

    Their sizes differ by one at most; of a batch that has fewer examples than there are processes, some are empty.

    Args:
        batches: the same in every process.
        rank: which process this is, from 0.
        world: number of processes.
    """

    def __init__(self, batches: EpochBatches | OrderedBatches, rank: int, world: int) -> None:
        self._batches, self._rank, self._world = batches, rank, world

    @property
    def epoch(self) -> Callable[[], int]:
        """() -> number of the epoch that begins; of training batches."""
        assert isinstance(self._batches, EpochBatches)
        return self._batches.epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Indices]:
        for rows in self._batches:
            if isinstance(rows, slice):
                part = torch.arange(rows.start, rows.stop).tensor_split(self._world)[self._rank]
                first = rows.start if len(part) == 0 else int(part[0])
                yield slice(first, first + len(part))
            else:
                yield rows.tensor_split(self._world, dim=-1)[self._rank]


def shared(batches: _Batches, share: Share) -> _Batches | Shares:
    """The share of batches that is one process's; of one alone, the batches themselves."""
    return batches if share == ALL else Shares(batches, *share)


class EvaluationBatches:
    """The batches of a set in its order, which can be read again and again: what a risk takes.

    They are of equal size, or one apart: a last batch of a single example would have no variance.

    Args:
        examples: the set.
        batch_size: most examples of one.
        workers: processes that read them, where there are so many that starting these is worth it, at every pass.
    """

    def __init__(self, examples: ExampleSet, batch_size: int, workers: int) -> None:
        self._examples = examples
        self._number = -(-len(examples) // batch_size)
        worth = (
            self._number >= WORTH * workers and not multiprocessing.current_process().daemon
        )  # which has no children
        self._workers = workers if worth else 0

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Batch]:
        sampler = list(torch.arange(len(self._examples)).tensor_split(self._number))
        # A generator of its own: making an iterator draws from torch's.
        own = torch.Generator().manual_seed(0)
        drawing = Drawing(self._examples, members=False)
        options: dict[str, Any] = {"generator": own, "worker_init_fn": preemption.serve}
        return iter(DataLoader(drawing, sampler=sampler, batch_size=None, num_workers=self._workers, **options))


class Inputs:
    """The inputs of batches alone."""

    def __init__(self, batches: EvaluationBatches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        return (x for x, _ in self._batches)


def evaluation_loader(
    examples: ExampleSet, batch_size: int, workers: int, members: bool, share: Share = ALL
) -> DataLoader[Batch]:
    """A DataLoader of the whole set, or of a share of its batches, in its order; [1, B, ...] with members."""
    batches = shared(OrderedBatches(len(examples), batch_size), share)
    drawing = Drawing(examples, members)
    return DataLoader(drawing, sampler=batches, batch_size=None, num_workers=workers, worker_init_fn=preemption.serve)
