"""A LightningModule of the user's own as the task of a run: what hw1 gives it, sees of it, and does for it.

All that it needs is a `training_step`. Its network is the one that hw1 built, where its constructor names `net`; else
its attribute `net`, else itself. What it does not define, hw1 does: the optimizer of the settings over all its
parameters, and the metrics of whole sets where the network's outputs are what the loss of the data takes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from hw1.data import DataModule
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import call, target_of
from hw1.settings.run_settings import LOSS
from hw1.training.task import Task

log = logging.getLogger(__name__)

_NET = "net"


class Seen(Task):
    """What hw1 and its callbacks see of somebody's own module: a task over the same network, on the same trainer.

    Attributes:
        own: the user's module, which the trainer fits.
    """

    own: lightning.LightningModule
    # Its evaluation in the last epoch is repeated at the end, with what the user's `test_step` logs.
    evaluated_at = property(lambda self: None, lambda self, value: None)
    _trainer = property(lambda self: self.own._trainer, lambda self, value: None)

    @property
    def module(self) -> lightning.LightningModule:
        """What the trainer fits."""
        return self.own

    @property
    def device(self) -> torch.device:
        """Where the user's module is."""
        return self.own.device

    def log_dict(self, *args: Any, **kwargs: Any) -> None:
        """As the user's module, whose hook the trainer is in."""
        self.own.log_dict(*args, **kwargs)


def check(settings: RunSettings, task: Task, data: DataModule) -> None:
    """Refuse a run that its own module cannot be the task of, before anything trains.

    Raises:
        ConfigError: it is no LightningModule with a training_step, or a setting does not go with it.
    """
    instead = "expected 1: members are trained side by side by hw1's own task; train single runs (seed=0,1,2)"
    if settings.members > 1:
        raise ConfigError(f"replicas: got {settings.members} with a task of its own, {instead}")
    if settings.objective.minimise != LOSS:
        raise ConfigError(
            f"objective.minimise: got {settings.objective.minimise} with a task of its own, expected {LOSS}: what is "
            "minimised is its training_step's"
        )
    if settings.value("adopted"):
        raise ConfigError("task: got one with adopted weights, expected none: nothing is trained")
    module, name = around(task, settings, data).module, _name(settings)
    if not is_overridden("training_step", module, lightning.LightningModule):
        raise ConfigError(f"task: got {name}, which has no training_step; expected a LightningModule with one")
    for key, unset in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
        if not module.automatic_optimization and settings.trainer.get(key) not in (None, unset):
            raise ConfigError(
                f"trainer.{key}: got {settings.trainer[key]}, expected none with manual optimization ({name}): its "
                "training_step does that itself"
            )


def network(settings: RunSettings, net: nn.Module, task: Callable[[], Task], data: DataModule) -> nn.Module:
    """The network of a run with its own module.

    Args:
        settings: of the run.
        net: the one of its `model`.
        task: makes hw1's own around that.
        data: of the run.
    """
    if _NET in _signature(settings):  # then it is this: no module is needed to read it back
        return net
    return _net_of(_construct(task(), settings, data))


def around(task: Task, settings: RunSettings, data: DataModule) -> Seen:
    """The user's module, made for a task of hw1's own, as hw1 sees it.

    Args:
        task: over the run's `model`; it becomes what is returned.
        settings: of the run.
        data: of the run.

    Raises:
        ConfigError: the module is refused.
    """
    module = _construct(task, settings, data)
    net = _net_of(module)
    if _NET in _signature(settings) and net is not task.net:
        raise ConfigError(
            f"task: got {_name(settings)}, which is given `net` and does not keep it as self.net; expected that, or a "
            "constructor that does not name it"
        )
    task.net = net
    task.__class__ = Seen
    object.__setattr__(task, "own", module)  # as plain attributes: neither is a part of the other's weights
    object.__setattr__(module, "hw1_task", task)
    problem = _unfit(net, data)
    if problem:
        log.warning("task: no train and test metrics of whole sets: %s", problem)
    own = type(module)
    module.__class__ = type(own.__name__, (own,), {"__module__": own.__module__, **_hooks(own, evaluates=not problem)})
    assert isinstance(task, Seen)
    return task


def _construct(task: Task, settings: RunSettings, data: DataModule) -> lightning.LightningModule:
    """The user's module; it gets what its signature names."""
    offered = {
        _NET: task.net,
        "loss": task.loss,
        "optimizer": task._make_optimizer,
        "scheduler": task._make_scheduler,
        "in_shape": data.in_shape,
        "out_features": data.out_features,
    }
    given = {name: value for name, value in offered.items() if name in _signature(settings)}
    module = call(settings.value("task"), "task", **given)
    if not isinstance(module, lightning.LightningModule):
        raise ConfigError(f"task: got {_name(settings)}, a {type(module).__name__}, expected a LightningModule")
    for kept in (getattr(module, "_hparams", None), getattr(module, "_hparams_initial", None)):
        for name in given:  # of save_hyperparameters(): objects, which no checkpoint should hold
            if kept:
                kept.pop(name, None)
    return module


def _signature(settings: RunSettings) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target_of(settings.value("task"), "task")).parameters


def _name(settings: RunSettings) -> str:
    return str(settings.value("task")["_target_"])


def _net_of(module: lightning.LightningModule) -> nn.Module:
    net = getattr(module, _NET, module)
    return net if isinstance(net, nn.Module) else module


def _unfit(net: nn.Module, data: DataModule) -> str:
    """Why hw1 cannot evaluate a network on whole sets; "" if it can."""
    data.prepare_data()
    modes = [(part, part.training) for part in net.modules()]
    try:
        with isolate_rng(), torch.no_grad():
            x, y = (part[:2] for part in next(iter(data.val_dataloader()[0])))
            outputs = net.eval()(x)
            if not isinstance(outputs, Tensor):
                return f"its network gives a {type(outputs).__name__}, no tensor"
            if data.kind == "classes" and outputs.shape[1] != data.out_features:
                return f"its network gives {list(outputs.shape)}, no {data.out_features} classes"
            if data.kind == "values" and outputs.shape != y.shape:
                return f"its network gives {list(outputs.shape)}, the data hold {list(y.shape)}"
            data.loss(outputs, y)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
        return f"its network does not take the data, or the loss its outputs ({' '.join(str(error).split())[:120]})"
    finally:
        for part, training in modes:
            part.training = training
    return ""


def _hooks(own: type, evaluates: bool) -> dict[str, Any]:
    """What a subclass of the user's module does besides."""
    made: dict[str, Any] = {"training_step": _training_step(own)}
    if own.configure_optimizers is lightning.LightningModule.configure_optimizers:  # type: ignore[attr-defined]
        made["configure_optimizers"] = _configure_optimizers
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
    net, task.net = task.net, self
    try:
        return Task.configure_optimizers(task)
    finally:
        task.net = net


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
            self.hw1_task.to(self.device)
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
def _one_loader(module: Any) -> Any:
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
