"""The torchmetrics of a run, those of the setting `metrics`: made for its data, and fed with its outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

from hw1.data import DataModule
from hw1.kinds import Kind
from hw1.losses import DISCRETE
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import call, target_of
from hw1.training.loss import made_up
from hw1.training.partials import wanted

MakeMetrics = Callable[[], dict[str, Metric]]

_TAKEN = ("loss", "accuracy", "perplexity")  # names of the task's own


def metrics_of_run(settings: RunSettings, data: DataModule) -> MakeMetrics:
    """() -> fresh metrics by name, of one set of one network.

    `task` and `num_classes` are filled in where a signature names them and the setting does not.
    """

    def make() -> dict[str, Metric]:
        return {name: _metric(name, node, data) for name, node in settings.metrics.items()}

    return make


def _metric(name: str, node: Mapping[str, object], data: DataModule) -> Metric:
    key = f"metrics.{name}"
    target = target_of(node, key)
    known = {
        "task": lambda: "binary" if data.kind == "binary" else "multiclass",
        "num_classes": lambda: None if data.kind == "binary" else data.out_features,
    }
    given = {asked: value for asked, value in wanted(target, node, known).items() if value is not None}
    if given and data.kind not in DISCRETE:
        raise ConfigError(
            f"{key}: got {node['_target_']}, which is of classes, with {data.name}, whose targets are {data.kind}; "
            "expected a metric of numbers, as torchmetrics.MeanAbsoluteError"
        )
    made = call(node, key, **given)
    if not isinstance(made, Metric):
        raise ConfigError(f"{key}: got {node['_target_']}, which makes a {type(made).__name__}, expected a torchmetric")
    return made


def as_asked(kind: Kind, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(predictions, targets) as torchmetrics takes them.

    Probabilities [N, C, ...] of classes, [N, V] of tokens that are not ignored, [N] of binary targets: of logits, which
    torchmetrics takes too, it would guess batch by batch whether they are probabilities. Values as they are; of counts
    the rates.
    """
    if kind == "classes":
        return outputs.float().softmax(1), targets
    if kind == "tokens":
        counted = targets.flatten() >= 0
        return outputs.flatten(0, -2).float().softmax(-1)[counted], targets.flatten()[counted]
    if kind == "binary":
        return outputs.reshape(targets.shape).float().sigmoid(), targets.long()
    return (outputs.exp().reshape(targets.shape), targets) if kind == "counts" else (outputs, targets)


def check_metrics(make: MakeMetrics, data: DataModule) -> None:
    """Refuse a metric that does not give one number, on a few targets and outputs that are made up.

    Raises:
        ConfigError: names it.
    """
    for name, metric in make().items():
        if name in _TAKEN or "/" in name:
            raise ConfigError(f"metrics.{name}: got the name {name}, expected another than {', '.join(_TAKEN)}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of classes that are not among so few targets
                metric.update(*as_asked(data.kind, *made_up(data)))
                value = metric.compute()
        except Exception as error:  # whatever a metric raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(f"metrics.{name}: does not take targets that are {data.kind}: {reason}") from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"metrics.{name}: gives {got}, expected one number: metrics.{name}.average=macro, say")


def fed(metrics: Mapping[str, Metric], kind: Kind, outputs: Tensor, targets: Tensor) -> None:
    """Add a batch of one network."""
    if metrics:
        with torch.no_grad():
            predictions, targets = as_asked(kind, outputs, targets)
            for metric in metrics.values():
                metric.update(predictions, targets)
