"""Verdicts of claims on sweeps made by hand, with statistics worked out by scipy or on paper."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml
from PIL import Image

from hw1.reproduction.claims import Rule, fill
from hw1.reproduction.finished import finished
from hw1.reproduction.statistic import in_words, statistic
from hw1.settings.about import experiments
from hw1.settings.identity import ConfigError
from hw1.studies.headlines import Headline
from made_runs import make_run, make_sweep

ROOT = Path(__file__).parents[2]
SEEDS, SIZES = (0, 1, 2, 3), (8, 16, 32)
RNG = np.random.default_rng(5)
TABLE = pd.DataFrame([{"seed": s, "size": b, "lr": lr} for s in SEEDS for b in SIZES for lr in (0.1, 1.0)])
TABLE["loss"], TABLE["gap"] = RNG.normal(size=len(TABLE)) - 0.1 * TABLE["size"], RNG.normal(size=len(TABLE))
PICTURE = Image.new("RGB", (60, 40), "white")
PICTURE.paste((0, 114, 178), (5, 5, 30, 20))
NUMBERS = [Headline("deep", 2.0, 1.5, 3.0, 10), Headline("shallow size=[5, 10]", 1.0, 0.6, 1.8, 8)]


def ended(root, seeds=SEEDS, **record):
    """A complete sweep with the table `points`, two headlines and a figure."""
    folders = [make_run(root, seed=seed)[0] for seed in seeds]
    sweep = make_sweep(root, folders, ["seed"])
    TABLE[TABLE["seed"].isin(seeds)].to_csv(sweep / "points.csv", index=False)
    PICTURE.save(sweep / "curve_a=[1].png")
    whole = json.loads((sweep / "sweep.json").read_text())
    whole |= {"status": "complete", "numbers": [vars(n) for n in NUMBERS], "files": ["points.csv", "curve_a=[1].png"]}
    (sweep / "sweep.json").write_text(json.dumps(whole | record))
    return sweep


@pytest.fixture
def one(tmp_path):
    ended(tmp_path)
    return finished(tmp_path)["hand"]


def interval(values):
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    return [np.mean(values), low, high, len(values)]


def check(found, values):
    assert [found.value, found.low, found.high, found.n] == pytest.approx(interval(values))


def test_a_trend_is_spearman_s_rho_of_each_seed(one):
    parts = [part for _, part in TABLE.groupby("seed")]
    check(
        statistic({"trend": "loss", "against": "size", "table": "points"}, one),
        [scipy.stats.spearmanr(part["size"], part["loss"])[0] for part in parts],
    )
    by_lr = [[scipy.stats.spearmanr(p["size"], p["loss"])[0] for _, p in part.groupby("lr")] for part in parts]
    node = {"trend": "loss", "against": "size", "table": "points", "within": ["lr"]}
    check(statistic(node, one), np.mean(by_lr, axis=1))


def test_the_interval_of_a_correlation_ends_at_one(one):
    table = pd.DataFrame([{"seed": s, "x": x, "y": -float(x)} for s in SEEDS for x in range(4)])
    table.loc[0, "y"] = -1.5  # one pair of seed 0 changes places
    table.to_csv(one.sweep.path / "points.csv", index=False)
    found = statistic({"trend": "y", "against": "x", "table": "points"}, one)
    mean, low, high, _ = interval([-0.8, -1, -1, -1])
    assert low < -1 and [found.value, found.low, found.high] == pytest.approx([mean, -1, high])


def test_equal_correlations_have_no_interval(one):
    table = pd.DataFrame([{"seed": s, "x": x, "y": -float(x)} for s in SEEDS for x in range(4)])
    table.to_csv(one.sweep.path / "points.csv", index=False)
    found = statistic({"trend": "y", "against": "x", "table": "points"}, one)
    assert found.value == -1 and Rule.parse("below 0").verdict(found) == "undecided (no interval)"


def test_a_correlation_is_over_all_runs_and_counts_seeds(one):
    missing = pd.DataFrame([{"seed": 9, "size": 8, "lr": 0.1}])
    pd.concat([TABLE, missing]).to_csv(one.sweep.path / "points.csv", index=False)
    some = TABLE[TABLE["lr"] == 0.1]
    node = {"correlation": "loss", "against": "size", "table": "points", "where": {"lr": 0.1}}
    found = statistic(node, one)
    assert found.value == pytest.approx(scipy.stats.spearmanr(some["size"], some["loss"])[0]) and found.n == len(SEEDS)
    generator = np.random.default_rng(1)
    picked = [some.sample(frac=1, replace=True, random_state=generator) for _ in range(2000)]
    oracle = np.nanquantile([part["size"].corr(part["loss"], "spearman") for part in picked], [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx(oracle, abs=0.05)


def test_a_difference_is_paired_by_seed(one):
    wide = TABLE[TABLE["lr"] == 0.1].pivot(index="seed", columns="size", values="loss")
    node = {"difference": "loss", "at": {"size": 32}, "from": {"size": 8}, "table": "points", "where": {"lr": 0.1}}
    check(statistic(node, one), (wide[32] - wide[8]).to_list())


def test_expressions_means_and_extremes(one):
    sums = (TABLE["loss"] - 2 * TABLE["gap"]).groupby(TABLE["seed"])
    check(statistic({"mean": "`loss` - 2 * `gap`", "table": "points"}, one), sums.mean().to_list())
    check(statistic({"smallest": "loss", "table": "points"}, one), TABLE.groupby("seed")["loss"].min().to_list())
    check(statistic({"largest": "loss", "table": "points"}, one), TABLE.groupby("seed")["loss"].max().to_list())
    rates = np.log10(TABLE["lr"] + 1).groupby(TABLE["seed"]).mean().to_list()
    assert statistic({"mean": "log10(`lr` + 1)", "table": "points"}, one).value == pytest.approx(np.mean(rates))


def test_a_peak_is_the_best_inside_over_the_best_outside(one):
    means = TABLE.pivot_table(index="seed", columns="size", values="gap")
    node = {"peak": "gap", "against": "size", "inside": [16, 32], "table": "points"}
    check(statistic(node, one), (means[[16, 32]].max(axis=1) - means[8]).to_list())
    node = {"difference": "gap", "at": {"`size` > 10": True}, "from": {"size": 8}, "table": "points"}
    check(statistic(node, one), (means[[16, 32]].mean(axis=1) - means[8]).to_list())


def test_headlines_and_their_difference(one):
    assert statistic({"headline": "deep"}, one) == NUMBERS[0]
    found = statistic({"headline": "deep", "minus": "shallow*[5,*"}, one)
    expected = [1.0, 1 - math.hypot(0.5, 0.8), 1 + math.hypot(1.0, 0.4), 8]
    assert [found.value, found.low, found.high, found.n] == pytest.approx(expected)


def test_the_history_of_members(tmp_path):
    folder, _ = make_run(tmp_path, seed=4, replicas=2)
    rows = [{"epoch": 0, "step": s, "member": m, "norm": 10.0 ** (m - s)} for s in range(4) for m in range(2)]
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    sweep = make_sweep(tmp_path, [folder], [])
    whole = json.loads((sweep / "sweep.json").read_text()) | {"status": "complete", "numbers": [], "files": []}
    (sweep / "sweep.json").write_text(json.dumps(whole))
    one = finished(tmp_path)["hand"]
    check(statistic({"smallest": "norm", "table": "history"}, one), [1e-3, 1e-2])
    assert statistic({"trend": "norm", "against": "step", "table": "history"}, one).value == -1 and one.seeds == 2


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"mean": "los", "table": "points"}, "^los: no such column; expected some of seed, size, lr, loss, gap"),
        ({"mean": "loss", "table": "curves"}, r"^table: got curves, expected history or one of points$"),
        ({"mean": "loss", "table": "points", "where": {"lr": 7}}, "where lr = 7: no rows are left"),
        (
            {"difference": "loss", "at": {"size": 9}, "from": {"size": 8}, "table": "points"},
            r"^{'size': 9}: no such row",
        ),
        ({"headline": "wide"}, r"^headline: got 'wide', expected one of: deep; shallow size=\[5, 10\]"),
        ({"median": "loss"}, "^statistic: got .*median.*expected one of headline; mean"),
        ({"trend": "loss", "against": "seed", "table": "points"}, "no seed gives a value"),
    ],
)
def test_what_cannot_be_computed_is_said(node, message, one):
    with pytest.raises(ConfigError, match=message):
        statistic(node, one)


@pytest.mark.parametrize(
    ("rule", "low", "high", "n", "verdict"),
    [
        ("above 0", 0.1, 0.3, 3, "holds"),
        ("above 0", -0.3, -0.1, 3, "does not"),
        ("above 0", -0.1, 0.3, 30, "undecided"),
        ("below 0", -0.3, -0.1, 3, "holds"),
        ("below 1e-6", 0.1, 0.3, 3, "does not"),
        ("from -1 to 1", -0.9, 0.9, 3, "holds"),
        ("from -1 to 1", 1.1, 1.2, 3, "does not"),
        ("from -1 to 1", -2.0, 2.0, 3, "undecided"),
        ("above 0", 0.1, 0.3, 2, "undecided (n < 3)"),
        ("above 0", math.nan, math.nan, 5, "undecided (no interval)"),
    ],
)
def test_verdicts(rule, low, high, n, verdict):
    assert Rule.parse(rule).verdict(Headline("x", (low + high) / 2, low, high, n)) == verdict


@pytest.mark.parametrize("text", ["over 3", "above", "from 1 to", "above x"])
def test_a_rule_that_is_none(text):
    with pytest.raises(ConfigError, match=r"^holds: got"):
        Rule.parse(text)


CLAIM = {
    "claim": "it falls",
    "report": "002",
    "experiment": "hand",
    "statistic": {"trend": "loss", "against": "size", "table": "points"},
    "holds": "below 0",
}


def rows(checkout):
    with (checkout / "docs" / "claims.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_tables_of_claims(tmp_path):
    (tmp_path / "docs").mkdir()
    claims = [CLAIM, {**CLAIM, "claim": "it is not run", "experiment": "other"}]
    claims.append({**CLAIM, "claim": "it has no column", "statistic": {"mean": "speed", "table": "points"}})
    (tmp_path / "docs" / "claims.yaml").write_text(yaml.safe_dump(claims))
    ended(tmp_path / "multirun")
    (problem,) = fill(tmp_path, tmp_path / "multirun")
    assert problem.startswith("docs/claims.yaml: it has no column: speed: no such column")
    first, second, third = rows(tmp_path)
    assert (first["verdict"], first["n"], first["rule"]) == ("holds", "4", "below 0")
    assert second["verdict"] == third["verdict"] == "not measured" and second["estimate"] == ""
    with Image.open(tmp_path / "docs" / first["figure"]) as copy:
        assert copy.size == PICTURE.size
        assert np.abs(np.asarray(copy.convert("RGB"), int) - np.asarray(PICTURE, int)).max() <= 8
    text = (tmp_path / "docs" / "claims.md").read_text()
    assert "| holds | [figure](claims/hand_curve_a=%5B1%5D.png) |" in text and text.count("not measured") == 2
    before = (tmp_path / "docs" / "claims.csv").read_text()
    fill(tmp_path, tmp_path / "nowhere")  # what was measured stays
    assert (tmp_path / "docs" / "claims.csv").read_text() == before
    ended(tmp_path / "quick", seeds=(0, 1), budget="quick", command=["experiment=other", "budget=quick"])
    fill(tmp_path, tmp_path / "quick")
    assert [row["verdict"] for row in rows(tmp_path)[:2]] == ["holds", "undecided (n < 3) (quick budget)"]


def test_the_claims_of_the_reports_can_be_read_and_name_experiments():
    known = experiments(ROOT / "conf")
    claims = yaml.safe_load((ROOT / "docs" / "claims.yaml").read_text(encoding="utf-8"))
    assert {claim["report"] for claim in claims} == {"000", "001", "002", "003", "004"}
    for claim in claims:
        Rule.parse(claim["holds"])
        assert in_words(claim["statistic"])
        assert claim["experiment"] in known
    with (ROOT / "docs" / "claims.csv").open(newline="") as file:
        written = [(row["claim"], row["report"], row["statistic"], row["rule"]) for row in csv.DictReader(file)]
    assert written == [(c["claim"], c["report"], in_words(c["statistic"]), c["holds"]) for c in claims], (
        "run python -m hw1 claims"
    )
