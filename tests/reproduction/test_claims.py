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

from hw1.reproduction.claims import fill
from hw1.reproduction.finished import finished
from hw1.reproduction.results import COLUMNS
from hw1.reproduction.statistic import statistic
from hw1.reproduction.verdicts import Rule, both
from hw1.reproduction.wording import method, statistic_in_words
from hw1.settings.about import experiments
from hw1.settings.identity import ConfigError
from hw1.studies.headlines import Headline
from made_runs import make_run, make_sweep

ROOT = Path(__file__).parents[2]
SEEDS, SIZES = (0, 1, 2, 3, 4), (8, 16, 32)
RNG = np.random.default_rng(5)
TABLE = pd.DataFrame([{"seed": s, "size": b, "lr": lr} for s in SEEDS for b in SIZES for lr in (0.1, 1.0)])
TABLE["test/accuracy"], TABLE["constant"] = 0.98 + 0.02 * RNG.random(len(TABLE)), RNG.random(len(TABLE)) < 0.4
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


def check_bounded(found, values, least):
    """Student's interval of the logit of the mean's place between `least` and 1, by the delta method."""
    mean, low, high, n = interval(values)
    place = (mean - least) / (1 - least)
    half = (high - mean) / (1 - least) / (place * (1 - place))
    ends = least + (1 - least) * scipy.special.expit(scipy.special.logit(place) + np.array([-half, half]))
    assert [found.value, found.low, found.high, found.n] == pytest.approx([mean, *ends, n])
    assert least < found.low < found.high < 1 and low < mean < high


def test_a_trend_is_spearman_s_rho_of_each_seed(one):
    parts = [part for _, part in TABLE.groupby("seed")]
    check_bounded(
        statistic({"trend": "gap", "against": "size", "table": "points"}, one),
        [scipy.stats.spearmanr(part["size"], part["gap"])[0] for part in parts],
        -1,
    )
    by_lr = [[scipy.stats.spearmanr(p["size"], p["gap"])[0] for _, p in part.groupby("lr")] for part in parts]
    node = {"trend": "gap", "against": "size", "table": "points", "within": ["lr"]}
    check_bounded(statistic(node, one), np.mean(by_lr, axis=1), -1)


def test_the_interval_of_a_correlation_ends_at_one(one):
    table = pd.DataFrame([{"seed": s, "x": x, "y": -float(x)} for s in SEEDS for x in range(4)])
    table.loc[0, "y"] = -1.5  # one pair of seed 0 changes places
    table.to_csv(one.sweep.path / "points.csv", index=False)
    found = statistic({"trend": "y", "against": "x", "table": "points"}, one)
    check_bounded(found, [-0.8, -1, -1, -1, -1], -1)
    assert interval([-0.8, -1, -1, -1, -1])[1] < -1 < found.low


def test_equal_correlations_have_no_interval(one):
    table = pd.DataFrame([{"seed": s, "x": x, "y": -float(x)} for s in SEEDS for x in range(4)])
    table.to_csv(one.sweep.path / "points.csv", index=False)
    found = statistic({"trend": "y", "against": "x", "table": "points"}, one)
    assert found.value == -1 and Rule.parse("below 0").verdict(found) == "undecided (no interval)"


def test_a_correlation_exchanges_within_seeds_and_counts_them(one):
    missing = pd.DataFrame([{"seed": 9, "size": 8, "lr": 0.1}])
    pd.concat([TABLE, missing]).to_csv(one.sweep.path / "points.csv", index=False)
    some = TABLE[TABLE["lr"] == 0.1]
    node = {"correlation": "loss", "against": "size", "table": "points", "where": {"lr": 0.1}}
    found = statistic(node, one)
    distance = some["loss"] - some.groupby("seed")["loss"].transform("mean")
    rho = scipy.stats.spearmanr(some["size"], distance)[0]
    assert found.value == pytest.approx(rho) and found.n == len(SEEDS)
    generator = np.random.default_rng(1)
    ranks = distance.rank()
    orders = [ranks.groupby(some["seed"]).transform(lambda r: generator.permutation(r)) for _ in range(1000)]
    half = np.quantile([abs(np.arctanh(some["size"].rank().corr(order))) for order in orders], 0.95)
    assert [found.low, found.high] == pytest.approx(np.tanh(np.arctanh(rho) + np.array([-half, half])), abs=0.05)


