import math

import pytest
from scipy.stats import spearmanr

from hw1.measures.cache import Cache
from hw1.runs import Sweep
from hw1.settings import ConfigError, RunSettings
from hw1.studies import ActualTask, ParamsVsGeneralization
from made_classifiers import METRICS, make_classifier, make_presets
from made_runs import checked, make_run, make_sweep, run_settings

HIDDEN = ([8], [2], [4], [5, 2], [16], [12])  # not in order
KEYS = ["model.hidden"]
PARAMETERS = {"8": 610, "2": 160, "4": 310, "5-2": 385, "16": 1210, "12": 910}


def study(against="parameters"):
    return ParamsVsGeneralization(against)


def of(hidden, name, member):
    """A made-up metric: all but the training loss grow with the net, and not all evenly."""
    size = math.log(PARAMETERS["-".join(map(str, hidden))])
    return {
        "train/loss": 1 / size + 0.01 * member,
        "test/loss": size % 1.5 + 1 + 0.03 * member,
        "train/accuracy": size / 10,
        "test/accuracy": size / 12 - 0.01 * member,
    }[name]


@pytest.fixture
def tables(tmp_path):
    folders = [
        make_classifier(
            tmp_path, lambda name, epoch, member, hidden=hidden: of(hidden, name, member), hidden=hidden, replicas=3
        )
        for hidden in HIDDEN
    ]
    sweep = Sweep.read(make_sweep(tmp_path, folders, KEYS))
    return study().measure(sweep, Cache(tmp_path))


def test_one_point_a_member_and_one_row_a_size(tables):
    points, sizes = tables["points"], tables["sizes"]
    assert len(points) == 3 * len(HIDDEN) and len(sizes) == len(HIDDEN) and set(sizes["n"]) == {3}
    assert points["gap"].tolist() == pytest.approx((points["test/loss"] - points["train/loss"]).tolist())
    for hidden, row in zip(HIDDEN, sizes.to_dict("records"), strict=True):
        values = [of(hidden, "test/loss", member) - of(hidden, "train/loss", member) for member in range(3)]
        expected = [sum(values) / 3, min(values), max(values)]
        assert [row[f"gap {statistic}"] for statistic in ("mean", "min", "max")] == pytest.approx(expected)
        assert row["test/accuracy max"] == pytest.approx(of(hidden, "test/accuracy", 0))


def test_the_headlines(tables):
    found = {number.name: number for number in study().headlines(tables, KEYS)}
    points = tables["points"]
    gaps = [name for name in found if name.startswith("gap ")]
    assert len(gaps) == len(HIDDEN) and {found[name].n for name in gaps} == {3}
    accuracy = found["test_accuracy parameters=385 5-2"]
    assert accuracy.value == pytest.approx(of([5, 2], "test/accuracy", 1))
    counts = [int(name.split("=")[1].split()[0]) for name in gaps]
    assert counts == sorted(counts)
    for column in (*METRICS, "gap"):
        number = found[f"spearman_rho_parameters_{column.replace('/', '_')}"]
        means = points.groupby("parameters")[column].mean()
        assert number.value == pytest.approx(spearmanr(means.index, means).statistic) and number.n == len(HIDDEN)
        assert number.low <= number.value <= number.high


def test_loss_and_accuracy_against_the_number_of_parameters(tables):
    (figure,) = study().draw(tables, KEYS).values()
    loss, accuracy = figure.axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        assert axes.get_xscale() == "log" and quantity in axes.get_ylabel() and len(axes.lines) == 2
        looks = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines]
        assert all(one != two for one, two in zip(*looks, strict=True))
        for line, split in zip(axes.lines, ("train", "test"), strict=True):
            x, y = line.get_xdata().tolist(), line.get_ydata().tolist()
            means = tables["sizes"].sort_values("parameters")
            assert x == means["parameters"].tolist() and y == pytest.approx(means[f"{split}/{quantity} mean"].tolist())
    found = {number.name: number for number in study().headlines(tables, KEYS)}
    for axes, columns in ((loss, ("test_loss", "gap")), (accuracy, ("test_accuracy",))):
        for column in columns:
            rho = found[f"spearman_rho_parameters_{column}"]
            assert f"{column.replace('_', ' ')} ρ = {rho.value:.2f} [" in axes.get_title()
    assert "6 sizes of 160 to 1,210 weights" in figure.get_suptitle() and "n = 3" in figure.get_suptitle()


