"""The end of training at a given training loss, so that runs can be compared where they fit equally well."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from hw1.metrics import REACHED, TRAIN_LOSS
from hw1.training.task import Task


class StopAtTrainLoss(Callback):
    """Stops a run after the first epoch at whose end the loss over the whole training set is at most `loss`.

    A run that never comes to it trains to `trainer.max_epochs`; `stopped_at_train_loss/reached` in its result.json is 1
    for the former and 0 for the latter. Where the sets are evaluated every N epochs only
    (`trainer.check_val_every_n_epoch`), it stops after one of those.

    Args:
        loss: in the unit of the loss; nats for cross-entropy.
        replicas: members of the run: one. Members are trained side by side, and none of them can stop alone.

    Raises:
        ValueError: a loss that is not positive, or several members.
    """

    def __init__(self, loss: float, replicas: int) -> None:
        if not 0 < loss < float("inf"):
            raise ValueError(f"loss: got {loss}, expected a number above 0")
        if replicas > 1:
            raise ValueError(
                f"replicas: got {replicas}, expected 1: members cannot stop alone; train single runs (seed=0,1,2)"
            )
        self._loss = loss
        self._reached = False

    def state_dict(self) -> dict[str, Any]:
        """Whether the loss was reached: a run that is interrupted behind its last epoch is not trained on."""
        return {"reached": self._reached}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the checkpoint knows."""
        self._reached = state_dict["reached"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A resumed run may have stopped already."""
        trainer.should_stop = trainer.should_stop or self._reached

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop if it is reached; before the epoch's checkpoint, which Lightning leaves to the end."""
        measured = Task.of(pl_module).member_metrics.get(TRAIN_LOSS)  # before the first evaluation there is none
        if measured is not None and measured[0] <= self._loss:
            self._reached = trainer.should_stop = True

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Tell the run's result."""
        Task.of(pl_module).add_measured([{REACHED: float(self._reached)}])