def test_a_correlation_given_a_third_quantity_is_partial(one):
    """By least squares on the third and on dummies of the seeds; y goes with it alone."""
    table = TABLE.assign(gap=TABLE["loss"] * 2 + 0.01 * TABLE["gap"])
    table.to_csv(one.sweep.path / "points.csv", index=False)
    node = {"correlation": "gap", "against": "size", "table": "points"}
    plain, found = statistic(node, one), statistic({**node, "given": "loss"}, one)
    design = np.column_stack([table["loss"], pd.get_dummies(table["seed"])]).astype(float)
    left = [v - design @ np.linalg.lstsq(design, v)[0] for v in (table["size"].rank().to_numpy(), table["gap"])]
    assert found.value == pytest.approx(np.corrcoef(left[0], scipy.stats.rankdata(left[1]))[0, 1], abs=1e-9)
    assert plain.high < 0 and found.low < 0 < found.high and found.n == len(SEEDS)


def test_a_correlation_of_means_counts_what_has_means(one):
    node = {"correlation": "gap", "against": "loss", "table": "points", "means": ["size", "lr"]}
    means = TABLE.groupby(["size", "lr"]).mean()
    found = statistic(node, one)
    assert found.value == pytest.approx(scipy.stats.spearmanr(means["loss"], means["gap"])[0]) and found.n == 6


def test_accuracies_stay_below_1(one):
    means = TABLE.groupby("seed")["test/accuracy"].mean().to_list()
    check_bounded(statistic({"mean": "test/accuracy", "table": "points"}, one), means, 0)
    best = TABLE.groupby("seed")["test/accuracy"].max().to_list()
    check_bounded(statistic({"largest": "test/accuracy", "table": "points"}, one), best, 0)
    wide = TABLE.pivot_table(index="seed", columns="size", values="test/accuracy")
    node = {"difference": "test/accuracy", "at": {"size": 32}, "from": {"size": 8}, "table": "points"}
    check_bounded(statistic(node, one), (wide[32] - wide[8]).to_list(), -1)


def test_shares_of_nets_alone_and_paired_by_seed(one):
    where = {"size": 8}
    share = statistic({"share": "constant", "table": "points", "where": {**where, "lr": 0.1}}, one)
    some = TABLE[TABLE["size"] == 8].pivot(index="seed", columns="lr", values="constant").astype(int)
    wilson = scipy.stats.binomtest(some[0.1].sum(), 5).proportion_ci(method="wilson")
    assert [share.value, share.low, share.high, share.n] == pytest.approx([some[0.1].mean(), *wilson, 5])
    node = {"paired": "constant", "table": "points", "where": where, "at": {"lr": 1.0}, "from": {"lr": 0.1}}
    found, only = statistic(node, one), [(some[1.0] > some[0.1]).sum(), (some[1.0] < some[0.1]).sum()]
    assert found.value == pytest.approx((only[0] - only[1]) / 5) and found.low < found.value < found.high
    assert sum(only) and found.n == 5
    with pytest.raises(ConfigError, match="several nets of one seed"):
        statistic({**node, "where": {}}, one)


def test_a_geometric_mean_is_student_s_of_logarithms(one):
    node = {"geometric_mean": "size", "table": "points", "where": {"size": 8}}
    assert statistic(node, one).value == pytest.approx(8)
    rates = TABLE.assign(rate=lambda table: np.exp(table["gap"])).groupby("seed")["rate"].mean()
    TABLE.assign(rate=np.exp(TABLE["gap"])).to_csv(one.sweep.path / "points.csv", index=False)
    found = statistic({"geometric_mean": "rate", "table": "points"}, one)
    assert [found.value, found.low, found.high] == pytest.approx(np.exp(interval(np.log(rates))[:3]))


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


