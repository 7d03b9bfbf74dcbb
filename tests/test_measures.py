"""Measures as a user meets them: of finished runs, at other settings, failing, interrupted, while training."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from hw1.measures.take import missing, take
from hw1.records import rewrite_record
from hw1.runs import Ask, Run, Sweep, read_measured
from made_runs import make_run
from warm import WarmProcess

ROOT = Path(__file__).parents[1]
HW1 = ROOT / "src" / "hw1" / "__main__.py"
SMALL = ("model=mlp", "model.hidden=[8]", "dataset=digits", "dataset.train_size=200", "trainer.max_epochs=2")
RUNS = (*SMALL, "seed=0,1", "logger=none", "trainer.progress=false")


def contents(folder, pattern):
    return {path: path.read_bytes() for path in sorted(folder.rglob(pattern))}


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    """The folder of a finished sweep of two runs without measures."""
    output = tmp_path_factory.mktemp("finished")
    done = command(*RUNS, output=output)
    assert done.returncode == 0, done.stderr
    return output / "default"


def test_measures_of_a_finished_sweep_train_nothing(finished, command):
    before = contents(finished / "runs", "*.safetensors") | contents(finished / "runs", "result.json")
    keys = [run.key for run in Sweep.read(finished).runs]
    done = command(*RUNS, "measures=[sharpness,sensitivity]", "measures.sharpness.examples=50", output=finished.parent)
    assert done.returncode == 0, done.stderr
    assert "2 runs, 0 to train, 2 to measure" in done.stdout
    assert len(re.findall(r"\[\d/2\] seed=\d\S*: measured sharpness, sensitivity in ", done.stdout)) == 2
    assert {path: path.read_bytes() for path in before} == before
    sweep = Sweep.read(finished)
    assert [run.key for run in sweep.runs] == keys
    table = pd.read_csv(sweep.path / "runs.csv")
    assert (table["sharpness/trace"] > 0).all() and (table["sensitivity/softmax"] > 0).all()
    for member, (_, row) in zip(sweep.members(), table.iterrows(), strict=True):
        assert member.metrics["sharpness/trace"] == pytest.approx(row["sharpness/trace"])
    page = (sweep.path / "report.html").read_text()
    assert "sharpness/trace" in page and "Measures:" in page and "examples: 50" in page
    again = command(*RUNS, "measures=[sharpness,sensitivity]", "measures.sharpness.examples=50", output=finished.parent)
    assert again.returncode == 0 and "nothing to do" in again.stdout


def test_measuring_later_at_other_settings_has_columns_that_say_so(finished, hw1):
    sweep = Sweep.read(finished)
    files = contents(sweep.path.parents[1] / "runs", "measures/*.json")
    done = hw1("measure", finished, "sharpness", "spectrum", "sharpness.examples=60", "spectrum.probes=2")
    assert done.returncode == 0, done.stderr
    assert "2 runs, 2 to measure" in done.stdout
    table = pd.read_csv(sweep.path / "runs.csv")
    assert {"sharpness/trace", "sharpness/trace[examples=60]", "spectrum/largest[probes=2]"} <= set(table)
    assert (table["sharpness/trace"] != table["sharpness/trace[examples=60]"]).all()
    assert {path: path.read_bytes() for path in files} == files
    again = hw1("measure", finished, "sharpness", "spectrum", "sharpness.examples=60", "spectrum.probes=2")
    assert again.returncode == 0 and "2 runs, 0 to measure" in again.stdout
    assert len(json.loads((sweep.path / "sweep.json").read_text())["measured_later"]) == 2
    unknown = hw1("measure", finished, "sharpnes")
    assert unknown.returncode == 1 and "Traceback" not in unknown.stderr
    assert "measures: got sharpnes, expected one of" in unknown.stderr and "did you mean sharpness?" in unknown.stderr
    bad = hw1("measure", finished, "sharpness", "sharpness.rho=-1")
    assert bad.returncode == 1 and bad.stderr.splitlines()[-1] == (
        "error: measures.sharpness.rho: got -1, expected a positive number"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sharpness", "optimizer.lr=3"], "optimizer.lr: got a setting of runs, expected settings of measures"),
        (["sharpness", "budget=quick"], "budget: got a setting of runs, expected settings of measures"),
        (["sharpness", "+sharpness.foo=1"], "sharpness.foo: got a setting of runs, expected settings of measures"),
        (["sharpness", "sharpness.examples=8,9"], "measures.sharpness.examples: cannot be swept"),
        (["sharpness.examples=8"], "measure: got sharpness.examples=8, expected the name of a measure"),
    ],
)
def test_words_that_measure_nothing_are_refused(words, said, finished, hw1):
    done = hw1("measure", finished, *words)
    line = done.stderr.splitlines()[-1]
    assert sum(one.startswith("error: ") for one in done.stderr.splitlines()) == 1
    assert done.returncode == 1 and line.startswith(f"error: {said}"), line


def test_a_flipped_bit_beside_a_measurement_is_noticed(finished, hw1):
    assert hw1("measure", finished, "spectrum", "spectrum.probes=2").returncode == 0
    file = next(finished.rglob("measures/spectrum-*.density.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    done = hw1("measure", finished, "spectrum", "spectrum.probes=2")
    assert done.returncode == 0 and "2 runs, 1 to measure" in done.stdout
    assert file.read_bytes() != bytes(content)


def test_an_experiment_s_measures_can_be_others(command, tmp_path):
    words = (
        "experiment=flatness_sensitivity/models_batch",
        "dataset=digits",
        "model=mlp",
        "model.hidden=[4]",
        "seed=0",
    )
    more = ("dataset.batch_size=32,64", "trainer.max_epochs=1", "logger=none", "measures=[sensitivity]")
    done = command(*words, *more, "budget=quick", output=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {ask.name for ask in Sweep.read(tmp_path / "flatness_sensitivity_models_batch").asks} == {"sensitivity"}
    done = command(*words, *more, "measures.sharpness.examples=5", output=tmp_path / "other")
    assert done.returncode == 1
    assert "measures.sharpness.examples: got a setting of a measure that is not asked for" in done.stderr


MINE = '''
import os
import time

from hw1.measures import Column, Finding, Measure


class Slow(Measure):
    """The first weight; slow, and not of every run."""

    version = 1
    columns = {"slow/weight": Column("first weight")}

    def __init__(self, seconds: float, fails: int | None) -> None:
        self.seconds, self.fails = seconds, fails

    def take(self, subject, memory):
        time.sleep(self.seconds)
        if subject.seed == self.fails:
            raise ValueError("the weight is\\nnot to be had")
        return Finding({"slow/weight": [float(theta[0]) for theta in subject.end.theta()]})


class Wrong(Slow):
    """Gives what a measure may not give."""

    def take(self, subject, memory):
        return [
            Finding({"slow/weight": [1.0, 2.0]}),
            Finding({"slow/wait": [1.0]}),
            Finding({"slow/weight": [1.0]}, rows=[{"member": 0, "theta": subject.end.theta()}]),
            Finding({"slow/weight": [1.0]}, rows=[{"at": 1}]),
        ][self.fails]
'''


@pytest.fixture
def mine(tmp_path):
    """Words and environment with which commands know a measure of the user's own."""
    (tmp_path / "mine" / "conf" / "measures").mkdir(parents=True)
    (tmp_path / "mine" / "slow.py").write_text(MINE)
    yaml = "slow:\n  _target_: slow.Slow\n  seconds: 0\n  fails: null\n"
    (tmp_path / "mine" / "conf" / "measures" / "slow.yaml").write_text(yaml)
    path = os.pathsep.join([str(tmp_path / "mine"), os.environ.get("PYTHONPATH", "")])
    return ("--config-dir", str(tmp_path / "mine" / "conf")), {"PYTHONPATH": path}


