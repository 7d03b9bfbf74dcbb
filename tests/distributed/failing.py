"""Callbacks by which one process of a run fails, as no user would write them."""

import os
import signal
import time

from lightning.pytorch.callbacks import Callback


class FailsAt(Callback):
    """At a step, a process raises, is killed, or changes its weights alone.

    Args:
        step: from 0.
        rank: of the process.
        how: "raises", "killed" or "drifts".
        once: a file that says that it has happened; it does not happen again then.
    """

    def __init__(self, step: int, rank: int, how: str, once: str | None = None):
        self.step, self.rank, self.how, self.once = step, rank, how, once

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != self.step or trainer.global_rank != self.rank:
            return
        if self.once is not None:
            if os.path.exists(self.once):
                return
            with open(self.once, "w"):
                pass
        if self.how == "raises":
            raise ValueError("the disk of this machine is on fire")
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        for parameter in pl_module.parameters():
            parameter.data.add_(1e-3)


class Slow(Callback):
    """Every step takes so many seconds, and the process's number is written down at the first.

    Args:
        seconds: of each step.
        folder: in which a file for each process is made, named by its rank.
    """

    def __init__(self, seconds: float, folder: str):
        self.seconds, self.folder = seconds, folder

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with open(os.path.join(self.folder, str(trainer.global_rank)), "w") as file:
            file.write(str(os.getpid()))
        time.sleep(self.seconds)


class StopsAll(Callback):
    """At a step, a signal reaches all processes of the run, as an engine sends it to a whole job; once.

    Args:
        step: from 0.
        number: of the signal.
        folder: in which each process writes its number down.
    """

    def __init__(self, step: int, number: int, folder: str):
        self.step, self.number, self.folder = step, number, folder

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        mine = os.path.join(self.folder, f"process-{trainer.global_rank}")
        if not os.path.exists(mine):
            with open(mine, "w") as file:
                file.write(str(os.getpid()))
        once = os.path.join(self.folder, "sent")
        if trainer.global_step == self.step and trainer.global_rank == 0 and not os.path.exists(once):
            with open(once, "w"):
                pass
            for rank in reversed(range(trainer.world_size)):
                with open(os.path.join(self.folder, f"process-{rank}")) as file:
                    os.kill(int(file.read()), self.number)
