"""A run's settings -> its objects."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from torch import nn

from hw1.data import DataModule
from hw1.data.batches import ALL, Share
from hw1.data.identities import definition_of
from hw1.data.protocol import OF_DATAMODULE
from hw1.models import side_by_side
from hw1.models.logits import giving_logits
from hw1.seeds import mixed
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import call, naming, takes, target_of
from hw1.settings.processes import is_shared, processes, processes_here
from hw1.settings.run_settings import refuse_unknown
from hw1.training import own_task
from hw1.training.charts import charts
from hw1.training.distributed import check_distributed
from hw1.training.distributed_strategy import Place, SharedBatches
from hw1.training.examples import examples_of, source_node
from hw1.training.extra_metrics import metrics_of_run
from hw1.training.flags import check_flags, lightning_arguments
from hw1.training.learning import validate_learning
from hw1.training.loss import loss_of_run
from hw1.training.model_size import Counting
from hw1.training.optimization import optimizer_of
from hw1.training.process import torch_switches
from hw1.training.schedule import scheduler_of
from hw1.training.shapes import check_shapes
from hw1.training.task import Task
from hw1.training.transform import transform_of

# No hardware banners and tips; importing lightning has just set the level to INFO.
for _name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def validate(settings: RunSettings, folder: Path, words: Sequence[str] = ()) -> None:
    """Build everything but the training, and load the data, so that a bad value is refused before anything trains.

    Args:
        settings: of the run.
        folder: where it will stand.
        words: of the command, for the run; see `own_task.check`.

    Raises:
        ConfigError: one line that names the key, what was got and what is expected.
    """
    refuse_unknown(settings.plain)
    data = training_data(settings)
    with naming("dataset"):
        data.prepare_data()
        data.setup()
    with naming("transform"):
        data.try_transform()
    if settings.value("task"):
        own = model_network(settings, with_loss(data, settings))
        own_task.check(settings, own, lambda net: _task(net, settings, data), data, words)
    net = _seen(settings, data)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    made = validate_learning(settings, data, net)
    if settings.members > 1:
        _refuse_coupling(settings, made)
    for (name, node), callback in zip(settings.callbacks.items(), callbacks(settings), strict=True):
        if (check := getattr(callback, "check_run", None)) is not None:  # Track's, of its measures
            with naming(f"callbacks.{name}", node):
                check(settings, parameters)
    for name, node in settings.logger.items():
        target_of(node, f"logger.{name}")  # its package may be missing
    check_flags(settings, data)
    check_distributed(settings, net, data)
    with torch_switches():
        trainer(settings, folder, callbacks=[], loggers=[])
    if settings.value("adopted"):
        from hw1.training.adopted import check as check_weights  # which builds

        check_weights(settings, data)


def _seen(settings: RunSettings, data: DataModule) -> nn.Module:
    """One network, without its numbers where it can be; seen to go with the data where hw1 is to train it."""
    if not settings.value("task"):  # whose network may predict anything, and is tried with it
        return check_shapes(lambda: single_network(settings, data), settings.model["_target_"], data)
    with torch.device("meta"):
        return single_network(settings, data)


# Optimizers that treat every weight by itself, so that stacked members do not meet.
_ELEMENTWISE = ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "Adagrad", "Adadelta", "ASGD")


def _refuse_coupling(settings: RunSettings, optimizer: torch.optim.Optimizer) -> None:
    """Refuse what would make one member's training depend on another's."""
    instead = "or single runs (replicas=1 seed=0,1,2)"
    if type(optimizer) not in [getattr(torch.optim, name) for name in _ELEMENTWISE]:
        raise ConfigError(
            f"optimizer: got {type(optimizer).__name__} with replicas={settings.members}, which may tie members "
            f"together; expected one of {', '.join(_ELEMENTWISE)}, {instead}"
        )
    node = settings.trainer
    if node.get("gradient_clip_val") and node.get("gradient_clip_algorithm", "norm") == "norm":
        raise ConfigError(
            f"trainer.gradient_clip_val: got {node['gradient_clip_val']} with replicas={settings.members}, which "
            f"clips the norm over all members; expected +trainer.gradient_clip_algorithm=value, {instead}"
        )


def training_data(settings: RunSettings) -> DataModule:
    """The data of a run that trains, with its transform."""
    data = datamodule(settings.dataset)
    data.transform = transform_of(settings.transform)
    return data


def datamodule(node: Mapping[str, Any]) -> DataModule:
    """The data of the node `dataset`: what `DataModule` takes goes there, the rest to the source at `_target_`."""
    own = {key: value for key, value in node.items() if key in OF_DATAMODULE}
    made: DataModule = call(
        {"_target_": "hw1.data.DataModule", **own},
        "dataset",
        examples=examples_of(node),
    )
    made.definition = definition_of(source_node(node))
    return made


def with_loss(data: DataModule, settings: RunSettings) -> DataModule:
    """`data`, whose loss is the run's from then on: what trains, what is measured and what lies between is one loss."""
    data.loss = loss_of_run(settings, data)
    return data


def network(settings: RunSettings, data: DataModule, seeds: Sequence[int] = (0,)) -> nn.Module:
    """The network of a run, initialised from a seed; a `Members` of several seeds."""
    nets = []
    for seed in seeds:
        lightning.seed_everything(seed, verbose=False)
        nets.append(model_network(settings, data))
    return side_by_side(nets) if len(nets) > 1 else nets[0]


