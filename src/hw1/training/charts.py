"""Which curves belong in one chart, by the question that they answer; for TensorBoard's tab "Custom Scalars"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hw1.kinds import has_accuracy
from hw1.metrics import ACCURACY, GRADIENT_NORM, LOSS, SPLITS, STEP_LOSS, axis, label, not_in_nats, unit
from hw1.settings import RunSettings
from hw1.settings.construct import is_node, target_of

Charts = dict[str, dict[str, list[str]]]  # question -> title of a chart -> regular expressions of its metrics' names


def charts(settings: RunSettings) -> Charts:
    """The charts of a run; only those that its training fills.

    Args:
        settings: of the run.

    Raises:
        ConfigError: a node's class cannot be imported.
    """
    kind = getattr(target_of(settings.dataset, "dataset"), "kind", None)
    splits = [SPLITS[0], *(["val"] if settings.dataset.get("val_fraction") else []), *SPLITS[1:]]
    learning = {
        axis(LOSS, unit(LOSS, kind == "classes" and not not_in_nats(settings.loss))): _exactly(
            *(f"{split}/{LOSS}" for split in splits)
        )
    }
    if has_accuracy(kind):
        learning[ACCURACY] = _exactly(*(f"{split}/{ACCURACY}" for split in splits))
    steps = {label(STEP_LOSS): _exactly(STEP_LOSS)}
    tracked: dict[str, list[str]] = {}
    for name, node in settings.callbacks.items():
        if getattr(target_of(node, f"callbacks.{name}"), "gradient_norms", False):
            steps[label(GRADIENT_NORM)] = _exactly(GRADIENT_NORM)
            if node.get("per_layer"):
                steps[f"{label(GRADIENT_NORM)} of each layer"] = [f"{GRADIENT_NORM}/"]
        tracked |= _measures(node, f"callbacks.{name}")
    found = {
        "Does it learn, and does it generalise?": learning,
        "How do single steps go?": steps,
        "What else changes while it trains?": tracked,
    }
    return {question: group for question, group in found.items() if group}


def _measures(node: Mapping[str, Any], key: str) -> dict[str, list[str]]:
    """One chart a column of the measures that a callback takes, without their standard errors."""
    found: dict[str, list[str]] = {}
    for name, inner in (node.get("measure") or {}).items():
        if is_node(inner):
            columns = getattr(target_of(inner, f"{key}.measure.{name}"), "columns", {})
            errors = {column.error for column in columns.values()}
            found |= {axis(column.label, column.unit): _exactly(c) for c, column in columns.items() if c not in errors}
    return found


def _exactly(*names: str) -> list[str]:
    """TensorBoard shows every metric whose name's beginning is matched."""
    return [f"{re.escape(name)}$" for name in names]
