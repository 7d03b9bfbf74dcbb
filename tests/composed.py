"""A run's settings as the command composes them, without the command."""

import os
from pathlib import Path
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from safetensors.torch import load_file

from hw1.records import make_key
from hw1.runs import Run
from hw1.settings import RunSettings
from hw1.training.fit import fit
from hw1.training.snapshots import digest

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
make_key()  # as every command does before it trains: what a run is resumed from must be the user's own


def plain(*words):
    """Words of a command -> its resolved settings, plain containers."""
    GlobalHydra.instance().clear()
    with mock.patch.dict(os.environ, HW1_PROJECT=str(ROOT)), initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides=list(words)), resolve=True)


def settings(*words):
    """Words of a command -> the checked settings of its run."""
    return RunSettings.check(plain(*words))


def trained(settings, root, snapshots=()):
    """The Run of these settings, trained in a folder below `root`."""
    folder = root / f"run-{settings.key}"
    result = fit(settings, folder, snapshots=snapshots)
    assert result["status"] == "complete", result["traceback"]
    return Run(folder)


def same(one, two):
    """Two runs came to the same, to the bit: weights, metrics, history, snapshots, the last checkpoint."""
    assert torch.equal(one.theta(), two.theta()) and one.result["metrics"] == two.result["metrics"]
    assert (one.result["epochs"], one.result["steps"]) == (two.result["epochs"], two.result["steps"])
    first, second = one.history(), two.history()
    assert first[list(second)].equals(second) and set(first) == set(second)
    for file in (one.path / "snapshots").iterdir():
        assert digest(load_file(file)) == digest(load_file(two.path / "snapshots" / file.name)), file.name
    ends = [torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, two)]
    assert digest(ends[0]["state_dict"]) == digest(ends[1]["state_dict"])
