"""The training loss of every step, and the alarm when it is no longer a number."""

import logging
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from hw1.metrics import STEP_LOSS
from hw1.training.step_records import FETCH_EVERY, StepBuffer, log_members

log = logging.getLogger(__name__)


class NonFiniteLossError(ArithmeticError):
    """A training loss became NaN or infinite; the message names the step."""


class StepLoss(Callback):
    """Logs `train_step/loss`, the mini-batch loss of each step (training mode; the unit of the loss).

    Where a step accumulates the gradients of several batches, it is the mean of their losses.

    Of an optimizer that evaluates more than once a step (SAM, LBFGS), it is the loss at the first point. Values are
    fetched every 100 steps and at the end of an epoch, so a step never waits for the device. Of several members one may
    diverge without harm to the others: it is named once, and its results are not numbers.

    Raises:
        NonFiniteLossError: the loss (of every member) is NaN or infinite, before the next checkpoint is written.
    """

    def __init__(self) -> None:
        self._buffer = StepBuffer()
        self._step = 0
        self._batches = 0
        self._diverged: set[int] = set()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step that this batch belongs to; with accumulated gradients, several batches share one."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the losses of this step, and fetch where it is done."""
        if "losses" in outputs:  # a user's own module with manual optimization may tell none
            self._buffer.add(self._step, outputs["losses"][:, None])
        self._batches += 1
        if self._batches >= FETCH_EVERY and trainer.global_step > self._step:
            self._flush(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Fetch the rest of the epoch."""
        self._flush(trainer)

    def catch_up(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Fetch what there is: training stops in the middle of an epoch."""
        self._flush(trainer)

    def _flush(self, trainer: lightning.Trainer) -> None:
        self._batches = 0
        batches = groupby(self._buffer.fetch(), key=lambda row: row[0])
        rows = [(step, _means([losses for _, (losses,) in group])) for step, group in batches]
        log_members(trainer, [(step, {STEP_LOSS: losses}) for step, losses in rows])
        for step, losses in rows:
            bad = {member for member, loss in enumerate(losses) if not math.isfinite(loss)}
            if len(bad) == len(losses):
                raise NonFiniteLossError(
                    f"the training loss is {losses[0]} at step {step} (epoch {trainer.current_epoch}); a smaller "
                    "optimizer.lr, or +trainer.gradient_clip_val=1, usually helps"
                )
            for member in sorted(bad - self._diverged):
                log.warning("member %d: the training loss is %s at step %d", member, losses[member], step)
            self._diverged |= bad


def _means(batches: Sequence[Sequence[float]]) -> list[float]:
    """The mean over the batches of a step, for each member."""
    return [sum(losses) / len(batches) for losses in zip(*batches, strict=True)]
