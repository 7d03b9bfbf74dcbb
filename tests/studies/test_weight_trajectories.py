import io
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from safetensors.torch import save_model
from sklearn.decomposition import PCA

from hw1.callbacks import WeightSnapshots
from hw1.data import Digits
from hw1.measures.cache import Cache
from hw1.models import Cnn
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.studies import WeightTrajectories
from hw1.studies.path_distances import FURTHEST, apart, between, path_distances
from made_runs import checked, make_members, make_run, make_sweep

EPOCHS = (0, 3, 6, 7)
LAYER = "3.weight"
BETWEEN = ("end_distance_over_independent", "displacement_cosine", "end_distance_over_start_distance")


def study(layer=LAYER, filters=()):
    return WeightTrajectories(layer, list(filters))


def trained(folder, epochs=7):
    """Give the run a history of two steps an epoch, with gradient norm (s - 8.5)^2 at step s."""
    result = (folder / "result.json").read_text()
    (folder / "result.json").write_text(result.replace('"epochs": 3', f'"epochs": {epochs}'))
    rows = ["epoch,step,gradient_norm,train/loss,train/accuracy,test/loss,test/accuracy"]
    for epoch in range(epochs):
        rows.append(f",{2 * epoch},{(2 * epoch - 8.5) ** 2},,,,")
        metrics = f"{2 / (epoch + 2)},0.5,{1 / (epoch + 2)},{0.1 + epoch / 100}"
        rows.append(f"{epoch},{2 * epoch + 1},{(2 * epoch - 7.5) ** 2},{metrics}")
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")


def made_sweep(root, seeds=(0, 1, 2), **swept):
    """(sweep over seeds and one more key, {(value, seed): (folder, nets)})."""
    ((key, values),) = swept.items() if swept else [("lr", [1e-3])]
    made = {}
    for value in values:
        for seed in seeds:
            made[value, seed] = make_run(root, seed=seed, epochs=EPOCHS, **{key: value})
            trained(made[value, seed][0])
    folders = [folder for folder, _ in made.values()]
    names = {"lr": "optimizer.lr", "batch_size": "dataset.batch_size"}
    return Sweep.read(make_sweep(root, folders, ["seed", *([names[key]] if swept else [])])), made


def measured(sweep, root, **changes):
    return study(**changes).measure(sweep, Cache(root / "hand" / "measurements"))


