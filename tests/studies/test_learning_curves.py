import pytest

from hw1.plots.learning_curves import draw_learning_curves
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.studies.learning_curves import DESCRIBED, architecture, depth, ends, learning_curves
from made_classifiers import METRICS, make_classifier, make_presets
from made_runs import make_run, make_sweep


def value(name, epoch, member):
    return 100 * METRICS.index(name) + 10 * member + epoch


def made(root, swept, runs, **more):
    """A sweep of one classifier for each of `runs`, whose settings are made_runs'."""
    return Sweep.read(make_sweep(root, [make_classifier(root, value, **more, **run) for run in runs], swept))


def test_one_row_an_epoch_split_and_quantity(tmp_path):
    curves = learning_curves(made(tmp_path, ["optimizer.lr", "seed"], [{"lr": lr, "seed": 4} for lr in (0.1, 0.2)]))
    assert len(curves) == 2 * 3 * 4
    assert list(curves) == ["optimizer.lr", *DESCRIBED, "seed", "epoch", "split", "quantity", "value"]
    assert set(curves["series"]) == {"lr=0.1", "lr=0.2"} and set(curves["seed"]) == {4}
    assert set(curves["corruption"]) == {0.0} and set(curves["n_train"]) == {1437}
    for (split, quantity, epoch), part in curves.groupby(["split", "quantity", "epoch"]):
        assert part["value"].tolist() == [value(f"{split}/{quantity}", epoch, 0)] * 2


def test_members_are_seeds(tmp_path):
    sweep = made(tmp_path, [], [{"replicas": 3, "seed": 5}])
    curves, final = learning_curves(sweep), ends(sweep)
    for member, seed in enumerate((5, 6, 7)):
        part = curves.query("seed == @seed and split == 'test' and quantity == 'loss'").set_index("epoch")["value"]
        assert part.to_dict() == {epoch: value("test/loss", epoch, member) for epoch in (1, 2, 3)}
        (row,) = final[final["seed"] == seed].to_dict("records")
        assert {name: row[name] for name in METRICS} == {name: value(name, 3, member) for name in METRICS}
        assert (row["epochs"], row["seconds"], row["parameters"]) == (3, 1.5, 310)


def test_the_end_is_the_end_of_training_not_the_last_evaluation(tmp_path):
    sweep = made(tmp_path, [], [{}], epochs=5, every=2)
    curves = learning_curves(sweep).query("split == 'test' and quantity == 'loss'").set_index("epoch")["value"]
    assert curves.to_dict() == {epoch: value("test/loss", epoch, 0) for epoch in (2, 4, 5)}
    assert ends(sweep)["test/loss"].tolist() == [value("test/loss", 5, 0)]
    never = learning_curves(made(tmp_path / "never", [], [{}], epochs=5, every=9))
    assert set(never["epoch"]) == {5} and len(never) == 4


@pytest.mark.parametrize(
    ("swept", "runs", "series"),
    [
        (["seed"], [{"seed": 0}, {"seed": 1}], ["4 (310 parameters)"]),
        (["model.hidden"], [{"hidden": [4]}, {"hidden": [5, 6]}], ["4 (310 parameters)", "5-6 (385 parameters)"]),
        (
            ["model.hidden", "optimizer.lr"],
            [{"hidden": [4], "lr": 0.1}, {"hidden": [4], "lr": 1}],
            ["4 (310 parameters), lr=0.1", "4 (310 parameters), lr=1"],
        ),
        (["dataset.batch_size"], [{"batch_size": None}, {"batch_size": 8}], ["batch_size=null", "batch_size=8"]),
    ],
)
def test_what_a_run_is_called(swept, runs, series, tmp_path):
    curves = learning_curves(made(tmp_path, swept, runs))
    assert list(curves["series"].unique()) == series


def test_presets_of_one_size_are_told_apart(tmp_path):
    sweep = make_presets(tmp_path, lambda name, seed, metric, epoch, member: float(seed + 10 * (name == "mlp_tanh")))
    names = [f"4 (310 parameters), model={name}" for name in ("mlp_relu", "mlp_tanh")]
    for table in (learning_curves(sweep), ends(sweep)):
        assert list(table["series"].unique()) == names and set(table["architecture"]) == {"4"}
        assert table.groupby("series")["seed"].nunique().tolist() == [2, 2]


