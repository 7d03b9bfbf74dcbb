"""What a run learns by, checked before anything trains: loss, metrics, optimizer, schedule, and what goes with what."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from hw1.data import DataModule
from hw1.settings import ConfigError, RunSettings
from hw1.training.extra_metrics import check_metrics, metrics_of_run
from hw1.training.loss import check_loss, loss_of_run
from hw1.training.optimization import trial_optimizer
from hw1.training.schedule import Length, check_schedule, scheduler_of
from hw1.training.which_weights import metric_names


def validate_learning(settings: RunSettings, data: DataModule, net: nn.Module) -> torch.optim.Optimizer:
    """Build and try what a run learns by; `data` has its loss from then on.

    Args:
        settings: of the run.
        data: loaded.
        net: one network, which may be on the meta device.

    Returns:
        An optimizer as the run's, of parameters that are made up.

    Raises:
        ConfigError: one line that names the key, what was got and what is expected.
    """
    data.loss = loss_of_run(settings, data)
    if settings.loss is not None:
        check_loss(data.loss, settings, data)
    if settings.metrics:
        check_metrics(metrics_of_run(settings, data), data)
    optimizer = trial_optimizer(settings, net)
    if needs_closure(optimizer):
        _refuse_closure(settings)
    if (make := scheduler_of(settings)) is not None:
        schedule = make(optimizer, _length(settings, data))
        check_schedule(settings, schedule, metric_names(settings, data))
    return optimizer


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step evaluates its batch by itself, more than once as a rule (SAM, LBFGS)."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _refuse_closure(settings: RunSettings) -> None:
    """Refuse what Lightning cannot do where a step evaluates its batch several times."""
    name, node = settings.optimizer["_target_"], settings.trainer
    batches = node.get("accumulate_grad_batches") or 1
    if batches != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches: got {batches} with {name}, which evaluates a batch again within a step; "
            "expected 1 and a larger dataset.batch_size"
        )
    if str(node.get("precision")) == "16-mixed":
        raise ConfigError(
            f"trainer.precision: got 16-mixed with {name}, which evaluates a batch again within a step, where "
            "gradients are scaled; expected bf16-mixed or 32-true"
        )


def _length(settings: RunSettings, data: DataModule) -> Length:
    """About how long the run will train."""
    trainer = settings.trainer
    size = data.batch_size or data.sizes["train"]
    batches = -(-data.sizes["train"] // size)
    limit = trainer.get("overfit_batches") or trainer.get("limit_train_batches")
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif isinstance(limit, int):
        batches = min(batches, limit)
    each = max(1, -(-batches // (trainer.get("accumulate_grad_batches") or 1)))
    steps = trainer.get("max_steps")
    epochs = trainer.get("max_epochs") or -1
    if steps not in (None, -1):
        epochs = min(epochs, -(-steps // each)) if epochs != -1 else -(-steps // each)
        return Length(lambda: min(steps, epochs * each), lambda: epochs)
    return Length(lambda: epochs * each, lambda: epochs)