def path_of(nets, layer):
    """[T, P], float64."""
    rows = []
    for epoch in sorted(nets):
        tensors = dict(nets[epoch].named_parameters())
        chosen = tensors.values() if layer is None else [tensors[layer]]
        rows.append(np.concatenate([tensor.detach().double().numpy().ravel() for tensor in chosen]))
    return np.stack(rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(tables of three seeds, their nets); measured once, not to be changed."""
    root = tmp_path_factory.mktemp("whole")
    sweep, made = made_sweep(root)
    return measured(sweep, root), {seed: nets for (_, seed), (_, nets) in made.items()}


@pytest.mark.parametrize(("name", "layer"), [("trajectory_layer", LAYER), ("trajectory_model", None)])
def test_the_axes_are_scikit_learns_on_all_runs_together(name, layer, whole):
    tables, nets = whole
    paths = [path_of(nets[seed], layer) for seed in (0, 1, 2)]
    oracle = PCA(2, svd_solver="full").fit(np.concatenate(paths))
    table = tables[name]
    assert (table["explained_1"] == table["explained_1"][0]).all()
    explained = table[["explained_1", "explained_2"]].iloc[0].tolist()
    assert explained == pytest.approx(oracle.explained_variance_ratio_.tolist(), rel=1e-8)
    assert set(table["parameters"]) == {paths[0].shape[1]} and set(table["weights"]) == {layer or "all"}
    for seed, path in enumerate(paths):
        run = table[table["seed"] == seed]
        assert run["epoch"].tolist() == list(EPOCHS)
        assert run[["pc1", "pc2"]].to_numpy() == pytest.approx(oracle.transform(path), abs=1e-6)
        assert math.isnan(run["displacement"].iloc[0])
        assert run["interval"].tolist()[1:] == np.diff(run["epoch"]).tolist()
        steps = [math.dist(path[t], path[t + 1]) for t in range(3)]
        assert run["displacement"].tolist()[1:] == pytest.approx(steps, rel=1e-9)


@pytest.mark.parametrize("layer", [LAYER, None])
def test_lengths_and_distances(layer, whole):
    tables, nets = whole
    paths = [path_of(nets[seed], layer) for seed in (0, 1, 2)]
    table = tables["paths"].set_index(["weights", "seed"])
    for seed, path in enumerate(paths):
        row = table.loc[(layer or "all", seed)]
        others = [other for other in range(3) if other != seed]
        length = sum(math.dist(path[t], path[t + 1]) for t in range(3))
        ends = np.median([math.dist(path[-1], paths[other][-1]) for other in others])
        starts = np.median([math.dist(path[0], paths[other][0]) for other in others])
        expected = [length, math.dist(path[0], path[-1]), starts, ends, ends / length]
        names = ["length", "net", "to_other_starts", "to_other_ends", "ends_over_length"]
        assert row[names].tolist() == pytest.approx(expected, rel=1e-9)
        u, v = path[-1] - path[0], [paths[other][-1] - paths[other][0] for other in others]
        cosines = [1 - scipy.spatial.distance.cosine(u, one) for one in v]
        assert row["displacement_cosine"] == pytest.approx(np.mean(cosines), rel=1e-6)
        squares = [math.dist(path[0], paths[i][0]) ** 2 + u @ u + w @ w for i, w in zip(others, v, strict=True)]
        ratios = [math.dist(path[-1], paths[i][-1]) / math.sqrt(s) for i, s in zip(others, squares, strict=True)]
        assert row["ends_over_independent"] == pytest.approx(np.mean(ratios), rel=1e-9)


def test_loss_and_accuracy_are_those_after_the_epoch(whole):
    tables, nets = whole
    digits = Digits().load()
    for seed in (0, 1, 2):
        run = tables["trajectory_layer"].query("seed == @seed")
        assert run["test/loss"].tolist()[1:] == pytest.approx([1 / (epoch - 1 + 2) for epoch in EPOCHS[1:]])
        assert run["test/accuracy"].tolist()[1:] == pytest.approx([0.1 + (epoch - 1) / 100 for epoch in EPOCHS[1:]])
        for split in ("train", "test"):  # no history knows the initialisation
            x, y = (getattr(digits, f"{split}_{axis}").numpy() for axis in "xy")
            tensors = [parameter.detach().double().numpy() for parameter in nets[seed][0].parameters()]
            hidden = np.maximum(x.reshape(len(x), -1).astype(float) @ tensors[0].T + tensors[1], 0)
            logits = hidden @ tensors[2].T + tensors[3]
            loss = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])
            assert run[f"{split}/loss"].iloc[0] == pytest.approx(loss, abs=1e-6)
            assert run[f"{split}/accuracy"].iloc[0] == pytest.approx(np.mean(logits.argmax(1) == y), abs=1e-9)


def test_every_member_of_a_run_is_a_path(whole, tmp_path):
    singles = [make_run(tmp_path, seed=seed, epochs=EPOCHS) for seed in (0, 1, 2)]
    for folder, _ in singles:
        trained(folder)
    histories = [pd.read_csv(folder / "metrics.csv").assign(member=i) for i, (folder, _) in enumerate(singles)]
    joined = make_members(tmp_path, singles)
    pd.concat(histories).sort_values("step").to_csv(joined / "metrics.csv", index=False)
    tables = measured(Sweep.read(make_sweep(tmp_path, [joined], [])), tmp_path)
    assert set(tables) == set(whole[0])
    for name, table in tables.items():
        assert set(table["run"]) == {joined.name.rpartition("-")[0]}
        single = whole[0][name].drop(columns="run")
        pd.testing.assert_frame_equal(table.drop(columns="run"), single, rtol=1e-5, atol=1e-6)


def test_a_member_that_stands_still_is_named(tmp_path):
    singles = [make_run(tmp_path, seed=seed) for seed in (0, 1, 2)]
    singles[1][1][3] = singles[1][1][0]
    folder = make_members(tmp_path, singles)
    message = r"\(member 1\): 3.weight did not move between epoch 0 and epoch 3; .* seed=0,2$"
    trained(folder, 3)
    with pytest.raises(ConfigError, match=message):
        measured(Sweep.read(make_sweep(tmp_path, [folder], [])), tmp_path)


def test_the_tables_say_where_they_come_from(whole):
    tables, _ = whole
    assert set(tables) == {"trajectory_layer", "trajectory_model", "paths"}
    for table in tables.values():
        assert table.columns[:2].tolist() == ["seed", "run"]
        assert set(table["data"]) == {"digits"} and set(table["source"]) == {"scikit-learn"}
        assert set(table["n_train"]) == {1437}


def test_the_headlines(whole):
    tables, _ = whole
    found = {number.name: number for number in study().headlines(tables, ["seed"])}
    assert set(found) == {
        f"{name} weights={weights}" for name in ("explained_variance", *BETWEEN) for weights in (LAYER, "all")
    }
    row = tables["trajectory_layer"].iloc[0]
    explained = found[f"explained_variance weights={LAYER}"]
    assert explained.value == pytest.approx(row["explained_1"] + row["explained_2"]) and explained.n == 3
    for name, least, most in (("end_distance_over_independent", 0, FURTHEST), ("displacement_cosine", -1, 1)):
        assert least < found[f"{name} weights=all"].low < found[f"{name} weights=all"].high < most
    ratio = found["end_distance_over_independent weights=all"]
    assert ratio.value == pytest.approx(tables["paths"].query("weights == 'all'")["ends_over_independent"].mean())
    assert ratio.n == 3
    rows = tables["paths"].query("weights == 'all'")
    apart = [end / start for end, start in zip(rows["to_other_ends"], rows["to_other_starts"], strict=True)]
    assert found["end_distance_over_start_distance weights=all"].value == pytest.approx(sum(apart) / 3)


def test_paths_in_independent_directions_end_as_far_apart_as_that_puts_them():
    """In many dimensions; those that go the same way end nearer, those that go opposite ways further apart."""
    random = np.random.default_rng(0)
    a, b, u, v = (torch.tensor(random.normal(size=100_000)) for _ in range(4))
    right = apart((a, a + u), (b, b + v))
    assert right["ends_over_independent"] == pytest.approx(1, abs=0.01)
    assert right["displacement_cosine"] == pytest.approx(0, abs=0.02)
    same = apart((a, a + u), (b, b + u))  # as far apart as they started: sqrt(2) of sqrt(4)
    assert same["ends_over_independent"] == pytest.approx(math.sqrt(1 / 2), abs=0.01)
    assert same["displacement_cosine"] == pytest.approx(1)
    assert apart((a, a + u), (b, b - u))["ends_over_independent"] == pytest.approx(math.sqrt(3 / 2), abs=0.01)


def test_no_number_between_paths_depends_on_how_finely_one_looked(tmp_path):
    fine, coarse = (path_table(tmp_path / str(every), every) for every in (1, 5))
    assert (fine["length"] > 1.5 * coarse["length"]).all()
    names = ["net", "to_other_ends", "ends_over_independent", "displacement_cosine"]
    pd.testing.assert_frame_equal(fine[names], coarse[names])


def path_table(root, every):
    """The distances of three walks of 21 points, of which every so many are kept."""
    walks = np.random.default_rng(1).normal(size=(3, 21, 50)).cumsum(1)
    kept = [SimpleNamespace(values=torch.tensor(walk[::every])) for walk in walks]
    return path_distances("all", lambda: kept)


@pytest.mark.parametrize("n", [3, 7])
def test_the_interval_between_ends_is_the_jackknife_s(n):
    points = np.random.default_rng(n).normal(size=(n, 4))
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    found = between("apart", (apart.sum(1) / (n - 1)).tolist(), -math.inf)
    left_out = [np.delete(np.delete(apart, i, 0), i, 1).sum() / ((n - 1) * (n - 2)) for i in range(n)]
    error = math.sqrt((n - 1) / n * np.square(left_out - np.mean(left_out)).sum())
    half = scipy.stats.t.ppf(0.975, n - 1) * error
    mean = apart.sum() / (n * (n - 1))
    assert [found.value, found.low, found.high, found.n] == pytest.approx([mean, mean - half, mean + half, n])


def test_intervals_between_paths_stay_where_ratios_and_cosines_are():
    free = between("ratio", [0.2, 0.5, 1.3], -math.inf)
    assert free.low < -4
    assert between("ratio", [0.2, 0.5, 1.3]).low == 0 and between("ratio", [0.2, 0.5, 1.3]).high == free.high
    for values, least, most in (([-0.1, 0.2, 0.6], -1, 1), ([0.2, 0.9, 1.6], 0, FURTHEST)):
        found = between("", values, least, most)
        assert least < found.low < found.value < found.high < most


def test_two_ends_have_one_distance_and_no_interval():
    found = between("apart", [1.0, 2.0])
    assert (found.value, found.n) == (1.5, 2) and math.isnan(found.low) and math.isnan(found.high)


def test_weights_that_stand_still_are_an_error(tmp_path):
    sweep, made = made_sweep(tmp_path)
    folder = made[1e-3, 1][0]
    shutil.copy(folder / "snapshots" / "epoch=000003.safetensors", folder / "snapshots" / "epoch=000006.safetensors")
    message = rf"^{folder.name}: 3\.weight did not move between epoch 3 and epoch 6; expected .*: seed=0,2$"
    with pytest.raises(ConfigError, match=message):
        measured(sweep, tmp_path)
    assert len(measured(sweep.select(seed=0), tmp_path)["paths"]) == 2  # layer and model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "4.weight"}, r"study\.layer: got 4\.weight, expected one of .* 1\.weight, 3\.weight$"),
        ({"layer": "3.bias"}, r"study\.layer: got 3\.bias, expected"),
        ({"filters": ["1.weight"]}, r"study\.filters: got 1\.weight, expected .* have none$"),
    ],
)
def test_a_layer_that_is_not_there_is_refused_before_training(changes, message):
    kept = {name: {"_target_": f"hw1.callbacks.{name}"} for name in ("WeightSnapshots", "GradientNorm")}
    runs = [checked(callbacks=kept, hidden=hidden) for hidden in ((4,), (5,))]
    study(layer="3.weight").check(runs, [])
    with pytest.raises(ConfigError, match=rf"^{message}"):
        study(**changes).check(runs, [])


def test_other_swept_keys_have_axes_of_their_own(tmp_path):
    sweep, made = made_sweep(tmp_path, seeds=(0, 1), lr=[1e-2, 1e-3])
    tables = measured(sweep, tmp_path, layer=None)
    assert set(tables) == {"trajectory_model", "paths"}
    for lr, part in tables["trajectory_model"].groupby("optimizer.lr"):
        points = np.concatenate([path_of(made[lr, seed][1], None) for seed in (0, 1)])
        oracle = PCA(2, svd_solver="full").fit(points)
        assert part["explained_1"].iloc[0] == pytest.approx(oracle.explained_variance_ratio_[0], rel=1e-8)
        assert part[["pc1", "pc2"]].to_numpy() == pytest.approx(oracle.transform(points), abs=1e-6)
    figures = study(layer=None).draw(tables, sweep.keys)
    assert set(figures) == {"trajectory_model_lr=0.01", "trajectory_model_lr=0.001"}
    assert "learning rate 0.01" in figures["trajectory_model_lr=0.01"].subfigs[0].get_suptitle()
    assert len(study(layer=None).headlines(tables, sweep.keys)) == 2 * (1 + len(BETWEEN))


def test_one_run_has_a_path_but_no_other_ends(tmp_path):
    tables = measured(made_sweep(tmp_path, seeds=(4,))[0], tmp_path)
    assert tables["paths"]["ends_over_length"].isna().all()
    found = study().headlines(tables, ["seed"])
    assert [number.name.partition(" ")[0] for number in found] == ["explained_variance"] * 2
    assert set(study().draw(tables, ["seed"])) == {"trajectory_layer", "trajectory_model"}


def test_measured_once(tmp_path, monkeypatch):
    sweep, made = made_sweep(tmp_path, seeds=(0, 1))
    first = measured(sweep, tmp_path)
    for folder, _ in made.values():  # only the last one is looked at again
        for epoch in EPOCHS[:-1]:
            (folder / "snapshots" / f"epoch={epoch:06d}.safetensors").write_bytes(b"")
    again = measured(sweep, tmp_path)
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, again[name], rtol=1e-12)


def test_failed_runs_are_left_out_and_no_run_is_no_table(tmp_path):
    sweep, made = made_sweep(tmp_path)
    shutil.rmtree(made[1e-3, 1][0])
    left = Sweep.read(sweep.path)
    assert set(measured(left, tmp_path)["paths"]["seed"]) == {0, 2}
    assert measured(Sweep(left.path, left.record), tmp_path) == {}


def test_what_the_runs_must_keep():
    kept = {"weight_snapshots": {"_target_": "hw1.callbacks.WeightSnapshots"}}
    norms = {"gradient_norm": {"_target_": "hw1.callbacks.GradientNorm"}}
    study().check([checked(callbacks=kept)], ["seed"])
    convolutions = {"_target_": "hw1.models.Cnn", "layers": ["c3(5)", 4], "width": 1, "activation": "relu"}
    own = checked(callbacks=kept | norms, model=convolutions)
    study(layer=None, filters=["0.weight"]).check([own], ["seed"])
    with pytest.raises(ConfigError, match=r"^callbacks: got none, expected WeightSnapshots among them"):
        study().check([checked(callbacks=None)], [])
    with pytest.raises(
        ConfigError, match=r"^callbacks: got WeightSnapshots, .*callbacks=\[weight_snapshots,gradient_norm"
    ):
        study(filters=["0.weight"]).check([checked(callbacks=kept)], [])


class Snapshots(WeightSnapshots):
    """A user's own."""


def test_snapshots_are_known_by_what_writes_them_not_by_its_name():
    own = {"mine": {"_target_": f"{__name__}.Snapshots", "every_n_epochs": 1}}
    study().check([checked(callbacks=own)], ["seed"])
    other = {"weight_snapshots": {"_target_": "hw1.callbacks.GradientNorm", "every_n_steps": 1, "per_layer": False}}
    with pytest.raises(ConfigError, match=r"^callbacks: got GradientNorm, expected WeightSnapshots among them"):
        study().check([checked(callbacks=other)], [])


def test_filters_at_the_smallest_gradient_norm_and_at_the_end(tmp_path):
    model = {"_target_": "hw1.models.Cnn", "layers": ["c3(5)", "c2(3)", "p2"], "width": 1, "activation": "relu"}
    folders, nets = [], {}
    for seed in (0, 1):
        folder, _ = make_run(tmp_path, seed=seed, model=model)
        for epoch in EPOCHS:
            nets[seed, epoch] = Cnn((1, 8, 8), 10, layers=model["layers"])
            save_model(nets[seed, epoch], str(folder / "snapshots" / f"epoch={epoch:06d}.safetensors"))
        trained(folder)
        folders.append(folder)
    sweep = Sweep.read(make_sweep(tmp_path, folders, ["seed"]))
    tables = measured(sweep, tmp_path, layer="2.weight", filters=["0.weight", "2.weight"])
    table = tables["filters"]
    # Norms are smallest at steps 8 and 9, those of the fifth epoch; of the snapshots', in the sixth.
    assert set(zip(table["moment"], table["epoch"], strict=True)) == {("smallest gradient norm", 6), ("end", 7)}
    norm = {6: np.median([1.5**2, 2.5**2]), 7: np.median([3.5**2, 4.5**2])}
    assert table["gradient_norm"].tolist() == pytest.approx(table["epoch"].map(norm).tolist())
    assert len(table) == 2 * 2 * (5 * 9 + 3 * 4)
    for (seed, layer, epoch), part in table.groupby(["seed", "layer", "epoch"]):
        kernels = dict(nets[seed, epoch].named_parameters())[layer]
        expected = [kernels[f, 0, i, j].item() for f, i, j in part[["filter", "row", "column"]].to_numpy()]
        assert part["value"].tolist() == pytest.approx(expected, abs=1e-9)
    figure = study(filters=["0.weight", "2.weight"]).draw(tables, ["seed"])["filters"]
    images = [image.get_array() for axes in figure.axes[:4] for image in axes.images]
    assert [image.shape for image in images] == [(7, 11), (7, 11), (5, 5), (5, 5)]  # 2 x 3 of 3 x 3; 2 x 2 of 2 x 2
    last = nets[0, 7][0].weight.detach().numpy()[:, 0]
    assert np.asarray(images[1][4:7, 4:7]) == pytest.approx(last[4], abs=1e-6) and images[1][3].mask.all()
    assert images[1].mask[4:7, 8:].all() and not images[1].mask[:3, :3].any()
    assert "seed 0" in figure.get_suptitle() and "1 more" in figure.get_suptitle()


# Drawing, from tables alone


def made_table(seeds=1, times=4, accuracy=True):
    """Random walks, as measure tabulates them."""
    generator = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        points = generator.normal(size=2) * 3 + generator.normal(size=(times, 2)).cumsum(0)
        for t, (one, two) in enumerate(points):
            rows.append(
                {
                    "seed": seed,
                    "run": f"seed={seed}",
                    "weights": LAYER,
                    "parameters": 1234,
                    "called": "weights of the output layer",
                    "epoch": 3 * t,
                    "pc1": one,
                    "pc2": two,
                    "explained_1": 0.625,
                    "explained_2": 0.25,
                    "displacement": math.nan if t == 0 else 1.5 / t,
                    "test/loss": 2 / (t + 1),
                    **({"test/accuracy": 0.1 + 0.08 * t} if accuracy else {}),
                    "data": "digits",
                    "source": "scikit-learn",
                    "n_train": 1437,
                }
            )
    return pd.DataFrame(rows)


def drawn(table):
    (figure,) = study().draw({"trajectory_layer": table}, ["seed"]).values()
    return figure


def test_every_run_is_a_path_with_its_ends_marked():
    table = made_table(8)
    plane, steps, *enlarged = drawn(table).axes
    for seed in range(8):
        run = table[table["seed"] == seed]
        for lines in (plane.lines[3 * seed : 3 * seed + 3], enlarged[seed].lines):
            path, start, end = lines
            assert path.get_xydata() == pytest.approx(run[["pc1", "pc2"]].to_numpy())
            assert (
                start.get_xydata()[0] == pytest.approx(path.get_xydata()[0]) and start.get_markerfacecolor() == "white"
            )
            assert end.get_xydata()[0] == pytest.approx(path.get_xydata()[-1]) and end.get_markerfacecolor() != "white"
        assert steps.lines[seed].get_xydata() == pytest.approx(run[["epoch", "displacement"]].to_numpy()[1:])
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in steps.lines]
    assert len(set(looks)) == 8 and len({look[0] for look in looks}) == 7
    assert len({look[1:] for look in looks}) == 8  # without colours too
    assert "62.5%" in plane.get_xlabel() and "25.0%" in plane.get_ylabel()
    assert plane.get_aspect() == 1


