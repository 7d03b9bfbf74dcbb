"""Which runs train in several processes, and what cannot: refused before anything trains, in a line that says why."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import lightning
from lightning.pytorch.strategies import ParallelStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hw1.data import DataModule
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import target_of
from hw1.settings.processes import DDP, is_shared, processes
from hw1.settings.run_settings import LOSS
from hw1.training.distributed_nodes import check_nodes

_WHOLE = "which divides a network among devices: checkpoints, measures and theta are of whole networks"
_OTHERS = {
    "fsdp": _WHOLE,
    "deepspeed": _WHOLE,
    "model_parallel": _WHOLE,
    "ddp_": "whose processes would run the whole command again, or are forked with its threads",
    "dp": "which Lightning no longer has",
}


def check_distributed(settings: RunSettings, net: nn.Module, data: DataModule) -> None:
    """Refuse what several processes would not train as one does.

    Args:
        settings: of the run.
        net: one network, which may be on the meta device.
        data: loaded.

    Raises:
        ConfigError: one line that names the key, what was got, what is expected and what to do instead.
    """
    node = settings.trainer
    strategy = node.get("strategy", "auto")
    own = target_of(strategy, "trainer.strategy") if isinstance(strategy, Mapping) else None
    if inspect.isclass(own) and issubclass(own, ParallelStrategy):
        raise ConfigError(
            f"trainer.strategy: got {own.__name__}, whose processes hw1 does not start; expected {DDP} (trainer=ddp), "
            "or auto"
        )
    if isinstance(strategy, str):
        for name, why in _OTHERS.items():
            if strategy.lower().startswith(name) and strategy != DDP:
                raise ConfigError(f"trainer.strategy: got {strategy}, {why}; expected {DDP} (trainer=ddp) or auto")
    if not is_shared(settings):
        if node.get("sync_batchnorm"):
            raise ConfigError("trainer.sync_batchnorm: got True, expected false: this trains in one process")
        return
    _check_devices(node)
    if settings.members > 1:
        raise ConfigError(
            f"replicas: got {settings.members} with trainer=ddp, expected 1: members are trained side by side in one "
            "process; train single runs (seed=0,1,2)"
        )
    if settings.objective.minimise != LOSS:
        raise ConfigError(
            f"objective.minimise: got {settings.objective.minimise} with trainer=ddp, expected {LOSS}: the squared "
            "norm of a batch's gradient is not the mean of those of its parts; trainer=cpu or gpu minimises it"
        )
    _check_batch_norm(node, net)
    fewest = min(min(size, data.eval_batch_size) for size in data.sizes.values())
    if settings.metrics and fewest < processes(settings):
        raise ConfigError(
            f"metrics: got {', '.join(settings.metrics)} where batches of {fewest} are evaluated by "
            f"{processes(settings)} processes, of which some see no example; expected none, a larger "
            "dataset.eval_batch_size, or fewer trainer.devices"
        )
    if settings.value("task"):
        _check_own(settings)


def _check_devices(node: Mapping[str, Any]) -> None:
    devices, nodes = node.get("devices", 1), node.get("num_nodes", 1)
    number = len(devices) if isinstance(devices, list | tuple) else devices
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigError(
            f"trainer.devices: got {devices!r}, expected a number, or a list of GPUs: weights differ in the last bits "
            "between numbers of processes, so that it is part of the run"
        )
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise ConfigError(f"trainer.num_nodes: got {nodes!r}, expected a positive integer")
    if nodes > 1:
        check_nodes()
    if node.get("accelerator") not in ("cpu", "gpu", "cuda"):
        raise ConfigError(f"trainer.accelerator: got {node.get('accelerator')!r} with trainer=ddp, expected cpu or gpu")


def _check_batch_norm(node: Mapping[str, Any], net: nn.Module) -> None:
    """Batch-norm sees its share of a batch alone, unless processes tell each other, which torch does on GPUs."""
    synchronised, cpu = node.get("sync_batchnorm", False), node.get("accelerator") == "cpu"
    if synchronised and cpu:
        raise ConfigError(
            "trainer.sync_batchnorm: got True with accelerator=cpu, expected false: torch.nn.SyncBatchNorm needs GPUs"
        )
    norms = [name for name, layer in net.named_modules() if isinstance(layer, _BatchNorm)]
    if norms and not synchronised:
        instead = (
            "trainer=cpu, or GPUs, where trainer=ddp_gpu synchronises it" if cpu else "trainer.sync_batchnorm=true"
        )
        raise ConfigError(
            f"model: got batch-norm ({norms[0] or 'the network'}) with trainer=ddp, where each process would normalise "
            f"by its share of a batch; expected none, or {instead}"
        )


def _check_own(settings: RunSettings) -> None:
    own, name = target_of(settings.value("task"), "task"), settings.value("task")["_target_"]
    if not inspect.isclass(own):
        return
    with_ddp = f"task: got {name} with trainer=ddp, whose"
    step = getattr(own, "training_step", None)
    try:
        source = inspect.getsource(step) if step is not None else ""
    except (OSError, TypeError):
        source = ""
    if "self.log" in source:
        raise ConfigError(
            f"{with_ddp} training_step logs: each process sees its share of a batch; expected that in validation_step, "
            "or trainer=cpu or gpu"
        )


def refuse_manual(settings: RunSettings, module: lightning.LightningModule) -> None:
    """Refuse a module that steps its optimizers itself: when its gradients are complete is known to it alone.

    Raises:
        ConfigError: it does, and several processes train.
    """
    if is_shared(settings) and not module.automatic_optimization:
        raise ConfigError(
            f"task: got {settings.value('task')['_target_']} with trainer=ddp, which optimises by hand; expected "
            "automatic_optimization, or trainer=cpu or gpu: only it knows when its gradients are to be added up"
        )
