import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from hw1.data import Digits
from hw1.measures.cache import Cache
from hw1.runs import Sweep
from hw1.settings import ConfigError, RunSettings
from hw1.studies import FlatnessInterp, between, flatness_interp
from made_runs import checked, make_members, make_run, make_sweep, measured_by_hand, run_settings

DIGITS = Digits().load()
POINTS = 7  # -1, -0.5, ..., 2
KEYS = ["dataset.batch_size", "seed"]


def study(**changes):
    return FlatnessInterp(**{"pair_by": "dataset.batch_size", "start": -1.0, "stop": 2.0, "points": POINTS} | changes)


def brute_force(net, split):
    """(mean cross-entropy, accuracy) on the digits, in float64, with plain numpy."""
    x, y = (getattr(DIGITS, f"{split}_{axis}").numpy() for axis in "xy")
    first, last = (layer for layer in net if isinstance(layer, torch.nn.Linear))
    weights = [tensor.detach().double().numpy() for tensor in (first.weight, first.bias, last.weight, last.bias)]
    hidden = np.maximum(x.reshape(len(x), -1).astype(float) @ weights[0].T + weights[1], 0)
    logits = hidden @ weights[2].T + weights[3]
    highest = logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits - highest).sum(1)) + highest[:, 0]
    return np.mean(log_sum - logits[np.arange(len(y)), y]), np.mean(logits.argmax(1) == y)


def three_sizes(root):
    """(sweep of three batch sizes x two seeds, {(batch size, seed): (folder, final net)})."""
    made = {}
    for batch_size in (256, 16, 64):  # not in order
        for seed in (0, 1):
            folder, nets = make_run(root, batch_size, seed)
            made[batch_size, seed] = folder, nets[3]
    folders = [folder for folder, _ in made.values()]
    return Sweep.read(make_sweep(root, folders, KEYS)), made


