"""Sweeps of an earlier version are brought to today's keys and format: afterwards their commands find them.

golden/format_1.zip was made by commit cf414ac in /tmp/hw1, with `model=mlp model.hidden=[4]` (name=plain; with
`callbacks=[default,sharpness,sensitivity]`: name=measured) and `model=cnn` (name=two_threads, the default of then).
"""

import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from hw1.measures.cache import Cache
from hw1.records import is_own
from hw1.report.rekey import _Formerly, rekey
from hw1.runs import Run, Sweep
from hw1.runs.sound import verify

GOLDEN = Path(__file__).parents[1] / "golden" / "format_1.zip"
TINY = ("dataset=digits", "dataset.train_size=100", "trainer.max_epochs=2", "logger=none", "trainer.progress=false")
MLP = ("model=mlp", "model.hidden=[4]", *TINY, "seed=0,1")
CNN = ("model=cnn", 'model.layers=["c3(2)",p2,4]', *TINY, "name=two_threads")
MEASURES = ("measures=[sharpness,sensitivity]", "measures.sharpness.examples=50", "measures.sharpness.trace_products=6")
COMMANDS = {"plain": (*MLP, "name=plain"), "measured": (*MLP, *MEASURES, "name=measured")}


@pytest.fixture
def old(tmp_path):
    """The output folder of then."""
    with zipfile.ZipFile(GOLDEN) as file:
        file.extractall(tmp_path)
    return tmp_path


def test_the_format_of_then_is_readable(old):
    sweep = Sweep.read(old / "measured")
    table = sweep.table()
    assert list(table["status"]) == ["complete"] * 2 and table["sharpness/trace"].notna().all()
    (first, second) = sweep.members()
    assert (first.seed, second.seed) == (0, 1) and first.theta().shape == (310,) and len(first.history()) > 0
    assert first.run.snapshots().epochs == [0, 2] and first.run.code is None
    found = verify(old)
    assert (found.runs, found.sweeps, found.damage, len(found.unlisted)) == (5, 3, [], 8)


@pytest.mark.parametrize("name", COMMANDS)
def test_after_rekey_the_command_finds_everything(name, old, command, hw1):
    before = Sweep.read(old / name).table()
    weights = [member.theta() for member in Sweep.read(old / name).members()]
    said = hw1("rekey", old / name)
    assert said.returncode == 0, said.stderr
    changed = {"plain": 0, "measured": 2}[name]
    assert said.stdout == f"{old / name}: {changed} of 2 runs have a new key, 1 sweeps were rewritten\n"
    done = command(*COMMANDS[name], output=old)
    assert done.returncode == 0 and f"{name}: nothing to do: 2 runs complete" in done.stdout
    sweep = Sweep.read(old / name)
    after = sweep.table()
    columns = [column for column in before if column != "run"]
    pd.testing.assert_frame_equal(after[columns], before[columns])
    assert all(member.theta().equal(theta) for member, theta in zip(sweep.members(), weights, strict=True))
    assert verify(old / name).damage == [] and len(verify(old / name).foreign) == 3  # nobody had signed them
    assert rekey(old / name) == [f"{old / name}: 0 of 2 runs have a new key, 0 sweeps were rewritten"]
    formerly = {key for run in sweep.runs for key in run.result.get("formerly", [])}
    assert formerly == (set(before["run"].str[-10:]) if changed else set())


def test_runs_of_two_threads_say_so_and_are_found_by_it(old, command, hw1):
    assert hw1("rekey", old / "two_threads").returncode == 0
    assert Sweep.read(old / "two_threads").record["command"][-1] == "trainer.threads=2"
    done = command(*CNN, "trainer.threads=2", output=old)
    assert "two_threads: nothing to do" in done.stdout
    planned = command(*CNN, "--dry-run", output=old)
    assert "1 run, 0 complete, 1 to train" in planned.stdout
    assert "1 of these runs was trained with trainer.threads=2, and is found with it" in planned.stderr