@pytest.mark.parametrize("beyond", ["above 10", "from 16 to 32", "from 15.5 to 100"])
def test_a_value_may_be_a_range(beyond, one):
    means = TABLE.pivot_table(index="seed", columns="size", values="gap")
    node = {"difference": "gap", "at": {"size": beyond}, "from": {"size": "below 16"}, "table": "points"}
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
        (
            {"mean": "los", "table": "points"},
            "^los: no such column; expected some of seed, size, lr, test/accuracy, constant, loss, gap",
        ),
        ({"mean": "loss", "table": "curves"}, r"^table: got curves, expected history or one of points$"),
        ({"mean": "loss", "table": "points", "where": {"lr": 7}}, "mean loss .*7.*: no rows are left"),
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
        ("above 0", -0.3, -0.1, 3, "does not hold"),
        ("above 0", -0.1, 0.3, 30, "undecided"),
        ("below 0", -0.3, -0.1, 3, "holds"),
        # A claim of more than 0 is not that of 0 or more.
        ("above 0", 0.0, 1.59, 3, "undecided"),
        ("above 0", -0.5, 0.0, 3, "does not hold"),
        ("above 0", 0.0, 0.0, 3, "does not hold"),
        ("above 0", 5e-324, 1.0, 3, "holds"),
        ("below 1", 0.9, 1.0, 3, "undecided"),
        ("below 1", 1.0, 1.2, 3, "does not hold"),
        ("from 0 to 1", 0.0, 1.0, 3, "holds"),
        ("from 0 to 1", 1.0, 1.5, 3, "undecided"),
        ("below 1e-6", 0.1, 0.3, 3, "does not hold"),
        ("from -1 to 1", -0.9, 0.9, 3, "holds"),
        ("from -1 to 1", 1.1, 1.2, 3, "does not hold"),
        ("from -1 to 1", -2.0, 2.0, 3, "undecided"),
        ("above 0", math.nan, math.nan, 5, "undecided (no interval)"),
    ],
)
def test_verdicts(rule, low, high, n, verdict):
    assert Rule.parse(rule).verdict(Headline("x", (low + high) / 2, low, high, n)) == verdict


@pytest.mark.parametrize("text", ["over 3", "above", "from 1 to", "above x"])
def test_a_rule_that_is_none(text):
    with pytest.raises(ConfigError, match=r"^holds: got"):
        Rule.parse(text)


TEST = {"split": "test"}
TRY, NOT, MAYBE, RUN = "holds", "does not hold", "undecided", "to be run again"


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (TRY, TRY, TRY), (NOT, NOT, NOT), (TRY, NOT, "depends on the comparison"), (MAYBE, MAYBE, MAYBE),
        (TRY, MAYBE, MAYBE), (NOT, "undecided (no interval)", MAYBE), (RUN, TRY, RUN), (RUN, RUN, RUN),
    ],
)  # fmt: skip
def test_two_comparisons_must_agree(one, other, verdict):
    assert both(one, other) == both(other, one) == verdict


