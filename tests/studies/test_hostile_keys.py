"""Swept keys whose names look like columns of the studies' own tables, through every study."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save_model

from hw1.measures.cache import Cache
from hw1.models import Mlp
from hw1.runs import Sweep
from hw1.studies import (
    ActualTask,
    FlatnessInterp,
    FlatnessSensitivity,
    GradientNormCurves,
    MinRatio,
    ParamsVsGeneralization,
    RandomLabels,
    SimulateFunction,
    WeightTrajectories,
)
from made_classifiers import METRICS, make_classifier
from made_runs import make_sweep, measured_by_hand, run_settings

# Two values each; the keys end as columns of the tables do, or hold what a column's name would be told by.
HOSTILE = {
    "model.loss_at_0": (1, 2),
    "dataset.source_at_1": (0.5, 1.5),
    "dataset.data": ("a", "b"),
    "optimizer.n": (3, 4),
    "model.series": (5, 6),
    "trainer.epoch": (7, 8),
    "model.x": (9, 10),
    "optimizer.run": (11, 12),
    "model.network": (13, 14),
    "trainer.parameters": (15, 16),
    "dataset.split": (17, 18),
    "optimizer.quantity": ("loss", "accuracy"),
    "model.sensitivity/loss": (19, 20),
}
SETTINGS = ({key: values[0] for key, values in HOSTILE.items()}, {key: values[1] for key, values in HOSTILE.items()})
MEASURES = ["sensitivity", "sharpness", "minimal_ratio", "predictions"]
SEEDS = (0, 1)


def settings_of(cells, **changes):
    """Settings of a run that has these cells; the model's are hidden from the network, which does not know them."""
    made = run_settings(**changes)
    for key, value in cells.items():
        group, _, name = key.partition(".")
        made[group] = {**made[group], name: value}
    groups = ("dataset", "model", "optimizer", "trainer")
    return {group: made[group] for group in groups}


def measured(folder, seed):
    """Everything that a measure finds, of one member."""
    measured_by_hand(folder, "sensitivity", {"sensitivity/loss": 1.0 + seed})
    trace = {"sharpness/trace": 2.0 + seed, "sharpness/trace_standard_error": 0.1}
    measured_by_hand(folder, "sharpness", trace)
    point = {"phase": "training", "epoch": 3, "member": 0, "reason": "converged", "constant": False, "negative": 0.1}
    point |= {"loss": 1.0 + seed, "positive": 0.5, "estimator": "eigenvalues", "sampled": 0.6, "sampled_error": 0.01}
    measured_by_hand(folder, "minimal_ratio", rows=[point])
    x = np.linspace(-1, 1, 5)
    file = save({"predicted": x[None] + seed, "true": x, "x": x})
    columns = {"constant": 0.0, "train_max_error": 0.5, "test_mae": 0.25}
    values = {f"predictions/{name}": value for name, value in columns.items()}
    measured_by_hand(folder, "predictions", values, files={"test.safetensors": file})


def hostile_sweep(root, sizes=(None,), hidden=((4,),)):
    """A sweep of both settings, all seeds, batch sizes and shapes; the keys in the order of `HOSTILE`, seed last."""
    folders = []
    for cells in SETTINGS:
        for size in sizes:
            for layers in hidden:
                for seed in SEEDS:
                    own = settings_of(cells, batch_size=size or 64, seed=seed, hidden=layers)

                    def value(name, epoch, member, seed=seed):
                        return (METRICS.index(name) + 1) / (epoch + 1 + seed)

                    folder = make_classifier(root, value, hidden=layers, seed=seed, batch_size=size or 64, **own)
                    history = pd.read_csv(folder / "metrics.csv").assign(gradient_norm=1.0 + seed)
                    history.to_csv(folder / "metrics.csv", index=False)
                    measured(folder, seed)
                    for epoch in (0, 3):  # weights that differ by setting and move
                        with torch.random.fork_rng():
                            torch.manual_seed(1000 * len(folders) + epoch)
                            net = Mlp((1, 8, 8), 10, hidden=list(layers))
                        save_model(net, str(folder / "snapshots" / f"epoch={epoch:06d}.safetensors"))
                    folders.append(folder)
    swept = [*HOSTILE, *(["dataset.batch_size"] if len(sizes) > 1 else [])]
    swept += ["model.hidden"] if len(hidden) > 1 else []
    return Sweep.read(make_sweep(root, folders, [*swept, "seed"], measures=MEASURES))