def test_a_figure_for_every_other_swept_key(tmp_path):
    folders = [
        make_classifier(tmp_path, lambda name, epoch, member: 0.5, hidden=hidden, lr=lr)
        for hidden in ([4], [5])
        for lr in (0.1, 0.2)
    ]
    keys = ["model.hidden", "optimizer.lr"]
    tables = study().measure(Sweep.read(make_sweep(tmp_path, folders, keys)), Cache(tmp_path))
    figures = study().draw(tables, keys)
    assert list(figures) == ["params_vs_generalization_lr=0.1", "params_vs_generalization_lr=0.2"]
    assert "learning rate 0.2" in figures["params_vs_generalization_lr=0.2"].get_suptitle()
    gaps = [number.name for number in study().headlines(tables, keys) if number.name.startswith("gap ")]
    assert len(gaps) == 4 and gaps[0] == "gap optimizer.lr=0.1 parameters=310 4"


def test_presets_of_one_size_are_not_averaged(tmp_path):
    level = {"relu": 0.2, "tanh": 0.4, "wide": 0.6}
    presets = [("tanh", [4], "tanh"), ("relu", [4], "relu"), ("wide", [8], "relu")]
    sweep = make_presets(tmp_path, lambda name, seed, metric, *_: level[name] + 0.1 * seed, presets)
    tables = study().measure(sweep, Cache(tmp_path))
    found = {number.name: number for number in study().headlines(tables, sweep.keys)}
    accuracies = {name: number for name, number in found.items() if name.startswith("test_accuracy")}
    assert {number.n for number in accuracies.values()} == {2}
    assert {name: number.value for name, number in accuracies.items()} == pytest.approx(
        {
            "test_accuracy parameters=310 4, model=relu": 0.25,
            "test_accuracy parameters=310 4, model=tanh": 0.45,
            "test_accuracy parameters=610 8": 0.65,
        }
    )
    (figure,) = study().draw(tables, sweep.keys).values()
    for line in (line for axes in figure.axes for line in axes.lines):
        assert line.get_xdata().tolist() == [310, 310, 610]
        assert line.get_ydata().tolist() == pytest.approx([0.25, 0.45, 0.65])


def test_against_depth(tmp_path):
    folders = [
        make_classifier(tmp_path, lambda name, epoch, member, n=n: n, hidden=hidden)
        for n, hidden in ((1, [4]), (2, [4, 2]), (3, [4, 2, 2]))
    ]
    sweep = Sweep.read(make_sweep(tmp_path, folders, KEYS))
    tables = study("depth").measure(sweep, Cache(tmp_path))
    (figure,) = study("depth").draw(tables, KEYS).values()
    for axes in figure.axes:
        assert axes.get_xscale() == "linear" and axes.get_xlabel() == "hidden layers"
        for line in axes.lines:
            assert line.get_xdata().tolist() == line.get_ydata().tolist() == [1, 2, 3]
    names = [number.name for number in study("depth").headlines(tables, KEYS)]
    assert "gap depth=2 4-2" in names and "spearman_rho_depth_test_loss" in names


def test_anything_else_is_refused():
    with pytest.raises(ValueError, match=r"^against: got 'width', expected parameters or depth$"):
        study("width")


def test_one_size_is_refused():
    study().check([checked(hidden=(4,)), checked(hidden=(5,))], KEYS)
    with pytest.raises(ConfigError, match=r"^model: got networks of one size, expected two sizes or more, as model\."):
        study().check([checked(seed=0), checked(seed=1)], ["seed"])


@pytest.mark.parametrize("question", [study(), ActualTask()])
def test_data_without_classes_are_refused_before_training(question):
    noise = {"noise": 0.0, "noise_seed": 0, "test_points": 9}
    node = {"_target_": "hw1.data.Function", "function": "sin_2", "domain": [-1, 1], "points": 20, **noise}
    runs = [run_settings(hidden=hidden) for hidden in ((4,), (5,))]
    question.check([RunSettings.check(run) for run in runs], KEYS)
    runs[1]["dataset"] |= node
    with pytest.raises(ConfigError, match=r"^dataset: got sin_2, which has no classes; expected images with labels"):
        question.check([RunSettings.check(run) for run in runs], KEYS)


def test_no_complete_run_is_no_table(tmp_path):
    sweep = Sweep.read(make_sweep(tmp_path, [make_run(tmp_path, status="failed")[0]], []))
    assert study().measure(sweep, Cache(tmp_path)) == {}
