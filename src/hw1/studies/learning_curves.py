"""What the studies of classifiers share: the epochs of all runs in one long table, and where each run ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.training.identity import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs import Run, Sweep

SPLITS = ("train", "test")
METRICS = ("train/loss", "test/loss", "train/accuracy", "test/accuracy")
_EXPECTED = "expected images with labels, as dataset=mnist"
KEYS_END = "series"  # a table's columns begin with the swept keys; this one follows them
# Keys that an architecture's name stands for.
SHAPE = ("model", "model.layers", "model.hidden", "model.width", "model.budget", "model.depth")


def check_classes(runs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse data without classes, before anything trains.

    Raises:
        ConfigError: a run has such.
    """
    from hw1.training import build

    for run in {str(run["dataset"]): run for run in runs}.values():
        data = build.datamodule(run)
        if not data.has_classes:
            raise ConfigError(f"dataset: got {data.name}, which has no classes; {_EXPECTED}")


def learning_curves(sweep: Sweep) -> pd.DataFrame:
    """One row an epoch, split and quantity of every member of every complete run; no rows where none is complete.

    The epochs are those that were evaluated, and the end.

    Columns: the swept keys but the seed, series (what the run is called in a figure), architecture, parameters,
    depth, corruption (share of shuffled training labels), data, source, n_train, seed, epoch (completed ones), split,
    quantity (loss in nats, accuracy), value.
    """
    import pandas as pd

    frames = []
    for run in sweep.complete().runs:
        history = run.history().dropna(subset="epoch")
        member = history["member"].astype(int) if "member" in history else 0
        history = history.assign(seed=run.value("seed") + member, epoch=history["epoch"].astype(int) + 1)
        end = pd.DataFrame(
            {name: value for name, value in run.result["metrics"].items() if name in METRICS}, range(run.members)
        )
        end = end.assign(seed=run.value("seed") + end.index, epoch=run.result["epochs"])
        both = [part.melt(["seed", "epoch"], [name for name in METRICS if name in part]) for part in (history, end)]
        long = pd.concat(both, ignore_index=True).drop_duplicates(["seed", "epoch", "variable"])
        long[["split", "quantity"]] = long.pop("variable").str.split("/", expand=True)
        for position, (name, value) in enumerate(_described(sweep, run).items()):
            long.insert(position, name, value)
        frames.append(long[[*(name for name in long if name != "value"), "value"]])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def ends(sweep: Sweep) -> pd.DataFrame:
    """One row a member of every complete run: `learning_curves`' columns up to the seed, epochs, seconds, METRICS.

    Raises:
        ConfigError: a run has no accuracy.
    """
    import pandas as pd

    rows = []
    for run in sweep.complete().runs:
        metrics = run.result["metrics"]
        if not set(METRICS) <= set(metrics):
            raise ConfigError(f"dataset: got {run.result['dataset']['name']}, which has no classes; {_EXPECTED}")
        own = _described(sweep, run)
        for member in range(run.members):
            values = {name: metrics[name] for name in METRICS}
            values = {name: value[member] if isinstance(value, list) else value for name, value in values.items()}
            spent = {name: run.result[name] for name in ("epochs", "seconds")}
            rows.append({**own, "seed": run.value("seed") + member, **spent, **values})
    return pd.DataFrame(rows)


def architecture(model: Mapping[str, Any]) -> str:
    """A model's settings as one word: its layers or hidden sizes, else its class.

    Example:
        >>> architecture({"_target_": "hw1.models.Cnn", "layers": ["c3(10)", "p2", 32], "width": 2})
        'c3(10)-p2-32 x 2'
        >>> architecture({"_target_": "hw1.models.Rnn", "hidden": 64, "layers": 1})
        'Rnn 64'
        >>> architecture({"_target_": "hw1.models.mlp_of_budget", "budget": 571, "depth": 7})
        '7 layers, budget 571'
    """
    if "budget" in model:
        return f"{model['depth']} layers, budget {model['budget']}"
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


def swept_keys(table: pd.DataFrame) -> list[str]:
    """The swept keys among a table's columns, the seed left out."""
    return list(table.columns[: list(table.columns).index(KEYS_END)])


def _described(sweep: Sweep, run: Run) -> dict[str, Any]:
    keys = {key: sweep.cell(run, key) for key in sweep.swept if key != "seed"}
    parameters, dataset = run.result["parameters"], run.result["dataset"]
    name = architecture(run.settings["model"])
    words = [f"{key.rpartition('.')[2]}={value}" for key, value in keys.items() if key not in SHAPE]
    if not words or any(key in SHAPE for key in keys):
        words.insert(0, f"{name} ({parameters:,} parameters)")
    return {
        **keys,
        KEYS_END: ", ".join(words),
        "architecture": name,
        "parameters": parameters,
        "depth": depth(run.settings["model"]),
        "corruption": run.value("dataset.corruption"),
        "data": dataset["name"],
        "source": dataset["source"],
        "n_train": dataset["train"],
    }
