"""The network's tensors after an epoch, in a file of their own."""

from collections.abc import Collection
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file, save_model
from torch import nn

from hw1.files import replacing
from hw1.models import Members
from hw1.training.task import Task


def save_snapshot(net: nn.Module, folder: Path, epoch: int) -> Path:
    """Write `<folder>/snapshots/epoch=<epoch>.safetensors`, whole or not at all; returns its path.

    It holds parameters and buffers by name. Tied weights are stored once. Of several members, each tensor is stacked:
    [R, *shape].

    Args:
        net: a network, or a `Members`.
        folder: of the run.
        epoch: completed epochs; 0 for the initialisation.
    """
    path = folder / "snapshots" / f"epoch={epoch:06d}.safetensors"
    with replacing(path) as temporary:
        if isinstance(net, Members):
            save_file({name: value.contiguous() for name, value in net.stacked().items()}, str(temporary))
        else:
            save_model(net, str(temporary))
    return path


class SnapshotsAt(Callback):
    """Snapshots after given epochs, each before the epoch's checkpoint, so that a resumed run lacks none.

    Args:
        epochs: completed epochs; 0 for the initialisation.
    """

    def __init__(self, epochs: Collection[int]) -> None:
        self._epochs = frozenset(epochs)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The initialisation; a resumed run has it already."""
        if trainer.global_step == 0:
            self._save(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """After the epoch, if it is one of those."""
        self._save(trainer, pl_module, trainer.current_epoch + 1)

    def _save(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, epoch: int) -> None:
        if epoch in self._epochs and trainer.is_global_zero:
            save_snapshot(Task.of(pl_module).net, Path(trainer.default_root_dir), epoch)
