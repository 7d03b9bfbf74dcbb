"""The points between two networks, computed here or in worker processes; imports no torch before it computes."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hw1.kinds import has_accuracy
from hw1.metrics import RECOMPUTED, SPLITS, STATISTICS
from hw1.runs import Run
from hw1.stages import at
from hw1.workers import WorkerLostError, spread

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from hw1.data import DataModule
    from hw1.risk.empirical import EmpiricalRisk


@dataclass(frozen=True)
class Part:
    """Some of the points between member `member` of one run and of another, on one split: computed in one go."""

    pair: int
    runs: tuple[Path, Path]
    member: int
    split: str
    alphas: Sequence[float]


class NotYetError(Exception):
    """A table is not in the cache."""


def not_yet() -> pd.DataFrame:
    """Computes nothing, where only what was computed before is wanted.

    Raises:
        NotYetError: always.
    """
    raise NotYetError


def examples_of(run: Run) -> tuple[int, int]:
    """Examples of each split."""
    of = run.result["dataset"]
    return int(of["train"]), int(of["test"])


def chunks(alphas: Sequence[float], number: int) -> Iterator[Sequence[float]]:
    """At most so many parts in a row, of equal length or one apart."""
    number = max(1, min(number, len(alphas)))
    for i in range(number):
        yield alphas[i * len(alphas) // number : (i + 1) * len(alphas) // number]


def computed(parts: Sequence[Part], workers: int) -> Generator[tuple[int, pd.DataFrame], None, None]:
    """(number of the part, its values) of each, in this process or in workers."""
    try:
        if workers == 1:
            for i, part in enumerate(parts):
                at(i, len(parts))
                yield i, values_of(part)
            return
        with contextlib.closing(spread(values_of, parts, workers)) as done:
            for count, (i, values) in enumerate(done):
                at(count, len(parts))
                if isinstance(values, Exception) and not isinstance(values, WorkerLostError):
                    raise values
                # What a killed worker was at is done here, where there is memory for it as without workers.
                yield i, values_of(parts[i]) if isinstance(values, WorkerLostError) else values
    finally:
        _nets.cache_clear()
        _data.cache_clear()


def values_of(part: Part) -> pd.DataFrame:
    """`alpha`, `split`, `loss` and, of classes, `accuracy`: to the bit the same wherever it is computed.

    Of networks with batch-norm also `STATISTICS`: no trained ones belong to a point between two, and those of the ends
    themselves are replaced as well, so that the line has no step at its ends.
    """
    import pandas as pd

    from hw1.landscape import evaluate, has_batch_norm, segment
    from hw1.training.process import threads

    with threads(1):
        one, two = (_nets(path)[part.member] for path in part.runs)
        data = _data(part.runs[0])
        table = pd.DataFrame({"alpha": part.alphas, "split": part.split})
        finite = next((net for net in (one, two) if _is_finite(net)), None)
        if finite is None:  # nothing lies between two that diverged
            return table.assign(loss=math.nan, **({"accuracy": math.nan} if has_accuracy(data.kind) else {}))
        risk = _risk(finite, data, part.split)
        if has_batch_norm(finite):
            table = table.assign(**{STATISTICS: RECOMPUTED})
        values = evaluate(risk.metrics, segment(one, two, part.alphas))  # [K, 2]; [K, 1] without classes
        return table.assign(**dict(zip(risk.columns, values.T.tolist(), strict=True)))


def _risk(net: nn.Module, data: DataModule, split: str) -> EmpiricalRisk:
    from hw1.risk.empirical import EmpiricalRisk
    from hw1.vectors import ParamSpace

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
