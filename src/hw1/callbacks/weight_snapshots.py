"""The path of the weights: the network's tensors at initialisation, every N epochs and at the end."""

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file, save_model

from hw1.files import replacing
from hw1.models import Replicated


class WeightSnapshots(Callback):
    """Writes `<run>/snapshots/epoch=<completed epochs>.safetensors`.

    Each file holds the network's parameters and buffers by name, so that one layer can be read over all snapshots
    without the rest (see `Run.snapshots`). Tied weights are stored once. Of several members, each tensor is stacked:
    [R, *shape].

    Args:
        every_n_epochs: distance between two snapshots; null for the first and the last only.

    Raises:
        ValueError: `every_n_epochs` is not positive.
    """

    def __init__(self, every_n_epochs: int | None) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs: got {every_n_epochs}, expected a positive integer or null")
        self._every = every_n_epochs

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The initialisation; a resumed run has it already."""
        if trainer.global_step == 0:
            self._save(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Every N epochs, and the last. Runs before the checkpoint of the epoch, so that a resumed run lacks none."""
        completed = trainer.current_epoch + 1
        due = self._every is not None and completed % self._every == 0
        if due or completed == trainer.max_epochs:
            self._save(trainer, pl_module, completed)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The end, also where another callback stopped the training early."""
        self._save(trainer, pl_module, trainer.current_epoch)

    def _save(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, epoch: int) -> None:
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "snapshots" / f"epoch={epoch:06d}.safetensors"
            with replacing(path) as temporary:
                if isinstance(pl_module.net, Replicated):
                    tensors = {name: value.contiguous() for name, value in pl_module.net.stacked().items()}
                    save_file(tensors, str(temporary))
                else:
                    save_model(pl_module.net, str(temporary))
