"""Values of single steps, kept on the device and fetched together: logging must not wait for the device every step."""

import lightning
import torch
from torch import Tensor

FETCH_EVERY = 100  # steps


class StepBuffer:
    """Collects one vector [M] a step; `fetch` brings them all to the host in one transfer."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._values: list[Tensor] = []

    def add(self, step: int, values: Tensor) -> None:
        """Keep `values` [M] of `step`."""
        self._steps.append(step)
        self._values.append(values)

    def fetch(self) -> list[tuple[int, list[float]]]:
        """(step, values) of all steps since the last fetch; the buffer is empty then."""
        if not self._steps:
            return []
        rows = list(zip(self._steps, torch.stack(self._values).tolist(), strict=True))
        self._steps, self._values = [], []
        return rows


def log_rows(trainer: lightning.Trainer, names: list[str], rows: list[tuple[int, list[float]]]) -> None:
    """Send fetched rows to every logger of the trainer, under the step they belong to."""
    for logger in trainer.loggers:
        for step, values in rows:
            logger.log_metrics(dict(zip(names, values, strict=True)), step=step)
