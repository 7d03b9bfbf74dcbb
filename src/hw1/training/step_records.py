"""Values of single steps, kept on the device and fetched together: logging must not wait for the device every step."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor

FETCH_EVERY = 100  # steps


class StepBuffer:
    """Collects one tensor [R, M] a step, M values of R members; `fetch` brings them all to the host in one transfer."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._values: list[Tensor] = []

    def add(self, step: int, values: Tensor) -> None:
        """Keep `values` [R, M] of `step`."""
        self._steps.append(step)
        self._values.append(values)

    def fetch(self) -> list[tuple[int, list[list[float]]]]:
        """(step, M lists of R values) of all steps since the last fetch; the buffer is empty then."""
        if not self._steps:
            return []
        rows = list(zip(self._steps, torch.stack(self._values).mT.tolist(), strict=True))
        self._steps, self._values = [], []
        return rows


def log_members(trainer: lightning.Trainer, rows: Iterable[tuple[int, Mapping[str, Sequence[float] | float]]]) -> None:
    """Send (step, {metric: values of the members, or one for all}) to every logger of the trainer.

    A single network's values go as numbers. Of several members, a logger that says `takes_members` gets them all;
    others, TensorBoard among them, get the median.
    """
    for step, metrics in rows:
        numbers = {
            name: values if isinstance(values, int | float) else median(values) for name, values in metrics.items()
        }
        for logger in trainer.loggers:
            own: Any = metrics if getattr(logger, "takes_members", False) else numbers
            logger.log_metrics(own, step=step)


def median(values: Sequence[float]) -> float:
    """The median of those that are numbers; NaN if none is."""
    if len(values) == 1:
        return values[0]
    numbers = [value for value in values if not math.isnan(value)]
    return statistics.median(numbers) if numbers else math.nan
