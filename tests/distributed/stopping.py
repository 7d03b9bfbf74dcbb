"""A callback that asks its run to stop, and notes the steps of its process."""

import os
import signal
import time

from lightning.pytorch.callbacks import Callback


class Asks(Callback):
    """Raises SIGTERM in the step with this number; STEPS_LOG gets `rank:step` of each step of every process."""

    resumes_within_epochs = True
    at = None  # of the first process alone: the others do not know
    asked = 0.0  # when
    steps: list = []  # noqa: RUF012 - of the tests, one after another

    def on_train_batch_start(self, trainer, *args):
        time.sleep(float(os.environ.get("STEPS_PAUSE", 0)))
        if trainer.global_step == Asks.at:
            Asks.at, Asks.asked = None, time.monotonic()
            signal.raise_signal(signal.SIGTERM)

    def on_train_batch_end(self, trainer, *args):
        if not Asks.steps or Asks.steps[-1] != trainer.global_step:
            Asks.steps.append(trainer.global_step)
        if file := os.environ.get("STEPS_LOG"):
            with open(file, "a") as log:
                log.write(f"{trainer.global_rank}:{trainer.global_step - 1}\n")
