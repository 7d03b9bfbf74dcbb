"""The points between two networks, computed here or in worker processes; imports no torch before it computes."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hw1.kinds import has_accuracy
from hw1.measures.pieces import CHUNK, Piece, Pieces
from hw1.metrics import RECOMPUTED, SPLITS, STATISTICS
from hw1.runs import Run
from hw1.stages import at
from hw1.workers import WorkerLostError, spread

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from hw1.data import DataModule
    from hw1.risk.empirical import EmpiricalRisk
    from hw1.runs import Member


WORTH_WORKERS = 1_000_000  # examples evaluated, some 20 seconds on one core: fewer are done before workers are there
PIECE = 100_000  # examples evaluated in a piece, at most, unless one point takes more: what a kill costs a process


@dataclass(frozen=True)
class Part:
    """Some of the points between member `member` of one run and of another, on one split: computed in one go.

    Attributes:
        pair: its number.
        runs: their folders.
        member: its number.
        split: train or test.
        alphas: of the points.
        name: of the piece.
        pieces: where it is kept once it is computed, until the whole table is; None: it is not.
    """

    pair: int
    runs: tuple[Path, Path]
    member: int
    split: str
    alphas: Sequence[float]
    name: str = ""
    pieces: Pieces | None = None

    @property
    def label(self) -> str:
        """What tells it from the others of a sweep."""
        return f"{self.pair}_{self.name}"

    def keep(self) -> None:
        """Compute it into its file, unless it is there."""
        kept_values_of(self)


class NotYetError(Exception):
    """A table is not in the cache."""


def not_yet() -> pd.DataFrame:
    """Computes nothing, where only what was computed before is wanted.

    Raises:
        NotYetError: always.
    """
    raise NotYetError


def parts_of(
    pairs: Mapping[int, tuple[Member, Member]], alphas: Sequence[float], kept: Mapping[int, Pieces]
) -> list[Part]:
    """What is computed in one go, both splits of each pair; in pieces, always the same ones, where it is much.

    Args:
        pairs: by their numbers.
        alphas: of the points between the two.
        kept: where the pieces of each pair stand.
    """
    sizes = {number: first.run.result["dataset"] for number, (first, _) in pairs.items()}
    much = len(alphas) * sum(int(of[split]) for of in sizes.values() for split in SPLITS) >= WORTH_WORKERS
    parts = []
    for number, (first, second) in pairs.items():
        for split in SPLITS:
            most = max(1, PIECE // int(sizes[number][split])) if much else len(alphas)
            for at_first in range(0, len(alphas), most):
                own, name = alphas[at_first : at_first + most], f"{split}_{at_first}"
                ends = first.run.path, second.run.path
                parts.append(Part(number, ends, first.number, split, own, name, kept[number] if much else None))
    return parts


def computed(parts: Sequence[Part], workers: int) -> Generator[tuple[int, pd.DataFrame], None, None]:
    """(number of the part, its values) of each, in this process or in workers."""
    try:
        if workers == 1:
            for i, part in enumerate(parts):
                at(i, len(parts))
                yield i, kept_values_of(part)
            return
        with contextlib.closing(spread(kept_values_of, parts, workers)) as done:
            for count, (i, values) in enumerate(done):
                at(count, len(parts))
                if isinstance(values, Exception) and not isinstance(values, WorkerLostError):
                    raise values
                # What a killed worker was at is done here, where there is memory for it as without workers.
                yield i, kept_values_of(parts[i]) if isinstance(values, WorkerLostError) else values
    finally:
        for kept in (_nets, _data, _risk):
            kept.cache_clear()


def kept_values_of(part: Part) -> pd.DataFrame:
    """`values_of`, or what another process has left of it, where parts are pieces."""
    import pandas as pd

    def compute(names: Iterable[str], chunk: int | None) -> Iterator[tuple[str, Piece]]:
        for name in names:
            table = values_of(part)
            chunk = _data(part.runs[0]).eval_batch_size
            yield name, {CHUNK: chunk, "columns": {column: table[column].tolist() for column in table}}

    if part.pieces is None:
        return values_of(part)
    return pd.DataFrame(part.pieces.fill([part.name], compute)[part.name]["columns"])


def values_of(part: Part) -> pd.DataFrame:
    """`alpha`, `split`, `loss` and, of classes, `accuracy`: to the bit the same wherever it is computed.

    Of networks with batch-norm also `STATISTICS`: no trained ones belong to a point between two, and those of the ends
    themselves are replaced as well, so that the line has no step at its ends.
    """
    import pandas as pd

    from hw1.landscape import evaluate, has_batch_norm, segment
    from hw1.training.process import threads

    with threads(1):
        one, two = ends = [_nets(path)[part.member] for path in part.runs]
        data = _data(part.runs[0])
        table = pd.DataFrame({"alpha": part.alphas, "split": part.split})
        finite = next((number for number, net in enumerate(ends) if _is_finite(net)), None)
        if finite is None:  # nothing lies between two that diverged
            return table.assign(loss=math.nan, **({"accuracy": math.nan} if has_accuracy(data.kind) else {}))
        risk = _risk(part.runs[finite], part.member, part.runs[0], part.split)
        if has_batch_norm(ends[finite]):
            table = table.assign(**{STATISTICS: RECOMPUTED})
        values = evaluate(risk.metrics, segment(one, two, part.alphas))  # [K, 2]; [K, 1] without classes
        return table.assign(**dict(zip(risk.columns, values.T.tolist(), strict=True)))


@functools.lru_cache(maxsize=2)  # of both splits
def _risk(run: Path, member: int, data_of: Path, split: str) -> EmpiricalRisk:
    """The loss and accuracy of one network's architecture on the data of another run, where theta is to be put in."""
    from hw1.risk.empirical import EmpiricalRisk
    from hw1.vectors import ParamSpace

    net, data = _nets(run)[member], _data(data_of)
    return EmpiricalRisk(
        net, data.loss, data.batches(split), ParamSpace.of(net), kind=data.kind, chunk_size=data.eval_batch_size,
        statistics_inputs=data.inputs(SPLITS[0]),
    )  # fmt: skip


def _is_finite(net: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in net.parameters())


@functools.lru_cache(maxsize=2)  # read once for all parts of a pair of runs
def _nets(path: Path) -> list[nn.Module]:
    return Run(path).nets()


@functools.lru_cache(maxsize=1)
def _data(path: Path) -> DataModule:
    return Run(path).datamodule()
