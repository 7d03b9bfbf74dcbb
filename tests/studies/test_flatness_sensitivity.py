import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from hw1.measures.cache import Cache
from hw1.metrics import REACHED
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.studies import FlatnessSensitivity
from hw1.studies.learned import training, untrained
from made_runs import ask_for, checked, make_run, make_sweep, measured_by_hand

SIZES, SEEDS = (32, 512, 128), (0, 1, 2)
MEASURES = ("sensitivity/loss", "sensitivity/softmax", "sensitivity/logits", "sharpness/keskar_1e-3", "sharpness/trace")
LABELS = {"sensitivity/loss": "sensitivity of the loss", "sensitivity/softmax": "sensitivity of the softmax"}
ASKED = {"sensitivity": {"_target_": "hw1.measures.Sensitivity"}}
KEYS = ["dataset.batch_size", "seed"]


def study(across="dataset.batch_size"):
    return FlatnessSensitivity(across)


def metrics_of(size, seed, lr=1e-3, **more):
    """Metrics that fall with the batch size, not quite in order."""
    rng = np.random.default_rng([size or 0, seed, round(lr * 1e6)])
    level = 1 / math.log(size or 1437) + 0.05 * rng.random()
    quality = {"train/loss": 0.2 * level, "test/loss": 0.3 * level}
    quality |= {"train/accuracy": 0.99, "test/accuracy": 0.9 + 0.1 * level}
    measured = {name: level * rng.random() for name in (*MEASURES, "sharpness/trace_standard_error")}
    return quality | measured | more


def measured_run(root, size, seed=0, lr=1e-3, *, metrics, **settings):
    """(folder of a run, the measures that found what of its metrics bears their names)."""
    names = dict.fromkeys(name.partition("/")[0] for name in metrics if not name.startswith(("train", "test", "stop")))
    own = {name: value for name, value in metrics.items() if name.partition("/")[0] not in names}
    folder, _ = make_run(root, size, seed, lr, metrics=own, **settings)
    for measure in names:
        values = {name: value for name, value in metrics.items() if name.partition("/")[0] == measure}
        measured_by_hand(folder, measure, values, columns=LABELS)
    return folder, list(names)


def made_sweep(root, sizes=SIZES, lrs=(1e-3,), change=lambda size, seed: {}, **settings):
    """(sweep of batch sizes x seeds x learning rates, {(size, seed, lr): metrics})."""
    made, folders = {}, []
    for size in sizes:
        for seed in SEEDS:
            for lr in lrs:
                made[size, seed, lr] = metrics_of(size, seed, lr, **change(size, seed))
                folder, measures = measured_run(root, size, seed, lr, metrics=made[size, seed, lr], **settings)
                folders.append(folder)
    swept = [*KEYS, *(["optimizer.lr"] if len(lrs) > 1 else [])]
    return Sweep.read(make_sweep(root, folders, swept, measures=measures)), made


def measured(sweep, root, across="dataset.batch_size"):
    return study(across).measure(sweep, Cache(root / "measurements"))


def within_seeds(values):
    """Spearman's rho of the batch size with {(size, seed, lr): value}, less the mean of each seed."""
    means = {seed: np.mean([value for key, value in values.items() if key[1] == seed]) for seed in SEEDS}
    return spearmanr([key[0] for key in values], [value - means[key[1]] for key, value in values.items()]).statistic


def test_one_row_a_run_and_means_over_seeds(tmp_path):
    sweep, made = made_sweep(tmp_path)
    tables = measured(sweep, tmp_path)
    assert set(tables) == {"points", "means", "measures"}
    assert tables["measures"]["name"].tolist() == list(MEASURES)
    trace = tables["measures"].set_index("name").loc["sharpness/trace"]
    assert (trace["label"], trace["error"]) == ("sharpness/trace", "sharpness/trace_standard_error")
    points, means = tables["points"], tables["means"].set_index(["x", "quantity"])
    assert len(points) == 9 and points["x"].tolist() == points["dataset.batch_size"].tolist()
    assert set(points["source"]) == {"scikit-learn"} and points["reached"].all()
    for _, row in points.iterrows():
        wanted = made[row["x"], row["seed"], 1e-3]
        assert {name: row[name] for name in wanted} == pytest.approx(wanted)
        assert row["loss_gap"] == pytest.approx(wanted["test/loss"] - wanted["train/loss"])
        assert row["accuracy_gap"] == pytest.approx(wanted["train/accuracy"] - wanted["test/accuracy"])
    for size in SIZES:
        values = [made[size, seed, 1e-3]["sharpness/trace"] for seed in SEEDS]
        row = means.loc[(size, "sharpness/trace")]
        assert row[["mean", "sd", "low", "high", "n"]].tolist() == pytest.approx(
            [np.mean(values), np.std(values, ddof=1), min(values), max(values), 3]
        )
    assert "sharpness/trace_standard_error" not in means.index.get_level_values("quantity")