@pytest.mark.parametrize(
    ("node", "words", "kind"),
    [
        (
            {"difference": "accuracy", "at": {"alpha": "above 1.5"}, "from": {"alpha": 1.0}, "where": TEST},
            "test accuracy beyond alpha 1.5 minus at alpha 1",
            "Student's of the logit",
        ),
        (
            {"correlation": "`test/loss` - `train/loss`", "against": "dataset.batch_size", "where": {"reached": True}},
            "rank correlation of test loss minus train loss with batch size (at equal train loss)",
            "exchanged within seeds",
        ),
        (
            {"correlation": "sensitivity/loss", "against": "dataset.batch_size", "given": "train/loss"},
            "rank correlation of sensitivity of the loss with batch size, given the train loss",
            "residuals exchanged within seeds",
        ),
        (
            {"difference": "accuracy", "at": {"alpha": "from 0 to 0.5"}, "from": {"alpha": "above 1.5"}, "where": TEST},
            "test accuracy over alpha from 0 to 0.5 minus beyond alpha 1.5",
            "Student's of the logit",
        ),
        (
            {"correlation": "sharpness/keskar_1e-3", "against": "parameters", "means": ["model", "seed"]},
            "rank correlation of Keskar's sharpness, ε = 1e-3 with number of weights, means of each model and seed",
            "exchanged means",
        ),
        (
            {"paired": "constant", "at": {"optimizer.weight_decay": 1e-3}, "from": {"optimizer.weight_decay": 0.0}},
            "share of constant nets at weight decay 0.001 minus at weight decay 0, of the same starts",
            "McNemar's exact test",
        ),
        ({"difference": "log10(`train/loss`)", "at": {"parameters": 1401}, "from": {"parameters": 1402}},
         "log10(train loss) with 1,401 weights minus with 1,402 weights", "Student's"),
        ({"mean": "negative", "where": {"phase": "training"}},
         "mean share of negative eigenvalues (after training)", "Student's of the logit"),
        ({"trend": "loss", "against": "step", "where": {"model": "m"}, "within": ["optimizer", "optimizer.lr"]},
         "rank correlation of loss with step along each run (dense, 5 weights), averaged over optimizers and learning "
         "rates", "Student's of Fisher's z"),
        ({"headline": "end_distance_over_independent weights=all optimizer=m"},
         "distance between ends over that of independent directions (all weights, optimizer dense, 5 weights)",
         "the jackknife's over paths"),
        ({"mean": "`train/accuracy` - `test/accuracy`"}, "mean train accuracy minus test accuracy",
         "Student's of the logit"),
    ],
)  # fmt: skip
def test_a_statistic_in_words(node, words, kind):
    assert (statistic_in_words(node, {"m": "dense, 5 weights"}), method(node)) == (words, kind)


CLAIM = {
    "claim": "it falls",
    "report": "002",
    "experiment": "hand",
    "statistic": {"difference": "loss", "at": {"size": 32}, "from": {"size": 8}, "table": "points"},
    "holds": "below 0",
}


