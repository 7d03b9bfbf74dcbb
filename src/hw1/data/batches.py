"""Batches of examples in memory: their order is a function of a seed and the epoch, and a batch is one gather."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hw1.seeds import generator

Batch = tuple[Tensor, Tensor]
Indices = Tensor | slice


class InMemory(Dataset[Batch]):
    """Examples x [N, ...] and y [N, ...], indexed by a whole batch: an index tensor [B] or a slice.

    For several members, batches have a leading dimension: an index tensor [R, B] gives one batch a member, [R, B, ...],
    and a slice one batch for all of them, [1, B, ...].
    """

    def __init__(self, x: Tensor, y: Tensor, members: bool) -> None:
        self.x, self.y, self.members = x, y, members

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, batch: Indices) -> Batch:
        if isinstance(batch, slice):  # a view: nothing is copied
            if self.members:
                return self.x[None, batch], self.y[None, batch]
            return self.x[batch], self.y[batch]
        if batch.ndim == 2:
            x, y = (tensor.index_select(0, batch.flatten()) for tensor in (self.x, self.y))
            return x.unflatten(0, batch.shape), y.unflatten(0, batch.shape)
        # 20 us less than x[batch] for 64 images of MNIST.
        return self.x.index_select(0, batch), self.y.index_select(0, batch)


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
    """

    def __init__(self, size: int, batch_size: int | None, seeds: Sequence[int], epoch: Callable[[], int]) -> None:
        self.size, self.batch_size, self.seeds, self.epoch = size, min(batch_size or size, size), seeds, epoch

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Indices]:
        if self.batch_size == self.size:
            yield slice(0, self.size)
        else:
            epoch = self.epoch()
            orders = [torch.randperm(self.size, generator=generator(seed, "order", epoch)) for seed in self.seeds]
            order = orders[0] if len(orders) == 1 else torch.stack(orders)  # [N], or [R, N]
            yield from order.split(self.batch_size, dim=-1)


class OrderedBatches(Sampler[Indices]):
    """Every example once, in order, in slices of `batch_size`; the last one holds what is left."""

    def __init__(self, size: int, batch_size: int) -> None:
        self.size, self.batch_size = size, batch_size

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Indices]:
        for start in range(0, self.size, self.batch_size):
            yield slice(start, min(start + self.batch_size, self.size))


def loader(examples: Batch, batches: Sampler[Indices], workers: int, members: bool = False) -> DataLoader[Batch]:
    """A DataLoader of `batches` of `examples`: each item is [x, y], stacked; with a leading dimension for members."""
    # With batch_size=None the sampler's items go to the dataset as they are. Unlike a batch_sampler of one's own, a
    # sampler can be wrapped by Lightning for distributed training: rank r then takes every world_size-th batch.
    return DataLoader(InMemory(*examples, members), sampler=batches, batch_size=None, num_workers=workers)