def test_the_headlines_are_rank_correlations_over_runs(tmp_path):
    sweep, made = made_sweep(tmp_path)
    found = study().headlines(measured(sweep, tmp_path), KEYS)
    assert all(number.n == len(SEEDS) for number in found)
    by_name = {number.name: number.value for number in found}
    assert set(by_name) == {
        f"spearman_rho {name} dataset.batch_size" for name in ("test/accuracy", "test/loss", "loss_gap", *MEASURES)
    }
    for name in ("test/accuracy", *MEASURES):
        wanted = within_seeds({key: metrics[name] for key, metrics in made.items()})
        assert by_name[f"spearman_rho {name} dataset.batch_size"] == pytest.approx(wanted, abs=1e-12)


def test_other_swept_keys_are_correlated_and_drawn_apart(tmp_path):
    sweep, made = made_sweep(tmp_path, lrs=(1e-3, 1e-2))
    tables = measured(sweep, tmp_path)
    found = {number.name: number for number in study().headlines(tables, sweep.keys)}
    for lr in (1e-3, 1e-2):
        some = {key: metrics["sensitivity/loss"] for key, metrics in made.items() if key[2] == lr}
        number = found[f"spearman_rho sensitivity/loss dataset.batch_size lr={lr}"]
        assert number.n == len(SEEDS) and number.value == pytest.approx(within_seeds(some))
    figures = study().draw(tables, sweep.keys)
    assert set(figures) == {"loss", "accuracy", "sharpness"}
    names = ["learning rate 0.001", "learning rate 0.01"]
    assert [axes.get_title() for axes in figures["loss"].axes] == [*names, "", ""]  # left, then right
    assert [text.get_text() for text in figures["sharpness"].legends[0].get_texts()] == names
    by_lr = measured(sweep, tmp_path, "optimizer.lr")
    assert by_lr["points"]["x"].tolist() == by_lr["points"]["optimizer.lr"].tolist()
    assert len(by_lr["means"]) == 3 * 2 * len(set(by_lr["means"]["quantity"]))


def test_the_figures_show_both_axes_and_mean_and_range(tmp_path):
    sweep, made = made_sweep(tmp_path)
    figures = study().draw(measured(sweep, tmp_path), KEYS)
    left, right = figures["accuracy"].axes
    assert left.get_xscale() == "log" and left.get_ylabel() == "accuracy"
    assert right.get_yscale() == "log" and right.get_ylabel() == "sensitivity (log scale)"
    assert [text.get_text() for text in figures["accuracy"].legends[0].get_texts()] == [
        "train accuracy", "test accuracy", "sensitivity of the loss (right)", "sensitivity of the softmax (right)",
    ]  # fmt: skip
    for axes, line, name in ((left, 1, "test/accuracy"), (right, 0, "sensitivity/loss")):
        curves = [curve for curve in axes.lines if curve.get_linestyle() != "None"]
        assert curves[line].get_xdata().tolist() == sorted(SIZES)
        values = np.array([[made[size, seed, 1e-3][name] for seed in SEEDS] for size in sorted(SIZES)])
        assert curves[line].get_ydata().tolist() == pytest.approx(values.mean(1).tolist())
        heights = axes.collections[line].get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((values.min(), values.max()))
    assert "nats" in figures["loss"].axes[0].get_ylabel()
    for figure in figures.values():
        title = figure.get_suptitle()
        assert all(
            word in title
            for word in (
                "digits",
                "scikit-learn",
                "1,437",
                "one dense layer, 310 weights",
                "three seeds",
                "3 epochs",
                "range",
            )
        )