@pytest.fixture
def sweep(tmp_path):
    return three_sizes(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(tables of such a sweep, the same mapping); measured once, not to be changed."""
    root = tmp_path_factory.mktemp("whole")
    sweep, made = three_sizes(root)
    return measured(sweep, root), made


def measured(sweep, tmp_path, **changes):
    return study(**changes).measure(sweep, Cache(tmp_path / "hand" / "measurements"))


def test_the_ends_are_the_trained_networks(whole):
    tables, made = whole
    table = tables["interpolation"].set_index(["seed", "theta_1", "theta_2", "split", "alpha"])
    for seed in (0, 1):
        for split in ("train", "test"):
            for other in (64, 256):
                for alpha, size in ((0.0, 16), (1.0, other)):
                    row = table.loc[(seed, 16, other, split, alpha)]
                    loss, accuracy = brute_force(made[size, seed][1], split)
                    assert (row["loss"], row["accuracy"]) == pytest.approx((loss, accuracy), abs=1e-6)


def test_points_between_are_the_average_of_the_weights(whole):
    tables, made = whole
    table = tables["interpolation"].set_index(["seed", "theta_2", "split", "alpha"])
    one, two = made[16, 1][1], made[64, 1][1]
    for alpha in (-1.0, 0.5, 1.5):
        mixed = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.ReLU(), torch.nn.Linear(4, 10))
        with torch.no_grad():
            for target, a, b in zip(mixed.parameters(), one.parameters(), two.parameters(), strict=True):
                target.copy_((1 - alpha) * a + alpha * b)
        row = table.loc[(1, 64, "test", alpha)]
        assert (row["loss"], row["accuracy"]) == pytest.approx(brute_force(mixed, "test"), abs=1e-6)


def test_the_tables(whole):
    tables, _ = whole
    table, barriers = tables["interpolation"], tables["barriers"]
    sizes = table.groupby(["seed", "theta_1", "theta_2", "split"]).size()
    assert (sizes == POINTS).all() and len(sizes) == 2 * 2 * 2
    assert set(zip(table["theta_1"], table["theta_2"], strict=True)) == {(16, 64), (16, 256)}  # the smallest with each
    assert sorted(set(table["alpha"])) == [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0]
    assert {"loss", "accuracy", "seed", "init", "data", "source", "n_train"} <= set(table)
    assert set(table["source"]) == {"scikit-learn"} and set(table["n_train"]) == {1437}
    assert len(barriers) == 2 * 2 * 2
    for _, row in barriers.iterrows():
        part = table.query("seed == @row.seed and theta_2 == @row.theta_2 and split == @row.split").set_index("alpha")
        chord = {alpha: (1 - alpha) * part["loss"][0.0] + alpha * part["loss"][1.0] for alpha in (0.0, 0.5, 1.0)}
        assert row["barrier"] == pytest.approx(max(part["loss"][a] - chord[a] for a in chord), abs=1e-12)
        for column in ("loss", "accuracy"):
            assert (row[f"{column}_at_0"], row[f"{column}_at_1"]) == (part[column][0.0], part[column][1.0])


def test_the_headlines_are_means_over_seeds(whole):
    tables, _ = whole
    found = study().headlines(tables, KEYS)
    barriers = tables["barriers"].query("split == 'test'")
    assert [number.n for number in found] == [2, 2]
    for number, other in zip(found, (64, 256), strict=True):
        values = barriers[barriers["theta_2"] == other]["barrier"]
        assert number.value == pytest.approx(values.mean(), rel=1e-12) and number.name.startswith("barrier")
        assert number.name.endswith(f"dataset.batch_size=16-{other}")


def test_a_missing_smallest_run_drops_its_pairs_alone(sweep, tmp_path):
    sweep, made = sweep
    shutil.rmtree(made[16, 0][0])
    shutil.rmtree(made[64, 1][0])
    left = Sweep.read(sweep.path).complete()
    table = measured(left, tmp_path)["interpolation"]
    assert set(zip(table["seed"], table["theta_1"], table["theta_2"], strict=True)) == {(1, 16, 256)}


def test_no_complete_pair_is_no_table(sweep, tmp_path):
    sweep, _ = sweep
    assert measured(sweep.select(**{"dataset.batch_size": 16}), tmp_path) == {}
    assert measured(Sweep(sweep.path, sweep.record), tmp_path) == {}


def test_measured_once_until_the_weights_change(sweep, tmp_path, monkeypatch):
    sweep, made = sweep[0].select(seed=1), sweep[1]
    first = measured(sweep, tmp_path)
    calls = []
    compute = between.values_of
    monkeypatch.setattr(between, "values_of", lambda part: calls.append(part.split) or compute(part))
    again = measured(sweep, tmp_path)
    assert calls == []
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, again[name], check_exact=True)
    (file,) = (path for path in (made[256, 1][0] / "snapshots").iterdir() if "3" in path.name)
    shutil.copy(made[256, 1][0] / "snapshots" / "epoch=000000.safetensors", file)
    changed = measured(sweep, tmp_path)["interpolation"]
    assert calls == ["train", "test"]
    differs = (changed["loss"] != first["interpolation"]["loss"]) & (changed["alpha"] == 1)
    assert set(zip(changed["seed"][differs], changed["theta_2"][differs], strict=True)) == {(1, 256)}


def test_workers_compute_the_same_to_the_last_bit(sweep, tmp_path, monkeypatch):
    sweep = sweep[0]
    alone = measured(sweep, tmp_path)
    monkeypatch.setattr(between, "WORTH_WORKERS", 1)
    monkeypatch.setattr(flatness_interp, "cores", lambda: 2)
    shutil.rmtree(tmp_path / "hand" / "measurements")
    begun = []
    compute = between.spread
    monkeypatch.setattr(between, "spread", lambda *a: begun.append(len(a[1])) or compute(*a))
    together = measured(sweep, tmp_path)
    assert begun and begun[0] >= 8
    for name, table in alone.items():
        pd.testing.assert_frame_equal(table, together[name], check_exact=True)


@pytest.mark.parametrize(
    ("start", "stop", "points"),
    [
        (-1.0, 2.0, 20),
        (-1.0, 2.0, 30),
        (0.0, 0.5, 6),
        (0.5, 1.0, 6),
        (0.1, 2.0, 20),
        (0.0, 1.0, 1),
        (2.0, -1.0, 31),
        (-1.0, 2.0, 4),
    ],
)
def test_grids_without_the_trained_networks_are_refused(start, stop, points):
    with pytest.raises(ValueError, match=rf"^points: got {points}"):
        study(start=start, stop=stop, points=points)


@pytest.mark.parametrize(
    ("start", "stop", "points"), [(-1.0, 2.0, 31), (-1.0, 2.0, 61), (0.0, 1.0, 3), (-0.7, 1.3, 21)]
)
def test_grids_hold_zero_and_one_exactly(start, stop, points):
    alphas = study(start=start, stop=stop, points=points).alphas
    assert 0.0 in alphas and 1.0 in alphas and len(alphas) == points
    assert alphas == pytest.approx(np.linspace(start, stop, points).tolist(), abs=1e-12)


def test_one_value_is_nothing_to_interpolate_between():
    runs = [checked(64, seed) for seed in (0, 1)]
    with pytest.raises(
        ConfigError, match=r"^dataset\.batch_size: got 64, expected two values or more, as .*=64,1024: "
    ):
        study().check(runs, ["seed"])
    study().check([checked(64), checked(1024)], ["dataset.batch_size"])
    with pytest.raises(ConfigError, match=r"^optimizer\.lr: got 0\.001, expected two values"):
        study(pair_by="optimizer.lr").check([checked(64), checked(1024)], ["dataset.batch_size"])


@pytest.mark.parametrize(
    ("pair_by", "first", "second", "message"),
    [
        ("dataset.train_size", {}, {"train_size": 100}, "different data"),
        ("dataset.corruption", {}, {"corruption": 0.5}, "different data"),
        ("seed", {"train_size": 100}, {"train_size": 100}, "different data"),
        ("model.width", {}, {}, "different architectures"),
        ("optimizer.lrr", {}, {}, "which is no setting of these runs"),
    ],
)
def test_pairs_of_unlike_networks_or_data_are_refused(pair_by, first, second, message):
    runs = [run_settings(seed=seed) for seed in (0, 1)]
    for run, changes in zip(runs, (first, second), strict=True):
        run["dataset"] |= changes
    with pytest.raises(ConfigError, match=rf"^study\.pair_by: got {pair_by}, .*{message}"):
        study(pair_by=pair_by).check([RunSettings.check(run) for run in runs], [pair_by])


def test_two_seeds_on_the_same_data_are_a_pair(tmp_path):
    study(pair_by="seed").check([checked(seed=seed) for seed in (0, 1)], ["seed"])
    folders = [make_run(tmp_path, seed=seed)[0] for seed in (0, 1)]
    tables = measured(Sweep.read(make_sweep(tmp_path, folders, ["seed"])), tmp_path, pair_by="seed")
    assert set(zip(tables["interpolation"]["theta_1"], tables["interpolation"]["theta_2"], strict=True)) == {(0, 1)}
    assert len(study(pair_by="seed").draw(tables, ["seed"])) == 1


def test_any_setting_can_tell_the_pair_apart(tmp_path):
    folders = [make_run(tmp_path, lr=lr)[0] for lr in (1e-2, 1e-3)]
    sweep = Sweep.read(make_sweep(tmp_path, folders, ["optimizer.lr"]))
    table = measured(sweep, tmp_path, pair_by="optimizer.lr")["interpolation"]
    assert set(zip(table["theta_1"], table["theta_2"], strict=True)) == {(1e-3, 1e-2)}
    assert "optimizer.lr" not in table


def test_the_full_batch_is_the_largest(tmp_path):
    """dataset.batch_size=64,null: null is all examples."""
    folders = [make_run(tmp_path, batch_size)[0] for batch_size in (None, 64, 32)]
    sweep = Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size"]))
    tables = measured(sweep, tmp_path)
    assert set(tables["interpolation"]["theta_1"]) == {32} and len(study().headlines(tables, KEYS[:1])) == 2
    assert len(study().draw(tables, KEYS[:1])) == 1


def test_members_are_paired_one_by_one(sweep, tmp_path):
    single, made = sweep
    wanted = measured(single, tmp_path)
    folders = []
    for size in (64, 16, 256):
        singles = [(folder, {3: net}) for folder, net in (made[size, seed] for seed in (0, 1))]
        folders.append(make_members(tmp_path, singles, batch_size=size))
    joined = Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size"], time="2026-01-02_00-00-00"))
    for name, table in measured(joined, tmp_path).items():
        order = [key for key in ("seed", "theta_2", "split", "alpha") if key in table]
        one, two = (some.sort_values(order, ignore_index=True) for some in (table, wanted[name]))
        pd.testing.assert_frame_equal(one, two, check_like=True, rtol=1e-12)


def test_a_network_in_two_runs_is_one_pair(sweep, tmp_path):
    """seed=0,1 replicas=2: member 1 of seed 0 is member 0 of seed 1."""
    folders = []
    for size in (64, 16):
        folders += [make_run(tmp_path, size, seed, replicas=2)[0] for seed in (0, 1)]
    for folder in folders:
        for file in (folder / "snapshots").iterdir():
            net = load_file(file)
            save_file({name: torch.stack([value, value]) for name, value in net.items()}, file)
    tables = measured(Sweep.read(make_sweep(tmp_path, folders, ["seed"], time="2026-01-03_00-00-00")), tmp_path)
    assert tables["barriers"]["seed"].tolist() == [0, 0, 1, 1, 2, 2]


def test_the_barriers_hold_what_was_measured_of_both_ends(tmp_path):
    folders = []
    for size in (16, 64):
        folders.append(make_run(tmp_path, size)[0])
        measured_by_hand(folders[-1], "sensitivity", {"sensitivity/loss": size / 10})
        trace = {"sharpness/trace": 5 * size, "sharpness/trace_standard_error": size / 2}
        measured_by_hand(folders[-1], "sharpness", trace)
    keys = ["dataset.batch_size"]
    sweep = Sweep.read(make_sweep(tmp_path, folders, keys, measures=["sensitivity", "sharpness"]))
    tables = measured(sweep, tmp_path)
    names = ["sensitivity/loss", "sharpness/trace", "sharpness/trace_standard_error"]
    columns = [f"{name}_at_{end}" for end in (0, 1) for name in names]
    assert tables["barriers"][columns].to_numpy().tolist() == [[1.6, 80, 8, 6.4, 320, 32]] * 2  # train and test
    assert not set(columns) & set(tables["interpolation"])
    assert len(study().headlines(tables, keys)) == 1


@pytest.mark.parametrize("size", [16, 64])
def test_nothing_lies_between_a_network_and_one_that_diverged(size, tmp_path):
    folders = {batch_size: make_run(tmp_path, batch_size)[0] for batch_size in (16, 64)}
    file = folders[size] / "snapshots" / "epoch=000003.safetensors"
    save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(file).items()}, file)
    sweep = Sweep.read(make_sweep(tmp_path, list(folders.values()), ["dataset.batch_size"]))
    table = measured(sweep, tmp_path)["interpolation"]
    whole = table["alpha"] == (1.0 if size == 16 else 0.0)
    assert table["loss"][whole].notna().all() and table["loss"][~whole].isna().all()
    file = folders[80 - size] / "snapshots" / "epoch=000003.safetensors"
    save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(file).items()}, file)
    table = measured(sweep, tmp_path)["interpolation"]
    assert len(table) == 2 * POINTS and table[["loss", "accuracy"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("swept", "values"),
    [
        ("scheduler", [None, {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1}]),
        ("dataset.train_size", [None, 100]),
        ("model.hidden", [[4], [4, 5]]),
        ("model", [{"hidden": [4]}, {"hidden": [5]}]),
    ],
)
def test_swept_lists_groups_and_nulls_are_no_lost_rows(swept, values, tmp_path):
    folders = []
    for value in values:
        for batch_size in (16, 64):
            settings = run_settings(batch_size)
            if swept == "model":
                more = {"hidden": value["hidden"]}
            elif swept == "model.hidden":
                more = {"hidden": value}
            elif swept == "dataset.train_size":
                more = {"dataset": settings["dataset"] | {"train_size": value}}
            else:
                more = {swept: value}
            folders.append(make_run(tmp_path, batch_size, **more)[0])
    keys = ["dataset.batch_size", swept]
    tables = measured(Sweep.read(make_sweep(tmp_path, folders, keys)), tmp_path)
    assert len(tables["interpolation"]) == 2 * 2 * POINTS and len(tables["barriers"]) == 2 * 2
    assert len(study().headlines(tables, keys)) == 2
    drawn = study().draw(tables, keys)
    assert sum(len(figure.axes) for figure in drawn.values()) == 2 * 2  # loss and accuracy of both


# Drawing, from tables alone

DRAWN = ["optimizer.lr", "dataset.batch_size", "seed"]


def made_tables(seeds=(0,), lrs=(1e-3, 1e-2), inits=("independent",), pairs=((64, 1024),), accuracy=True):
    """A table as measure makes it: loss 1 + |alpha| + seed + lr at every point."""
    rows = [
        {
            "alpha": alpha,
            "split": split,
            "loss": 1 + abs(alpha) + seed + lr + (split == "test"),
            **({"accuracy": 0.5 + 0.1 * seed} if accuracy else {}),
            "optimizer.lr": lr,
            "seed": seed,
            "init": init,
            "theta_1": one,
            "theta_2": two,
            "data": "digits",
            "source": "scikit-learn",
            "n_train": 1437,
        }
        for lr in lrs
        for seed in seeds
        for init in inits
        for one, two in pairs
        for split in ("train", "test")
        for alpha in np.linspace(-1, 2, 31).round(12)
    ]
    table = pd.DataFrame(rows)
    return {"interpolation": table, "barriers": study()._barriers(table, ["seed", "optimizer.lr", "init"])}


def end_markers(axes):
    """Points of the lines that are markers alone: the ends."""
    return [line.get_xydata() for line in axes.lines if line.get_linestyle() == "None"]


@pytest.mark.parametrize(("seeds", "n"), [((0,), "n = 1"), ((0, 1), "n = 2"), ((3, 4, 9), "n = 3")])
def test_one_figure_with_a_column_for_each_learning_rate(seeds, n):
    (figure,) = study().draw(made_tables(seeds), DRAWN).values()
    loss = figure.axes[:2]
    assert len(figure.axes) == 4
    assert [axes.get_title().split("\n")[0] for axes in loss] == ["learning rate 0.001", "learning rate 0.01"]
    title = figure.get_suptitle()
    assert n in title and "scikit-learn" in title and "digits" in title
    for axes in figure.axes[2:]:
        ends = [text.get_text() for text in axes.get_xticklabels() if "\n" in text.get_text()]
        assert ends == ["0\nsmall batch\n64", "1\nlarge batch\n1024"]
    assert ("no spread" in title) == (len(seeds) == 1)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear", "linear"]
    assert "nats" in figure.axes[0].get_ylabel() and figure.axes[2].get_ylabel() == "accuracy"


def test_ends_are_marked_and_lines_are_means_over_seeds():
    (figure,) = study().draw(made_tables((0, 1), lrs=(0.25,)), DRAWN).values()
    axes = figure.axes[0]
    markers = end_markers(axes)
    assert len(markers) == 2  # train and test
    expected = {"train": [1.75, 2.75], "test": [2.75, 3.75]}  # 1 + |alpha| + mean of the seeds + lr (+ 1)
    for points, values in zip(markers, expected.values(), strict=True):
        assert points[:, 0].tolist() == [0.0, 1.0] and points[:, 1].tolist() == pytest.approx(values)
    curves = [line for line in axes.lines if line.get_linestyle() != "None" and len(line.get_xdata()) == 31]
    assert len(curves) == 2 and not axes.texts  # the loss nowhere rises above its chord
    low, high = (np.asarray(path.vertices)[:, 1] for path in axes.collections[0].get_paths() for _ in (0, 1))
    assert low.min() == pytest.approx(1.25) and high.max() == pytest.approx(4.25)  # the band is the seeds' range


def test_the_barrier_is_a_bar_from_the_chord_to_the_mean_curve_with_its_interval():
    tables = made_tables((0, 1), lrs=(0.25,))
    table = tables["interpolation"]
    bump = 2 * (table["seed"] + 1) * table["alpha"].isin([0.4])
    table["loss"] += bump.where(table["split"] == "test", 0)
    tables["barriers"] = study()._barriers(table, ["seed", "optimizer.lr", "init"])
    (figure,) = study().draw(tables, DRAWN).values()
    axes = figure.axes[0]
    (bar,) = axes.texts  # loss 1 + alpha + 0.5 + 0.25 + 1 of the ends' line, and 3 above it on average
    assert bar.xyann == pytest.approx((0.4, 3.15)) and bar.xy == pytest.approx((0.4, 6.15))
    half = 12.706204736432095  # Student's 97.5% quantile with one degree of freedom, times 2 / sqrt(2) / sqrt(2)
    assert axes.get_title() == f"learning rate 0.25\nbarrier 3 nats [{3 - half:.3g}, {3 + half:.3g}], n = 2"
    assert not figure.axes[1].texts and "straight line between the ends" in axes.get_legend_handles_labels()[1]


def test_a_figure_for_every_other_combination():
    figures = study().draw(made_tables(inits=("independent", "shared")), DRAWN)
    assert set(figures) == {"interpolation_init=independent", "interpolation_init=shared"}
    for name, figure in figures.items():
        assert name.rpartition("=")[2] in figure.get_suptitle()
    assert set(study().draw(made_tables(), DRAWN)) == {"interpolation"}


def test_several_pairs_stand_in_one_chart():
    (figure,) = study().draw(made_tables(lrs=(1e-3,), pairs=((16, 64), (16, 256))), DRAWN).values()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    curves = [f"{split} set, 16 to {other}" for other in (64, 256) for split in ("train", "test")]
    assert labels == curves
    ends = [text.get_text() for text in figure.axes[1].get_xticklabels() if "\n" in text.get_text()]
    assert ends[1] == "1\nlarge batch\n64, 256"
    assert len(end_markers(figure.axes[0])) == 4


def test_without_classes_there_is_no_accuracy_and_the_loss_is_not_in_nats():
    (figure,) = study().draw(made_tables(accuracy=False), DRAWN).values()
    assert len(figure.axes) == 2 and "nats" not in figure.axes[0].get_ylabel()
