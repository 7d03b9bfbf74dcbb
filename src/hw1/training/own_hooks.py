"""What hw1 does for a LightningModule of the user's own besides: hooks of a subclass of it, see `own_task`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning
from torch import Tensor

from hw1.training.task import Task


def hooks(own: type, evaluates: bool) -> dict[str, Any]:
    """What a subclass of the user's module does besides, by name.

    Args:
        own: the user's class, of a module with `hw1_task`, what hw1 sees of it.
        evaluates: whether its network's whole sets are evaluated.
    """
    made: dict[str, Any] = {"training_step": _training_step(own), "on_train_end": _train_end(own)}
    if own.configure_optimizers is lightning.LightningModule.configure_optimizers:  # type: ignore[attr-defined]
        made |= {"configure_optimizers": _configure_optimizers, **_scheduled(own)}
    for stage in ("validation", "test"):
        step = getattr(own, f"{stage}_step")
        mine = step is not getattr(lightning.LightningModule, f"{stage}_step")
        if evaluates or mine or stage == "test":  # Trainer.test wants one
            made |= _evaluation(own, stage, step if mine else None, evaluates)
    return made


def _training_step(own: Any) -> Callable[..., Any]:
    """The user's, whose loss is logged as `train_step/loss`; with manual optimization where it returns one."""

    @functools.wraps(own.training_step)
    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = own.training_step(self, *args, **kwargs)
        if isinstance(found, Tensor):
            found = {"loss": found}
        if isinstance(found, Mapping) and isinstance(loss := found.get("loss"), Tensor):
            found = {"losses": loss.detach().mean().reshape(1), **found}
        return found

    return training_step


def _configure_optimizers(self: Any) -> Any:
    """That of the settings, over every parameter of the module, not of its network alone."""
    task = self.hw1_task
    net, make = task.net, task._make_optimizer
    task.net, task._make_optimizer = self, task.over(self)._make_optimizer
    try:
        return Task.configure_optimizers(task)
    finally:
        task.net, task._make_optimizer = net, make


def _scheduled(own: Any) -> dict[str, Any]:
    """The hooks of hw1's own schedule."""

    def lr_scheduler_step(self: Any, scheduler: Any, metric: Any) -> None:
        Task.lr_scheduler_step(self.hw1_task, scheduler, metric)

    def on_train_epoch_end(self: Any) -> None:
        own.on_train_epoch_end(self)
        Task.on_train_epoch_end(self.hw1_task)

    return {"lr_scheduler_step": lr_scheduler_step, "on_train_epoch_end": on_train_epoch_end}


def _train_end(own: Any) -> Callable[[Any], None]:
    """The whole sets are evaluated once more at the end, with what the user's `test_step` logs."""

    def on_train_end(self: Any) -> None:
        own.on_train_end(self)
        self.hw1_task.evaluated_at = None

    return on_train_end


def _evaluation(own: Any, stage: str, step: Callable[..., Any] | None, evaluates: bool) -> dict[str, Any]:
    """The hooks of one stage: hw1's evaluation of whole sets, and the user's step.

    The user's gets every set where it names `dataloader_idx`, else one: the validation set if there is one, or the test
    set.
    """
    every = step is not None and "dataloader_idx" in inspect.signature(step).parameters
    start, ended = f"on_{stage}_epoch_start", f"on_{stage}_epoch_end"

    def on_start(self: Any) -> None:
        getattr(own, start)(self)
        if evaluates:
            getattr(Task, start)(self.hw1_task)

    def evaluate(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        if evaluates:
            getattr(Task, f"{stage}_step")(self.hw1_task, batch, batch_idx, dataloader_idx)
        if step is None:
            return None
        if every:
            return step(self, batch, batch_idx, dataloader_idx)
        names = self.trainer.datamodule.eval_names
        wanted = "val" if stage == "validation" and "val" in names else "test"
        if names[dataloader_idx] != wanted:
            return None
        with _one_loader(self):
            return step(self, batch, batch_idx)

    def on_end(self: Any) -> None:
        getattr(own, ended)(self)
        if evaluates:
            getattr(Task, ended)(self.hw1_task)

    made: dict[str, Any] = {start: on_start, f"{stage}_step": evaluate, ended: on_end}
    if stage == "test":
        made["on_test_end"] = _test_end(own)
    return made


@contextlib.contextmanager
def _one_loader(module: Any) -> Iterator[None]:
    """What is logged inside is not named by the number of its set, of which the user's step knows nothing."""
    module.log = functools.partial(_log_plainly, module)
    try:
        yield
    finally:
        del module.log


def _log_plainly(module: Any, *args: Any, **kwargs: Any) -> None:
    type(module).log(module, *args, **{**kwargs, "add_dataloader_idx": False})


def _test_end(own: Any) -> Callable[[Any], None]:
    def on_test_end(self: Any) -> None:
        own.on_test_end(self)
        task = self.hw1_task
        logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if logged := {name: value for name, value in logged.items() if name not in task.member_metrics}:
            task.add_measured([logged])

    return on_test_end
