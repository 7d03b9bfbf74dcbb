"""The training clock: config -> objects -> one trained run. Names load on first use: keys need no torch."""

from importlib import import_module
from typing import Any

_HOME = {
    "MetricsCsv": "metrics_csv",
    "Task": "task",
    "mlflow_logger": "mlflow_store",
    "tensorboard_logger": "tensorboard",
    "wandb_logger": "weights_and_biases",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