def test_the_title_says_what_is_drawn():
    title = drawn(made_table(2)).subfigs[0].get_suptitle()
    for words in (
        "digits",
        "scikit-learn",
        "1,437",
        "paths of the weights of the output layer (1,234)",
        "n = 2",
        "test accuracy in %",
    ):
        assert words in title
    title = drawn(made_table(accuracy=False).assign(weights="all", called="all weights")).subfigs[0].get_suptitle()
    assert "test loss" in title and "n = 1" in title and "paths of all weights (1,234)" in title


def test_a_seed_has_one_colour_in_all_figures_of_a_sweep():
    table = pd.concat([made_table(3).assign(**{"optimizer.lr": lr}) for lr in (0.1, 0.2)])
    table = table[(table["seed"] > 0) | (table["optimizer.lr"] == 0.1)]  # the first run of the second failed
    figures = study().draw({"trajectory_layer": table, "trajectory_model": table}, ["optimizer.lr", "seed"])
    looks = {}
    for figure in figures.values():
        for line in figure.axes[0].lines[::3]:
            looks.setdefault(line.get_label(), set()).add((line.get_color(), line.get_marker()))
    assert set(looks) == {"seed 0", "seed 1", "seed 2"} and all(len(own) == 1 for own in looks.values())
    assert len(figures) == 4 and len(set.union(*looks.values())) == 3


