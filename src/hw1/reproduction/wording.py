"""A statistic of docs/claims.yaml in words: what is measured, and what kind of interval it has. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hw1.measures import MinimalRatio, Sensitivity, Sharpness
from hw1.metrics import ACCURACY, label
from hw1.settings import ConfigError

BY_SEED = ("trend", "difference", "mean", "geometric_mean", "smallest", "largest")  # one number a seed
_MEASURES = {name: column.label for measure in (Sensitivity, Sharpness) for name, column in measure.columns.items()}
_SETTINGS = {
    "model.hidden": "hidden layers",
    "parameters": "number of weights",
    "positive": "share of positive eigenvalues",
    "negative": "share of negative eigenvalues",
}
_SHARES = (ACCURACY, *(name.rpartition("/")[2] for name in MinimalRatio.columns))  # columns between 0 and 1
_HEADLINES = {
    "end_distance_over_independent": "distance between ends over that of independent directions",
    "end_distance_over_start_distance": "distance between ends over that between starts",
}


def statistic_in_words(node: Mapping[str, Any], called: Mapping[str, str] | None = None) -> str:
    """A statistic in words.

    Args:
        node: as docs/claims.yaml writes it.
        called: words for values of settings, as for the name of a model.

    Example:
        >>> statistic_in_words({"trend": "test/accuracy", "against": "dataset.batch_size", "where": {"seed": 1}})
        'rank correlation of test accuracy with batch size along each run (seed 1)'
        >>> statistic_in_words({"difference": "accuracy", "at": {"alpha": "above 1.5"}, "from": {"alpha": 1.0},
        ...           "where": {"split": "test"}})
        'test accuracy beyond alpha 1.5 minus at alpha 1'
    """
    where = dict(node.get("where") or {})
    split = f"{where.pop('split')} " if "split" in where else ""
    called = called or {}

    def spoken(of: str) -> str:
        words = re.sub("`([^`]*)`", lambda match: _called(match[1]), of) if "`" in of else _called(of)
        return split + words.replace(" - ", " minus ")

    match node:
        case {"correlation": of, "against": against, "means": keys}:
            text = f"rank correlation of {spoken(of)} with {spoken(against)}, means of each {_and(keys)}"
        case {"correlation": of, "against": against}:
            text = f"rank correlation of {spoken(of)} with {spoken(against)}"
            text += f", given the {spoken(node['given'])}" if "given" in node else ""
        case {"trend": of, "against": against}:
            text = f"rank correlation of {spoken(of)} with {spoken(against)} along each run"
        case {"difference": of, "at": at, "from": start}:
            text = f"{spoken(of)} {_at(at)} minus {_at(start)}"
        case {"paired": of, "at": at, "from": start}:
            text = f"share of {spoken(of)} nets {_at(at)} minus {_at(start)}, of the same starts"
        case {"share": of}:
            text = f"share of {spoken(of)} nets"
        case {"mean": of}:
            text = f"mean {spoken(of)}"
        case {"geometric_mean": of}:
            text = f"geometric mean of {spoken(of)}"
        case {"smallest": of}:
            text = f"smallest {spoken(of)} of a run"
        case {"largest": of}:
            text = f"largest {spoken(of)} of a run"
        case {"headline": name, "minus": other}:
            text = f"{_headline(name, called)} minus {_headline(other, called)}"
        case {"headline": name}:
            text = _headline(name, called)
        case _:
            raise ConfigError(
                f"statistic: got {dict(node)}, expected one of headline; mean; geometric_mean; smallest; largest; "
                "share; correlation, against; trend, against; difference, at, from; paired, at, from"
            )
    if where:
        text += f" ({', '.join(_setting(key, called.get(str(value), value)) for key, value in where.items())})"
    if "within" in node:
        text += f", averaged over {' and '.join(f'{label(key)}s' for key in node['within'])}"
    return text


def method(node: Mapping[str, Any]) -> str:
    """Where the 95% interval of a statistic comes from.

    Example:
        >>> method({"mean": "test/accuracy"})
        "Student's of the logit"
    """
    match node:
        case {"correlation": _, "means": _}:
            return "exchanged means"
        case {"correlation": _, "given": _}:
            return "residuals exchanged within seeds"
        case {"correlation": _}:
            return "exchanged within seeds"
        case {"trend": _}:
            return "Student's of Fisher's z"
        case {"geometric_mean": _}:
            return "Student's of the logarithm"
        case {"share": _}:
            return "Wilson's"
        case {"paired": _}:
            return "McNemar's exact test"
        case {"headline": name}:
            return "the jackknife's over paths" if str(name).split()[0] in _HEADLINES else "the study's"
    return "Student's of the logit" if bounds(node) else "Student's"


def _called(column: str) -> str:
    """What a column shows, in words."""
    return _MEASURES.get(column) or _SETTINGS.get(column) or label(column)


def _and(keys: Sequence[str]) -> str:
    return " and ".join("size" if key == "model.hidden" else _called(key) for key in keys)


def _headline(name: str, called: Mapping[str, str]) -> str:
    """A headline's name without its shorthand.

    Example:
        >>> _headline("end_distance_over_start_distance weights=all optimizer=sgd", {"sgd": "SGD"})
        'distance between ends over that between starts (all weights, optimizer SGD)'
    """
    first, *settings = str(name).split()
    settings = [
        "all weights" if word == "weights=all" else " ".join((label(key), called.get(value, value)))
        for word in settings
        for key, _, value in [word.partition("=")]
    ]
    first = _HEADLINES.get(first, first)
    return first.replace("_", " ") + (f" ({', '.join(settings)})" if settings else "")


def _setting(key: str, value: Any) -> str:
    if key == "parameters":
        return f"{value:,} weights"
    if key == "model":
        return str(value)
    if key == "phase":
        return "after training" if value == "training" else f"after the {value}"
    if key == "reached":
        return "at equal train loss"
    if key == "learned":
        return "networks that have learned" if value else "networks that have learned nothing"
    return f"{_called(key)} {value:g}" if isinstance(value, float) else f"{_called(key)} {value}"


def _at(values: Mapping[str, Any]) -> str:
    """`beyond alpha 1.5`, `at batch size 64`, `with 1,401 weights`."""
    ((key, value),) = values.items()
    if key in ("parameters", "model.hidden"):
        return f"with {_setting(key, value)}"
    if isinstance(value, str) and value.startswith("above "):
        return f"beyond {label(key)} {value.removeprefix('above ')}"
    if isinstance(value, str) and value.startswith("from "):
        return f"over {label(key)} {value}"
    return f"at {_setting(key, value)}"


def bounds(node: Mapping[str, Any]) -> tuple[float, float] | None:
    """The lowest and the highest value that a statistic of each seed can have; None where there are none."""
    kind = next((kind for kind in BY_SEED if kind in node), "")
    if kind == "trend":
        return -1.0, 1.0
    terms = str(node.get(kind, "")).replace("`", "").split(" - ")
    if not all(term.rpartition("/")[2] in _SHARES for term in terms):
        return None
    return (-1.0, 1.0) if len(terms) > 1 or kind == "difference" else (0.0, 1.0)
