"""The gradient's l2 norm along training."""

from collections import defaultdict
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from hw1.callbacks.step_buffer import FETCH_EVERY, StepBuffer, log_rows


def layer_of(parameter: str) -> str:
    """The layer that a parameter belongs to: `0.weight` and `0.bias` are both of `0`."""
    return parameter.rpartition(".")[0] or parameter


def squared_norms(net: nn.Module) -> Tensor:
    """Squared l2 norm of the gradient of each parameter, [number of parameters], without a host synchronisation."""
    norms = torch._foreach_norm(
        [p.new_zeros(1) if p.grad is None else p.grad for p in net.parameters() if p.requires_grad]
    )
    return torch.stack(norms).square()


class GradientNorm(Callback):
    """Logs `gradient_norm`, and `gradient_norm/<layer>`, of the mini-batch loss every N steps.

    It is the l2 norm over all parameters (or those of one layer) before clipping and without weight decay. Values are
    fetched every 100 steps, so a step never waits for the device.

    Args:
        every_n_steps: distance between two measurements, in optimizer steps.
        per_layer: log one norm a layer as well.

    Raises:
        ValueError: `every_n_steps` is not positive.
    """

    def __init__(self, every_n_steps: int, per_layer: bool) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps: got {every_n_steps}, expected a positive integer")
        self._every = every_n_steps
        self._per_layer = per_layer
        self._buffer = StepBuffer()

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure: gradients are complete here, and not yet clipped."""
        if trainer.global_step % self._every == 0:
            squares = squared_norms(pl_module.net)
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                squares = squares / scaler.scale(torch.ones_like(squares)).square()  # a fused step unscales by itself
            self._buffer.add(trainer.global_step, squares)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fetch every 100 steps."""
        if trainer.global_step % FETCH_EVERY == 0:
            self._flush(trainer, pl_module.net)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Fetch the rest of the epoch."""
        self._flush(trainer, pl_module.net)

    def _flush(self, trainer: lightning.Trainer, net: nn.Module) -> None:
        members = defaultdict(list)  # layer -> positions of its parameters
        trained = (name for name, parameter in net.named_parameters() if parameter.requires_grad)
        for position, name in enumerate(trained):
            members[layer_of(name)].append(position)
        layers = members if self._per_layer else {}
        names = ["gradient_norm", *(f"gradient_norm/{layer}" for layer in layers)]
        rows = [
            (step, [sum(squares) ** 0.5, *(sum(squares[i] for i in at) ** 0.5 for at in layers.values())])
            for step, squares in self._buffer.fetch()
        ]
        log_rows(trainer, names, rows)
