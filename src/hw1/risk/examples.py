"""The examples of a risk: counted once, read again at every pass, and checked to be the same ones."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hw1.risk.closeness import close
from hw1.risk.counts import Count, Reduction, count_alike
from hw1.risk.guard import reading
from hw1.risk.nested import (
    cast,
    check_pair,
    common_length,
    detached,
    examples_in,
    joined,
    refuse_arrays,
    rows_of,
    signature,
    tensors_of,
)
from hw1.risk.passes import Spread, fingerprint_of


class Examples:
    """Batches that can be read again, in chunks that weigh what they hold.

    Args:
        batches: a list, a DataLoader, or whatever can be iterated again.
        chunk_size: most examples that `chunks` gives at a time; batches that the user's `count` weighs are not split.
        count: what a batch weighs, said by the user; unless given, what `derived` says, else the number of its
            examples.
        pairs: whether batches must be (inputs, targets), of tensors [B, ...] in any structure; else they may be
            anything, and are not split.
        derived: what a batch, and any part of it, weighs by the loss.

    Attributes:
        size: what all batches weigh: N, the number of examples, unless `count` says something else.
        first: the first batch.
        pairs: as given.
        counted: whether batches weigh something else than the number of their examples.
        reduction: of the loss; of a "sum", all parts weigh the same.
        gaps: whether there is a number among them that is not finite.
        nan: whether there is a NaN.
        together: whether all examples come as one batch that is never cut: then R is its loss, whatever that is.

    Raises:
        ValueError: an iterator, no examples, batches that are not pairs of equal length where they must be, or counts
            that are negative or not finite.
    """

    def __init__(
        self,
        batches: Iterable[Any] | None,
        chunk_size: int,
        count: Count | None = None,
        *,
        pairs: bool = True,
        derived: Count | None = None,
    ) -> None:
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise ValueError(
                f"chunk_size: got {chunk_size}, expected a positive integer or 'auto': give examples at a time"
            )
        if count is not None and not callable(count):
            raise ValueError(f"count: got a {type(count).__name__}, expected a function: give count=lambda batch: ...")
        if batches is None:
            raise ValueError(
                "batches: got None, expected a list or DataLoader of batches: give [(inputs, targets)], say"
            )
        if isinstance(batches, Iterator):
            raise ValueError(
                "batches: got an iterator, which can be read only once, expected a list or DataLoader: give list(...)"
            )
        if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
            raise ValueError(
                f"batches: got a {type(batches).__name__}, expected a list or DataLoader of batches: give [(x, y)], say"
            )
        self.pairs = pairs
        self.reduction: Reduction = "mean"
        self._batches = batches
        self._count = count
        self._derived = derived
        self._own: Count = examples_in if count is None else count
        self._chunk_size = chunk_size
        self._in_memory = isinstance(batches, list | tuple)
        self._held: Sequence[Any] | None = batches if isinstance(batches, list | tuple) else None
        self._read_all()

    @property
    def counted(self) -> bool:
        """Whether batches weigh something else than the number of their examples."""
        return self._own is not examples_in

    @property
    def said(self) -> bool:
        """Whether the user said what a batch weighs; such batches are taken whole."""
        return self._count is not None

    @property
    def chunk_size(self) -> int:
        """Most examples that `chunks` gives at a time."""
        return self._chunk_size

    def share(self, weight: float) -> float:
        """The factor of a part's loss in R: its share in the mean, or 1 in a sum."""
        return 1.0 if self.reduction == "sum" else weight / self.size

    def chunks(self, like: Tensor) -> Iterator[tuple[Any, float]]:
        """(batch, its weight), tensors on the device of `like`; those of floating point in its dtype.

        Pairs without the user's `count` come in parts of at most chunk_size examples, where they can be cut. What
        weighs nothing is left out of a mean.
        """
        seen, fingerprint = 0.0, torch.zeros(3, dtype=torch.float64)
        with reading(self._batches):
            for batch in self._batches:
                seen += self.weight(batch)
                if not self._in_memory:
                    fingerprint += fingerprint_of(batch)
                for part in self._parts(batch):
                    weight = self.weight(part)
                    if weight or self.reduction == "sum":
                        yield cast(detached(part), like), weight
        changed = not self._in_memory and not close(fingerprint[:2], self._fingerprint[:2], self._fingerprint[2])
        if not math.isclose(seen, self.size, rel_tol=1e-12 if self.counted else 0.0) or changed:
            raise ValueError(
                f"batches: got other examples on another pass ({seen:.10g} after {self.size:.10g}), expected the same: "
                "switch off random augmentation, and shuffling together with drop_last"
            )

    def whole(self) -> tuple[Tensor, Tensor]:
        """All inputs [N, ...] and targets [N, ...] of pairs, copied into memory, in the dtype they come in."""
        with reading(self._batches):
            inputs, targets = zip(*self._batches, strict=True)
        return torch.cat(inputs), torch.cat(targets)

    def weight(self, batch: Any) -> float:
        """What a batch, or a part of one, weighs.

        Raises:
            ValueError: the user's `count` says what is no finite number of at least 0.
        """
        if not self.said:
            return float(self._own(batch))
        try:
            value = self._own(batch)
            weight = float(value.item() if isinstance(value, Tensor) else value)
        except Exception as error:
            raise ValueError(
                f"count: got {type(error).__name__} for a batch ({error}), expected count(batch) -> a number: say what "
                "a batch weighs"
            ) from error
        if not 0 <= weight < math.inf:
            raise ValueError(
                f"count: got {weight:g} for a batch, expected a finite number of at least 0: say what a batch weighs"
            )
        return weight

    def draw(self, size: int, generator: torch.Generator) -> Examples:
        """`size` of the examples of pairs, without replacement, as one batch. What a loader gives is held from now on.

        Raises:
            ValueError: batches of another structure, or a size that is not between 1 and the number of examples.
        """
        if not self.pairs:
            raise ValueError("draw: got batches of any structure, expected pairs (inputs, targets), which can be mixed")
        if not isinstance(generator, torch.Generator):
            raise ValueError(
                f"generator: got a {type(generator).__name__}, expected a torch.Generator: use "
                "torch.Generator().manual_seed(...)"
            )
        lengths = [common_length(batch) for batch in self._in_hand()]
        if None in lengths:
            raise ValueError("draw: got batches that cannot be cut into examples, expected tensors [B, ...] throughout")
        total = sum(length for length in lengths if length is not None)
        if not 1 <= size <= total:
            raise ValueError(f"size: got {size}, expected 1 to {total}: there are so many examples")
        if len({signature(batch) for batch in self._in_hand()}) > 1:
            raise ValueError("draw: got batches whose examples differ in shape, expected one shape: pad them alike")
        drawn = torch.randperm(total, generator=generator, device=generator.device)[:size].cpu()
        return self.of([joined(list(self._picked(drawn)))])

    def few(self, most: int) -> Examples:
        """At most so many examples, spread over the batches, as one batch; the first batch where none can be cut.

        Where batches differ in the shape of an example, those that go with the first.
        """
        rows = self._spread[:: -(-len(self._spread) // most)] if self._spread else [self.first]
        batch = joined(rows)
        return self.of([batch if self.weight(batch) else self._weighing(most)])

    def _weighing(self, most: int) -> Any:
        """At most so many examples that weigh something, of the first batch that does."""
        with reading(self._batches):
            batch = next(batch for batch in self._batches if self.weight(batch))
        length = common_length(batch)
        if length is None:
            return batch
        rows = (rows_of(batch, slice(row, row + 1)) for row in range(length))
        return joined(list(itertools.islice((row for row in rows if self.weight(row)), most)) or [batch])

    def of(self, batches: list[Any]) -> Examples:
        """Other batches of the same kind."""
        examples = Examples(batches, self._chunk_size, self._count, pairs=self.pairs, derived=self._derived)
        examples.reduction = self.reduction
        return examples

    def in_chunks(self, chunk_size: int) -> Examples:
        """The same batches, in other chunks."""
        examples = copy.copy(self)
        examples._chunk_size = chunk_size
        return examples

    # --- reading

    def _in_hand(self) -> Sequence[Any]:
        if self._held is None:
            with reading(self._batches):
                self._held = list(self._batches)
        return self._held

    def _picked(self, rows: Tensor) -> Iterator[Any]:
        """The examples with these numbers, batch by batch."""
        start = 0
        for batch in self._in_hand():
            length = examples_in(batch)
            own = rows[(rows >= start) & (rows < start + length)] - start
            if len(own):
                yield rows_of(batch, own)
            start += length

    def _parts(self, batch: Any) -> Iterator[Any]:
        length = common_length(batch) if self.pairs and not self.said else None
        if length is None or length <= self._chunk_size:
            yield batch
            return
        for first in range(0, length, self._chunk_size):
            yield rows_of(batch, slice(first, first + self._chunk_size))

    def _read_all(self) -> None:
        """What all batches weigh, the first, and their fingerprint, which nobody asks for where they are in memory."""
        fingerprint = torch.zeros(3, dtype=torch.float64)
        examples, weights, cut = [], [], True
        number, gaps, nan = 0, False, False
        spread = Spread()
        with reading(self._batches):
            for batch in self._batches:
                refuse_arrays(batch)
                gaps = gaps or not all(bool(tensor.isfinite().all()) for tensor in tensors_of(batch))
                nan = nan or (gaps and any(bool(tensor.isnan().any()) for tensor in tensors_of(batch)))
                if self.pairs:
                    check_pair(batch)
                if number == 0:
                    self.first = batch
                number += 1
                cut = cut and common_length(batch) is not None
                if cut:
                    spread.add(batch)
                examples.append(1 if self.said else examples_in(batch))
                if self._derived is not None and not self.said:
                    weights.append(float(self._derived(batch)))
                elif self.said:
                    weights.append(self.weight(batch))
                if not self._in_memory:
                    fingerprint += fingerprint_of(batch)
        if not number or (not self.said and not any(examples)):
            raise ValueError("batches: got no examples, expected at least one: is the loader empty (drop_last)?")
        self.together = number == 1 and (self.said or not self.pairs or not cut)
        if not cut and number > 1 and not self.said and self._derived is None:
            raise ValueError(
                "count: got None for batches that cannot be taken apart (tensors of different lengths, or texts), "
                "expected count=f(batch): say what a batch weighs in the mean (examples, nodes), or give one batch"
            )
        if self._derived is not None and not self.said and not count_alike(weights, examples, self.first):
            self._own = self._derived
        if not self.counted:
            weights = [float(one) for one in examples]
        size = math.fsum(weights)
        if size == 0:
            raise ValueError("count: got 0 for every batch, expected a positive sum: are all targets ignored?")
        self.size = int(size) if size == int(size) else size
        self._fingerprint, self.gaps, self.nan = fingerprint, gaps, nan
        self._spread = spread.rows if cut else []
