"""A run's settings as TensorBoard, Weights & Biases and MLflow take them: one value by name, numbers as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw1.metrics import BATCH_SIZE
from hw1.settings.identity import deciding, select
from hw1.settings.paths import leaves


def hyperparameters(settings: Mapping[str, Any], examples: int) -> dict[str, int | float | str | bool]:
    """Every setting that can change a run, by its dotted key; an object is its class's name.

    A setting that is null has no value here: as text it would turn its whole column, numbers too, into text. Only for
    the size of a batch does null say a number: all examples.

    Args:
        settings: of the run, resolved and nested.
        examples: number of training examples.

    Example:
        >>> settings = {"dataset": {"batch_size": None, "train_size": None}, "model": {"_target_": "a.b.Mlp"}}
        >>> hyperparameters(settings, examples=300)
        {'dataset.batch_size': 300, 'model': 'Mlp'}
    """
    flat: dict[str, int | float | str | bool] = {}
    for key, value in leaves(deciding(settings)):
        if key.endswith("._target_"):
            flat[key.removesuffix("._target_")] = str(value).rpartition(".")[2]
        elif value is not None:
            flat[key] = value if isinstance(value, int | float | str | bool) else str(value)
    if select(settings, BATCH_SIZE, 0) is None:
        flat = {BATCH_SIZE: examples} | flat
    return flat
