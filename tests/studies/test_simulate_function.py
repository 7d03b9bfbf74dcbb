import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.numpy import save
from safetensors.torch import save_file

from hw1.data import Function
from hw1.measures.cache import Cache
from hw1.models import Mlp, side_by_side
from hw1.runs import Sweep
from hw1.settings import ConfigError, run_key
from hw1.studies import SimulateFunction
from hw1.studies.simulate_function import _name
from made_runs import checked, make_sweep, measured_by_hand, run_settings

DATA = {
    "_target_": "hw1.data.Function", "function": "sin_2", "domain": [-1, 1], "points": 40, "noise": 0.0,
    "noise_seed": 0, "test_points": 60, "batch_size": None, "train_size": None, "corruption": 0.0, "val_fraction": 0.0,
    "seed": 0, "workers": 0, "eval_batch_size": 250,
}  # fmt: skip
LOSSES = {(6,): [0.3, 0.1, 0.25, 0.2], (3, 2): [0.5, 0.02, 0.04, 0.6]}
EPOCHS = 100
KEYS = ["model.hidden"]


def study(reach=0.21, bins=20):
    return SimulateFunction(reach, bins)


def history(final, member, batch_size):
    """Losses that fall evenly on a log scale from 1 to `final`; a full batch's steps know them, else the epochs."""
    steps = [{"member": member, "step": s, "train_step/loss": final ** (s / EPOCHS)} for s in range(EPOCHS)]
    epochs = [{"member": member, "step": EPOCHS - 1, "epoch": EPOCHS - 1, "train/loss": final}]
    if batch_size is not None:
        steps = [{"member": member, "step": s, "train_step/loss": 99.0} for s in range(2 * EPOCHS)]
        after = range(9, EPOCHS, 10)
        epochs = [
            {"member": member, "step": 2 * e + 1, "epoch": e, "train/loss": final ** ((e + 1) / EPOCHS)} for e in after
        ]
    return pd.DataFrame([*steps, *epochs]).groupby(["member", "step"], as_index=False).first()


