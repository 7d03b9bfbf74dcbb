"""The table of reported and measured values, from sweeps made by hand, and the one in docs/results.md."""

import csv
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hw1.reproduction.finished import finished, named
from hw1.reproduction.results import COLUMNS, experiment_of, fill, leading_number, read, with_table
from hw1.reproduction.statistic import share_at_or_below
from hw1.settings import ConfigError
from hw1.settings.about import experiments
from hw1.studies.headlines import Headline
from made_runs import make_run, make_sweep

ROOT = Path(__file__).parents[2]
EMPTY = "a\n<!-- results -->\nold\n<!-- /results -->\nb\n"


def ended(root, words, values=(1.0, 0.5, 1.5), *, seeds=(0, 1, 2), time="2026-01-01_00-00-00", **record):
    """A complete sweep with one headline, whose command has these words."""
    folders = []
    for seed in seeds:
        folder = next(root.glob(f"hand/runs/*seed={seed}_*"), None)
        folders.append(folder or make_run(root, seed=seed)[0])
    sweep = make_sweep(root, folders, ["seed"], time=time)
    value, low, high = values
    number = {"name": "loss size=[5, 10]", "value": value, "low": low, "high": high, "n": len(seeds)}
    whole = json.loads((sweep / "sweep.json").read_text())
    whole |= {"status": "complete", "command": words, "numbers": [number], "files": [], **record}
    (sweep / "sweep.json").write_text(json.dumps(whole))
    return sweep


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a question, its variant and a reported value."""
    (tmp_path / "conf" / "experiment" / "hand").mkdir(parents=True)
    for name in ("hand", "hand/other"):
        (tmp_path / "conf" / "experiment" / f"{name}.yaml").write_text("about: {expect: about 3 hours; a loss}\n")
    (tmp_path / "docs").mkdir()
    entries = {"hand": [{"report": "002", "quantity": "loss*[5,*", "reported": "4.9e-4"}]}
    (tmp_path / "docs" / "reported.yaml").write_text(yaml.safe_dump(entries))
    (tmp_path / "docs" / "results.md").write_text(EMPTY)
    return tmp_path


def test_the_sweep_that_speaks_for_an_experiment(tmp_path):
    ended(tmp_path, ["experiment=hand"], time="2026-01-01")
    most = ended(tmp_path, ["experiment=hand", "seed=0,1,2,3", "output=x"], seeds=(0, 1, 2, 3), time="2026-01-02")
    ended(tmp_path, ["experiment=hand"], time="2026-01-03")
    ended(tmp_path, ["experiment=other", "measures=[sharpness]", "measures.sharpness.examples=9"], time="2026-01-01_1")
    ended(tmp_path, ["experiment=track", "measures@callbacks.track.measure=sharpness"], time="2026-01-01_2")
    ended(tmp_path, ["experiment=hand", "budget=quick"], seeds=range(6), time="2026-01-04", budget="quick")
    ended(tmp_path, ["experiment=hand", "optimizer.lr=1"], seeds=range(7), time="2026-01-05")
    ended(tmp_path, ["experiment=hand"], seeds=range(8), time="2026-01-06", status="failed")
    ended(tmp_path, ["experiment=quick", "budget=quick"], time="2026-01-07", budget="quick")
    damaged = tmp_path / "hand" / "sweeps" / "2026-01-08"
    damaged.mkdir()
    (damaged / "sweep.json").write_text("{")
    found = finished(tmp_path)
    assert set(found) == {"hand", "other", "quick"}
    assert found["other"].command.endswith("experiment=other measures=[sharpness] measures.sharpness.examples=9")
    assert found["hand"].sweep.path == most and found["hand"].seeds == 4 and found["hand"].seconds == 4 * 1.5
    assert found["hand"].command == "python train.py experiment=hand seed=0,1,2,3"
    assert found["quick"].budget == "quick"


def test_headlines_of_an_earlier_version_are_read_from_their_lines(tmp_path):
    sweep = ended(tmp_path, ["experiment=hand"])
    record = json.loads((sweep / "sweep.json").read_text())
    del record["numbers"]
    lines = [str(Headline("barrier lr=0.1 a=[1, 2]", -0.5, -1.0, 2e-3, 3)), "one = 2 [nan, nan], n = 1"]
    (sweep / "sweep.json").write_text(json.dumps(record | {"headlines": lines}))
    one, two = finished(tmp_path)["hand"].numbers
    assert one == Headline("barrier lr=0.1 a=[1, 2]", -0.5, -1.0, 2e-3, 3) and (two.name, two.n) == ("one", 1)


def test_a_row_a_reported_value_and_one_for_every_other_experiment(checkout):
    ended(checkout / "multirun", ["experiment=hand"])
    assert fill(checkout, checkout / "multirun") == []
    hand, other = read(checkout / "docs" / "results.csv")
    assert hand == {
        "command": "python train.py experiment=hand",
        "commit": "",
        "budget": "full",
        "seeds": "3",
        "seconds": "4",
        "full_hours": "",
        "report": "002",
        "quantity": "loss size=[5, 10]",
        "reported": "4.9e-4",
        "measured": "1",
        "low": "0.5",
        "high": "1.5",
        "at_or_below": "",
    }
    assert (other["command"], other["budget"], other["measured"]) == (
        "python train.py experiment=hand/other",
        "not run",
        "",
    )
    page = (checkout / "docs" / "results.md").read_text()
    assert "| 002 | `python train.py experiment=hand` | loss size=[5, 10]: 4.9e-4 | 1 [0.5, 1.5] |\n" in page
    assert "|  | `python train.py experiment=hand/other` |  | not run |\n" in page and "old" not in page


def test_what_was_measured_once_stays(checkout):
    ended(checkout / "multirun", ["experiment=hand"])
    fill(checkout, checkout / "multirun")
    before = (checkout / "docs" / "results.csv").read_text()
    ended(checkout / "quick", ["experiment=hand", "budget=quick"], (7.0, 6.0, 8.0), budget="quick")
    for output in ("nowhere", "quick"):
        fill(checkout, checkout / output)
        assert (checkout / "docs" / "results.csv").read_text() == before
    ended(checkout / "more", ["experiment=hand"], (7.0, 6.0, 8.0))
    fill(checkout, checkout / "more")
    assert read(checkout / "docs" / "results.csv")[0]["measured"] == "7"


def test_a_quick_row_says_how_long_the_full_one_takes(checkout):
    ended(checkout / "multirun", ["experiment=hand", "budget=quick"], budget="quick")
    assert fill(checkout, checkout / "multirun") == []
    row = read(checkout / "docs" / "results.csv")[0]
    assert (row["budget"], row["full_hours"], row["seconds"]) == ("quick", "3", "4")
    assert "4.9e-4 | 1 [0.5, 1.5] (quick budget; full: 3 hours) |\n" in (checkout / "docs" / "results.md").read_text()


def test_a_quick_experiment_that_says_no_time_is_named(checkout):
    (checkout / "conf" / "experiment" / "hand.yaml").write_text("{}")
    ended(checkout / "multirun", ["experiment=hand", "budget=quick"], budget="quick")
    with pytest.raises(ConfigError, match=r"^conf/experiment/hand\.yaml: about\.expect: got no time, expected"):
        fill(checkout, checkout / "multirun")


def test_a_reported_value_that_nothing_answers_is_named(checkout):
    (checkout / "docs" / "reported.yaml").write_text("hand: [{quantity: gap, reported: 1}]\ngone: [{}]\n")
    ended(checkout / "multirun", ["experiment=hand"])
    unknown, unanswered = fill(checkout, checkout / "multirun")
    assert unknown == "docs/reported.yaml: gone is no experiment"
    assert "hand: headline: got 'gap', expected one of: loss size=[5, 10]" in unanswered


def test_a_reported_value_beside_a_statistic_of_the_runs(checkout):
    entries = {
        "hand": [{"report": "001", "reported": 0.5, "statistic": {"mean": "loss", "where": {"parameters": 310}}}]
    }
    (checkout / "docs" / "reported.yaml").write_text(yaml.safe_dump(entries))
    assert fill(checkout, checkout / "multirun") == []
    assert read(checkout / "docs" / "results.csv")[0]["quantity"] == "mean loss (310 weights)"
    sweep = ended(checkout / "multirun", ["experiment=hand"])
    table = pd.DataFrame({"seed": [0, 1, 2, 3], "parameters": [310, 310, 310, 9], "loss": [1.0, 2.0, 3.0, 99.0]})
    table.to_csv(sweep / "runs.csv", index=False)
    assert fill(checkout, checkout / "multirun") == []
    row = read(checkout / "docs" / "results.csv")[0]
    assert [row["measured"], row["low"], row["high"]] == ["2", "-0.4841", "4.484"] and row["reported"] == "0.5"


def test_a_name_with_brackets_is_matched_as_it_stands():
    numbers = [Headline(f"loss hidden=[{size}]", size, 0, 0, 1) for size in (5, 190)]
    assert named("loss*[190]", numbers).value == 190 and named("loss", numbers) is None
    assert named("*", numbers).value == 5


def test_a_page_without_the_place_and_a_table_of_other_columns(tmp_path):
    with pytest.raises(ValueError, match="got no <!-- results -->"):
        with_table("# nothing", [])
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"results\.csv: got columns \['a', 'b'\], expected command, "):
        read(tmp_path / "results.csv")


def test_the_page_and_results_csv_agree_and_no_experiment_is_left_out():
    rows = read(ROOT / "docs" / "results.csv")
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert with_table(page, rows) == page, "run python -m hw1 results"
    table = re.search(r"<!-- results -->(.*)<!-- /results -->", page, re.DOTALL)[1]
    for name in experiments(ROOT / "conf"):
        assert name in {experiment_of(row["command"]) for row in rows}, "run python -m hw1 results"
        assert re.search(rf"experiment={re.escape(name)}[ `]", table)
    with (ROOT / "docs" / "results.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS


def test_the_reported_values_name_experiments():
    known = experiments(ROOT / "conf")
    for name in yaml.safe_load((ROOT / "docs" / "reported.yaml").read_text(encoding="utf-8")):
        assert name in known
        for row in yaml.safe_load((ROOT / "docs" / "reported.yaml").read_text(encoding="utf-8"))[name]:
            assert not row.get("reported") or leading_number(row["reported"]) > 0


def test_the_share_of_members_at_or_below_a_reported_value(checkout):
    among = {"column": "train/loss", "table": "members", "where": {"network": "1-6-1"}}
    entry = {"report": "002", "quantity": "loss*", "reported": "0.25 (read off a plot)", "among": among}
    (checkout / "docs" / "reported.yaml").write_text(yaml.safe_dump({"hand": [entry]}))
    quick = ended(checkout / "quick", ["experiment=hand", "budget=quick"], budget="quick")
    full = ended(checkout / "multirun", ["experiment=hand"])
    table = pd.DataFrame({"network": ["1-6-1"] * 4 + ["1-9-1"], "train/loss": [0.1, 0.25, 0.3, 0.4, 0.0]})
    for sweep in (quick, full):
        table.to_csv(sweep / "members.csv", index=False)
    assert fill(checkout, checkout / "quick") == []
    assert read(checkout / "docs" / "results.csv")[0]["at_or_below"] == ""  # which a budget says nothing of
    assert fill(checkout, checkout / "multirun") == []
    assert read(checkout / "docs" / "results.csv")[0]["at_or_below"] == "0.5"
    page = (checkout / "docs" / "results.md").read_text()
    assert "0.25 (read off a plot) | 1 [0.5, 1.5]; 0.5 of the members at or below the reported |\n" in page
    share = share_at_or_below(0.25, among, finished(checkout / "multirun")["hand"])
    assert (share.value, share.n) == (0.5, 4) and share.low < 0.5 < share.high
    with pytest.raises(ConfigError, match=r"^train/loss at or below 1: no rows are left"):
        share_at_or_below(1.0, among | {"where": {"network": "x"}}, finished(checkout / "multirun")["hand"])


@pytest.mark.parametrize("text", ["", "about 3", "(3)"])
def test_a_reported_value_begins_with_its_number(text):
    with pytest.raises(ConfigError, match=r"^reported: got .*, expected a number first"):
        leading_number(text)


def test_rank_correlations_of_the_table_have_the_intervals_of_today():
    """Symmetric in Fisher's z; those of resampling, which earlier versions gave, are not."""
    rows = [row for row in read(ROOT / "docs" / "results.csv") if row["quantity"].startswith("spearman_rho")]
    for row in [row for row in rows if row["low"] and abs(float(row["measured"])) < 0.99]:
        low, rho, high = (math.atanh(float(row[name])) for name in ("low", "measured", "high"))
        assert high - rho == pytest.approx(rho - low, rel=0.05, abs=0.01), row["command"]
    assert rows
