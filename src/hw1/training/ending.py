"""The end of a training: what is recorded of the whole sets was measured on the weights that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from hw1.data import DataModule
from hw1.training.checkpoint import LAST
from hw1.training.process import interruptible
from hw1.training.snapshots import digest, holds, snapshot_file
from hw1.training.task import Task


class UnmeasuredWeightsError(RuntimeError):
    """The weights that a run keeps are not those that were measured."""


class EvaluatedWeights(Callback):
    """Notes on which weights whole sets were evaluated last, when every callback has prepared them.

    Attributes:
        digest: of the module's tensors then; None before the first evaluation.
    """

    def __init__(self) -> None:
        self.digest: str | None = None

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note them before the first batch."""
        if batch_idx == dataloader_idx == 0:
            self.digest = digest(pl_module.state_dict())

    on_test_batch_start = on_validation_batch_start


def measure_end(
    trainer: lightning.Trainer,
    task: Task,
    data: DataModule,
    callbacks: Sequence[Callback],
    evaluated: EvaluatedWeights,
) -> dict[str, list[float]]:
    """The exact whole-set means {name: [R]} of the weights that a training came to, and what callbacks add.

    The last evaluation while training need not be repeated if it is of these weights, whole, and nothing else looks at
    the test.

    Args:
        trainer: whose `fit` has ended.
        task: that it trained.
        data: of the run.
        callbacks: of the run.
        evaluated: one of them.

    Raises:
        UnmeasuredWeightsError: a callback changed the weights for the evaluation, or the run's files hold others.
    """
    end = digest(task.module.state_dict())
    limits = (trainer.limit_val_batches, trainer.limit_test_batches)
    whole = all(isinstance(limit, float) and limit == 1 for limit in limits)  # the integer 1 is one batch
    again = task.evaluated_at != trainer.global_step or evaluated.digest != end
    asked = not whole or again or any(_may_test(callback) for callback in callbacks)
    if trainer.strategy.broadcast(asked):  # of several processes, the first decides
        with interruptible():
            trainer.test(task.module, datamodule=data, verbose=False, weights_only=True)
    measured = {name: [float(value)] for name, value in trainer.callback_metrics.items() if "/" in name}
    if evaluated.digest != end or digest(task.module.state_dict()) != end:
        raise UnmeasuredWeightsError(
            "a callback changes the weights while they are tested, so that what is measured is not what is kept; "
            "change them in on_train_end, or remove it from callbacks"
        )
    if trainer.is_global_zero:  # others write nothing
        _require_kept(Path(trainer.default_root_dir), task, trainer.current_epoch, end)
    # A callback may have measured more than the task, one value a member or a single one for all.
    return {**measured, **task.member_metrics, **task.measured}


def _may_test(callback: Callback) -> bool:
    """Whether a callback does something when the end is tested, or is not hw1's: what it does is not known."""
    if isinstance(callback, EvaluatedWeights):
        return False
    hooks = [name for name in dir(Callback) if name.startswith("on_test_")]
    own = any(getattr(type(callback), name) is not getattr(Callback, name) for name in hooks)
    return own or not type(callback).__module__.startswith("hw1.")


def _require_kept(folder: Path, task: Task, epoch: int, end: str) -> None:
    """Read the files of the end back and compare them, bit by bit, with the weights that were measured."""
    snapshot, checkpoint = snapshot_file(folder, epoch), folder / "checkpoints" / LAST
    if snapshot.exists() and not holds(snapshot, task.net):
        raise UnmeasuredWeightsError(f"{snapshot} does not hold the weights that were measured")
    if digest(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["state_dict"]) != end:
        raise UnmeasuredWeightsError(f"{checkpoint} does not hold the weights that were measured")