def test_labels_stand_beside_their_points_and_overlap_nothing():
    table = made_table(4, times=20)
    figure = drawn(table)
    plane, _, *enlarged = figure.axes
    for ax, part in [(plane, table), *((ax, table[table["seed"] == i]) for i, ax in enumerate(enlarged))]:
        boxes = [text.get_window_extent() for text in ax.texts]
        points = ax.transData.transform(part[["pc1", "pc2"]])
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
            assert not any(box.contains(*point) for point in points)
        for text in ax.texts:
            row = part[(part["pc1"] == text.xy[0]) & (part["pc2"] == text.xy[1])].iloc[0]
            assert text.get_text() == f"{100 * row['test/accuracy']:.1f}"
    assert len(plane.texts) >= 6  # of 8 ends
    assert all(len(ax.texts) >= 15 for ax in enlarged)  # of 20


def test_labels_do_not_pile_up_where_a_path_settles():
    table = made_table(1, times=20)
    settled = table["epoch"] >= 30  # the second half lies in a hundredth of the first one's extent
    end = table.loc[settled, ["pc1", "pc2"]].iloc[-1]
    table.loc[settled, ["pc1", "pc2"]] = end + 0.01 * (table.loc[settled, ["pc1", "pc2"]] - end)
    plane = drawn(table).axes[0]
    labels = [text.get_text() for text in plane.texts]
    late = [f"{100 * value:.1f}" for value in table.loc[settled, "test/accuracy"]]
    assert late[-1] in labels and not set(late[:-1]) & set(labels) and len(labels) > 5


