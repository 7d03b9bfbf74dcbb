"""Checkpoints at epoch boundaries, from which training goes on bit by bit as if it had not stopped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from hw1.files import replacing
from hw1.models import Members
from hw1.sealed import seal
from hw1.training.task import Task

RECORDED = "hw1"  # the entry of a checkpoint that says what the run's other files were


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a sealed checkpoint beside its target and renames it; Lightning's goes through the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save `checkpoint` at `path`, whole or not at all, with its own hash."""
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)
            seal(temporary)


class EpochCheckpoint(Checkpoint):  # Lightning calls Checkpoint callbacks last: it holds the state of the others
    """Writes `<run>/checkpoints/last.ckpt` at the end of an epoch.

    Randomness needs no state: before the first step of every epoch all generators are seeded from the run's seed and
    the epoch, so an epoch sees the same dropout whether or not training was interrupted before it, and a
    member sees the same as the single run with its seed.

    Args:
        seconds: at least so long between two checkpoints; the last epoch always writes one.
        epoch_seed: (epoch, member) -> 32-bit seed.
        before: called before a checkpoint is written, so that no log falls behind it.
        beside: what the checkpoint holds, under `RECORDED`, of the run's other files.
    """

    def __init__(
        self,
        seconds: float,
        epoch_seed: Callable[[int, int], int],
        before: Callable[[], None],
        beside: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._seconds = seconds
        self._epoch_seed = epoch_seed
        self._before = before
        self._beside = beside
        self._earlier = 0.0  # seconds trained before this process took over
        self._started = self._written = time.monotonic()

    @property
    def seconds_trained(self) -> float:
        """Training time so far, over all interruptions, up to the last checkpoint of each."""
        return self._earlier + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """What outlives a process: the training time."""
        return {"seconds": self.seconds_trained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._earlier = state_dict["seconds"]

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """What else stands in the run's folder by now."""
        checkpoint[RECORDED] = self._beside()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clocks."""
        self._started = self._written = time.monotonic()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed every generator before the first step of an epoch.

        Not in on_train_epoch_start: Lightning leaves that out in the epoch that it resumes at, and building a
        DataLoader's iterator after it draws from torch's generator.
        """
        if batch_idx == 0:
            epoch = trainer.current_epoch
            net = Task.of(pl_module).net
            if isinstance(net, Members):
                net.seed(lambda member: self._epoch_seed(epoch, member))
            lightning.seed_everything(self._epoch_seed(epoch, 0), verbose=False)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write a checkpoint if it is time, or the last epoch."""
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        if last or time.monotonic() - self._written >= self._seconds:
            self._before()
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
            self._written = time.monotonic()
