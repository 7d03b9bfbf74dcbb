"""The training clock: config -> objects -> one trained run. Names load on first use: keys need no torch."""

from hw1.on_first_use import from_homes

_HOMES = {
    "MetricsCsv": "metrics_csv",
    "Task": "task",
    "mlflow_logger": "mlflow_store",
    "tensorboard_logger": "tensorboard",
    "wandb_logger": "weights_and_biases",
}

__all__ = sorted(_HOMES)

__getattr__, __dir__ = from_homes(__name__, _HOMES)
