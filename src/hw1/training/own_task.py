"""A LightningModule of the user's own as the task of a run: what hw1 gives it, sees of it, and does for it.

All that it needs is a `training_step`. Its network is the one that hw1 built, where its constructor names `net`; else
its attribute `net`, else itself. What it does not define, hw1 does: the optimizer of the settings over all its
parameters, and the metrics of whole sets where the network's outputs are what the loss of the data takes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from hw1.training.distributed import refuse_manual
from hw1.training.own_hooks import hooks
from hw1.training.task import Task

log = logging.getLogger(__name__)

_NET = "net"
Over = Callable[[nn.Module], Task]  # a network -> hw1's own task over it, with the settings of a run


class Seen(Task):
    """What hw1 and its callbacks see of somebody's own module: a task over the same network, on the same trainer.

    Attributes:
        own: the user's module, which the trainer fits.
    """

    own: lightning.LightningModule
    over: Over
    _trainer = property(lambda self: self.own._trainer, lambda self, value: None)

    @property
    def module(self) -> lightning.LightningModule:
        """What the trainer fits."""
        return self.own

    @property
    def device(self) -> torch.device:
        """Where the user's module is."""
        return self.own.device

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What a checkpoint holds: all of the user's module."""
        return self.own.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What a checkpoint held: all of the user's module."""
        return self.own.load_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Seen:
        self.own._apply(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch's
        return self

    def log_dict(self, *args: Any, **kwargs: Any) -> None:
        """As the user's module, whose hook the trainer is in."""
        self.own.log_dict(*args, **kwargs)


def check(settings: RunSettings, net: nn.Module, over: Over, data: DataModule, words: Sequence[str] = ()) -> None:
    """Refuse a run that its own module cannot be the task of, before anything trains; arguments as of `around`.

    Args:
        settings: of the run.
        net: the one of its `model`.
        over: makes hw1's own task over a network.
        data: of the run.
        words: of the command, for the run: what a default may be, but what is typed may not, is to have no effect.

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
    if settings.loss is not None and "loss" not in _signature(settings):
        raise ConfigError(
            f"loss: got {settings.loss['_target_']} with {_name(settings)}, whose constructor names no `loss`; "
            "expected none: what is minimised is its training_step's"
        )
    if settings.value("adopted"):
        raise ConfigError("task: got one with adopted weights, expected none: nothing is trained")
    module, name = around(settings, net, over, data).module, _name(settings)
    if not is_overridden("training_step", module, lightning.LightningModule):
        raise ConfigError(f"task: got {name}, which has no training_step; expected a LightningModule with one")
    if settings.scheduler and "configure_optimizers" not in vars(type(module)):
        raise ConfigError(f"scheduler: got one, expected null: {name} has a configure_optimizers of its own")
    if "configure_optimizers" not in vars(type(module)) and "optimizer" not in _signature(settings):
        remedy = "or a constructor that names `optimizer`"
        _refuse_unread("optimizer", words, settings, f"has a configure_optimizers of its own; expected none, {remedy}")
    if _NET not in _signature(settings):
        _refuse_unread("model", words, settings, f"makes its own network; expected none, or one that names `{_NET}`")
    refuse_manual(settings, module)
    for key, unset in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
        if not module.automatic_optimization and settings.trainer.get(key) not in (None, unset):
            raise ConfigError(
                f"trainer.{key}: got {settings.trainer[key]}, expected none with manual optimization ({name}): its "
                "training_step does that itself"
            )


def _refuse_unread(group: str, words: Sequence[str], settings: RunSettings, why: str) -> None:
    """Refuse words that set what nothing reads; what a budget sets is nobody's wish."""
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        if key.partition(".")[0] == group and key not in (settings.budget.get("settings") or {}):
            raise ConfigError(f"{key}: got {value or word} with {_name(settings)}, which {why}")


def network(settings: RunSettings, net: nn.Module, over: Over, data: DataModule) -> nn.Module:
    """The network of a run with its own module; arguments as of `around`."""
    if _NET in _signature(settings):  # then it is this: no module is needed to read it back
        return net
    return _net_of(_construct(settings, net, over, data))


def around(settings: RunSettings, net: nn.Module, over: Over, data: DataModule) -> Seen:
    """The user's module, as hw1 sees it.

    Args:
        settings: of the run.
        net: the one of its `model`.
        over: makes hw1's own task over a network.
        data: of the run.

    Raises:
        ConfigError: the module is refused.
    """
    module = _construct(settings, net, over, data)
    if _NET in _signature(settings) and _net_of(module) is not net:
        raise ConfigError(
            f"task: got {_name(settings)}, which is given `net` and does not keep it as self.net; expected that, or a "
            "constructor that does not name it"
        )
    task = over(_net_of(module))
    task.__class__ = Seen
    assert isinstance(task, Seen)
    task.over = over
    object.__setattr__(task, "own", module)  # as plain attributes: neither is a part of the other
    object.__setattr__(module, "hw1_task", task)
    problem = _unfit(task.net, data)
    if problem:
        log.warning("task: no train and test metrics of whole sets: %s", problem)
    own = type(module)
    module.__class__ = type(own.__name__, (own,), {"__module__": own.__module__, **hooks(own, evaluates=not problem)})
    return task


def _construct(settings: RunSettings, net: nn.Module, over: Over, data: DataModule) -> lightning.LightningModule:
    """The user's module; it gets what its signature names."""
    made: list[nn.Module] = []

    def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return over(made[0] if made else net)._make_optimizer(parameters)  # of the whole module, once it is there

    offered = {_NET: net, "loss": data.loss, "optimizer": optimizer}
    offered |= {"in_shape": data.in_shape, "out_features": data.out_features}
    given = {name: value for name, value in offered.items() if name in _signature(settings)}
    module = call(settings.value("task"), "task", **given)
    if not isinstance(module, lightning.LightningModule):
        raise ConfigError(f"task: got {_name(settings)}, a {type(module).__name__}, expected a LightningModule")
    made.append(module)
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