def test_runs_that_never_reached_the_train_loss_are_named_and_left_out(tmp_path):
    late = {(512, 1), (512, 2)}
    sweep, made = made_sweep(tmp_path, change=lambda size, seed: {REACHED: float((size, seed) not in late)})
    tables = measured(sweep, tmp_path)
    assert set(zip(tables["unreached"]["dataset.batch_size"], tables["unreached"]["seed"], strict=True)) == late
    means = tables["means"].set_index(["x", "quantity"])
    assert means.loc[(512, "test/loss"), "mean"] == pytest.approx(made[512, 0, 1e-3]["test/loss"])
    reached, *others = study().headlines(tables, KEYS)
    assert str(reached).startswith("reached_train_loss = 0.7778") and reached.n == 9
    assert {number.n for number in others} == {len(SEEDS)}
    figure = study().draw(tables, KEYS)["loss"]
    assert "Never reached the train loss" in figure.get_suptitle() and "512 (seeds 1, 2)" in figure.get_suptitle()
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [len(line.get_xdata()) for line in crosses] == [2, 2]  # train and test


def at_one_loss(stops_at, across="dataset.batch_size"):
    """Number and sentences of networks whose accuracy goes with the train loss, and that with the batch size."""
    random = np.random.default_rng(0)
    points = pd.DataFrame([{"dataset.batch_size": x, "x": x, "seed": s} for s in range(5) for x in (8, 16, 32, 64)])
    points["train/loss"] = 0.2 - 0.01 * random.random(20) - 0.05 / points["x"]
    points["test/accuracy"] = 1 - points["train/loss"] + 1e-4 * random.random(20)
    points = points.assign(test_loss=0.3, loss_gap=0.1, reached=True, stops_at=stops_at(points), n_train=9)
    tables = {"points": points, "measures": pd.DataFrame(columns=["name", "label", "unit", "error"])}
    found = study(across).headlines(tables, [across, "seed"])
    return found[0], study(across).answer(tables, [across, "seed"], found).sentences


def test_networks_that_stopped_at_one_train_loss_are_compared_given_it():
    found, sentences = at_one_loss(lambda points: 0.2)
    assert found.name == "spearman_rho test/accuracy dataset.batch_size given=train/loss"
    assert found.low < 0 < found.high
    assert sentences[0].startswith("The test accuracy shows no settled relation to the batch size")
    assert sentences[0].endswith(", 5 seeds, given the train loss).") and "where an epoch ended" in sentences[-1]


@pytest.mark.parametrize("stops_at", [lambda points: math.nan, lambda points: 0.2 + points["x"]])
def test_no_other_networks_are(stops_at):
    """Those that stop at no loss; those whose losses are what is compared."""
    found, sentences = at_one_loss(stops_at)
    assert found.name == "spearman_rho test/accuracy dataset.batch_size" and found.high < 0
    assert not [sentence for sentence in sentences if "given" in sentence]


def test_what_a_run_was_to_stop_at_is_told(tmp_path):
    callbacks = {"stop_at_train_loss": {"_target_": "hw1.callbacks.StopAtTrainLoss", "loss": 0.2, "replicas": 1}}
    sweep, _ = made_sweep(tmp_path, change=lambda size, seed: {REACHED: 1.0}, callbacks=callbacks)
    tables = measured(sweep, tmp_path)
    assert tables["points"]["stops_at"].eq(0.2).all()
    assert all(number.name.endswith("given=train/loss") for number in study().headlines(tables, KEYS))


def test_no_run_reached_it(tmp_path):
    sweep, _ = made_sweep(tmp_path, change=lambda size, seed: {REACHED: 0.0})
    tables = measured(sweep, tmp_path)
    assert len(tables["unreached"]) == 9 and tables["means"].empty
    assert set(study().draw(tables, KEYS)) == {"loss", "accuracy", "sharpness"}
    assert study().headlines(tables, KEYS)[0].value == 0


def test_members_are_rows_of_their_own(tmp_path):
    folders = []
    for size in SIZES:
        of_members = [metrics_of(size, seed) for seed in SEEDS]
        metrics = {name: [one[name] for one in of_members] for name in of_members[0]}
        folder, measures = measured_run(tmp_path, size, metrics=metrics, replicas=3)
        folders.append(folder)
    sweep = Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size"], measures=measures))
    joined = measured(sweep, tmp_path)
    single = measured(made_sweep(tmp_path / "single")[0], tmp_path)
    for name in ("points", "means"):
        columns = [column for column in single[name] if column != "run"]
        assert joined[name][columns].equals(single[name][columns])


def test_the_full_batch_stands_at_the_number_of_examples(tmp_path):
    points = measured(made_sweep(tmp_path, sizes=(32, None))[0], tmp_path)["points"]
    assert set(points["x"]) == {32, 1437} and set(points["dataset.batch_size"]) == {32, "null"}


