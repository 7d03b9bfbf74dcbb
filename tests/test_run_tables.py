"""What sweeps, runs and members show of themselves, and their tables as DataFrames."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from hw1.files import file_sums
from hw1.records import DamagedError
from hw1.runs import Run, Sweep
from hw1.settings import ConfigError
from made_runs import ask_for, make_members, make_run, make_sweep, measured_by_hand

HISTORY = "epoch,step,train_step/loss,test/loss\n0,0,1.5,\n0,1,1.25,0.5\n"


@pytest.fixture
def sweep(tmp_path):
    """Two single runs, one of two members, one that failed and one that has not begun."""
    singles = [make_run(tmp_path, 64, seed)[0] for seed in range(2)]
    several = make_members(tmp_path, [make_run(tmp_path, 16, seed) for seed in range(2)], batch_size=16)
    failed, _ = make_run(tmp_path, 32, status="failed")
    unbegun, _ = make_run(tmp_path, 8)
    (unbegun / "result.json").unlink()
    for folder in singles:
        (folder / "metrics.csv").write_text(HISTORY)
        measured_by_hand(folder, "flat", {"flat/height": 0.5, "flat/height_standard_error": 0.125})
        measured_by_hand(folder, "spectrum", rows=[{"member": 0, "node": 1.0}, {"member": 0, "node": 2.0}])
    (several / "metrics.csv").write_text("epoch,step,member,test/loss\n0,1,0,2.5\n0,1,1,3.5\n")
    measured_by_hand(several, "flat", {"flat/height": [1.0, 2.0], "flat/height_standard_error": [0.25, 0.5]})
    measured_by_hand(several, "spectrum", rows=[{"member": 1, "node": 3.0}])
    folders = [*singles, several, failed, unbegun]
    return Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size", "seed"], measures=["flat", "spectrum"]))


def test_a_sweep_shows_a_row_a_network(sweep, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    head, header, *rows = repr(sweep).splitlines()
    assert head == f"Sweep('{sweep.path}'): interrupted, 5 runs"
    assert header.split() == [
        *("dataset.batch_size", "seed", "member", "status", "error", "test/loss", "test/accuracy", "train/loss"),
        *("flat/height", "flat/height_standard_error"),
    ]
    assert rows[0].split() == ["64", "0", "0", "complete", "0.25", "0.75", "0.5", "0.5", "0.125"]
    assert rows[3].split() == ["16", "1", "1", "complete", "1.25", "0.75", "0.5", "2", "0.5"]
    assert rows[4].split()[:4] == ["32", "0", "0", "failed"] and rows[4].endswith(" (epoch 0)")
    assert rows[5].split() == ["8", "0", "0", "unfinished"] and len(rows) == 6
    assert "status" not in repr(sweep.complete()) and "): interrupted, 3 of 5 runs\n" in repr(sweep.complete())


def test_a_narrow_terminal_names_the_columns_that_do_not_fit(sweep, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    _, header, *rows, also = repr(sweep).splitlines()
    assert header.split() == ["dataset.batch_size", "seed", "member", "status"] and len(rows) == 6
    assert (
        also.startswith("also: error, test/loss, test/accuracy, train/loss, flat/height")
        and max(map(len, [header, *rows])) <= 50
    )


def test_a_long_sweep_shows_its_first_networks(tmp_path):
    folder, _ = make_run(tmp_path)
    sweep = Sweep.read(make_sweep(tmp_path, [folder], ["seed"]))
    long = Sweep(sweep.path, sweep.record, sweep.runs * 25)
    assert repr(long).splitlines()[-1] == "... and 5 more networks" and len(repr(long).splitlines()) == 23
    assert "... and 5 more networks" in long._repr_html_() and long._repr_html_().count("<tr>") == 21


def test_runs_and_members_show_themselves_alike(sweep, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    run, several = sweep.runs[0], sweep.runs[2]
    head, header, row = repr(run).splitlines()
    assert head == f"Run('{run.path}'): complete" and header.split()[:3] == ["seed", "status", "test/loss"]
    assert row.split()[:3] == ["0", "complete", "0.25"] and len(repr(several).splitlines()) == 4
    member = list(sweep.members())[3]
    head, header, row = repr(member).splitlines()
    assert head == f"Member('{several.path}', 1)" and row.split()[:2] == ["16", "1"]
    for shown in (sweep, run, several, member):
        assert repr(shown).splitlines()[0].replace("'", "&#x27;") in shown._repr_html_()
        assert "<th>test/loss</th>" in shown._repr_html_()


def test_what_is_shown_is_escaped_and_damage_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    bad, _ = make_run(tmp_path, status="failed")
    result = json.loads((bad / "result.json").read_text())
    result["error"] = "<script>alert(1)</script>\x1b[2J\nover"
    (bad / "result.json").write_text(json.dumps(result))
    broken, _ = make_run(tmp_path, 16)
    (broken / "result.json").write_text("{")
    sweep = Sweep.read(make_sweep(tmp_path, [bad, broken], ["seed"]))
    for shown in (sweep, Run(bad)):
        text, page = repr(shown), shown._repr_html_()
        assert "\x1b" not in text + page and "<script>alert(1)</script>[2J over" in text
        assert "<script" not in page and "&lt;script&gt;" in page
    assert "damaged" in repr(sweep) and "is not valid JSON" in sweep._repr_html_()
    assert repr(Run(broken)).splitlines()[0] == f"Run('{broken}'): damaged"


def test_histories_are_joined_with_what_was_swept(sweep):
    history = sweep.history()
    assert list(history) == [
        *("run", "member", "dataset.batch_size", "seed", "epoch", "step", "train_step/loss", "test/loss")
    ]
    assert history["seed"].tolist() == [0, 0, 1, 1, 0, 1]
    assert history["dataset.batch_size"].tolist() == [64] * 4 + [16] * 2 and history["member"].tolist() == [0] * 5 + [1]
    last = sweep.history("test/loss")
    assert list(last)[-1] == "test/loss" and "train_step/loss" not in last
    assert last["test/loss"].tolist() == [0.5, 0.5, 2.5, 3.5]
    assert "member" not in sweep.select({"dataset.batch_size": 64}).history()
    with pytest.raises(ConfigError, match=r"^metrics: got test/los, expected some of test/loss, train_step/loss$"):
        sweep.history("test/los")
    assert sweep.select({"dataset.batch_size": 8}).history().empty


def test_measures_as_tables(sweep):
    found = sweep.measures()
    assert list(found)[:4] == ["run", "member", "dataset.batch_size", "seed"]
    assert found["flat/height"].tolist() == [0.5, 0.5, 1.0, 2.0] and found["seed"].tolist() == [0, 1, 0, 1]
    longer = sweep.measures("spectrum")
    assert longer["node"].tolist() == [1.0, 2.0, 1.0, 2.0, 3.0] and longer["member"].tolist() == [0, 0, 0, 0, 1]
    assert sweep.measures("flat").empty
    with pytest.raises(
        ConfigError, match=r"^measures: got sharpness, expected one that was asked for: flat, spectrum$"
    ):
        sweep.measures("sharpness")
    own = sweep.runs[2].measures()
    assert own["member"].tolist() == [0, 1] and own["flat/height"].tolist() == [1.0, 2.0]


def test_a_second_measure_of_one_name_says_which_it_is(tmp_path):
    folder, _ = make_run(tmp_path)
    for examples in (8, 16):
        measured_by_hand(folder, "flat", {"flat/height": examples / 2}, examples=examples)
    found = Run(folder).measures()
    second = max(ask_for("flat", examples=examples).file(folder).stem for examples in (8, 16)).rpartition("-")[2]
    assert list(found) == ["member", "seed", "flat/height", f"flat/height[{second}]"]
    assert sorted(found.iloc[0, 2:]) == [4.0, 8.0]


def test_what_the_study_made(sweep):
    assert sweep.tables == {} and sweep.figures == [] and sweep.answer == []
    (sweep.path / "barriers.csv").write_text("seed,barrier\n0,0.5\n")
    (sweep.path / "barriers.png").write_bytes(b"ink")
    record = json.loads((sweep.path / "sweep.json").read_text())
    files = {name: file_sums(sweep.path / name) for name in ("barriers.csv", "barriers.png")}
    (sweep.path / "sweep.json").write_text(json.dumps({**record, "files": files, "answer": ["The barrier is 0.5."]}))
    ended = Sweep.read(sweep.path)
    pd.testing.assert_frame_equal(ended.tables["barriers"], pd.DataFrame({"seed": [0], "barrier": [0.5]}))
    assert ended.figures == [sweep.path / "barriers.png"] and ended.answer == ["The barrier is 0.5."]
    (sweep.path / "barriers.csv").write_text("seed,barrier\n0,0.6\n")
    with pytest.raises(
        DamagedError, match=r"content is not what was written; python -P -m hw1 report .* makes it again$"
    ):
        _ = Sweep.read(sweep.path).tables


def test_a_record_from_elsewhere_leads_no_table_outside(sweep):
    record = json.loads((sweep.path / "sweep.json").read_text())
    (sweep.path.parent / "other.csv").write_text("secret\n1\n")
    (sweep.path / "sweep.json").write_text(json.dumps({**record, "files": {"../other.csv": [9, "0" * 64]}}))
    with pytest.raises(DamagedError, match=r"names '\.\./other\.csv', expected a path below"):
        _ = Sweep.read(sweep.path).tables


def test_showing_and_reading_import_no_torch(sweep):
    code = (
        "import sys\nfrom hw1 import Sweep\n"
        f"sweep = Sweep.read({str(sweep.path)!r})\n"
        "repr(sweep), sweep._repr_html_(), repr(sweep.runs[0]), sweep.select(seed=1)\n"
        "assert 'pandas' not in sys.modules\n"
        "sweep.history(), sweep.measures(), sweep.tables, sweep.table(), sweep.runs[0].measures()\n"
        "sys.exit(str(sorted({'torch', 'lightning'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"
