"""A callback of a user's own, by which the tests of crowding count what was trained, and by whom."""

import os
import resource
import signal
import time
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class Log(Callback):
    """Appends a line a step to $CROWDED_LOG: process, run, step, steps in all. Nothing of it is part of the weights.

    With $CROWDED_END a process ends itself at the step that it names: `kill:9` by SIGKILL, `memory:9` by having none.
    """

    resumes_within_epochs = True

    def on_train_start(self, trainer, pl_module):
        self._say(trainer)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._say(trainer)
        time.sleep(float(os.environ.get("CROWDED_PAUSE", 0)))
        kind, _, step = os.environ.get("CROWDED_END", "").partition(":")
        if kind and trainer.global_step == int(step):
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            resource.setrlimit(resource.RLIMIT_AS, (2**28, resource.RLIM_INFINITY))
            try:
                bytearray(2**30)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def _say(self, trainer):
        run = Path(trainer.default_root_dir)
        done = "ended" if (run / "result.json").exists() else "open"
        line = f"{os.getpid()} {run.name.rpartition('-')[2]} {trainer.global_step} {done}\n"
        file = os.open(os.environ["CROWDED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())  # in one piece, whoever else writes
        os.close(file)