@pytest.mark.parametrize("gap", ["loss_gap", "accuracy_gap"])
def test_every_measure_against_the_gap(gap, tmp_path):
    sweep, made = made_sweep(tmp_path, change=lambda size, seed: {"minimal_ratio/positive": 1 / size + seed})
    tables = measured(sweep, tmp_path, gap)
    measures = [*MEASURES, "minimal_ratio/positive"]
    found = study(gap).headlines(tables, KEYS)
    assert [number.name for number in found] == [f"spearman_rho {name} {gap}" for name in measures]
    split = ("test", "train") if gap == "loss_gap" else ("train", "test")
    kind = gap.partition("_")[0]
    gaps = [metrics[f"{split[0]}/{kind}"] - metrics[f"{split[1]}/{kind}"] for metrics in made.values()]
    for number, name in zip(found, measures, strict=True):  # of three networks, each the mean of its seeds
        values = [metrics[name] for metrics in made.values()]
        wanted = spearmanr(*(np.reshape(of, (len(SIZES), -1)).mean(1) for of in (gaps, values))).statistic
        assert number.value == pytest.approx(wanted) and number.n == len(SIZES) and math.isnan(number.low)
    (figure,) = study(gap).draw(tables, KEYS).values()
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == len(measures)
    points = np.concatenate([line.get_xydata() for line in panels[-1].lines])
    wanted = list(zip(gaps, [metrics["minimal_ratio/positive"] for metrics in made.values()], strict=True))
    assert sorted(points.tolist()) == pytest.approx(np.array(sorted(wanted)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"batch size {size}" for size in SIZES]
    for axes, number in zip(panels, found, strict=True):
        assert f"ρ = {number.value:.2f}, n = {len(SIZES)}" in axes.get_title()  # too few networks for an interval


def at_chance(*which):
    return lambda size, seed: {"train/loss": 2.3, "train/accuracy": 0.1} if (size, seed) in which else {}


def test_a_setting_that_learns_nothing_has_no_gap_and_is_named(tmp_path):
    idle = [(512, 0), (512, 1), (32, 2)]  # two of three, and one of three
    sweep, made = made_sweep(tmp_path, sizes=(32, 64, 128, 256, 512), change=at_chance(*idle))
    tables = measured(sweep, tmp_path, "loss_gap")
    numbers = study("loss_gap").headlines(tables, KEYS)
    used = [metrics for (size, seed, _), metrics in made.items() if size != 512 and (size, seed) not in idle]
    gaps, values = ([[m["test/loss"] - m["train/loss"], m["sensitivity/loss"]][i] for m in used] for i in (0, 1))
    groups = [2, 5, 8]  # of 2, 3, 3 and 3 networks
    means = [[np.mean(part) for part in np.split(np.array(column), groups)] for column in (gaps, values)]
    assert set(tables["means"]["dataset.batch_size"]) == {32, 64, 128, 256}
    assert numbers[0].n == 4 and numbers[0].value == pytest.approx(spearmanr(*means).statistic)
    text = " ".join(study("loss_gap").answer(tables, KEYS, numbers).sentences)
    assert "Left out: 3 of 3 networks of batch size 512, as most of them learned nothing." in text
    assert "Left out: 1 of 3 networks of batch size 32, as it learned nothing." in text
    table = training(sweep)
    assert set(study("loss_gap").must_learn(table, tables)["dataset.batch_size"]) == {32, 64, 128, 256}
    assert len(study().must_learn(table, measured(sweep, tmp_path))) == 15  # against a batch size all must learn


def test_where_half_of_the_settings_learn_nothing_it_is_too_short(tmp_path):
    sweep, _ = made_sweep(tmp_path, sizes=(32, 512), change=at_chance((32, 0), (32, 1), (32, 2)))
    must = study("loss_gap").must_learn(training(sweep), measured(sweep, tmp_path, "loss_gap"))
    assert untrained(must) == "Too short to answer: 3 of 6 networks are at chance, or little better."


def test_regression_has_no_accuracy(tmp_path):
    folders = []
    for size in (16, 64):
        metrics = {"train/loss": 1.0, "test/loss": 2.0, "sensitivity/loss": 0.5, "sensitivity/outputs": 0.1 * size}
        folder, measures = measured_run(tmp_path, size, metrics=metrics)
        folders.append(folder)
    sweep = Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size"], measures=measures))
    tables = measured(sweep, tmp_path)
    figures = study().draw(tables, KEYS)
    assert set(figures) == {"loss"} and figures["loss"].axes[0].get_ylabel() == "loss (log scale)"


def test_a_measure_that_is_new_is_drawn_and_correlated(tmp_path):
    """No list of measures: what was asked for and found is there, but its standard error is no measure."""
    fisher = {"fisher/trace": 2.0, "fisher/trace_standard_error": 0.1}
    sweep, _ = made_sweep(tmp_path, change=lambda size, seed: fisher)
    tables = measured(sweep, tmp_path)
    assert tables["measures"]["name"].tolist() == [*MEASURES, "fisher/trace"]
    assert [number.name for number in study().headlines(tables, KEYS)][-1] == (
        "spearman_rho fisher/trace dataset.batch_size"
    )
    panels = [axes.get_title() for axes in study().draw(tables, KEYS)["sharpness"].axes if axes.axison]
    assert panels == ["sharpness/keskar_1e-3", "sharpness/trace", "fisher/trace"]


def test_a_measurement_with_other_settings_has_columns_of_its_own(tmp_path):
    sweep, _ = made_sweep(tmp_path)
    later = ask_for("sharpness", examples=2048)
    for run in sweep.runs:
        measured_by_hand(run.path, "sharpness", {"sharpness/trace": 1.0}, examples=2048)
    later = type(later)(later.name, later.node, {"examples": 2048})
    more = make_sweep(
        tmp_path, [run.path for run in sweep.runs], KEYS, measures=[*sweep.asks, later], time="2026-01-02_00-00-00"
    )
    tables = measured(Sweep.read(more), tmp_path)
    assert tables["measures"]["name"].tolist() == [*MEASURES, "sharpness/trace[examples=2048]"]
    assert set(tables["points"]["sharpness/trace[examples=2048]"]) == {1.0}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"sharpness": {"examples": 100}}, "sharpness over 100 random training examples"),
        ({"sharpness": {"examples": None}}, "sharpness over 1,437 random training examples"),
        (
            {"sharpness": {"examples": 100}, "fisher": {"examples": 9000}, "norms": {}},
            "sharpness over 100 random training examples, fisher over 1,437 random training examples",
        ),
    ],
)
def test_the_title_says_over_how_many_examples_measures_are(asked, words, tmp_path):
    folders = []
    for size in SIZES:
        folders.append(make_run(tmp_path, size, metrics=metrics_of(size, 0))[0])
        for name, settings in asked.items():
            measured_by_hand(folders[-1], name, {f"{name}/trace": 1.0, f"{name}/other": 2.0}, **settings)
    asks = [ask_for(name, **settings) for name, settings in asked.items()]
    tables = measured(Sweep.read(make_sweep(tmp_path, folders, KEYS, measures=asks)), tmp_path)
    title = study().draw(tables, KEYS)["sharpness"].get_suptitle()
    assert title.endswith(f"band: their range\n{words}")
    assert (
        study("loss_gap")
        .draw(measured(Sweep.read(tmp_path / "hand"), tmp_path, "loss_gap"), KEYS)["gap"]
        .get_suptitle()
        .endswith(f"one point a network\n{words}")
    )