def rows(checkout):
    with (checkout / "docs" / "claims.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(checkout, claims, commands=None):
    (checkout / "docs").mkdir(exist_ok=True)
    node = {"commands": commands or {}, "claims": claims}
    (checkout / "docs" / "claims.yaml").write_text(yaml.safe_dump(node))


def test_the_tables_of_claims(tmp_path):
    claims = [{**CLAIM, "note": "asked late"}, {**CLAIM, "claim": "it is not run", "experiment": "other"}]
    claims.append({**CLAIM, "claim": "it has no column", "statistic": {"mean": "speed", "table": "points"}})
    write(tmp_path, claims, {"other": {"words": "seed=0,1,2,3,4", "hours": 3}})
    ended(tmp_path / "multirun")
    (tmp_path / "docs" / "questions").mkdir()
    (tmp_path / "docs" / "questions" / "hand.md").write_text("# Does it fall?\n\nYes.\n")
    (problem,) = fill(tmp_path, tmp_path / "multirun")
    assert problem.startswith("docs/claims.yaml: it has no column: speed: no such column")
    first, second, third = rows(tmp_path)
    assert (first["verdict"], first["n"], first["seeds"], first["rule"]) == ("holds", "5", "5", "below 0")
    assert second["verdict"] == third["verdict"] == RUN and second["estimate"] == ""
    assert second["command"] == "python train.py experiment=other seed=0,1,2,3,4" and second["time"] == "about 3 hours"
    with Image.open(tmp_path / "docs" / first["figure"]) as copy:
        assert copy.size == PICTURE.size
        assert np.abs(np.asarray(copy.convert("RGB"), int) - np.asarray(PICTURE, int)).max() <= 8
    text = (tmp_path / "docs" / "claims.md").read_text()
    assert (
        "- **holds**: it falls (report 002) *asked late*\n" in text
        and "[figure](claims/hand_curve_a=%5B1%5D.png) |" in text
    )
    assert (
        "\nOf 3 claims 1 hold (0 of them exploratory), 0 do not\n(0), 0 depend" in text
        and "\n2 are to be run again, by" in text
    )
    assert (
        "of 1 claims whose truth lies at the edge" in text
        and "\n## Does it fall?\n" in text
        and text.count("<details>") == 2
    )
    before = (tmp_path / "docs" / "claims.csv").read_text()
    fill(tmp_path, tmp_path / "nowhere")  # what was measured stays
    assert (tmp_path / "docs" / "claims.csv").read_text() == before
    ended(tmp_path / "quick", budget="quick", command=["experiment=other", "budget=quick"])
    fill(tmp_path, tmp_path / "quick")  # and is not told by a quick sweep
    assert (tmp_path / "docs" / "claims.csv").read_text() == before


def test_verdicts_of_fewer_seeds_or_another_interval_are_not_kept(tmp_path):
    write(tmp_path, [CLAIM])
    ended(tmp_path / "multirun")
    fill(tmp_path, tmp_path / "multirun")
    (kept,) = rows(tmp_path)
    for commands, method_of in (({"hand": {"seeds": 10}}, "Student's"), ({}, "bootstrap")):
        write(tmp_path, [CLAIM], commands)
        changed = (tmp_path / "docs" / "claims.csv").read_text().replace("Student's", method_of)
        (tmp_path / "docs" / "claims.csv").write_text(changed)
        fill(tmp_path, tmp_path / "nowhere")
        (row,) = rows(tmp_path)
        assert (row["verdict"], row["n"], row["low"], row["estimate"]) == (RUN, "", "", kept["estimate"])
    assert f"{RUN}; before, over 5 seeds: {kept['estimate']}" in (tmp_path / "docs" / "claims.md").read_text()
    write(tmp_path, [CLAIM], {"hand": {"seeds": 10}})
    fill(tmp_path, tmp_path / "multirun")  # finished, but of too few
    assert rows(tmp_path)[0]["verdict"] == RUN


def test_the_time_of_a_command_follows_from_its_seeds(tmp_path):
    write(tmp_path, [CLAIM], {"hand": {"seeds": 9}})
    row = dict.fromkeys(COLUMNS, "") | {"command": "python train.py experiment=hand", "budget": "full"}
    with (tmp_path / "docs" / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerow(row | {"seeds": "3", "seconds": "600"})
    fill(tmp_path, tmp_path / "nowhere")
    assert rows(tmp_path)[0]["time"] == "about 30 minutes"


@pytest.mark.parametrize(("gap", "verdict"), [(-1, "holds"), (1, "depends on the comparison"), (0, "undecided")])
def test_like_with_like(gap, verdict, tmp_path):
    """A claim after equal epochs, and a variant of the experiment beside it, which decides nothing alone."""
    beside = {"experiment": "hand at equal loss", "statistic": {**CLAIM["statistic"], "difference": "gap"}}
    commands = {"hand at equal loss": {"experiment": "hand", "words": "seed=0,1,2,3,4 'callbacks=[default,stop]'"}}
    write(tmp_path, [{**CLAIM, "beside": beside}], commands)
    ended(tmp_path / "multirun")
    fill(tmp_path, tmp_path / "multirun")
    assert rows(tmp_path)[0]["verdict"] == RUN and rows(tmp_path)[0]["estimate"]
    sweep = ended(tmp_path / "other", command=["experiment=hand", "seed=0,1,2,3,4", "callbacks=[default,stop]"])
    TABLE.assign(gap=TABLE["gap"] * 0.01 + gap * TABLE["size"]).to_csv(sweep / "points.csv", index=False)
    fill(tmp_path, tmp_path / "other")
    (row,) = rows(tmp_path)
    assert row["n"] == row["beside_n"] == "5"  # what the first sweep said is kept
    assert row["verdict"] == verdict
    text = (tmp_path / "docs" / "claims.md").read_text()
    assert (
        f"- **{verdict}**: it falls" in text
        and "| the same, at equal train loss | gap at size 32 minus at size 8 |" in text
    )


def test_the_claims_of_the_reports_can_be_read_and_name_experiments():
    known = experiments(ROOT / "conf")
    node = yaml.safe_load((ROOT / "docs" / "claims.yaml").read_text(encoding="utf-8"))
    claims, commands = node["claims"], node["commands"]
    assert {claim["report"] for claim in claims} == {"000", "001", "002", "003", "004"}
    for claim in claims:
        Rule.parse(claim["holds"])
        for part in (claim, claim.get("beside", claim)):
            assert statistic_in_words(part["statistic"], node["called"])
            assert commands.get(part["experiment"], {}).get("experiment", part["experiment"]) in known
    named = {part["experiment"] for claim in claims for part in (claim, claim.get("beside", claim))}
    assert set(commands) <= named and len({claim["claim"] for claim in claims}) == len(claims)
    with (ROOT / "docs" / "claims.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    for claim, row in zip(claims, written, strict=True):
        told = {name: claim.get(name, "") for name in ("claim", "report", "note", "changed")} | {"rule": claim["holds"]}
        for prefix, part in (("", claim), ("beside_", claim.get("beside"))):
            words = (
                (statistic_in_words(part["statistic"], node["called"]), method(part["statistic"])) if part else ("", "")
            )
            told |= dict(zip((f"{prefix}statistic", f"{prefix}method"), words, strict=True))
        assert {name: row[name] for name in told} == told, "run python -m hw1 claims"


def test_a_command_of_new_seeds_is_not_judged_by_old_ones(tmp_path):
    """Not by a sweep of theirs, not by what was written of one before."""
    write(tmp_path, [CLAIM])
    ended(tmp_path / "multirun")
    fill(tmp_path, tmp_path / "multirun")
    assert rows(tmp_path)[0]["verdict"] == "holds"
    write(tmp_path, [CLAIM], {"hand": {"words": "seed=5,6,7,8,9"}})
    for output in ("multirun", "nowhere"):
        (tmp_path / output).mkdir(exist_ok=True)
        fill(tmp_path, tmp_path / output)
        assert rows(tmp_path)[0]["verdict"] == RUN and rows(tmp_path)[0]["estimate"]
    new = ended(tmp_path / "new", seeds=range(5, 10), command=["experiment=hand", "seed=5,6,7,8,9"])
    TABLE.assign(seed=TABLE["seed"] + 5).to_csv(new / "points.csv", index=False)
    for output in ("new", "nowhere"):
        fill(tmp_path, tmp_path / output)
        assert rows(tmp_path)[0]["verdict"] == "holds" and "seed=5,6,7,8,9" in rows(tmp_path)[0]["command"]


def test_a_changed_rule_makes_a_verdict_exploratory(tmp_path):
    changed = {**CLAIM, "claim": "it fell", "changed": "the mean was compared at first"}
    write(tmp_path, [CLAIM, changed])
    ended(tmp_path / "multirun")
    fill(tmp_path, tmp_path / "multirun")
    text = (tmp_path / "docs" / "claims.md").read_text()
    assert (
        "\n- **holds**: it falls (report 002)\n" in text
        and "\nOf 2 claims 2 hold (1 of them exploratory), 0 do not\n(0), 0 depend" in text
    )
    assert (
        "\n- **holds**, exploratory: it fell (report 002) *The rule was changed: the mean was compared at first.*\n"
        in text
    )


def test_gaps_and_sharpness_against_batch_size_are_compared_twice():
    node = yaml.safe_load((ROOT / "docs" / "claims.yaml").read_text(encoding="utf-8"))
    against = [c for c in node["claims"] if c["statistic"].get("against") == "dataset.batch_size"]
    assert against and all("beside" in claim for claim in against if "correlation" in claim["statistic"])


def test_a_share_of_nets_rests_on_a_hundred():
    node = yaml.safe_load((ROOT / "docs" / "claims.yaml").read_text(encoding="utf-8"))
    counted = [c["experiment"] for c in node["claims"] if {"share", "paired"} & set(c["statistic"])]
    assert counted and all(node["commands"][name]["seeds"] >= 100 for name in counted)