def single_network(settings: RunSettings, data: DataModule) -> nn.Module:
    """The network that a run is about: the one of its model, or that of its own LightningModule.

    Raises:
        ConfigError: a setting is refused, or what is made is no network.
    """
    net = model_network(settings, data)
    if settings.value("task"):
        return own_task.network(settings, net, lambda net: _task(net, settings, data), data)
    return net


def model_network(settings: RunSettings, data: DataModule) -> nn.Module:
    """One network for the data's shapes; convolutions are laid out channels_last, which trains faster.

    `in_shape` and `out_features` go to a class or function whose signature names them.

    Raises:
        ConfigError: a setting is refused, or what is made is no network.
    """
    target = target_of(settings.model, "model")
    shapes = {"in_shape": data.in_shape, "out_features": data.out_features}
    with Counting(settings.model, "model"):
        net = call(settings.model, "model", **{name: value for name, value in shapes.items() if takes(target, name)})
    if not isinstance(net, nn.Module):
        name = settings.model["_target_"]
        raise ConfigError(f"model._target_: got {name}, which makes a {type(net).__name__}; expected an nn.Module")
    net = giving_logits(net)
    if any(isinstance(layer, nn.Conv2d) for layer in net.modules()):
        net = net.to(memory_format=torch.channels_last)
    return net


def learner(settings: RunSettings, share: Share = ALL) -> tuple[DataModule, Task]:
    """The data and the task of a run, which trains.

    Args:
        settings: of the run.
        share: which process this is, of how many that train it.
    """
    seeds = settings.member_seeds
    data = with_loss(training_data(settings), settings)
    data.order_seeds = [mixed(seed, "order") for seed in seeds]
    made = task(network(settings, data, seeds), settings, data)
    data.same_batches = bool(settings.trainer.get("overfit_batches"))
    data.share, data.evaluates_share = share, not settings.value("task")  # whose own steps evaluate whole sets
    return data, made


def task(net: nn.Module, settings: RunSettings, data: DataModule) -> Task:
    """The task of a run; what is fitted is its `module`, a LightningModule of the user's own where there is one."""
    if settings.value("task"):
        return own_task.around(settings, net, lambda net: _task(net, settings, data), data)
    return _task(net, settings, data)


def _task(net: nn.Module, settings: RunSettings, data: DataModule) -> Task:
    objective = settings.objective
    return Task(
        net,
        data.loss,
        optimizer_of(settings, net),
        scheduler_of(settings),
        objective.minimise,
        objective.after,
        metrics_of_run(settings, data),
    )


def callbacks(settings: RunSettings) -> list[lightning.Callback]:
    """The callbacks of the `callbacks` group."""
    return [call(node, f"callbacks.{name}") for name, node in settings.callbacks.items()]


def loggers(settings: RunSettings, folder: Path, first_step: int) -> list[Logger]:
    """The loggers of the `logger` group.

    Those that take them get the run's folder (`save_dir`), its name (`run_name`), the step at which training goes on
    (`first_step`), and the `charts` of this run.
    """
    made = []
    shared = {"save_dir": str(folder), "run_name": folder.name, "first_step": first_step, "charts": charts(settings)}
    for name, node in settings.logger.items():
        takes = inspect.signature(target_of(node, f"logger.{name}")).parameters
        made.append(call(node, f"logger.{name}", **{key: value for key, value in shared.items() if key in takes}))
    return made


def trainer(
    settings: RunSettings,
    folder: Path,
    callbacks: Sequence[lightning.Callback],
    loggers: Sequence[Logger],
    strategy: Strategy | None = None,
) -> lightning.Trainer:
    """Lightning's trainer for the folder of a run. What hw1 does itself (bars, summaries) is off.

    Args:
        settings: of the run.
        folder: of the run.
        callbacks: all of them.
        loggers: all of them.
        strategy: by which this process trains with others; without, they are not met.

    Raises:
        ConfigError: an argument is refused, or it would train in several processes.
    """
    arguments = lightning_arguments(settings.trainer, folder)
    # One process, whatever variables of Slurm say: Lightning would count its tasks, and requeue a job by itself.
    own: dict[str, Any] = {"plugins": [LightningEnvironment()]}
    if is_shared(settings):
        place = Place((0, processes(settings)), processes_here(settings))
        own = {"strategy": strategy or SharedBatches(place), "use_distributed_sampler": False}
    made: lightning.Trainer = call(
        {name: value for name, value in arguments.items() if name not in own},
        "trainer",
        **own,
        default_root_dir=str(folder),
        callbacks=list(callbacks),
        logger=list(loggers),
        enable_progress_bar=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,  # concerns self.log in steps, which nothing here uses; 50 makes Lightning warn
    )
    if is_shared(settings):  # Lightning's answer to SIGTERM is a broadcast inside the handler, which waits for ever
        made._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    if made.world_size > 1 and not is_shared(settings):  # Lightning's processes would run the command again
        key = "num_nodes" if made.num_nodes > 1 else "devices"
        got = settings.trainer.get(key, "auto")
        raise ConfigError(
            f"trainer.{key}: got {got!r}, expected 1, or trainer=ddp, which divides each batch among so many processes"
        )
    return made


def device(settings: RunSettings) -> torch.device:
    """The device on which the run's measures compute: that of its training where this machine has it, else the CPU."""
    accelerator, devices = settings.trainer.get("accelerator", "auto"), settings.trainer.get("devices", 1)
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", devices[0] if isinstance(devices, list) and devices else 0)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
