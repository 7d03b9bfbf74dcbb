"""Run and sweep folders written by hand, with random weights: what reads them is tested without a training."""

import json

import torch
import yaml
from safetensors.torch import save_file, save_model

from hw1.data import Digits
from hw1.models import Mlp
from hw1.training.identity import run_key

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
        "logger": {},
        **others,
    }


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


def make_sweep(root, folders, swept, *, study=None, overrides=None, time="2026-01-01_00-00-00"):
    """The folder of a sweep of these runs."""
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
        "runs": runs,
        "trained": [folder.name for folder in folders],
    }
    (sweep / "sweep.json").write_text(json.dumps(record))
    return sweep
