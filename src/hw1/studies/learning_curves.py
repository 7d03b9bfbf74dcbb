"""What the studies of classifiers share: the epochs of all runs in one long table, and where each run ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import METRICS
from hw1.runs.histories import evaluated
from hw1.settings import ConfigError
from hw1.settings.run_settings import LAST
from hw1.studies.headlines import told_apart, unseeded
from hw1.studies.needed import require_kind
from hw1.words import NETWORK

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs import Member, Run, Sweep
    from hw1.settings import RunSettings

_NO_CLASSES = "which has no classes; expected images with labels, as dataset=mnist"
_SIDES = ("split", "quantity")
SERIES = "series"  # the column that holds what a training's settings are called in a figure
# What both tables say of a training behind the swept keys.
DESCRIBED = (SERIES, "architecture", "parameters", "depth", "corruption", "data", "source", "n_train", NETWORK)
# Keys that an architecture's name stands for.
SHAPE = ("model", "model.layers", "model.hidden", "model.width", "model.size", "model.budget", "model.depth")
_SIZED = {"hw1.models.mlp_of_size": "size", "hw1.models.mlp_of_budget": "budget"}  # the latter in older runs


def check_classes(runs: Sequence[RunSettings]) -> None:
    """Refuse data without classes, before anything trains.

    Raises:
        ConfigError: a run has such.
    """
    require_kind(runs, "classes", _NO_CLASSES)


def learning_curves(sweep: Sweep, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """One row an epoch, split and quantity of every member of every complete run; no rows where none is complete.

    The epochs are those that were evaluated, and the end.

    Args:
        sweep: it.
        metrics: which, as `train/loss`; those that a run has not got are left out.

    Columns: the swept keys but the seed, `DESCRIBED` (series, architecture, parameters, depth, corruption (share of
    shuffled training labels), data, source, n_train, network_in_words), seed, epoch (completed ones), split, quantity
    (loss in nats, accuracy), value.
    """
    import pandas as pd

    members, series = list(sweep.members()), _series(sweep)
    if not members:
        return pd.DataFrame()
    long = _curves(members, metrics)
    of_member = long.pop("of").to_numpy()
    described = [{**_described(member, unseeded(sweep.keys), series), "seed": member.seed} for member in members]
    front = pd.DataFrame(described).iloc[of_member].reset_index(drop=True)
    split = {name: name.partition("/")[::2] for name in metrics}
    names = long.pop("variable")
    value = long.pop("value")
    sides = {side: names.map({name: both[i] for name, both in split.items()}) for i, side in enumerate(_SIDES)}
    return pd.concat([front, long.assign(**sides, value=value)], axis=1)


def _curves(members: Sequence[Member], metrics: Sequence[str]) -> pd.DataFrame:
    """Columns of (position in `members`), epoch (completed ones), variable, value; of each, the end stands last."""
    import pandas as pd

    runs = list(dict.fromkeys(member.run for member in members))
    place = {run: number for number, run in enumerate(runs)}
    last = [member.run.result["epochs"] for member in members]
    whose = pd.DataFrame({"of": range(len(members)), "run": [place[member.run] for member in members]})
    whose["member"] = [member.number for member in members]
    # The end is of other weights than the evaluation at its epoch, where a run's are not those of the last step.
    whose["before"] = [math.inf if m.run.settings.weights == LAST else e for m, e in zip(members, last, strict=True)]
    parts = []
    for history in evaluated(runs, metrics):
        on = ["run", "member"] if "member" in history else ["run"]
        own = history.merge(whose[["of", "before", *on]], on=on)
        own["epoch"] += 1
        own = own[own["epoch"] < own["before"]]
        for number, name in enumerate(metrics):
            if name in own:
                parts.append(own[["of", "epoch"]].assign(variable=name, value=own[name], order=number))
    end = [
        (number, last[number], name, member.metrics[name], len(metrics) + i)
        for number, member in enumerate(members)
        for i, name in enumerate(metrics)
        if name in member.metrics
    ]
    parts.append(pd.DataFrame(end, columns=["of", "epoch", "variable", "value", "order"]))
    joined = pd.concat([part for part in parts if len(part)], ignore_index=True)
    joined = joined.sort_values(["of", "order"], kind="stable", ignore_index=True)
    return joined.drop(columns="order").drop_duplicates(["of", "epoch", "variable"], ignore_index=True)


def ends(sweep: Sweep) -> pd.DataFrame:
    """One row a member of every complete run.

    Columns: those of `learning_curves` up to the seed, epochs, seconds, METRICS, run, member.

    Raises:
        ConfigError: a run has no accuracy.
    """
    import pandas as pd

    rows, series = [], _series(sweep)
    for member in sweep.members():
        result = member.run.result
        if not set(METRICS) <= set(member.metrics):
            raise ConfigError(f"dataset: got {result['dataset']['name']}, {_NO_CLASSES}")
        spent = {name: result[name] for name in ("epochs", "seconds")}
        values = {name: member.metrics[name] for name in METRICS}
        described = _described(member, unseeded(sweep.keys), series)
        of = {"run": member.run.path.name, "member": member.number}
        rows.append({**described, "seed": member.seed, **spent, **values, **of})
    return pd.DataFrame(rows)


def architecture(model: Mapping[str, Any]) -> str:
    """A model's settings as one word: its layers or hidden sizes, else its class.

    Example:
        >>> architecture({"_target_": "hw1.models.Cnn", "layers": ["c3(10)", "p2", 32], "width": 2})
        'c3(10)-p2-32 x 2'
        >>> architecture({"_target_": "hw1.models.Rnn", "hidden": 64, "layers": 1})
        'Rnn 64'
        >>> architecture({"_target_": "hw1.models.mlp_of_size", "size": 571, "depth": 7})
        '7 layers, about 571 weights'
    """
    if size := _SIZED.get(str(model["_target_"])):
        return f"{model['depth']} layers, about {model[size]} weights"
    sizes = next((model[key] for key in ("layers", "hidden") if isinstance(model.get(key), Sequence)), None)
    kind = str(model["_target_"]).rpartition(".")[2]
    if sizes is None:
        word = f"{kind} {model['hidden']}" if "hidden" in model else kind
    else:
        word = "-".join(map(str, sizes)) or "linear"
    return word if model.get("width", 1) == 1 else f"{word} x {model['width']:g}"


def depth(model: Mapping[str, Any]) -> int:
    """Number of hidden layers with weights: convolutions, dense and recurrent layers.

    Example:
        >>> depth({"_target_": "hw1.models.Cnn", "layers": ["c3(10)", "p2", "drop.5", 32]})
        2
    """
    if "depth" in model:
        return int(model["depth"])
    layers, hidden = model.get("layers"), model.get("hidden")
    if isinstance(layers, Sequence):
        return sum(str(layer).startswith("c") or str(layer).isdigit() for layer in layers)
    return len(hidden) if isinstance(hidden, Sequence) else int(layers or 0)


def _series(sweep: Sweep) -> dict[Run, str]:
    """What the settings of each complete run are called in a figure; no two settings have one name."""
    runs = sweep.complete().runs
    own = [{key: sweep.cell(run, key) for key in unseeded(sweep.keys)} for run in runs]
    shapes = [{key: cells[key] for key in cells if key in SHAPE} for cells in own]
    names = []
    for run, cells, shape in zip(runs, own, shapes, strict=True):
        words = [f"{key.rpartition('.')[2]}={_short(value)}" for key, value in cells.items() if key not in SHAPE]
        if not words or shape:
            words.insert(0, f"{architecture(run.settings.model)} ({run.result['parameters']:,} parameters)")
        names.append(", ".join(words))
    return dict(zip(runs, told_apart(list(zip(names, shapes, strict=True))), strict=True))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _described(member: Member, keys: Sequence[str], series: Mapping[Run, str]) -> dict[str, Any]:
    run, model = member.run, member.run.settings.model
    return {
        **{key: member.cells[key] for key in keys},
        SERIES: series[run],
        "architecture": architecture(model),
        "parameters": run.result["parameters"],
        "depth": depth(model),
        "corruption": run.value("dataset.corruption"),
        **member.origin,
    }
