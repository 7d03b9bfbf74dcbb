"""Run and sweep folders written by hand, with random weights: what reads them is tested without a training."""

import json

import torch
import yaml
from safetensors.torch import save_file, save_model

from hw1.data import Digits
from hw1.models import Mlp
from hw1.runs import Ask, Measured
from hw1.runs.measured import write_measured
from hw1.settings import RunSettings, run_key

torch.set_num_threads(1)  # nets this small are slower on two threads, much slower where the cores are shared


def run_settings(batch_size=64, seed=0, lr=1e-3, hidden=(4,), **others):
    """The resolved settings of a small dense net on scikit-learn's digits."""
    return {
        "name": "hand",
        "output": "out",
        "seed": seed,
        "init": "independent",
        "scheduler": None,
        "study": None,
        "sweep": None,
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "precision": "32-true",
            "max_epochs": 3,
            "threads": 1,
            "checkpoint_seconds": 10,
            "progress": True,
        },
        "dataset": {
            "_target_": "hw1.data.Digits",
            "batch_size": batch_size,
            "train_size": None,
            "corruption": 0.0,
            "val_fraction": 0.0,
            "seed": seed,
            "workers": 0,
            "eval_batch_size": 250,
        },
        "model": {"_target_": "hw1.models.Mlp", "hidden": list(hidden), "width": 1, "activation": "relu"},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": lr},
        "callbacks": {},
        "measures": {},
        "logger": {},
        **others,
    }


def checked(*args, **others):
    """The same, as a study's check gets them."""
    return RunSettings.check(run_settings(*args, **others))


def make_run(
    root, batch_size=64, seed=0, lr=1e-3, *, hidden=(4,), epochs=(0, 3), status="complete", metrics=None, **others
):
    """(folder of a run with random weights, {epoch: net} of its snapshots)."""
    settings = run_settings(batch_size, seed, lr, hidden, **others)
    key = run_key(settings)
    folder = root / "hand" / "runs" / f"batch_size={batch_size}_seed={seed}_lr={lr}-{key}"
    (folder / "snapshots").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    nets = {}
    for epoch in epochs:
        with torch.random.fork_rng():
            torch.manual_seed(int(key, 16) % 10**6 + epoch)
            nets[epoch] = Mlp((1, 8, 8), 10, hidden=list(hidden))
        save_model(nets[epoch], str(folder / "snapshots" / f"epoch={epoch:06d}.safetensors"))
    result = {
        "format": 1,
        "status": status,
        "key": key,
        "name": "hand",
        "overrides": [f"dataset.batch_size={batch_size}", f"seed={seed}"],
        "parameters": 65 * hidden[0] + (hidden[0] + 1) * 10,
        "seed": seed,
        "epochs": 3,
        "seconds": 1.5,
        "dataset": {
            "name": "digits",
            "source": "scikit-learn",
            "train": 1437,
            "test": 360,
            "sha256": Digits().identity(),
        },
        "versions": {"torch": "0"},
        "git": None,
    }
    if status == "complete":
        result["metrics"] = metrics or {"train/loss": 0.5, "test/loss": 0.25 + seed, "test/accuracy": 0.75}
    else:
        result["error"] = "the training loss is nan at step 3 (epoch 0)"
    (folder / "result.json").write_text(json.dumps(result))
    return folder, nets


def make_members(root, singles, **settings):
    """The folder of one run whose members are the runs (folder, nets) of seeds 0, 1, ...; it has no history."""
    folder, _ = make_run(root, replicas=len(singles), **settings)
    for epoch in singles[0][1]:
        states = [nets[epoch].state_dict() for _, nets in singles]
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        save_file(stacked, str(folder / "snapshots" / f"epoch={epoch:06d}.safetensors"))
    results = [json.loads((single / "result.json").read_text()) for single, _ in singles]
    metrics = {name: [result["metrics"][name] for result in results] for name in results[0]["metrics"]}
    (folder / "result.json").write_text(json.dumps(results[0] | {"replicas": len(singles), "metrics": metrics}))
    return folder


def ask_for(name, **settings):
    """The measure that `measured_by_hand` writes for, and that `make_sweep` asks for."""
    return Ask(name, {"_target_": f"made.{name}", **settings})


def measured_by_hand(folder, name, values=None, *, rows=(), files=None, columns=None, **settings):
    """Write what a measure would have found on a run.

    Args:
        folder: of the run.
        name: of the measure.
        values: column -> one number a member, or the number of the only one.
        rows: of the longer table.
        files: name -> content, of what stands beside.
        columns: column -> label; by default a column's label is its name. `x_standard_error` is the error of `x`.
        **settings: of the measure.
    """
    values = {column: value if isinstance(value, list) else [value] for column, value in (values or {}).items()}
    errors = {column: error for column in values if (error := f"{column}_standard_error") in values}
    told = {
        column: {"label": (columns or {}).get(column, column), "unit": "", "error": errors.get(column, "")}
        for column in values
    }
    file = ask_for(name, **settings).file(folder)
    write_measured(file, Measured(name, "key", told, values, list(rows)), files or {})


def make_sweep(root, folders, swept, *, study=None, overrides=None, time="2026-01-01_00-00-00", measures=()):
    """The folder of a sweep of these runs; `measures` are names, or what `ask_for` gave."""
    sweep = root / "hand" / "sweeps" / time
    sweep.mkdir(parents=True)
    overrides = overrides or [[] for _ in folders]
    runs = [
        {"key": folder.name.rpartition("-")[2], "folder": folder.name, "overrides": words}
        for folder, words in zip(folders, overrides, strict=True)
    ]
    record = {
        "format": 1,
        "name": "hand",
        "status": "running",
        "command": ["experiment=hand"],
        "started": 0.0,
        "swept": list(swept),
        "study": study,
        "measures": [(ask_for(ask) if isinstance(ask, str) else ask).record() for ask in measures],
        "runs": runs,
        "trained": [folder.name for folder in folders],
    }
    (sweep / "sweep.json").write_text(json.dumps(record))
    return sweep
