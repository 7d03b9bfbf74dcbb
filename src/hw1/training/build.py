"""Settings -> the objects of one run."""

import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from torch import nn

from hw1.data import DataModule
from hw1.models import replicate
from hw1.training.construct import call, check_setting, naming, target_of
from hw1.training.identity import ConfigError, Settings, added, run_seed
from hw1.training.objectives import LOSS, check_objective
from hw1.training.task import Task

# No hardware banners and tips; importing lightning has just set the level to INFO.
for _name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(_name).setLevel(logging.WARNING)

# Settings of conf/trainer that are hw1's, not lightning.Trainer's.
_OWN_TRAINER_SETTINGS = {"threads": int, "checkpoint_seconds": float, "progress": bool}


def validate(settings: Settings, folder: Path) -> None:
    """Build everything but the training, and load the data, so that a bad value is refused before anything trains.

    Raises:
        ConfigError: one line that names the key, what was got and what is expected.
    """
    run_seed(settings)
    data = datamodule(settings)
    with naming("dataset"):
        data.prepare_data()
        data.setup()
    with torch.device("meta"):
        net = single_network(settings, data)
    minimise, after = check_objective(added(settings, "objective"))
    if replicas(settings) > 1:
        try:
            replicate([net])
        except ValueError as error:
            raise ConfigError(str(error)) from error
    optimizer, scheduler = optimization(settings)
    made = optimizer([nn.Parameter(torch.zeros(1))])
    if scheduler is not None:
        scheduler(made)
    if replicas(settings) > 1:
        _refuse_coupling(settings, made)
    callbacks(settings)
    trainer(settings, folder, callbacks=[], loggers=[])
    if minimise != LOSS and after >= settings["trainer"]["max_epochs"]:
        raise ConfigError(
            f"objective.after: got {after}, expected less than trainer.max_epochs={settings['trainer']['max_epochs']}, "
            f"or objective.minimise={LOSS}"
        )


def replicas(settings: Settings) -> int:
    """The number of members of the run.

    Raises:
        ConfigError: it is not a positive integer.
    """
    number = added(settings, "replicas")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigError(f"replicas: got {number!r}, expected a positive integer")
    return number


# Optimizers that treat every weight by itself, so that stacked members do not meet.
_ELEMENTWISE = ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "Adagrad", "Adadelta", "ASGD")


def _refuse_coupling(settings: Settings, optimizer: torch.optim.Optimizer) -> None:
    """Refuse what would make one member's training depend on another's."""
    instead = "or single runs (replicas=1 seed=0,1,2)"
    if type(optimizer) not in [getattr(torch.optim, name) for name in _ELEMENTWISE]:
        raise ConfigError(
            f"optimizer: got {type(optimizer).__name__} with replicas={settings['replicas']}, which may tie members "
            f"together; expected one of {', '.join(_ELEMENTWISE)}, {instead}"
        )
    node = settings["trainer"]
    if node.get("gradient_clip_val") and node.get("gradient_clip_algorithm", "norm") == "norm":
        raise ConfigError(
            f"trainer.gradient_clip_val: got {node['gradient_clip_val']} with replicas={settings['replicas']}, which "
            f"clips the norm over all members; expected +trainer.gradient_clip_algorithm=value, {instead}"
        )


def datamodule(settings: Settings) -> DataModule:
    """The data: settings that `DataModule` takes go there, the others to the source of examples at `_target_`."""
    own = set(inspect.signature(DataModule).parameters)
    node = settings["dataset"]
    examples = call({key: value for key, value in node.items() if key not in own}, "dataset")
    return call(
        {"_target_": "hw1.data.DataModule", **{key: value for key, value in node.items() if key in own}},
        "dataset",
        examples=examples,
    )


def network(settings: Settings, data: DataModule, seeds: Sequence[int] = (0,)) -> nn.Module:
    """The network of a run, initialised from a seed; a `Replicated` of several seeds."""
    nets = []
    for seed in seeds:
        lightning.seed_everything(seed, verbose=False)
        nets.append(single_network(settings, data))
    return replicate(nets) if len(nets) > 1 else nets[0]


def single_network(settings: Settings, data: DataModule) -> nn.Module:
    """One network for the data's shapes; convolutions are laid out channels_last, which trains faster."""
    net = call(settings["model"], "model", in_shape=data.in_shape, out_features=data.out_features)
    if any(isinstance(layer, nn.Conv2d) for layer in net.modules()):
        net = net.to(memory_format=torch.channels_last)
    return net


def optimization(settings: Settings) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """(parameters -> optimizer, optimizer -> scheduler or None)."""

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return call(settings["optimizer"], "optimizer", params=list(parameters))

    def scheduler(optimizer: torch.optim.Optimizer) -> Any:
        return call(settings["scheduler"], "scheduler", optimizer=optimizer)

    return optimizer, scheduler if settings["scheduler"] else None


def task(net: nn.Module, settings: Settings, data: DataModule) -> Task:
    """The LightningModule."""
    optimizer, scheduler = optimization(settings)
    return Task(net, data.loss, optimizer, scheduler, *check_objective(added(settings, "objective")))


def callbacks(settings: Settings) -> list[lightning.Callback]:
    """The callbacks of the `callbacks` group."""
    return [call(node, f"callbacks.{name}") for name, node in (settings["callbacks"] or {}).items()]


def loggers(settings: Settings, folder: Path, first_step: int) -> list[Logger]:
    """The loggers of the `logger` group.

    Those with a `save_dir` get the run's folder, those with a `first_step` the step at which training goes on.
    """
    made = []
    for name, node in (settings["logger"] or {}).items():
        takes = inspect.signature(target_of(node, f"logger.{name}")).parameters
        given = {"save_dir": str(folder), "first_step": first_step}
        made.append(call(node, f"logger.{name}", **{key: value for key, value in given.items() if key in takes}))
    return made


def own_trainer_settings(settings: Settings) -> dict[str, Any]:
    """`threads`, `checkpoint_seconds` and `progress`, checked."""
    node = settings["trainer"]
    for name, kind in _OWN_TRAINER_SETTINGS.items():
        check_setting(f"trainer.{name}", node.get(name), kind)
    if node["threads"] < 1:
        raise ConfigError(f"trainer.threads: got {node['threads']}, expected a positive integer")
    if node["checkpoint_seconds"] < 0:
        raise ConfigError(f"trainer.checkpoint_seconds: got {node['checkpoint_seconds']}, expected at least 0")
    return {name: node[name] for name in _OWN_TRAINER_SETTINGS}


def trainer(
    settings: Settings, folder: Path, callbacks: Sequence[lightning.Callback], loggers: Sequence[Logger]
) -> lightning.Trainer:
    """Lightning's trainer for the folder of a run. What hw1 does itself (bars, summaries) is off."""
    own_trainer_settings(settings)
    node = {key: value for key, value in settings["trainer"].items() if key not in _OWN_TRAINER_SETTINGS}
    epochs = node.get("max_epochs")
    if not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(f"trainer.max_epochs: got {epochs!r}, expected a positive integer")
    return call(
        node,
        "trainer",
        default_root_dir=str(folder),
        callbacks=list(callbacks),
        logger=list(loggers),
        enable_progress_bar=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,  # concerns self.log in steps, which nothing here uses; 50 makes Lightning warn
    )