@pytest.mark.parametrize(
    ("model", "word", "layers"),
    [
        ({"_target_": "hw1.models.Cnn", "layers": ["c3(8)", "bn", "p2", "drop", 18, 9], "width": 1}, None, 3),
        ({"_target_": "hw1.models.Cnn", "layers": ["c3(8)", "p2", 18], "width": 1}, "c3(8)-p2-18", 2),
        ({"_target_": "hw1.models.Mlp", "hidden": [20, 5], "width": 0.5}, "20-5 x 0.5", 2),
        ({"_target_": "hw1.models.Mlp", "hidden": [], "width": 1}, "linear", 0),
        ({"_target_": "hw1.models.Rnn", "hidden": 64, "layers": 2, "width": 1}, "Rnn 64", 2),
        ({"_target_": "mine.Net", "layers": 3}, "Net", 3),
        ({"_target_": "mine.Net", "size": 3, "budget": 4}, "Net", 0),
        ({"_target_": "mine.mlp_of_size", "size": 3}, "mlp_of_size", 0),
        ({"_target_": "hw1.models.mlp_of_size", "size": 571, "depth": 7}, "7 layers, about 571 weights", 7),
        ({"_target_": "hw1.models.mlp_of_budget", "budget": 571, "depth": 7}, "7 layers, about 571 weights", 7),
    ],
)
def test_architectures_and_their_depth(model, word, layers):
    assert architecture(model) == (word or "c3(8)-bn-p2-drop-18-9") and depth(model) == layers


def test_no_complete_run_is_an_empty_table(tmp_path):
    sweep = Sweep.read(make_sweep(tmp_path, [make_run(tmp_path, status="failed")[0]], []))
    assert learning_curves(sweep).empty and ends(sweep).empty


def test_regression_is_refused(tmp_path):
    folder, _ = make_run(tmp_path)  # without train/accuracy
    with pytest.raises(ConfigError, match=r"^dataset: got digits, which has no classes; expected images with labels"):
        ends(Sweep.read(make_sweep(tmp_path, [folder], [])))


@pytest.mark.parametrize(("hidden", "lines"), [([[4]], 2), ([[4], [5], [6]], 6)])
def test_lines_are_means_bands_the_range_and_no_two_look_alike(hidden, lines, tmp_path):
    runs = [{"hidden": sizes, "seed": seed} for sizes in hidden for seed in (0, 1)]
    curves = learning_curves(made(tmp_path, ["model.hidden", "seed"], runs))
    curves["value"] += curves["seed"] * 4
    figure = draw_learning_curves(curves, ["loss", "accuracy"], "held fixed")
    loss, accuracy = figure.axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        assert len(axes.lines) == lines and quantity in axes.get_ylabel()
        looks = {
            (line.get_color(), line.get_marker(), line.get_linestyle(), line.get_fillstyle()) for line in axes.lines
        }
        assert len(looks) == lines and len({look[1:] for look in looks}) == lines  # without colours too
        for line, split in zip(axes.lines, ("train", "test") * len(hidden), strict=True):
            expected = [value(f"{split}/{quantity}", epoch, 0) + 2 for epoch in (1, 2, 3)]
            assert line.get_xdata().tolist() == [1, 2, 3] and line.get_ydata().tolist() == expected
        (path,) = axes.collections[0].get_paths()
        low = value(f"train/{quantity}", 1, 0)
        assert (path.vertices[:, 1].min(), path.vertices[:, 1].max()) == (low, low + 2 + 4)
    title = figure.get_suptitle()
    assert all(word in title for word in ("digits", "scikit-learn", "1,437", "n = 2", "held fixed"))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == (2 if len(hidden) == 1 else len(hidden) + 2)


def test_one_seed_has_no_spread(tmp_path):
    figure = draw_learning_curves(learning_curves(made(tmp_path, [], [{}])), ["loss"], "")
    assert "n = 1 (one seed: no spread)" in figure.get_suptitle() and len(figure.axes) == 1