def test_a_single_run_is_labelled_in_the_plane():
    figure = drawn(made_table(accuracy=False))
    assert len(figure.axes) == 2 and {text.get_text() for text in figure.axes[0].texts} == {
        "2.00",
        "1.00",
        "0.667",
        "0.500",
    }


def test_an_epoch_without_evaluation_has_no_label():
    table = made_table()
    table.loc[1, "test/accuracy"] = math.nan
    assert len(drawn(table).axes[0].texts) == 3


def test_a_shorter_last_interval_is_said():
    table = made_table()
    assert "interval has" not in drawn(table).axes[1].get_xlabel()
    table.loc[table["epoch"] == 9, "epoch"] = 7
    assert "last interval has 1 instead of 3" in drawn(table).axes[1].get_xlabel()


def test_the_saved_table_is_enough():
    table = made_table(2)
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    one, two = drawn(table), drawn(again)
    for first, second in zip(one.axes, two.axes, strict=True):
        assert [text.get_text() for text in first.texts] == [text.get_text() for text in second.texts]
        for line, other in zip(first.lines, second.lines, strict=True):
            assert line.get_xydata() == pytest.approx(other.get_xydata())


def test_small_losses_are_short():
    table = made_table(accuracy=False).assign(**{"test/loss": [12.345, 0.0123, 0.000456, 7e-12]})
    assert {text.get_text() for text in drawn(table).axes[0].texts} == {"12.3", "0.0123", "4.6e-4", "7.0e-12"}
