"""Folders of finished classifiers, written by hand: a history and final metrics that a test makes up."""

import functools
import json

from hw1.runs import Sweep
from made_runs import make_run, make_sweep

METRICS = ("train/loss", "train/accuracy", "test/loss", "test/accuracy")


def make_classifier(root, value, *, epochs=3, every=1, seconds=1.5, **others):
    """The folder of a run whose metrics are value(metric, epoch, member), epochs counted from 1.

    Args:
        value: the made-up metrics.
        epochs: of the training.
        every: epochs between two evaluations.
        seconds: of the training.
        **others: of `make_run`; `replicas` is the number of members.
    """
    members = others.get("replicas", 1)
    folder, _ = make_run(root, **others)
    header = ["epoch", "step", *(["member"] if members > 1 else []), "train_step/loss", *METRICS]
    rows = [header]
    for epoch in range(1, epochs + 1):
        for member in range(members):
            own = [member] if members > 1 else []
            rows.append(["", 2 * epoch - 2, *own, 7.0, *([""] * len(METRICS))])
            if epoch % every == 0:
                rows.append([epoch - 1, 2 * epoch - 1, *own, 7.0, *(value(name, epoch, member) for name in METRICS)])
    (folder / "metrics.csv").write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    result = json.loads((folder / "result.json").read_text())
    final = {name: [value(name, epochs, member) for member in range(members)] for name in METRICS}
    result |= {"epochs": epochs, "seconds": seconds}
    result["metrics"] = final if members > 1 else {name: values[0] for name, values in final.items()}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def make_presets(root, value, presets=(("mlp_relu", [4], "relu"), ("mlp_tanh", [4], "tanh")), seeds=(0, 1)):
    """A sweep of `model` presets times seeds, whose metrics are value(preset, seed, metric, epoch, member).

    Args:
        root: of the output.
        value: the made-up metrics.
        presets: (name, hidden sizes, activation) of each.
        seeds: of each.
    """
    folders, words = [], []
    for name, hidden, activation in presets:
        model = {"_target_": "hw1.models.Mlp", "hidden": hidden, "width": 1, "activation": activation}
        for seed in seeds:
            own = functools.partial(value, name, seed)
            folders.append(make_classifier(root, own, hidden=hidden, seed=seed, model=model))
            words.append([f"model={name}", f"seed={seed}"])
    return Sweep.read(make_sweep(root, folders, ["model", "seed"], overrides=words))
