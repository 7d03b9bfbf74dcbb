import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from scipy.stats import spearmanr

from hw1.measures.cache import Cache
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.studies import MinRatio
from hw1.studies.correlations import correlation_headline
from hw1.studies.headlines import median_headline, share_headline
from made_runs import checked, make_run, make_sweep, measured_by_hand


def rows(n=40, seed=0):
    """Points after training, and after a search: most converged, five constant, five stalled far off the trend."""
    random = np.random.default_rng(seed)
    trained = pd.DataFrame({"member": range(n), "epoch": 9, "phase": "training", "reason": "not converged"})
    trained["loss"], trained["positive"] = random.random(n), random.random(n)
    searched = trained.assign(phase="search", reason="converged")
    searched["positive"] = 0.9 - searched["loss"] / 2 + 0.05 * random.standard_normal(n)
    searched.loc[:4, ["reason", "positive", "loss"]] = "stalled", 0.99, 0.99
    both = pd.concat([trained, searched], ignore_index=True).assign(constant=False, sampled=0.7, sampled_error=0.01)
    both.loc[both.index[-5:], ["constant", "positive"]] = True, 0.001
    return both.assign(negative=1 - both["positive"], estimator="eigenvalues", gradient_norm=1e-7)


@pytest.fixture
def tables(tmp_path):
    folder, _ = make_run(tmp_path, replicas=40)
    measured_by_hand(folder, "minimal_ratio", rows=json.loads(rows().to_json(orient="records", double_precision=15)))
    sweep = Sweep.read(make_sweep(tmp_path, [folder], [], measures=["minimal_ratio"]))
    return MinRatio().measure(sweep, Cache(tmp_path / "measurements"))


def test_numbers_are_over_converged_points_that_are_not_constant(tables):
    points = tables["points"]
    used = points[points["phase"] == "search"].iloc[5:-5]
    assert points["counted"].sum() == 30 and set(points.index[points["counted"]]) == set(used.index)
    lines = {line.name: line for line in MinRatio().headlines(tables, [])}
    rho = lines["spearman_rho_positive phase=search"]
    assert rho.value == pytest.approx(spearmanr(used["loss"], used["positive"]).statistic, rel=1e-12)
    assert rho.n == 30 and rho.low < rho.value < rho.high < -0.5
    assert lines["positive_share phase=search"].value == pytest.approx(used["positive"].median())
    assert (
        lines["converged phase=search"].value == 35 / 40 and lines["constant_predictors phase=search"].value == 5 / 40
    )


@pytest.mark.parametrize("values", [12, 4])
def test_points_of_one_loss_are_one_observation(values, tables):
    """Ten searches end at each value of the loss, to its fourth digit."""
    random = np.random.default_rng(0)
    loss = np.repeat(0.1 + 0.05 * np.arange(values), 10) + 1e-6 * random.random(10 * values)
    one = tables["points"][tables["points"]["counted"]].iloc[[0] * len(loss)].assign(loss=loss)
    points = one.assign(positive=0.9 - loss / 2 + 0.05 * random.standard_normal(len(loss)), member=range(len(loss)))
    lines = {line.name: line for line in MinRatio().headlines({"points": points}, [])}
    sentences = MinRatio().answer({"points": points}, [], []).sentences
    if values == 4:
        assert not [name for name in lines if "rho" in name or "share" in name]
        assert "only 40 that are there and not constant, at four values of the loss, nothing follows" in sentences[-1]
        return
    means = points.groupby(np.repeat(range(values), 10))[["loss", "positive"]].mean()
    rho, share = lines["spearman_rho_positive phase=search"], lines["positive_share phase=search"]
    assert rho.value == pytest.approx(spearmanr(means["loss"], means["positive"]).statistic)
    assert rho.n == share.n == 12 and share.value == pytest.approx(means["positive"].median())
    assert "12 values)" in sentences[1]


def test_no_conclusion_from_points_that_did_not_converge(tables):
    assert not [line for line in MinRatio().headlines(tables, []) if "rho" in line.name and "training" in line.name]


def test_reasons_are_counted(tables):
    reasons = tables["reasons"].set_index(["phase", "reason", "constant"])["points"]
    assert reasons["search", "stalled", False] == 5 and reasons["search", "converged", True] == 5
    assert reasons.sum() == 80


def test_a_reason_of_an_earlier_version_has_the_name_of_today(tmp_path):
    folder, _ = make_run(tmp_path, replicas=40)
    stored = json.loads(rows().replace({"not converged": "budget"}).to_json(orient="records", double_precision=15))
    measured_by_hand(folder, "minimal_ratio", rows=stored)
    sweep = Sweep.read(make_sweep(tmp_path, [folder], [], measures=["minimal_ratio"]))
    points = MinRatio().measure(sweep, Cache(tmp_path / "measurements"))["points"]
    assert set(points["reason"]) == {"not converged", "converged", "stalled"}


