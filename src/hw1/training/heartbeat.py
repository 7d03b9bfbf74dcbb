"""How far a training has come, in a small file of the run's folder: for who looks on from another process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from hw1.files import write_text
from hw1.lease import Lease, over
from hw1.training.checkpoint import steps_an_epoch
from hw1.training.contents import PROGRESS

_EVERY = 2.0  # seconds between two writings, at least


class Heartbeat(Callback):
    """Writes `<run>/progress.json` while a run trains, and removes it when training has ended well.

    What an interrupted or killed run leaves says where it stopped; whether somebody is at work is told by the run's
    lease: where another process has taken that over, training ends with the step. It holds `since`, the Unix time at
    which this process began to train, `first`, the steps that were behind it then, `time`, `step`, `steps` in all, and
    `epochs`.
    """

    def __init__(self) -> None:
        self._since = self._begun = self._written = 0.0
        self._leases: list[Lease] = []
        self._first = self._steps = self._epochs = 0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Know whose the folder is."""
        self._leases = over(trainer.default_root_dir)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to count, at the step from which a resumed run goes on."""
        self._since, self._begun, self._first = time.time(), time.monotonic(), trainer.global_step
        self._steps = int(trainer.estimated_stepping_batches)
        self._epochs = -(-self._steps // steps_an_epoch(trainer))
        self._write(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step; the last one where another process has taken the run over, before anything is logged of it."""
        for lease in self._leases:
            if lease.is_lost():
                lease.require()
        if time.monotonic() - self._written >= _EVERY:
            self._write(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """It is no part of what a finished run holds."""
        if trainer.is_global_zero:
            _file(trainer).unlink(missing_ok=True)

    def _write(self, trainer: lightning.Trainer) -> None:
        self._written = time.monotonic()
        if trainer.is_global_zero:
            now = self._since + self._written - self._begun  # the clock may be set meanwhile
            told = {"since": self._since, "first": self._first, "time": now, "step": trainer.global_step}
            write_text(_file(trainer), json.dumps(told | {"steps": self._steps, "epochs": self._epochs}))


def _file(trainer: lightning.Trainer) -> Path:
    return Path(trainer.default_root_dir) / PROGRESS
