"""Processes that share the chunks of a sum over examples, and all get the sum: of torch.distributed.

The chunks are those of one process, and the sum is its own: chunk after chunk, in their order. So its bits are those of
one process, whatever the number of processes, on equal devices with equal threads. (The tree of the sum is a chain: its
rounding grows with the number of chunks, as it always did here.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_T = TypeVar("_T")


class Ranks:
    """Who computes which chunk.

    Chunks go round: number n is that of rank n modulo their count. After each round every process has the round's
    results, and adds them up; so many vectors are in memory at a time as there are processes.

    Args:
        group: of torch.distributed, initialised; None for this process alone, which then adds in place.

    Raises:
        ValueError: this process does not belong to the group.
    """

    def __init__(self, group: ProcessGroup | None) -> None:
        self._group = group
        if group is not None and group.rank() < 0:
            raise ValueError("group: got one without this process, expected its own: leave it out here")

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self._group is None

    def own(self, number: int) -> bool:
        """Whether the chunk with this number is this process's."""
        return self._group is None or number % self._group.size() == self._group.rank()

    def add(self, total: Tensor, chunks: Iterable[_T], add_one: Callable[[Tensor, _T], object]) -> None:
        """Add all chunks to `total`, in place; every process gets the same.

        Args:
            total: zeros, in every process.
            chunks: all of them, in every process; only its own are looked into (`own`).
            add_one: (sum, chunk): adds it in place.
        """
        if self._group is None:
            for chunk in chunks:
                add_one(total, chunk)
            return
        part, count = None, 0
        for number, chunk in enumerate(chunks):
            count = number + 1
            if self.own(number):
                part = torch.zeros_like(total)
                add_one(part, chunk)
            if count % self._group.size() == 0:
                self._add_round(total, part, self._group.size())
                part = None
        if count % self._group.size():
            self._add_round(total, part, count % self._group.size())

    def names(self, used: Iterable[str], all_names: Sequence[str]) -> set[str]:
        """The names that are used in any process."""
        found = set(used)
        if self._group is None:
            return found
        flags = [[name in found for name in all_names] for _ in range(self._group.size())]
        torch.distributed.all_gather_object(flags, flags[0], group=self._group)
        return {name for one in flags for name, is_used in zip(all_names, one, strict=True) if is_used}

    def _add_round(self, total: Tensor, part: Tensor | None, count: int) -> None:
        """Add the results of a round's first `count` ranks."""
        assert self._group is not None
        own = torch.zeros_like(total) if part is None else part
        parts = [torch.empty_like(total) for _ in range(self._group.size())]
        torch.distributed.all_gather(parts, own.contiguous(), group=self._group)
        for one in parts[:count]:
            total += one