@pytest.fixture
def plain_networks(monkeypatch):
    """Networks are built without the settings that no network has."""
    from hw1.training import build

    single, datamodule = build.single_network, build.datamodule

    def without(node, group):
        return {key: value for key, value in node.items() if f"{group}.{key}" not in HOSTILE}

    def plain(settings, data):
        from hw1.settings import RunSettings

        return single(RunSettings.check({**settings.plain, "model": without(settings.model, "model")}), data)

    monkeypatch.setattr(build, "single_network", plain)
    monkeypatch.setattr(build, "datamodule", lambda node: datamodule(without(node, "dataset")))


CASES = {
    "actual_task": (ActualTask(), {}),
    "random_labels": (RandomLabels(0.9), {}),
    "params_vs_generalization": (ParamsVsGeneralization("parameters"), {"hidden": ((4,), (5,))}),
    "gradient_norm": (GradientNormCurves(10), {}),
    "min_ratio": (MinRatio(), {}),
    "simulate_function": (SimulateFunction(0.1, 10), {}),
    "flatness_sensitivity": (FlatnessSensitivity("dataset.batch_size"), {"sizes": (16, 64)}),
    "flatness_sensitivity_gap": (FlatnessSensitivity("loss_gap"), {"sizes": (16, 64)}),
    "flatness_interp": (FlatnessInterp("dataset.batch_size", 0.0, 1.0, 3), {"sizes": (16, 64)}),
    "weight_trajectories": (WeightTrajectories("3.weight", []), {}),
}
# Tables that need not tell the settings of a row: what a measure is called.
WITHOUT_KEYS = {"measures"}


@pytest.mark.parametrize("name", CASES)
def test_every_swept_key_is_kept_told_apart_and_named(name, tmp_path, plain_networks):
    study, sweeps = CASES[name]
    sweep = hostile_sweep(tmp_path, **sweeps)
    tables = study.measure(sweep, Cache(tmp_path / "measurements"))
    assert tables
    for title, table in tables.items():
        if title in WITHOUT_KEYS:
            continue
        assert set(HOSTILE) <= set(table), title
        assert not table.columns.duplicated().any(), title
        kept = table[list(HOSTILE)].drop_duplicates().to_dict("records")
        assert kept == [dict(cells) for cells in SETTINGS], title

    headlines = study.headlines(tables, sweep.keys)
    told = [number for number in headlines if not name.endswith("_gap")]
    for cells in SETTINGS:
        own = [number.name for number in told if all(named(key, value, number.name) for key, value in cells.items())]
        assert len(own) == len(told) / 2
    assert len({number.name for number in headlines}) == len(headlines)
    assert len(told) or name.endswith("_gap")

    figures = study.draw(tables, sweep.keys)
    assert figures
    words = [json.dumps([texts(figure), title]) for title, figure in figures.items()]
    assert any("13" in text for text in words) and any("14" in text for text in words)  # model.network's values


def named(key, value, headline):
    """Whether a headline says a key's value, by the last part of the key at least."""
    return f"{key.rpartition('.')[2]}={str(value).rpartition('/')[2]}" in headline


def texts(figure):
    """Everything that is written in a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def test_two_settings_are_never_averaged(tmp_path, plain_networks):
    """A study that lost a key would take both settings for seeds of one."""
    sweep = hostile_sweep(tmp_path)
    numbers = ActualTask().headlines(ActualTask().measure(sweep, Cache(tmp_path)), sweep.keys)
    assert [number.n for number in numbers] == [2, 2]
    tables = MinRatio().measure(sweep, Cache(tmp_path))
    assert {number.n for number in MinRatio().headlines(tables, sweep.keys)} == {2}
    pairs = FlatnessInterp("seed", 0.0, 1.0, 3)
    barriers = pairs.measure(sweep, Cache(tmp_path))["barriers"]
    assert len(barriers) == 2 * 2 and barriers["barrier"].notna().all()
    assert not any(math.isnan(value) for value in barriers["sensitivity/loss_at_1"])
