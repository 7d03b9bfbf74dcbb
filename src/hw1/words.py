"""What networks, their layers and settings are called in sentences, and how any text is shown. No torch.

`hw1.metrics` says what a metric or a setting is called; here stands what a value of one is, in figures, legends and
pages.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from hw1.metrics import BATCH_SIZE, LEARNING_RATE, label

NETWORK = "network_in_words"  # the column of a table that says what a row's network is

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_CONVOLUTION, _DENSE, _POOLING, _DROPOUT, _NORM = "convolution", "dense layer", "pooling", "dropout", "normalisation"
_OUTPUT, _RECURRENT = "output layer", "recurrent layer"
_PARAMETERS = {
    "weight": "weights",
    "bias": "biases",
    "weight_ih_l0": "input weights",
    "weight_hh_l0": "state-to-state weights",
}


def printable(text: str) -> str:
    r"""A text from a file that somebody else may have written, in one line and without what a terminal would obey.

    Example:
        >>> printable("loss\x1b[2J is\nnan \u202e")
        'loss[2J is nan '
    """
    if text.isprintable():  # most texts, and long ones
        return text
    return "".join(" " if char.isspace() else char for char in text if char.isspace() or char.isprintable())


def width(text: str) -> int:
    """Cells that a text takes.

    Example:
        >>> width("abc"), width("学习率")
        (3, 6)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, cells: int) -> str:
    """A text of so many cells at most, without its middle where it is longer: names differ at both ends.

    Example:
        >>> cut("batch_size=64_lr=0.001_seed=3", 16)
        'batch_si…_seed=3'
    """
    if width(text) <= cells:
        return text
    if cells < 2:
        return "…"[:cells]
    head, tail = list(text), list[str]()
    room = cells - 1
    while width("".join(head)) > (room + 1) // 2:
        head.pop()
    rest = room - width("".join(head))
    for char in reversed(text[len(head) :]):
        if width("".join(tail)) + width(char) > rest:
            break
        tail.append(char)
    return "".join([*head, "…", *reversed(tail)])


