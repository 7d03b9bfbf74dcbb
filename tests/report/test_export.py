"""All runs as one tidy table."""

import importlib.util
import io
import json

import pandas as pd
import pytest

from hw1.report import export as module
from hw1.report.export import export, tidy
from hw1.settings import ConfigError
from made_runs import ask_for, make_members, make_run, make_sweep, measured_by_hand


def test_a_row_a_run_and_member(tmp_path):
    single, _ = make_run(tmp_path, seed=7, lr=0.1, metrics={"test/loss": 0.5})
    measured_by_hand(single, "sharpness", {"sharpness/trace": 3.0, "sharpness/trace_standard_error": 0.5})
    members = make_members(
        tmp_path,
        [make_run(tmp_path / "aside", seed=s, metrics={"test/loss": s + 0.25})[0:2] for s in (0, 1)],
        hidden=(8,),
    )
    measured_by_hand(members, "sharpness", {"sharpness/trace": [1.0, 2.0]})
    measured_by_hand(members, "sharpness", {"sharpness/trace": [10.0, 20.0]}, examples=9)  # by a later command
    failed, _ = make_run(tmp_path, seed=3, status="failed")
    make_sweep(tmp_path, [single, members], [], measures=["sharpness"])
    make_sweep(tmp_path, [members, failed], [], time="2026-02-01_00-00-00", measures=[ask_for("sharpness", examples=9)])
    orphan, _ = make_run(tmp_path, seed=4)
    table = tidy(tmp_path, [])
    assert list(zip(table["run"], table["member"], table["seed"], table["status"], strict=True)) == [
        (single.name, 0, 7, "complete"), (members.name, 0, 0, "complete"), (members.name, 1, 1, "complete"),
        (failed.name, 0, 3, "failed"), (orphan.name, 0, 4, "complete"),
    ]  # fmt: skip
    assert table["test/loss"].isna().tolist() == [False, False, False, True, False]
    assert table["test/loss"][:3].tolist() == [0.5, 0.25, 1.25] and table["optimizer.lr"][0] == 0.1
    assert table["sharpness/trace"][:3].tolist() == [3.0, 1.0, 2.0] and table["sharpness/trace"][3:].isna().all()
    (other,) = [name for name in table if name.startswith("sharpness/trace[")]
    assert table[other].isna().tolist() == [True, False, False, True, True] and table[other][2] == 20.0
    assert table["sharpness/trace_standard_error"][0] == 0.5
    assert table["error"][3] == "the training loss is nan at step 3 (epoch 0)" and pd.isna(table["error"][0])
    assert table["sweeps"][1] == "2026-01-01_00-00-00 2026-02-01_00-00-00" and pd.isna(table["sweeps"][4])
    assert table["model.hidden"][1] == "[8]" and table["model"][0] == "hw1.models.Mlp" and "output" not in table
    assert not [name for name in table if name.endswith(".seed")] and table["replicas"].dropna().tolist() == [2, 2]
    assert tidy(tmp_path, ["status=failed"])["run"].tolist() == [failed.name]


def test_csv_and_parquet_hold_the_same(tmp_path):
    for seed, hidden in ((0, (4,)), (1, (8, 8))):
        make_run(tmp_path, seed=seed, hidden=hidden, metrics={"test/loss": 0.1 + seed})
    table = tidy(tmp_path, [])
    export(table, tmp_path / "a.csv")
    read = pd.read_csv(tmp_path / "a.csv")
    assert list(read) == list(table) and read["test/loss"].tolist() == [0.1, 1.1]
    assert [json.loads(cell) for cell in read["model.hidden"]] == [[4], [8, 8]]
    if importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    export(table, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), table)


def test_without_pyarrow_the_remedy_is_named(tmp_path, monkeypatch):
    make_run(tmp_path)
    monkeypatch.setattr(module, "writes_parquet", lambda: False)
    with pytest.raises(
        ConfigError, match=r"a\.parquet, expected .*a\.csv: Parquet needs pyarrow, .*: pip install pyarrow"
    ):
        export(tidy(tmp_path, []), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"expected a name that ends with \.csv or \.parquet"):
        export(tidy(tmp_path, []), tmp_path / "a.txt")
    assert not list(tmp_path.glob("a.*"))


def test_what_comes_from_elsewhere(tmp_path):
    folder, _ = make_run(tmp_path, metrics={"test/loss\x1b[2J": 1.0})
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"git": "\ud800\x07text", "versions": {}}))
    short, _ = make_run(tmp_path, replicas=2, metrics={"test/loss": [1.0]})  # of two members
    export(tidy(tmp_path, []), tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert "test/loss[2J" in text and "text" in text and not {"\x1b", "\x07"} & set(text)
    assert tidy(short, [])["status"].tolist() == ["damaged"]
    sweep = make_sweep(tmp_path, [folder], [])
    record = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps(record | {"measures": [{"nam": 3}]}))
    with pytest.raises(
        ConfigError,
        match=r"sweep\.json: measures\.0\.name: got nothing, expected a value; delete it and run the command again$",
    ):
        tidy(tmp_path, [])


def test_the_command(tmp_path, hw1):
    folders = [make_run(tmp_path, seed=seed)[0] for seed in (0, 1)]
    sweep = make_sweep(tmp_path, folders[:1], ["seed"])
    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("*")}
    done = hw1("export", sweep)
    assert done.returncode == 0 and done.stdout.startswith(f"{tmp_path / 'hand' / 'export.csv'}: 1 row, ")
    assert ("pip install pyarrow" in done.stderr) == (importlib.util.find_spec("pyarrow") is None)
    assert {path: path.stat().st_mtime_ns for path in sweep.rglob("*")} == before
    done = hw1("export", tmp_path, "seed=1", "-o", "-")
    assert pd.read_csv(io.StringIO(done.stdout))["run"].tolist() == [folders[1].name]
    for words in (["export", tmp_path, "seed=9"], ["export", tmp_path / "no"], ["export", tmp_path, "-o", "a.xls"]):
        done = hw1(*words)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