def test_the_figure_draws_every_point_and_fills_those_that_count(tables):
    (figure,) = MinRatio().draw(tables, []).values()
    assert len(figure.axes) == 4 and figure.axes[0].get_yscale() == "log"
    after = figure.axes[1]
    drawn = {}
    for container in after.containers:
        line = container[0]
        filled = to_rgba(line.get_markerfacecolor())[3] > 0
        drawn[line.get_marker(), filled] = len(line.get_xdata())
    assert drawn == {("o", True): 30, ("X", False): 5, ("^", False): 5}
    assert "30 of 40 converged" in after.get_title()
    assert figure.axes[0].get_ylabel() == "loss (nats, log scale)"  # of classes
    (figure,) = MinRatio().draw({"points": tables["points"].assign(loss_unit=np.nan)}, []).values()
    assert figure.axes[0].get_ylabel() == "loss (log scale)"  # as a table that was read back has it of a function


def test_runs_that_do_not_measure_are_refused():
    with pytest.raises(ConfigError, match=r"^measures: got none, expected minimal_ratio .*measures=\[minimal_ratio\]$"):
        MinRatio().check([checked()], [])


def test_a_run_that_was_not_measured_is_left_out_unless_none_was(tmp_path):
    (one, _), (two, _) = (make_run(tmp_path, seed=seed) for seed in (0, 1))
    sweep = Sweep.read(make_sweep(tmp_path, [one, two], ["seed"], measures=["minimal_ratio"]))
    with pytest.raises(ConfigError, match=r"^measures: got nothing of minimal_ratio on .* and 1 more; run the command"):
        MinRatio().measure(sweep, Cache(tmp_path))
    measured_by_hand(two, "minimal_ratio", rows=json.loads(rows(1).to_json(orient="records")))
    tables = MinRatio().measure(sweep, Cache(tmp_path))
    assert set(tables["points"]["run"]) == {two.name} and set(tables["points"]["seed"]) == {1}
    assert MinRatio().headlines(tables, sweep.keys) and MinRatio().draw(tables, sweep.keys)


def test_points_that_are_not_finite_are_counted_and_not_drawn(tmp_path):
    folder, _ = make_run(tmp_path, replicas=40)
    made = rows()
    numbers = ["loss", "positive", "negative", "sampled", "sampled_error", "gradient_norm", "estimator"]
    made[[*numbers, "constant"]] = made[[*numbers, "constant"]].astype(object)
    for first in (0, 50):  # of each phase three, the first row among them
        made.loc[first : first + 2, "reason"] = "not finite"
        made.loc[first : first + 2, [*numbers, "constant"]] = None
    measured_by_hand(folder, "minimal_ratio", rows=json.loads(made.to_json(orient="records", double_precision=15)))
    sweep = Sweep.read(make_sweep(tmp_path, [folder], [], measures=["minimal_ratio"]))
    tables = MinRatio().measure(sweep, Cache(tmp_path))
    reasons = tables["reasons"].set_index(["phase", "reason", "constant"])["points"]
    assert reasons["search", "not finite", False] == reasons["training", "not finite", False] == 3
    assert reasons.sum() == 80
    lines = {line.name: line for line in MinRatio().headlines(tables, [])}
    assert lines["converged phase=search"].value == 32 / 40
    assert lines["spearman_rho_positive phase=search"].n == 27
    (figure,) = MinRatio().draw(tables, []).values()
    assert "eigenvalues (all)" in figure.axes[2].get_xlabel() + figure.axes[0].get_xlabel()
    assert sum(len(container[0].get_xdata()) for container in figure.axes[1].containers) == 37
    assert "not finite" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_interval_covers_the_correlation_at_the_stated_rate():
    """Of a bivariate normal with r = 0.7: Spearman's rho is 6/pi asin(r/2)."""
    truth = 6 / np.pi * np.arcsin(0.35)
    random, covered = np.random.default_rng(1), 0
    for _ in range(200):
        x = random.standard_normal(50)
        y = 0.7 * x + np.sqrt(1 - 0.49) * random.standard_normal(50)
        line = correlation_headline("rho", list(x), list(y), resamples=400)
        covered += line.low <= truth <= line.high
    assert 0.88 <= covered / 200 <= 0.99


def test_too_few_or_equal_values_have_no_correlation():
    assert np.isnan(correlation_headline("rho", [1, 2], [1, 2]).value)
    four = correlation_headline("rho", [1, 2, 3, 4], [1, 2, 3, 4])  # 2 of 24 orders are as extreme
    assert four.value == 1 and np.isnan(four.low)
    assert np.isnan(correlation_headline("rho", [1] * 8, list(range(8))).value)


def test_medians_and_shares_have_exact_intervals():
    line = median_headline("m", [5.0, 1.0, 2.0, 4.0, 3.0, 8.0, 7.0, 6.0])
    assert (line.value, line.low, line.high, line.n) == (4.5, 1.0, 8.0, 8)  # 1 - 2/256 is the first rank above 95%
    assert np.isnan(median_headline("m", [1.0, 2.0]).low)
    share = share_headline("s", 0, 10)
    assert share.value == 0 and share.low == 0 and share.high == pytest.approx(0.2775, abs=1e-4)  # Wilson
