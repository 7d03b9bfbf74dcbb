"""A callback that tells of each step, slows it down, and fails where it is told to."""

import os
import time

from lightning.pytorch import Callback


class Steps(Callback):
    """Logs `process run's folder step` of each step to $STEPS_LOG."""

    resumes_within_epochs = True

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        line = f"{os.getpid()} {os.path.basename(trainer.default_root_dir)} {trainer.global_step}\n"
        file = os.open(os.environ["STEPS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)
        time.sleep(float(os.environ.get("STEPS_SLEEP", 0)))
        if os.environ.get("STEPS_FAIL"):
            raise RuntimeError("told to fail")


class Gathers(Callback):
    """May gather something within an epoch, for all that hw1 knows: a run with it goes on from an epoch's end."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pass