def count(number: int, noun: str) -> str:
    """A number of things, in digits.

    Example:
        >>> count(1, "run"), count(2, "run")
        ('1 run', '2 runs')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def counted(number: int, noun: str) -> str:
    """A number of things, in words up to twelve.

    Example:
        >>> counted(1, "seed"), counted(2, "seed"), counted(30, "network")
        ('one seed', 'two seeds', '30 networks')
    """
    return f"{_NUMBERS[number] if number < len(_NUMBERS) else number} {noun}{'s' * (number != 1)}"


def estimate_in_words(value: float, low: float, high: float, n: int, unit: str = "", of: str = "seed") -> str:
    """A number with its 95% interval, in one line.

    Args:
        value: it.
        low: lower end; NaN where there is no interval.
        high: upper end.
        n: of how many.
        unit: may be empty.
        of: what there are n of.

    Example:
        >>> estimate_in_words(1.35, 0.76, 1.93, 3, "nats"), estimate_in_words(0.5, math.nan, math.nan, 1)
        ('1.35 nats [0.76, 1.93], n = 3', '0.5 (one seed: no interval)')
    """
    number = f"{value:.3g} {unit}".strip()
    if math.isnan(low):
        return f"{number} ({counted(n, of)}: no interval)"
    return f"{number} [{low:.3g}, {high:.3g}], n = {n}"


def model_in_words(model: Mapping[str, Any], weights: int | None = None) -> str:
    """A network from the settings of its model.

    Convolutions are counted where there are some, else hidden layers; a class that hw1 does not bring is called by its
    name.

    Args:
        model: the settings, with `_target_`.
        weights: the number of its parameters, to be said as well.

    Example:
        >>> cnn = {"_target_": "hw1.models.Cnn", "layers": ["c3(10)", "p2", "c3(16)", "p2", 512, 256, 125]}
        >>> model_in_words(cnn, 371_581)
        'two convolutions, 371,581 weights'
        >>> model_in_words({"_target_": "hw1.models.Mlp", "hidden": [256, 128], "dropout": 0.5})
        'two dense layers with dropout'
        >>> model_in_words({"_target_": "hw1.models.mlp_of_size", "size": 571, "depth": 7}, 571)
        'seven dense layers, 571 weights'
        >>> model_in_words({"_target_": "hw1.models.Rnn", "hidden": 64, "layers": 1}, 6_666)
        'one recurrent layer, 6,666 weights'
        >>> model_in_words({"_target_": "mine.Transformer", "layers": 3}, 1_000)
        'Transformer, 1,000 weights'
    """
    kinds = _kinds(model)
    if kinds is None:
        words = str(model.get("_target_", "network")).rpartition(".")[2]
    else:
        noun = next((kind for kind in (_CONVOLUTION, _RECURRENT) if kind in kinds), _DENSE)
        words = counted(kinds.count(noun), noun) if noun in kinds else "no hidden layer"
        extras = [called for kind, called in ((_DROPOUT, "dropout"), (_NORM, "batch norm")) if kind in kinds]
        words += f" with {' and '.join(extras)}" if extras else ""
    return words if weights is None else f"{words}, {weights:,} weights"


def layers_in_words(model: Mapping[str, Any]) -> dict[str, str]:
    """{path of a module with parameters in the network: what it is called}; {} for a class that hw1 does not bring.

    Example:
        >>> layers_in_words({"_target_": "hw1.models.Cnn", "layers": ["c3(32)", "p2", 64]})
        {'0': 'convolution', '4': 'dense layer', '6': 'output layer'}
        >>> layers_in_words({"_target_": "hw1.models.Mlp", "hidden": [5, 10]})
        {'1': 'first dense layer', '3': 'second dense layer', '5': 'output layer'}
        >>> layers_in_words({"_target_": "hw1.models.Rnn", "hidden": 64, "layers": 2})
        {'recurrent': 'recurrent layers', 'head': 'output layer'}
    """
    kinds = _kinds(model)
    if kinds is None:
        return {}
    if _RECURRENT in kinds:
        return {"recurrent": _RECURRENT + "s" * (kinds.count(_RECURRENT) > 1), "head": _OUTPUT}
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    position, flat, last = 0, False, ""
    for kind in [*kinds, _OUTPUT]:
        if kind in (_DENSE, _OUTPUT) and not flat:  # a module that flattens comes first
            position, flat = position + 1, True
        if kind == _NORM:  # ahead of the activation of the layer before it
            found[str(position - 1)] = f"{_NORM} of the {last}"
        elif kind in (_CONVOLUTION, _DENSE, _OUTPUT):
            seen[kind] = seen.get(kind, 0) + 1
            last = found[str(position)] = _numbered(seen[kind], kinds.count(kind), kind)
            position += 1  # an activation follows
        position += 1
    return found


def parameter_in_words(name: str, model: Mapping[str, Any]) -> str:
    """A parameter of a network by its name in `net.named_parameters()`, or `all` of them.

    Example:
        >>> parameter_in_words("1.weight", {"_target_": "hw1.models.Mlp", "hidden": [256, 128]})
        'weights of the first dense layer'
        >>> parameter_in_words("stem.conv.weight", {"_target_": "mine.Net"}), parameter_in_words("all", {})
        ('weights of stem.conv', 'all weights')
    """
    if name == "all":
        return "all weights"
    path, _, own = name.rpartition(".")
    layer = layers_in_words(model).get(path)
    what = _PARAMETERS.get(own, own)
    if layer is None:
        return f"{what} of {path}" if path else what
    return f"{what} of the {layer}"


def setting_in_words(key: str, value: Any) -> str:
    """A setting and its value, as in a table: a group's option without its folder, numbers as short as they are.

    Example:
        >>> setting_in_words("optimizer.lr", 0.001), setting_in_words("optimizer.weight_decay", 0.0)
        ('learning rate 0.001', 'weight decay 0')
        >>> setting_in_words("dataset.batch_size", "null"), setting_in_words("init", "shared")
        ('full batch', 'shared start')
        >>> setting_in_words("dataset.corruption", 0.25), setting_in_words("model", "networks/cnn")
        ('25% of the labels shuffled', 'model cnn')
    """
    if key == BATCH_SIZE and value in (None, "null"):
        return "full batch"
    if key == "init":
        return f"{value} start{'s' * (value == 'independent')}"
    if key == "dataset.corruption" and _is_number(value):
        return f"{float(value):.0%} of the labels shuffled"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{label(key)} {shown if '.' in key else shown.rpartition('/')[2]}"


def settings_in_words(values: Mapping[str, Any]) -> str:
    """Settings in a row.

    Example:
        >>> settings_in_words({"optimizer.lr": 0.1, "seed": 2})
        'learning rate 0.1, seed 2'
    """
    return ", ".join(setting_in_words(key, value) for key, value in values.items())


def ends_in_words(key: str, first: Any, others: Sequence[Any]) -> tuple[str, str]:
    """The two ends of a line between networks that differ in a setting.

    Args:
        key: the setting.
        first: its value at the first end.
        others: its values at the second, one or more.

    Example:
        >>> ends_in_words("dataset.batch_size", 64, [1024]), ends_in_words("optimizer.lr", 0.001, [0.01, 0.1])
        (('small batch 64', 'large batch 1024'), ('small learning rate 0.001', 'large learning rate 0.01, 0.1'))
        >>> ends_in_words("dataset.batch_size", 64, ["null"]), ends_in_words("seed", 0, [1])
        (('small batch 64', 'full batch'), ('seed 0', 'seed 1'))
    """
    noun = {BATCH_SIZE: "batch", LEARNING_RATE: "learning rate"}.get(key)
    if noun is None:
        return setting_in_words(key, first), _joined(key, others)
    numbers = all(_is_number(value) for value in others)
    second = f"large {noun} {', '.join(map(_short, others))}" if numbers else _joined(key, others)
    return f"small {noun} {_short(first)}", second


def _joined(key: str, values: Sequence[Any]) -> str:
    return ", ".join(setting_in_words(key, value) for value in values)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _numbered(number: int, of: int, noun: str) -> str:
    """The second of several, or the only one of its kind."""
    if of < 2:
        return noun
    return f"{_ORDINALS[number - 1]} {noun}" if number <= len(_ORDINALS) else f"{noun} {number}"


def _kinds(model: Mapping[str, Any]) -> list[str] | None:
    """The hidden layers of one of hw1's models, in order; None for another class."""
    target = str(model.get("_target_", ""))
    if not target.startswith("hw1.models"):
        return None
    if "depth" in model:
        return [_DENSE, *([_DROPOUT] if model.get("dropout") else [])] * int(model["depth"])
    sizes = next((model[key] for key in ("layers", "hidden") if _is_list(model.get(key))), None)
    if sizes is None:
        return [_RECURRENT] * int(model.get("layers", 1)) if target.endswith("Rnn") else None
    if target.endswith("Mlp"):
        return [_DENSE, *([_DROPOUT] if model.get("dropout") else [])] * len(sizes)
    signs = (("c", _CONVOLUTION), ("p", _POOLING), ("drop", _DROPOUT), ("bn", _NORM))
    return [next((kind for sign, kind in signs if str(layer).startswith(sign)), _DENSE) for layer in sizes]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
