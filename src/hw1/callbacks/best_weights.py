"""The weights that were best by a metric, as those that the run is."""

import math
from typing import Any, ClassVar, Literal

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from hw1.settings.run_settings import BEST
from hw1.training.task import Task

BEST_EPOCH = "best_checkpoint/epoch"


class BestWeights(Callback):
    """Ends training on the weights of the evaluation at which a metric was best, the first of several.

    The run's result says after how many epochs that was (`best_checkpoint/epoch`). The weights are part of the
    callback's state, so that a resumed run ends on those of an undisturbed one.

    Args:
        monitor: a whole-set metric, `val/loss` say.
        mode: whether the least or the greatest is best.

    Raises:
        ValueError: the mode is neither.
    """

    ends_on_weights: ClassVar[str] = BEST  # what the run's settings must say

    def __init__(self, monitor: str, mode: Literal["min", "max"]) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode: got {mode!r}, expected min or max")
        self._monitor, self._sign = monitor, 1 if mode == "min" else -1
        self._score, self._epoch = math.inf, 0
        self._evaluated = False
        self._weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        best = {"score": self._score, "epoch": self._epoch, "weights": self._weights}
        return {"evaluated": self._evaluated, **best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self._score, self._epoch, self._weights = (state_dict[name] for name in ("score", "epoch", "weights"))
        self._evaluated = state_dict["evaluated"]

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the weights if they are better than all before."""
        self._evaluated = True
        score = self._sign * float(trainer.callback_metrics[self._monitor])
        if score < self._score and not trainer.sanity_checking:
            self._score, self._epoch = score, trainer.current_epoch + 1
            self._weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take them up.

        Raises:
            ArithmeticError: the metric was never a number.
        """
        if self._evaluated and not self._weights:
            raise ArithmeticError(f"{self._monitor} was never a number: there are no best weights")
        if self._weights:  # an estimate of a run's cost evaluates nothing
            pl_module.load_state_dict(self._weights)

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Tell the run's result."""
        Task.of(pl_module).add_measured([{BEST_EPOCH: float(self._epoch)}])