def make(root, hidden, batch_size=None):
    """(folder of a run of four members by hand, the second of them dead; their networks)."""
    model = {"_target_": "hw1.models.Mlp", "hidden": list(hidden), "width": 1, "activation": "relu"}
    settings = run_settings(dataset=DATA | {"batch_size": batch_size}, model=model, replicas=4, seed=7)
    key = run_key(settings)
    folder = root / "hand" / "runs" / f"{len(hidden)}-{key}"
    (folder / "snapshots").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    torch.manual_seed(len(hidden))
    nets = [Mlp((1,), 1, hidden=list(hidden)) for _ in range(4)]
    with torch.no_grad():
        nets[1][-1].weight.zero_()
    save_file(side_by_side(nets).stacked(), folder / "snapshots" / f"epoch={EPOCHS:06d}.safetensors")
    losses = LOSSES[hidden]
    pd.concat([history(loss, member, batch_size) for member, loss in enumerate(losses)]).to_csv(folder / "metrics.csv")
    digest = Function("sin_2", [-1, 1], 40, 0.0, 0, 60).identity()
    result = {
        "status": "complete", "parameters": sum(p.numel() for p in nets[0].parameters()), "replicas": 4,
        "metrics": {"train/loss": losses, "test/loss": [2 * loss for loss in losses]}, "epochs": EPOCHS, "seconds": 1.0,
        "dataset": {"name": "sin_2", "source": "function", "train": 40, "test": 60, "sha256": digest},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    values = {
        "constant": [0.0, 1.0, 0.0, 0.0],
        "train_max_error": [1.0, 2.0, 3.0, 4.0],
        "test_mae": [0.1, 0.2, 0.3, 0.4],
    }
    x = -1 + (np.arange(60) + 0.5) / 30
    predicted = np.stack([forward(net, x) for net in nets])
    files = {"test.safetensors": save({"predicted": predicted, "true": np.sin(2 * x), "x": x})}
    measured_by_hand(folder, "predictions", {f"predictions/{name}": of for name, of in values.items()}, files=files)
    return folder, nets


def measured(root, batch_size=None, **changes):
    made = {hidden: make(root, hidden, batch_size) for hidden in LOSSES}
    sweep = Sweep.read(make_sweep(root, [folder for folder, _ in made.values()], KEYS, measures=["predictions"]))
    tables = study(**changes).measure(sweep, Cache(root / "hand" / "measurements"))
    return tables, {hidden: nets for hidden, (_, nets) in made.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(tables, networks); measured once, not to be changed."""
    return measured(tmp_path_factory.mktemp("whole"))


def forward(net, x):
    """Outputs [N] of a ReLU net in numpy, float64."""
    tensors = [parameter.detach().double().numpy() for parameter in net.parameters()]
    h = np.asarray(x, dtype=np.float64)[:, None]
    for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
        h = np.maximum(h @ weight.T + bias, 0)
    return (h @ tensors[-2].T + tensors[-1])[:, 0]


def test_errors_and_dead_members(whole):
    tables, _ = whole
    for hidden, name in (((6,), "1-6-1"), ((3, 2), "1-3-2-1")):
        rows = tables["members"][tables["members"]["network"] == name]
        assert rows["seed"].tolist() == [7, 8, 9, 10] and rows["train/loss"].tolist() == LOSSES[hidden]
        assert rows["constant"].tolist() == [False, True, False, False]
        assert rows["train/max_error"].tolist() == [1, 2, 3, 4] and rows["test/mae"].tolist() == [0.1, 0.2, 0.3, 0.4]


def test_the_table_of_networks(whole):
    table = whole[0]["networks"].set_index("network")
    assert table["parameters"].to_dict() == {"1-6-1": 19, "1-3-2-1": 17}
    one, two = table.loc["1-6-1"], table.loc["1-3-2-1"]
    assert [one["loss_median"], one["loss_low"], one["loss_high"]] == pytest.approx([0.225, 0.1, 0.3])
    assert [two["loss_median"], two["loss_low"], two["loss_high"]] == pytest.approx([0.27, 0.02, 0.6])
    assert one["test/loss"] == pytest.approx(0.45) and one["constant"] == two["constant"] == 1
    assert one["train/max_error"] == two["train/max_error"] == 2.5


def test_epochs_to_a_loss(whole):
    rows = whole[0]["members"].set_index(["network", "member"])["epochs_to_reach"]
    for (model, member), epochs in rows.items():
        final = LOSSES[(6,) if model == "1-6-1" else (3, 2)][member]
        exact = EPOCHS * math.log(0.21) / math.log(final)  # where final^(epoch / EPOCHS) = 0.21
        assert math.isnan(epochs) if exact > EPOCHS else epochs == math.ceil(exact)
    table = whole[0]["networks"].set_index("network")
    assert table["reached"].tolist() == [2, 2]
    assert math.isnan(table.loc["1-6-1", "epochs_to_reach"])  # the middle of two that reached it and two that never did


@pytest.mark.parametrize(("batch_size", "bins"), [(None, 20), (20, 20), (None, 1000)])
def test_curves_are_those_of_the_whole_set(batch_size, bins, tmp_path):
    tables, _ = measured(tmp_path, batch_size, bins=bins)
    curve = tables["curves"].query("network == '1-6-1'")
    losses = np.array(LOSSES[6,])
    epochs = np.arange(10, EPOCHS + 1, 10) if batch_size == 20 else np.arange(EPOCHS + 1)
    width = 6 if bins == 20 else 1  # 101 values in 20 bins
    parts = [epochs[epochs // width == i] for i in np.unique(epochs // width)]
    values = np.array([(losses[:, None] ** (part / EPOCHS)).mean(axis=1) for part in parts])  # [bins, members]
    assert curve["epoch"].tolist() == pytest.approx([part.mean() for part in parts])
    assert curve["median"].tolist() == pytest.approx(np.median(values, axis=1).tolist())
    assert curve["low"].tolist() == pytest.approx(values.min(axis=1).tolist())
    assert curve["high"].tolist() == pytest.approx(values.max(axis=1).tolist())
    assert set(curve["n"]) == {4}


def test_predictions_are_the_median_members(whole):
    tables, nets = whole
    for name, hidden, member in (("1-6-1", (6,), 3), ("1-3-2-1", (3, 2), 2)):
        table = tables["predictions"][tables["predictions"]["network"] == name]
        assert set(table["seed"]) == {7 + member} and set(table["loss"]) == {LOSSES[hidden][member]}
        assert len(table) == 60 and table["x"].is_monotonic_increasing
        np.testing.assert_allclose(table["true"], np.sin(2 * table["x"]), atol=1e-6)
        np.testing.assert_allclose(table["predicted"], forward(nets[hidden][member], table["x"]), atol=1e-6)


@pytest.mark.parametrize(
    ("swept", "name"),
    [
        ({"model.hidden": "[6]", "dataset.function": "sin_2"}, "1-6-1"),
        ({"model": "networks/cnn", "dataset": "mnist_mean"}, "cnn"),
        ({"model.hidden": "[6]", "optimizer.lr": 0.1, "model.activation": "tanh"}, "1-6-1, lr=0.1, activation=tanh"),
    ],
)
def test_names_of_networks(swept, name):
    assert _name(swept, "1-6-1") == name


def test_headlines(whole):
    found = {headline.name: headline for headline in study().headlines(whole[0], KEYS)}
    assert set(found) == {
        f"{name} sin_2 {model}" for name in ("final_loss", "constant_predictors") for model in ("1-6-1", "1-3-2-1")
    }
    assert found["final_loss sin_2 1-6-1"].value == pytest.approx(0.225)
    assert found["constant_predictors sin_2 1-6-1"].value == 0.25


def test_figures_show_the_tables(whole):
    tables = whole[0]
    figures = study().draw(tables, KEYS)
    assert set(figures) == {"loss", "predictions"}
    (loss,) = figures["loss"].axes
    assert loss.get_yscale() == "log" and "1 of 4 constant: 1-6-1" in loss.get_title()
    labels = [text.get_text() for text in figures["loss"].legends[0].get_texts()]
    assert labels[0] == "one dense layer, 19 weights: 1-6-1" and labels[1].startswith("two dense layers, ")
    curve = tables["curves"].query("network == '1-3-2-1'")
    assert any(np.array_equal(line.get_ydata(), curve["median"]) for line in loss.lines)
    upper, _ = figures["predictions"].axes
    drawn = [line.get_ydata() for line in upper.lines]
    assert len(drawn) == 3 and np.allclose(drawn[0], np.sin(2 * upper.lines[0].get_xdata()), atol=1e-6)
    images = tables["predictions"].assign(x=math.nan)
    assert set(study().draw({**tables, "predictions": images}, KEYS)) == {"loss", "predicted_against_true"}


def test_a_network_that_failed_on_one_function_leaves_the_others_their_room(whole):
    tables = {name: pd.concat([table, table.assign(data="cos")]) for name, table in whole[0].items()}
    tables = {name: table[(table["network"] == "1-6-1") | (table["data"] == "cos")] for name, table in tables.items()}
    figure = study().draw(tables, KEYS)["loss"]
    figure.draw_without_rendering()
    assert all(ax.get_window_extent().width > 0.3 * figure.bbox.width for ax in figure.axes)


def test_a_run_that_was_not_measured_is_left_out_unless_none_was(tmp_path):
    folders = [make(tmp_path, hidden)[0] for hidden in LOSSES]
    sweep = Sweep.read(make_sweep(tmp_path, folders, KEYS, measures=["predictions"]))
    for i, folder in enumerate(folders):
        shutil.rmtree(folder / "measures")
        if i == 0:
            tables = study().measure(sweep, Cache(tmp_path))
            assert all(set(table["network"]) == {"1-3-2-1"} for table in tables.values()) and len(tables) == 4
            assert len(study().headlines(tables, KEYS)) == 2 and set(study().draw(tables, KEYS)) == {
                "loss",
                "predictions",
            }
    with pytest.raises(ConfigError, match=r"^measures: got nothing of predictions on .* and 1 more; run the command"):
        study().measure(sweep, Cache(tmp_path))


def test_classes_are_refused():
    with pytest.raises(ConfigError, match=r"^dataset: got digits, whose targets are classes"):
        study().check([checked()], [])


def test_predictions_are_needed():
    function = {"dataset": DATA}
    asked = {"predictions": {"_target_": "hw1.measures.Predictions"}}
    study().check([checked(**function, measures=asked)], [])
    with pytest.raises(ConfigError, match=r"^measures: got none, expected predictions .*: measures=\[predictions\]$"):
        study().check([checked(**function)], [])


@pytest.mark.parametrize("wrong", [{"reach": 0}, {"bins": 9}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: got "):
        study(**wrong)