def test_a_killed_rekey_goes_on(old, command, monkeypatch):
    base = old / "measured"

    def die(*words):
        raise KeyboardInterrupt

    for step in ("config_text", "rewrite_record", "_move", "conclude"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"hw1.report.rekey.{step}", die)
            rekey(base)
    lines = rekey(base)
    assert lines[-1].endswith("1 sweeps were rewritten")
    assert all(run.name.endswith(f"-{Run(run).result['key']}") for run in (base / "runs").iterdir())
    done = command(*COMMANDS["measured"], output=old)
    assert "measured: nothing to do: 2 runs complete" in done.stdout
    values = [member.metrics["sharpness/trace"] for member in Sweep.read(base).members()]
    with zipfile.ZipFile(GOLDEN) as file:
        results = [json.loads(file.read(name)) for name in file.namelist() if name.endswith("result.json")]
    traces = [result["metrics"].get("sharpness/trace") for result in results]
    assert sorted(values) == sorted(trace for trace in traces if trace is not None)


def plain_folders(runs):
    return sorted(runs.glob("*epochs=2-*"))


def test_only_identical_weights_become_one(old):
    plain, measured = old / "plain" / "runs", old / "measured" / "runs"
    for folder in list(plain.iterdir()):
        shutil.copytree(folder, measured / folder.name)  # trained by an earlier command without measures
    (one, _) = plain_folders(measured)
    snapshot = one / "snapshots" / "epoch=000002.safetensors"
    other = plain_folders(measured)[1] / "snapshots" / snapshot.name
    snapshot.write_bytes(other.read_bytes())
    lines = rekey(old / "measured")
    assert sum("they are one now" in line for line in lines) == 1
    assert sum("its weights are others; delete one of the two" in line for line in lines) == 1
    assert len(list(measured.iterdir())) == 3
    merged = [Run(folder) for folder in plain_folders(measured) if Run(folder).result.get("formerly")]
    assert len(merged) == 1 and len(list((merged[0].path / "measures").glob("*.json"))) == 2


def test_a_run_that_is_at_work_and_a_folder_without_runs_are_refused(old, tmp_path, hw1):
    refused = hw1("rekey", tmp_path)
    assert refused.returncode == 1 and refused.stderr.startswith(f"error: {tmp_path}: got a folder without runs")
    assert len(refused.stderr.splitlines()) == 1


def test_tables_that_were_kept_under_earlier_names_are_taken_over(tmp_path):
    class Kept:
        key, result = "bbbbbbbbbb", {"dataset": {"sha256": "d"}}

        def weights_digest(self):
            return "w"

    def forbidden():
        raise AssertionError("measured again")

    settings = {"alphas": [0.0, 1.0], "member": 0}
    formerly = _Formerly({"bbbbbbbbbb": "aaaaaaaaaa"})
    stems = list(formerly("interpolation", 1, [["bbbbbbbbbb", "w", "d"]] * 2, settings))
    assert len(set(stems)) == 3
    for stem in stems:
        cache = Cache(tmp_path / stem, formerly)
        (tmp_path / stem).mkdir()
        (tmp_path / stem / f"{stem}-2.csv").write_text("alpha,loss\n0.0,1.5\n1.0,2.5\n")
        table = cache.table("interpolation", 1, [Kept(), Kept()], settings, forbidden)
        assert list(table["loss"]) == [1.5, 2.5]
        (file,) = (tmp_path / stem).iterdir()
        assert cache.used == {file} and not file.name.startswith(stem)
        file.write_text("alpha,loss\n0.0,1.5\n1.0,9.5\n")  # damage shows in the name
        with pytest.raises(AssertionError, match="measured again"):
            Cache(tmp_path / stem).table("interpolation", 1, [Kept(), Kept()], settings, forbidden)


def test_what_was_not_signed_is_not_signed(old):
    rekey(old / "measured")
    assert not any(is_own(file) for file in (old / "measured").rglob("*.json"))