def test_a_measure_that_fails_leaves_the_run_complete_and_says_so(mine, command, tmp_path):
    flags, more = mine
    words = (*flags, *RUNS, "measures=[slow]")
    done = command(*words, "measures.slow.fails=1", output=tmp_path, **more)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    sweep = Sweep.read(tmp_path / "default")
    assert [run.status for run in sweep.runs] == ["complete", "complete"] and sweep.record["status"] == "failed"
    (line,) = [line for line in done.stderr.splitlines() if "failed" in line]
    assert line == f"failed: {sweep.runs[1].path.name}: measures.slow: the weight is not to be had"
    assert "measures.slow FAILED: the weight is not to be had" in done.stdout
    table = pd.read_csv(sweep.path / "runs.csv")
    assert table["slow/weight"].isna().tolist() == [False, True]
    again = command(*words, "measures.slow.fails=1", output=tmp_path, **more)  # it is tried again, alone
    assert again.returncode == 1 and "2 runs, 0 to train, 1 to measure" in again.stdout


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (0, "slow/weight: got 2 values, expected 1, one a member"),
        (1, "values: got slow/wait, expected some of its columns slow/weight"),
        (2, "TypeError: Object of type Tensor is not JSON serializable"),
        (3, "rows: got {'at': 1}, expected a member from 0 to 0"),
    ],
)
def test_what_a_measure_may_not_give_fails_it(case, said, mine, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    monkeypatch.delitem(sys.modules, "slow", raising=False)  # of another test
    folder, _ = make_run(tmp_path)
    ask = Ask("wrong", {"_target_": "slow.Wrong", "seconds": 0.0, "fails": case})
    (taken,) = take(Run(folder), [ask])
    assert taken.error == said and read_measured(ask.file(folder)).error == said
    assert missing(Run(folder), [ask]) == [ask]


def test_commands_that_measure_one_sweep_at_once_lose_nothing(mine, finished, tmp_path):
    path = tmp_path / "default"
    shutil.copytree(finished, path)
    (config,), more = mine[0][1:], mine[1]
    environment = {**os.environ, **more}
    commands = [["slow", "slow.seconds=1.5", "--config-dir", config], ["sensitivity"]]
    for file in path.rglob("measures/*"):
        file.unlink()
    both = [WarmProcess(HW1, ["measure", str(path), *words], cwd=ROOT, env=environment) for words in commands]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    sweep = Sweep.read(path)
    assert {"slow", "sensitivity"} <= {ask.name for ask in sweep.asks}
    assert {"slow/weight[seconds=1.5]", "sensitivity/loss"} <= set(pd.read_csv(sweep.path / "runs.csv"))
    assert "measured slow[seconds=1.5] in" in said[0][0] and "measured sensitivity in" in said[1][0]
    assert not list(sweep.path.glob("measuring-*"))


def test_a_sweep_that_a_command_is_at_work_on_is_not_measured(mine, background, hw1, tmp_path):
    flags, more = mine
    process = background(*flags, *RUNS, "measures=[slow]", "measures.slow.seconds=1.5", output=tmp_path, **more)
    while len(list(tmp_path.glob("*/runs/*/result.json"))) < 1:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    done = hw1("measure", tmp_path / "default", "sensitivity")
    assert done.returncode == 1 and "a command is still at work on this sweep" in done.stderr
    assert process.communicate() and process.returncode == 0


def test_a_later_measure_that_fails_leaves_the_sweep_as_it_was(mine, hw1, finished, tmp_path):
    path = tmp_path / "default"
    shutil.copytree(finished, path)
    before = Sweep.read(path).record
    (config,), more = mine[0][1:], mine[1]
    words = ["measure", str(path), "slow", "slow.fails=0", "--config-dir", config]
    process = WarmProcess(HW1, words, cwd=ROOT, env={**os.environ, **more})
    _, stderr = process.communicate()
    after = Sweep.read(path).record
    assert process.returncode == 1 and "measures.slow[fails=0]: the weight is not to be had" in stderr
    assert after["status"] == before["status"] == "complete"
    assert [entry["name"] for entry in after["measured_later"]].count("slow") == 1  # of the other run it was taken


def test_measuring_that_was_killed_goes_on_where_it_was(mine, background, command, tmp_path):
    flags, more = mine
    words = (*flags, *SMALL, "logger=none", "trainer.progress=false", "trainer.max_epochs=1", "seed=range(5)")
    assert command(*words, output=tmp_path, **more).returncode == 0
    weights = contents(tmp_path, "*.safetensors")
    slow = (*words, "measures=[slow]", "measures.slow.seconds=0.2")
    process = background(*slow, output=tmp_path, **more)
    while len(list(tmp_path.glob("*/runs/*/measures/*.json"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    taken = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("measures/*.json")}
    assert 2 <= len(taken) < 5
    done = command(*slow, output=tmp_path, **more)
    assert done.returncode == 0 and f"5 runs, 0 to train, {5 - len(taken)} to measure" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in taken} == taken and contents(tmp_path, "*.safetensors") == weights
    assert len(list(tmp_path.rglob("measures/*.json"))) == 5
    for member in Sweep.read(tmp_path / "default").members():
        assert member.metrics["slow/weight"] == member.theta()[0].item()


def test_a_finished_sweep_with_measures_ends_again_without_torch(finished):
    words = [*RUNS, "measures=[sharpness,sensitivity]", "measures.sharpness.examples=50", f"output={finished.parent}"]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = {words!r}; import train; train.main()\n"
        "sys.exit(str(sorted({'torch', 'lightning', 'pandas', 'matplotlib'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "nothing to do" in done.stdout and done.stderr.splitlines()[-1] == "[]", done.stderr


OBJECTIVE = ("objective.minimise=squared_gradient_norm", "objective.after=1", "seed=0")
RATIO = ("measures=[minimal_ratio]", "measures.minimal_ratio.samples=5", "measures.minimal_ratio.exact_up_to=1000")


def test_the_minimal_ratio_where_the_objective_changes(command, tmp_path):
    done = command(*SMALL, *OBJECTIVE, *RATIO, "callbacks=none", output=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = Sweep.read(tmp_path / "default")
    (run,) = sweep.runs
    assert [file.name for file in (run.path / "snapshots").iterdir()] == ["epoch=000001.safetensors"]
    rows = sweep.measured(run, "minimal_ratio").rows
    assert [(row["epoch"], row["phase"]) for row in rows] == [(1, "training"), (2, "gradient_norm")]
    snapshot = "snapshots/epoch=000001.safetensors"
    (run.path / snapshot).unlink()
    files = {name: sums for name, sums in run.result["files"].items() if name != snapshot}
    rewrite_record(run.path / "result.json", run.result | {"files": files})  # as if it had not been kept
    refused = command(*SMALL, *OBJECTIVE, *RATIO, "callbacks=none", output=tmp_path)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert refused.returncode == 1 and line.startswith("error: measures.minimal_ratio: ")
    assert "has no weights of epoch 1" in line and "delete the folder and run its command again" in line
    too_large = command(*SMALL, *RATIO, "measures.minimal_ratio.search_iterations=3",
                        "measures.minimal_ratio.exact_up_to=10", output=tmp_path / "other")  # fmt: skip
    assert too_large.returncode == 1 and not (tmp_path / "other").exists()
    assert "error: measures.minimal_ratio.search_iterations: got 3 with 610 parameters, expected 0" in too_large.stderr


def test_a_measure_while_training(command, tmp_path):
    words = (*SMALL, "seed=0,1", "trainer.max_epochs=3", "trainer.threads=1")
    tracked = ("callbacks=[default,track]", "measures@callbacks.track.measure=sensitivity")
    done = command(*words, *tracked, "callbacks.track.every_n_epochs=2", output=tmp_path / "tracked")
    assert done.returncode == 0, done.stderr
    plain = command(*words, "measures=[sensitivity]", "callbacks.weight_snapshots.every_n_epochs=2", output=tmp_path)
    assert plain.returncode == 0, plain.stderr
    for one, two in zip(
        Sweep.read(tmp_path / "tracked" / "default").runs, Sweep.read(tmp_path / "default").runs, strict=True
    ):
        assert one.key != two.key and torch.equal(one.theta(), two.theta())
        logged = one.history().dropna(subset=["sensitivity/softmax"])
        assert logged["epoch"].tolist() == [1] and "sensitivity/softmax" not in two.history()
        assert logged["sensitivity/softmax"].notna().all()
    preset = command(*words, "callbacks=[default,minimal_ratio]", "seed=0", output=tmp_path / "preset")
    assert preset.returncode == 0, preset.stderr
    (run,) = Sweep.read(tmp_path / "preset" / "default").runs
    history = run.history().dropna(subset=["minimal_ratio/positive"])
    assert history["epoch"].tolist() == [0, 1, 2]
    shares = history[[f"minimal_ratio/{name}" for name in ("positive", "zero", "negative")]]
    assert shares.sum(axis=1).tolist() == pytest.approx([1, 1, 1])


def test_a_replicated_run_is_measured_member_by_member(command, tmp_path):
    words = (*SMALL, "dataset.seed=0", "measures=[sensitivity,predictions]", "trainer.threads=1")
    assert command(*words, "replicas=2", output=tmp_path / "together").returncode == 0
    assert command(*words, "seed=0,1", output=tmp_path / "alone").returncode == 0
    together = list(Sweep.read(tmp_path / "together" / "default").members())
    alone = list(Sweep.read(tmp_path / "alone" / "default").members())
    assert [member.seed for member in together] == [member.seed for member in alone] == [0, 1]
    for one, two in zip(together, alone, strict=True):
        assert one.metrics["sensitivity/loss"] == pytest.approx(two.metrics["sensitivity/loss"], rel=1e-4)
        assert one.metrics["predictions/constant"] == 0
    assert len(list((tmp_path / "together").rglob("measures/*.json"))) == 2


def test_a_measurement_of_other_weights_is_taken_again(finished, command, tmp_path):
    words = (*SMALL, "seed=0", "measures=[sensitivity]", "logger=none")
    assert command(*words, output=tmp_path).returncode == 0
    (run,) = Sweep.read(tmp_path / "default").runs
    other = Run(next((finished / "runs").glob("seed=1*")))
    run.weights_file.write_bytes(other.weights_file.read_bytes())
    done = command(*words, "measures=[sensitivity,predictions]", output=tmp_path)
    assert done.returncode == 1 and f"{run.weights_file} is damaged: its content is not what was written" in done.stderr
    name = run.weights_file.relative_to(run.path).as_posix()
    files = run.result["files"] | {name: other.result["files"][name]}
    rewrite_record(run.path / "result.json", run.result | {"files": files})  # as if it had been trained to them
    done = command(*words, output=tmp_path)
    assert done.returncode == 0 and "1 run, 0 to train, 1 to measure" in done.stdout
    found = Sweep.read(tmp_path / "default").table("sensitivity/loss")["sensitivity/loss"][0]
    expected = Sweep.read(finished).table("sensitivity/loss")["sensitivity/loss"][1]
    assert found == pytest.approx(expected, rel=1e-12)
