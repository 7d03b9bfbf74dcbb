"""The gradient's l2 norm along training."""

from collections import defaultdict
from typing import Any, ClassVar

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from hw1.metrics import GRADIENT_NORM
from hw1.models import Members
from hw1.training.step_records import FETCH_EVERY, StepBuffer, log_members
from hw1.training.task import Task


def layer_of(parameter: str) -> str:
    """The layer that a parameter belongs to: `0.weight` and `0.bias` are both of `0`."""
    return parameter.rpartition(".")[0] or parameter


def squared_norms(net: nn.Module) -> Tensor:
    """Squared l2 norm of the gradient of each parameter of each member, [R, tensors]; no host synchronisation."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters() if p.requires_grad]
    if isinstance(net, Members):
        return net.squares(gradients)
    return torch.stack(torch._foreach_norm(gradients)).square()[None]


class GradientNorm(Callback):
    """Logs `gradient_norm`, and `gradient_norm/<layer>`, of the mini-batch loss every N steps.

    It is the l2 norm over all parameters (or those of one layer) of the mini-batch loss's gradient before clipping and
    without weight decay, one a member; also while the squared gradient norm is minimised. Of an optimizer that
    evaluates more than once a step (SAM, LBFGS), it is the norm at the first point. Values are fetched every 100 steps,
    so a step never waits for the device.

    Args:
        every_n_steps: distance between two measurements, in optimizer steps.
        per_layer: log one norm a layer as well.

    Raises:
        ValueError: `every_n_steps` is not positive.
    """

    gradient_norms: ClassVar[bool] = True  # what studies look for in a callback's class

    def __init__(self, every_n_steps: int, per_layer: bool) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps: got {every_n_steps}, expected a positive integer")
        self._every = every_n_steps
        self._per_layer = per_layer
        self._buffer = StepBuffer()
        self._pending: tuple[int, Tensor] | None = None

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure: gradients are complete here, and not yet clipped. Called after each evaluation of a step."""
        if self._pending is None and trainer.global_step % self._every == 0:
            squares = squared_norms(Task.of(pl_module).net)
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                squares = squares / scaler.scale(torch.ones_like(squares)).square()  # a fused step unscales by itself
            self._pending = trainer.global_step, squares

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep this step's values, and fetch every 100 steps."""
        if self._pending is not None:
            step, squares = self._pending
            # With another objective p.grad is the gradient of that; the task hands on those of the loss.
            self._buffer.add(step, outputs.get("squares", squares))
            self._pending = None
        if trainer.global_step % FETCH_EVERY == 0:
            self._flush(trainer, Task.of(pl_module).net)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Fetch the rest of the epoch."""
        self._flush(trainer, Task.of(pl_module).net)

    def catch_up(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Fetch what there is: training stops in the middle of an epoch."""
        self._flush(trainer, Task.of(pl_module).net)

    def _flush(self, trainer: lightning.Trainer, net: nn.Module) -> None:
        rows = self._buffer.fetch()
        if not rows:
            return
        own = (
            net.member_names()
            if isinstance(net, Members)
            else [n for n, p in net.named_parameters() if p.requires_grad]
        )
        layers = defaultdict(list)  # layer -> positions of its parameters
        for position, name in enumerate(own):
            layers[layer_of(name)].append(position)
        groups = {GRADIENT_NORM: list(range(len(own)))}
        if self._per_layer:
            groups |= {f"{GRADIENT_NORM}/{layer}": at for layer, at in layers.items()}

        def norms(squares: list[list[float]], at: list[int]) -> list[float]:
            return [sum(member) ** 0.5 for member in zip(*(squares[i] for i in at), strict=True)]

        log_members(
            trainer, [(step, {name: norms(squares, at) for name, at in groups.items()}) for step, squares in rows]
        )
