"""A callback of a user's own by which one run of a sweep fails."""

from lightning.pytorch.callbacks import Callback


class Fails(Callback):
    """Raises at the third step of the run whose seed is `at`."""

    def __init__(self, seed, at):
        self.seed, self.at = seed, at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.seed == self.at and trainer.global_step == 3:
            raise RuntimeError("made to fail")
