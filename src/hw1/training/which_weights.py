"""Which weights a run is, and the callbacks that it takes: averaging, choosing and stopping by a metric."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from hw1.data import DataModule
from hw1.kinds import has_accuracy, loss_of
from hw1.metrics import PERPLEXITY
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import target_of
from hw1.settings.run_settings import AVERAGED, BEST, LAST

_REMEDY = {BEST: "callbacks=[default,best_checkpoint]", AVERAGED: "callbacks=[default,swa] or [default,ema]"}


def check_weights(settings: RunSettings, data: DataModule, epochs: int) -> None:
    """Refuse weights that no callback makes, a callback that makes others, and a metric that there is not.

    Args:
        settings: of the run.
        data: of the run.
        epochs: that it trains at most.

    Raises:
        ConfigError: one line that names the key, what was got and what is expected.
    """
    made = {name: _makes(target_of(node, f"callbacks.{name}")) for name, node in settings.callbacks.items()}
    makers = {name: weights for name, weights in made.items() if weights != LAST}
    if len(makers) > 1:
        one, other = list(makers)[:2]
        raise ConfigError(f"callbacks.{other}: got it beside callbacks.{one}, expected one that makes a run's weights")
    for name, weights in makers.items():
        if settings.weights != weights:
            raise ConfigError(
                f"weights: got {settings.weights} with callbacks.{name}, expected {weights}, or callbacks without it"
            )
    if not makers and settings.weights != LAST:
        raise ConfigError(
            f"weights: got {settings.weights}, expected {LAST}, or a callback that makes them: "
            f"{_REMEDY[settings.weights]}"
        )
    for name, node in settings.callbacks.items():
        target = target_of(node, f"callbacks.{name}")
        if node.get("monitor") is not None:
            _check_monitor(f"callbacks.{name}", node["monitor"], settings, data, epochs)
        if isinstance(target, type) and issubclass(target, StochasticWeightAveraging):
            _check_swa(f"callbacks.{name}", node.get("swa_epoch_start", 0.8), settings, epochs)


def _makes(target: Any) -> str:
    """The weights with which a callback ends training."""
    if isinstance(target, type) and issubclass(target, StochasticWeightAveraging | WeightAveraging):
        return AVERAGED
    return str(getattr(target, "ends_on_weights", LAST))


def metric_names(settings: RunSettings, data: DataModule) -> list[str]:
    """The metrics that every evaluation of a run has, by which a callback may choose or stop."""
    values = ["loss", *(["accuracy"] if has_accuracy(data.kind) else []), *settings.metrics]
    values += [PERPLEXITY] if data.kind == "tokens" and data.loss is loss_of("tokens") else []
    return [f"{name}/{value}" for name in data.eval_names for value in values]


def _check_monitor(key: str, monitor: Any, settings: RunSettings, data: DataModule, epochs: int) -> None:
    names = [name for name in metric_names(settings, data) if not name.startswith("test/")]
    if monitor not in names:
        more = "" if "val" in data.eval_names else "; dataset.val_fraction=0.1 makes a validation set"
        why = ", the test set being no choice" if str(monitor).startswith("test/") else ""
        raise ConfigError(f"{key}.monitor: got {monitor!r}, expected one of {', '.join(names)}{why}{more}")
    if settings.members > 1:
        raise ConfigError(
            f"{key}: got replicas={settings.members}, expected 1: members neither stop nor are best at one time; "
            "train single runs (seed=0,1,2)"
        )
    every = settings.trainer.get("check_val_every_n_epoch", 1)
    if settings.trainer.get("limit_val_batches", 1.0) == 0 or (every is not None and every > epochs):
        raise ConfigError(
            f"{key}.monitor: got {monitor!r}, which is never evaluated; expected trainer.limit_val_batches=1.0 and "
            f"trainer.check_val_every_n_epoch of at most the {epochs} epochs"
        )


def _check_swa(key: str, start: Any, settings: RunSettings, epochs: int) -> None:
    """Lightning's class leaves the last weights, or the first, where training does not come to its last epoch."""
    if settings.max_steps is not None or settings.trainer.get("max_time") is not None:
        name = "max_time" if settings.max_steps is None else "max_steps"
        raise ConfigError(
            f"trainer.{name}: got {settings.trainer[name]!r} with {key}, which averages over the last of a number of "
            "epochs; expected trainer.max_epochs alone, or callbacks=[default,ema]"
        )
    if isinstance(start, int) and start > epochs:
        raise ConfigError(f"{key}.swa_epoch_start: got {start}, expected at most trainer.max_epochs={epochs}")
    if stopping := [name for name, node in settings.callbacks.items() if "monitor" in node or "loss" in node]:
        raise ConfigError(
            f"callbacks.{stopping[0]}: got it with {key}, which averages over the last of a number of epochs; expected "
            "a training that does not stop before, or callbacks=[default,ema]"
        )
