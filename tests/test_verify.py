"""Every damage of a run or a sweep that can be seen is named in one line, with a remedy; sound ones pass."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from hw1.records import read_record, rewrite_record, write_record
from hw1.report.conclude import earlier
from hw1.reproduction.finished import Finished
from hw1.reproduction.statistic import statistic
from hw1.runs import Run, Sweep, is_complete
from hw1.runs.damage import passing_damage, run_damage
from hw1.runs.sound import sweep_damage, verify

SMALL = ("model=mlp", "model.hidden=[8]", "dataset=digits", "dataset.train_size=200", "trainer.max_epochs=3")
WORDS = (*SMALL, "callbacks=weight_snapshots", "callbacks.weight_snapshots.every_n_epochs=1", "logger=none", "seed=0,1")
STUDY = "study={_target_: hw1.studies.FlatnessInterp, pair_by: optimizer.lr, start: 0, stop: 1, points: 3}"


@pytest.fixture(scope="module")
def made(command, tmp_path_factory):
    """A finished sweep of two runs, measured, with a study that caches a table."""
    output = tmp_path_factory.mktemp("made")
    words = (*WORDS[:-1], "optimizer.lr=1e-3,1e-2", "measures=[sensitivity]", STUDY, "trainer.checkpoint_seconds=0")
    done = command(*words, output=output)
    assert done.returncode == 0, done.stderr
    return output / "default", words


@pytest.fixture
def sweep(made, tmp_path):
    """A copy that may be damaged."""
    base = tmp_path / "default"
    shutil.copytree(made[0], base)
    return Sweep.read(base)


def unfinished(run):
    """As a process leaves it that died before its last file."""
    (run.path / "result.json").unlink()
    shutil.rmtree(run.path / "measures")
    return run.path


def flip(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def middle(file, content=b"\0" * 64):
    whole = file.read_bytes()
    at = len(whole) // 2
    file.write_bytes(whole[:at] + content + whole[at + len(content) :])


def cut(file, size):
    file.write_bytes(file.read_bytes()[:-size])


def swap(folder):
    one, two = (folder / "snapshots" / f"epoch=00000{epoch}.safetensors" for epoch in (1, 2))
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)


OF_ANY = {
    "metrics cut": ("metrics.csv", lambda run: cut(run / "metrics.csv", 200)),
    "metrics with zeros": ("metrics.csv", lambda run: middle(run / "metrics.csv")),
    "a digit of the metrics": ("metrics.csv", lambda run: middle(run / "metrics.csv", b"7")),
    "no metrics": ("metrics.csv", lambda run: (run / "metrics.csv").unlink()),
    "zeros in a snapshot": ("epoch=000000", lambda run: middle(run / "snapshots" / "epoch=000000.safetensors")),
    "snapshots swapped": ("epoch=000001", swap),
    "a snapshot missing": ("epoch=000002", lambda run: (run / "snapshots" / "epoch=000002.safetensors").unlink()),
    "a checkpoint's tail": ("last.ckpt", lambda run: cut(run / "checkpoints" / "last.ckpt", 8)),
    "zeros in a checkpoint": ("last.ckpt", lambda run: middle(run / "checkpoints" / "last.ckpt")),
    "a setting": ("config.yaml", lambda run: flip(run / "config.yaml", "lr: 0.001", "lr: 0.002")),
    "a stored setting": ("settings.json", lambda run: flip(run / "settings.json", '"lr": 0.001', '"lr": 0.002')),
}
OF_A_FINISHED_ONE = {
    "a digit of the result": ("result.json", lambda run: flip(run / "result.json", '"epochs": 3', '"epochs": 2')),
    "no .hydra": (".hydra/config.yaml", lambda run: shutil.rmtree(run / ".hydra")),
    "no checkpoint": ("last.ckpt", lambda run: (run / "checkpoints" / "last.ckpt").unlink()),
    "one snapshot too many": (
        "epoch=000009",
        lambda run: shutil.copy(
            run / "snapshots" / "epoch=000001.safetensors", run / "snapshots" / "epoch=000009.safetensors"
        ),
    ),
    "a measured value": ("sensitivity", lambda run: middle(next((run / "measures").glob("*.json")), b"0")),
}


def test_sound_folders_pass(sweep):
    found = verify(sweep.path.parent.parent)
    assert (found.runs, found.sweeps, found.damage, found.unlisted, found.foreign) == (2, 1, [], [], [])
    assert verify(sweep.path).damage == verify(sweep.path / "sweep.json").damage == []
    assert (verify(sweep.path).runs, verify(sweep.runs[0].path).runs) == (2, 1)
    assert run_damage(unfinished(sweep.runs[0])) == []
    with pytest.raises(FileNotFoundError, match="no run, sweep"):
        verify(sweep.path / "nowhere")


def test_a_finished_run_lists_every_file_and_holds_its_settings(sweep):
    (run, _) = sweep.runs
    aside = {"result.json", "run.log", ".lock", ".lease"}
    there = {file.relative_to(run.path).as_posix() for file in run.path.rglob("*") if file.is_file()}
    assert set(run.result["files"]) == {name for name in there if not name.startswith("measures/")} - aside
    assert {".hydra/config.yaml", "metrics.csv", "checkpoints/last.ckpt", "settings.json"} <= set(run.result["files"])
    (run.path / "config.yaml").write_text("no: [yaml")  # nothing that lists runs parses it
    assert Run(run.path).settings.value("optimizer.lr") == 0.001 and run.code == {}


def test_a_run_outside_of_the_results_is_refused_and_not_looked_at(sweep):
    outside = sweep.path.parent.parent / "outside"
    outside.mkdir()
    (outside / "result.json").write_text("{")
    record = read_record(sweep.path / "sweep.json")
    stray = {"key": "0", "folder": "../outside", "overrides": []}
    write_record(sweep.path / "sweep.json", {**record, "runs": [*record["runs"], stray]})
    found = verify(sweep.path)
    assert found.runs == 2 and len(found.damage) == 1
    assert "got a run '../outside', expected the name of a folder in runs; run its command again" in found.damage[0]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", OF_ANY)
def test_damage_of_any_run_is_named(name, finished, sweep):
    run, (file, damage) = sweep.runs[0], OF_ANY[name]
    folder = run.path if finished else unfinished(run)
    damage(folder)
    lines = run_damage(folder)
    assert lines and str(folder) in lines[0] and file in lines[0]
    assert all(word in lines[0] for word in ("; ", "run")) and len(lines) <= 2  # two snapshots, when swapped


@pytest.mark.parametrize("name", OF_A_FINISHED_ONE)
def test_damage_of_a_finished_run_is_named(name, sweep):
    folder, (file, damage) = sweep.runs[0].path, OF_A_FINISHED_ONE[name]
    damage(folder)
    lines = run_damage(folder)
    assert lines and file in lines[0] and "; " in lines[0] and "\n" not in lines[0]


def test_damage_of_a_sweep_is_named(sweep):
    base, record = sweep.path.parent.parent, sweep.record
    assert sweep_damage(sweep.path, record) == [] and len(record["caches"]) == 1
    middle(sweep.path / "interpolation.csv", b"9")
    middle(base / next(iter(record["caches"])), b"9")
    (sweep.path / "report.html").unlink()
    lines = sweep_damage(sweep.path, record)
    assert len(lines) == 3 and all(
        line.endswith(f"python -P -m hw1 report {sweep.path} makes it again") for line in lines
    )
    flip(sweep.path / "sweep.json", '"swept": [', '"swept": [ "seed", ')
    assert any("sweep.json is damaged" in line for line in verify(base).damage)


def test_the_same_command_says_why_it_draws_anew(sweep, capsys):
    record, base = sweep.record, sweep.path.parent.parent
    assert earlier(base, record["digest"]) and not capsys.readouterr().err
    middle(base / next(iter(record["caches"])), b"9")
    assert earlier(base, record["digest"]) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert "measurements" in line and line.endswith("makes it again; this command draws a new one")
    with pytest.raises(ValueError, match=r"interpolation\.csv is damaged"):
        middle(sweep.path / "interpolation.csv", b"9")
        statistic({"mean": "loss", "table": "interpolation"}, Finished(sweep, "full", 1, 0, 1.0, "", []))


def test_verify_reads_what_nothing_lists(sweep):
    base = sweep.path.parent.parent
    cache = next((base / "measurements").glob("*.csv"))
    (base / "measurements" / f"0123456789abcdef-{'0' * 16}.csv").write_bytes(cache.read_bytes())
    (line,) = verify(base).damage
    assert line.endswith(f"{'0' * 16}.csv is damaged: its content is not what was written; remove it")
    assert verify(sweep.path).damage == []


def test_reading_what_is_damaged_is_refused(sweep):
    run, other = sweep.runs
    middle(run.path / "snapshots" / "epoch=000003.safetensors")
    with pytest.raises(ValueError, match=r"epoch=000003\.safetensors is damaged: .*delete the run's folder"):
        run.theta()
    with pytest.raises(ValueError, match="is damaged"):
        run.snapshots("1.weight")
    middle(other.path / "metrics.csv", b"7")
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged"):
        other.history()


def test_a_finished_sweep_is_passed_over_by_sizes_and_small_files(sweep):
    run = sweep.runs[0].path
    middle(run / "snapshots" / "epoch=000000.safetensors")
    assert passing_damage(run) == []  # its size is right, and nothing reads it
    cut(run / "snapshots" / "epoch=000000.safetensors", 1)
    (run / "hparams").write_text("of another's")
    (line,) = passing_damage(run)
    assert "epoch=000000.safetensors is damaged: it has" in line
    (run / ".hydra" / "overrides.yaml").write_text("[]")
    assert len(passing_damage(run)) == 2


def test_the_command_names_damage_and_makes_again_what_it_can(made, command, hw1, tmp_path):
    base = tmp_path / "default"
    shutil.copytree(made[0], base)
    sweep = Sweep.read(base)
    run, other = (run.path for run in sweep.runs)
    weights = Run(run).theta()
    flip(run / "result.json", '"epochs": 3', '"epochs": 2')
    middle(base / next(iter(sweep.record["caches"])), b"9")
    rooms = [folder / ".runs.csv.0123456789abcdef.part" for folder in (sweep.path, other, other / "measures", base)]
    for room in rooms:  # of killed processes
        room.mkdir()
    said = hw1("verify", base)
    assert said.returncode == 1 and len(said.stderr.strip().splitlines()) == 2 and "2 damaged" in said.stdout
    assert not is_complete(run) and is_complete(other)
    again = command(*made[1], output=tmp_path)  # finished again from its checkpoint, measured and drawn again
    assert again.returncode == 0 and "2 runs, 1 to train" in again.stdout
    assert not any(room.exists() for room in rooms)
    assert Run(run).theta().equal(weights) and hw1("verify", base).returncode == 0
    cut(other / "snapshots" / "epoch=000003.safetensors", 8)
    refused = command(*made[1], output=tmp_path)
    assert refused.returncode == 1 and "epoch=000003.safetensors is damaged" in refused.stderr
    assert refused.stderr.count("\nerror: ") == 1 and is_complete(other)


def test_what_a_stranger_made_is_not_signed_by_reading_it(made, hw1, tmp_path, monkeypatch):
    base = tmp_path / "default"
    shutil.copytree(made[0], base)
    sweep = Sweep.read(base)
    for file in (*base.rglob("result.json"), sweep.path / "sweep.json"):
        record = json.loads(file.read_text())
        record.pop("signature", None)
        file.write_text(json.dumps(record))
    said = hw1("verify", base)
    assert said.returncode == 0 and "3 not signed by you" in said.stdout
    assert hw1("report", sweep.path).returncode == 0
    assert "3 not signed by you" in hw1("verify", base).stdout
    rewrite_record(sweep.path / "sweep.json", read_record(sweep.path / "sweep.json"))
    assert "signature" not in json.loads(Path(sweep.path / "sweep.json").read_text())


def test_the_format_of_today_stays_readable(tmp_path):
    """golden/format_2.zip: `model=mlp model.hidden=[4] ... measures=[sharpness,sensitivity] seed=0,1`."""
    with zipfile.ZipFile(Path(__file__).parent / "golden" / "format_2.zip") as file:
        file.extractall(tmp_path)
    found = verify(tmp_path)
    assert (found.runs, found.sweeps, found.damage, found.unlisted, len(found.foreign)) == (2, 1, [], [], 3)
    first, second = Sweep.read(tmp_path / "measured").members()
    assert (first.seed, second.seed) == (0, 1) and first.theta().shape == (310,) and len(first.history()) == 4
    assert first.metrics["sharpness/trace"] > 0 and first.run.snapshots().epochs == [0, 2]
    assert first.run.settings.value("model.hidden") == [4] and first.run.code == {}