def test_no_complete_run_is_no_table(tmp_path):
    folder, _ = make_run(tmp_path, status="failed")
    assert measured(Sweep.read(make_sweep(tmp_path, [folder], [])), tmp_path) == {}


@pytest.mark.parametrize(
    ("across", "runs", "message"),
    [
        (
            "dataset.batch_size",
            [{}, {"measures": {}}],
            r"^measures: got none, .*: measures=\[sensitivity,sharpness\]$",
        ),
        ("dataset.batch_size", [{}, {"seed": 1}], r"^dataset\.batch_size: got 64, expected two values or more"),
        ("optimizer.lrr", [{}], r"^study\.across: got optimizer\.lrr, which is None in one of the runs"),
        ("model.activation", [{}], r"^study\.across: got model\.activation, which is relu in one of the runs"),
        ("optimizer.lr", [{"lr": 0.0}, {}], r"^study\.across: got optimizer\.lr, which is 0\.0"),
    ],
)
def test_what_cannot_answer_is_refused(across, runs, message):
    with pytest.raises(ConfigError, match=message):
        study(across).check([checked(**{"measures": ASKED} | run) for run in runs], [])


def test_what_can_answer_is_not():
    runs = [checked(size, measures=ASKED) for size in (32, None)]
    study().check(runs, ["dataset.batch_size"])
    study("loss_gap").check(runs[:1], [])
