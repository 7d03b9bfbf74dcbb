"""A run whose weights were trained elsewhere: read, evaluated, and kept as a finished run keeps its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hw1.data import DataModule
from hw1.settings import ConfigError, RunSettings
from hw1.settings.run_settings import LOSS
from hw1.training import build
from hw1.training.hyperparameters import hyperparameters
from hw1.training.metrics_csv import MetricsCsv
from hw1.training.snapshots import save_snapshot
from hw1.training.weights_file import fitted, identity, tensors_of

EPOCHS = 0  # that hw1 trained


def weights_path(settings: RunSettings) -> Path:
    """Where the weights of an adopted run were read: on this machine, when its command was typed."""
    node = settings.value("adopted")
    return Path(str(node["folder"])) / str(node["file"])


def check(settings: RunSettings, data: DataModule) -> None:
    """Refuse weights that do not fit the run's model, and settings that only a training could heed.

    Raises:
        ConfigError: one line a problem.
    """
    if settings.members > 1:
        raise ConfigError(f"replicas: got {settings.members}, expected 1: every weights file is a run of its own")
    if settings.objective.minimise != LOSS:
        raise ConfigError(f"objective.minimise: got {settings.objective.minimise}, expected {LOSS}: nothing is trained")
    if settings.callbacks:
        raise ConfigError(f"callbacks: got {', '.join(settings.callbacks)}, expected none: nothing is trained")
    with torch.device("meta"):
        net = build.single_network(settings, data)
    _read(settings, net)


def _read(settings: RunSettings, net: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the run's weights file, under the names of its network."""
    node = settings.value("adopted")
    return fitted(net, tensors_of(weights_path(settings)), node["file"], node.get("prefix"))


def take_in(settings: RunSettings, folder: Path) -> dict[str, Any]:
    """Read the weights of a run, evaluate them on whole sets as training does, and write what a finished run holds.

    Args:
        settings: of the run, with `adopted`.
        folder: of the run.

    Returns:
        What its result.json says of it.

    Raises:
        ConfigError: the weights are not those that the settings name, or do not fit.
    """
    from hw1.training.process import closing_all, expected_warnings, torch_switches

    begun, path = time.monotonic(), weights_path(settings)
    if identity(path) != settings.value("adopted.sha256"):
        raise ConfigError(f"weights: got {path}, which has changed since the command began; give it again")
    data = build.with_loss(build.datamodule(settings.dataset), settings)
    net = build.network(settings, data)
    csv = MetricsCsv(folder)  # of what happened while it trained nothing is known
    others = build.loggers(settings, folder, 0)
    with expected_warnings(), torch_switches(), closing_all(others):
        trainer = build.trainer(settings, folder, [], [])
        if trainer.limit_test_batches != 1.0 or getattr(trainer, "fast_dev_run", False):
            raise ConfigError("trainer.limit_test_batches: got part of the test, expected all of it: remove it")
        net = trainer.precision_plugin.convert_module(net)
        net.load_state_dict(_read(settings, net), strict=False)  # what may be missing was checked
        save_snapshot(net, folder, EPOCHS)
        task = build.task(net, settings, data)
        data.prepare_data()
        trainer.test(task, datamodule=data, verbose=False, weights_only=True)
        metrics = {name: values[0] for name, values in task.member_metrics.items()}
        for logger in others:
            logger.log_hyperparams(hyperparameters(settings.plain, data.sizes["train"]))
            logger.log_metrics(metrics, step=0)
            logger.finalize("success")
    csv.write()
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "replicas": 1,
        "metrics": metrics,
        "epochs": EPOCHS,
        "seconds": round(time.monotonic() - begun, 3),
        "dataset": {"name": data.name, "source": data.source, **data.sizes, "sha256": data.identity()},
        "constant": data.constant_metrics(),
    }
