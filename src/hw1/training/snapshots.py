"""The network's tensors after an epoch, in a file of their own."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from hw1.files import lasting
from hw1.models import Members
from hw1.training.task import Task


def snapshot_file(folder: Path, epoch: int) -> Path:
    """Where the snapshot after so many completed epochs stands in a run's folder."""
    return folder / "snapshots" / f"epoch={epoch:06d}.safetensors"


def save_snapshot(net: nn.Module, folder: Path, epoch: int) -> Path:
    """Write `<folder>/snapshots/epoch=<epoch>.safetensors`, whole or not at all; returns its path.

    It holds parameters and buffers by name. Tied weights are stored once. Of several members, each tensor is stacked:
    [R, *shape].

    Args:
        net: a network, or a `Members`.
        folder: of the run.
        epoch: completed epochs; 0 for the initialisation.
    """
    path = snapshot_file(folder, epoch)
    with lasting(path) as temporary:
        if isinstance(net, Members):
            save_file({name: value.contiguous() for name, value in net.stacked().items()}, str(temporary))
        else:
            save_model(net, str(temporary))
    return path


def holds(file: Path, net: nn.Module) -> bool:
    """Whether a snapshot is of a network's tensors, bit by bit; of tied ones it names one."""
    kept = load_file(file)
    now = net.stacked() if isinstance(net, Members) else net.state_dict()
    return kept.keys() <= now.keys() and digest(kept) == digest({name: now[name] for name in kept})


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named tensors: their types, shapes and bits, however they are laid out, on whatever device."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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
