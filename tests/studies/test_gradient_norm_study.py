import numpy as np
import pandas as pd
import pytest

from hw1.callbacks import GradientNorm
from hw1.measures.cache import Cache
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.studies import GradientNormCurves
from made_runs import checked, make_run, make_sweep, measured_by_hand

steps = np.arange(1000)
KEYS = ["optimizer.lr", "seed"]


def write_history(folder, seed):
    """Loss 1/(step + 1) times (seed + 1); the norm is its square root, layer 1 has all of it."""
    loss = (seed + 1) / (steps + 1)
    norm = np.where(steps % 10 == 0, np.sqrt(loss), np.nan)  # measured every 10 steps
    frame = pd.DataFrame({"epoch": 0, "step": steps, "train_step/loss": loss, "gradient_norm": norm})
    frame["gradient_norm/1"], frame["gradient_norm/3"] = norm, np.where(np.isnan(norm), np.nan, 0.0)
    frame.to_csv(folder / "metrics.csv", index=False)


@pytest.fixture
def sweep(tmp_path):
    """Two learning rates x three seeds; the last of them is a dead net."""
    folders = []
    for lr in (1e-3, 1e-2):
        for seed in range(3):
            folder, _ = make_run(tmp_path, seed=seed, lr=lr)
            write_history(folder, seed)
            measured_by_hand(folder, "predictions", {"predictions/constant": float(lr == 1e-2 and seed == 2)})
            folders.append(folder)
    return Sweep.read(make_sweep(tmp_path, folders, KEYS, measures=["predictions"]))


@pytest.fixture
def tables(sweep, tmp_path):
    return GradientNormCurves(bins=10).measure(sweep, Cache(tmp_path / "measurements"))


def test_curves_are_means_over_bins_then_medians_over_seeds(tables):
    curves = tables["curves"]
    edges = np.geomspace(1, 1001, 11)
    for lr in (1e-3, 1e-2):
        part = curves[(curves["optimizer.lr"] == lr) & (curves["quantity"] == "train_step/loss")]
        bins = np.unique(np.searchsorted(edges, steps + 1, side="right"))
        assert len(part) == len(bins) >= 7
        for iteration, row in part.set_index("iteration").iterrows():
            low, high = edges[edges < iteration].max(), edges[edges > iteration].min()
            inside = (steps + 1 >= low) & (steps + 1 < high)
            mean = np.mean(1 / (steps[inside] + 1.0))
            assert [row["low"], row["median"], row["high"]] == pytest.approx([mean, 2 * mean, 3 * mean], rel=1e-12)
            assert row["n"] == 3
    layers = curves[curves["quantity"] == "gradient_norm/3"]
    assert len(layers) and (layers["high"] == 0).all()


def test_one_row_a_member_says_whether_it_is_constant(tables):
    ends = tables["ends"]
    assert list(ends["constant"]) == [False] * 5 + [True]
    assert list(ends["seed"]) == [0, 1, 2] * 2 and set(ends["train/loss"]) == {0.5}
    final = [np.sqrt((seed + 1) / (steps + 1.0)) for seed in range(3)]
    last = (steps % 10 == 0) & (steps >= 0.99 * 990)  # norms are of every tenth step
    assert list(ends["gradient_norm"][:3]) == pytest.approx([norm[last].mean() for norm in final], rel=1e-12)


def test_headlines(tables):
    lines = {line.name: line for line in GradientNormCurves(bins=10).headlines(tables, KEYS)}
    assert lines["final_loss optimizer.lr=0.001"].value == 0.5 and lines["final_loss optimizer.lr=0.001"].n == 3
    share = lines["constant_predictors optimizer.lr=0.01"]
    assert share.value == pytest.approx(1 / 3) and share.low < 1 / 3 < share.high
    paired = lines["constant_predictors optimizer.lr=0.01 minus optimizer.lr=0.001"]  # one pair of three differs
    assert paired.value == pytest.approx(1 / 3) and paired.low < 0 < paired.value < paired.high and paired.n == 3
    none = {**tables, "ends": tables["ends"].assign(constant=False)}
    assert not [line for line in GradientNormCurves(bins=10).headlines(none, KEYS) if "minus" in line.name]


def test_the_figure_shows_loss_norm_and_layers_on_log_axes(tables):
    figures = GradientNormCurves(bins=10).draw(tables, KEYS)
    assert list(figures) == ["gradient_norm"]
    axes = figures["gradient_norm"].axes
    assert len(axes) == 6 and all(ax.get_xscale() == ax.get_yscale() == "log" for ax in axes)
    curve = tables["curves"]
    curve = curve[(curve["quantity"] == "train_step/loss") & (curve["optimizer.lr"] == 1e-2)]
    line = axes[1].get_lines()[0]
    assert sorted(line.get_ydata()) == pytest.approx(sorted(curve["median"]))
    assert [text.get_text() for text in axes[5].get_legend().get_texts()] == ["dense layer", "output layer"]
    assert "one constant predictor" in axes[1].get_title() and "n = 3" in axes[0].get_title()


def test_a_run_that_was_not_measured_is_left_out_unless_none_was(sweep, tmp_path):
    def forget(run):
        for file in (run.path / "measures").iterdir():
            file.unlink()

    forget(sweep.runs[4])
    question, cache = GradientNormCurves(bins=10), Cache(tmp_path / "measurements")
    tables = question.measure(sweep, cache)
    assert list(tables["ends"]["seed"]) == [0, 1, 2, 0, 2]
    assert tables["curves"].groupby("optimizer.lr")["n"].unique().explode().to_dict() == {1e-3: 3, 1e-2: 2}
    lines = {line.name: line.n for line in question.headlines(tables, KEYS)}
    assert lines["final_loss optimizer.lr=0.01"] == 2 and question.draw(tables, KEYS)
    for run in sweep.runs[:4] + sweep.runs[5:]:
        forget(run)
    with pytest.raises(ConfigError, match=r"^measures: got nothing of predictions on .*seed=0_lr=0\.001-.* and 5 more"):
        question.measure(sweep, cache)


class Norms(GradientNorm):
    """A user's own."""


def test_a_subclass_under_another_name_logs_gradient_norms_too():
    predictions = {"predictions": {"_target_": "hw1.measures.Predictions"}}
    own = {"mine": {"_target_": f"{__name__}.Norms", "every_n_steps": 1, "per_layer": False}}
    GradientNormCurves(bins=10).check([checked(callbacks=own, measures=predictions)], [])
    other = {"gradient_norm": {"_target_": "hw1.callbacks.WeightSnapshots"}}
    with pytest.raises(ConfigError, match=r"^callbacks: got none that logs gradient norms"):
        GradientNormCurves(bins=10).check([checked(callbacks=other, measures=predictions)], [])


def test_runs_without_gradient_norms_or_predictions_are_refused():
    norms = {"callbacks": {"gradient_norm": {"_target_": "hw1.callbacks.GradientNorm"}}}
    predictions = {"measures": {"predictions": {"_target_": "hw1.measures.Predictions"}}}
    GradientNormCurves(bins=10).check([checked(**norms, **predictions)], [])
    with pytest.raises(ConfigError, match=r"^callbacks: got none that logs gradient norms, expected"):
        GradientNormCurves(bins=10).check([checked(**predictions)], [])
    with pytest.raises(ConfigError, match=r"^measures: got none, expected predictions among them: measures=\[pred"):
        GradientNormCurves(bins=10).check([checked(**norms)], [])
    with pytest.raises(ValueError, match=r"^bins: got 3, expected at least 10"):
        GradientNormCurves(bins=3)
