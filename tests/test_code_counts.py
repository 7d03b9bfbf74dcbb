"""Runs remember the user's own code that they were trained with; what has changed is not passed over in silence."""

import hashlib
import importlib
import os

import pytest
from filelock import FileLock

import hw1
from hw1.measures.cache import FORMAT
from hw1.measures.take import missing, take
from hw1.records import read_record
from hw1.report.conclude import PAGE, digest
from hw1.runs import Ask, Run, Sweep
from hw1.runs.changed import changed, refuse_changed, set_aside
from hw1.seeds import digest as hashed
from hw1.settings import ConfigError, code
from hw1.training.contents import begin, end
from made_runs import checked, make_run

MODEL = """from my_layers import stack
from torch import nn


class Net(nn.Module):
    def __init__(self, in_shape, out_features, *, hidden, width=1):
        super().__init__()
        self.layers = stack(in_shape[-1] * in_shape[-2], hidden * width, out_features)

    def forward(self, x):
        return self.layers(x.flatten(1))
"""
MEASURE = """from hw1.measures import Column, Finding, Measure


class Size(Measure):
    version = 1
    columns = {"size": Column("size")}

    def take(self, subject, memory):
        return Finding({"size": [1.0]})
"""
CAME_TO = {"metrics": {}, "parameters": 1, "dataset": {"name": "hand", "source": "hand", "train": 1}}
LAYERS = """from torch import nn


def stack(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
"""
WORDS = ("model=net", "model.hidden=3,4", "dataset=digits", "dataset.train_size=60", "trainer.max_epochs=1")


def files(folder):
    """Content hash by path of every file, but for what `--keep` signs, and whose a folder was last."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("kept.json", ".lease"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture
def mine(tmp_path):
    """edit(**{module: text}) writes modules of the user's own; below its `folder` stands a config, too."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "net.yaml").write_text("_target_: my_models.Net\nhidden: 4\nwidth: 1\n")

    def edit(**modules):
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)

    edit(my_models=MODEL, my_layers=LAYERS)
    return edit


@pytest.fixture
def made(mine, tmp_path, monkeypatch):
    """made(name) -> a run in a folder of that name, that has begun with the code as it is."""
    monkeypatch.syspath_prepend(tmp_path)
    read_anew()

    def make(name):
        settings = checked(model={"_target_": "my_models.Net", "hidden": 4})
        folder = tmp_path / "out" / "runs" / name
        begin(folder, settings, [], {}, resumed=False)
        return Run(folder)

    return make


def read_anew():
    """As another process would."""
    importlib.invalidate_caches()
    code._located.cache_clear()
    code._code_of_targets.cache_clear()
    code._read.cache_clear()


def test_runs_with_weights_are_compared(made, mine):
    names = ("finished", "interrupted", "failed", "failed_early", "begun", "of_an_earlier_version")
    runs = {name: made(name) for name in names}
    for name in names:
        record = {"code": runs[name].code, "settings": dict(runs[name].settings.plain)}
        if name == "of_an_earlier_version":
            record, _ = {}, (runs[name].path / "settings.json").unlink()
        if name in ("finished", "failed", "failed_early", "of_an_earlier_version"):
            complete = name in ("finished", "of_an_earlier_version")
            end(runs[name].path, {"format": 2, "status": "complete" if complete else "failed", **CAME_TO, **record})
        if name in ("finished", "interrupted", "failed", "of_an_earlier_version"):
            (runs[name].path / "checkpoints").mkdir()
            (runs[name].path / "checkpoints" / "last.ckpt").write_bytes(b"")
    assert changed(runs.values()) == []
    mine(my_layers=LAYERS.replace("ReLU", "Tanh"))
    read_anew()
    assert changed(runs.values()) == [runs[name] for name in ("finished", "interrupted", "failed")]
    (runs["interrupted"].path / "result.json").write_text("half a rec")
    assert changed([runs["interrupted"]]) == [runs["interrupted"]]
    begin(runs["begun"].path, runs["begun"].settings, [], {}, resumed=True)  # kept: it has the code of its beginning
    assert Run(runs["begun"].path).code == runs["finished"].code != made("anew").code


def test_each_module_is_named_once_with_what_became_of_it(made, mine, tmp_path):
    runs = [made(f"run_{i}") for i in range(6)]
    for run in runs:
        end(
            run.path,
            {"format": 2, "status": "complete", **CAME_TO, "code": run.code, "settings": dict(run.settings.plain)},
        )
    mine(my_models=MODEL.replace("my_layers", "my_new"), my_new=LAYERS)
    read_anew()
    with pytest.raises(ConfigError) as caught:
        refuse_changed(runs, "do something")
    rest = "6 of these runs were trained (run_0, run_1, run_2, ...): do something"
    assert str(caught.value).splitlines() == [
        f"my_layers is no longer found, or no longer imported, since {rest}",
        f"my_models ({tmp_path / 'my_models.py'}) has changed since {rest}",
        f"my_new ({tmp_path / 'my_new.py'}) is imported, which it was not when {rest}",
    ]
    refuse_changed([], "do something")


def test_an_edited_measure_is_taken_again(mine, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    mine(my_size=MEASURE)
    read_anew()
    run, ask = Run(make_run(tmp_path)[0]), Ask("size", {"_target_": "my_size.Size"})
    assert [one.error for one in take(run, [ask])] == [""] and missing(run, [ask]) == []
    mine(my_size="# Mine.\n" + MEASURE)
    read_anew()
    assert missing(run, [ask]) == []
    mine(my_size=MEASURE.replace("1.0", "2.0"))
    read_anew()
    assert missing(run, [ask]) == [ask]


def test_an_edited_study_concludes_again(made, mine, tmp_path):
    record = {"runs": [], "measures": [], "swept": ["seed"], "study": {"_target_": "hw1.studies.LearningCurves"}}
    assert digest(tmp_path, record) == hashed([[], [], [], record["study"], ["seed"], FORMAT, PAGE, hw1.__version__])
    record["study"] = {"_target_": "my_models.Study"}
    first = digest(tmp_path, record)
    mine(my_models='"""Mine."""\n' + MODEL)
    read_anew()
    assert digest(tmp_path, record) == first
    mine(my_layers=LAYERS + "more = 1\n")
    read_anew()
    assert digest(tmp_path, record) != first


def test_nothing_is_lost_where_runs_make_way(made, tmp_path):
    base = tmp_path / "out"
    for number in range(3):
        runs = [made("one"), made("two")]
        (runs[0].path / "mine.txt").write_text(str(number))
        assert set_aside(runs, base).startswith(f"moved to {base / 'replaced'}: one")
    assert {path.parent.name: path.read_text() for path in base.glob("replaced/*/mine.txt")} == {
        "one": "0",
        "one_2": "1",
        "one_3": "2",
    }
    runs, before = [made("one"), made("two")], files(base)
    with FileLock(runs[1].path / ".lock"), pytest.raises(ConfigError, match="two: a command is at work on it"):
        set_aside(runs, base)
    assert before.items() <= files(base).items() and not (base / "replaced" / "one_4").exists()


def test_an_edited_layer_is_noticed_kept_and_trained_again(mine, command, hw1, monkeypatch, tmp_path):
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)

    def train(*words):
        conf = ("--config-dir", str(tmp_path / "conf"))
        return command(*conf, *WORDS, "logger=none", "trainer.threads=1", *words, output=tmp_path / "out")

    base = tmp_path / "out" / "default"
    done = train()
    assert done.returncode == 0, done.stderr
    runs = sorted(Sweep.read(base).runs, key=lambda run: run.path.name)
    assert all(set(run.code) == {"my_models", "my_layers"} for run in runs)

    remark = '"""Mine."""\n' + MODEL.replace("        super", "        # the usual\n        super")
    mine(my_models=remark, my_layers=LAYERS.replace("def", '"""Layers."""\n\n\ndef'))
    done = train()
    assert done.returncode == 0 and "nothing to do: 2 runs" in done.stdout, done.stderr

    mine(my_layers=LAYERS.replace("ReLU", "Tanh"))
    before = files(base)
    names = ", ".join(run.path.name for run in runs)
    line = f"error: my_layers ({tmp_path / 'my_layers.py'}) has changed since 2 of these runs were trained ({names}): "
    for words in ((), ("--dry-run",)):
        refused = train(*words)
        told = f"{line}add --rerun to train them again, or --keep to take them as they are"
        assert (refused.returncode, refused.stdout, refused.stderr.splitlines()[-1]) == (1, "", told)
    told = f"{line}run their command with --rerun to train them again, or add --keep to take them as they are"
    for words in (("report", base), ("measure", base, "sensitivity")):
        refused = hw1(*words)
        assert (refused.returncode, refused.stdout, refused.stderr.splitlines()[-1]) == (1, "", told)
    assert "got both" in train("--rerun", "--keep").stderr and files(base) == before

    kept = train("--keep")
    assert kept.returncode == 0 and "nothing to do: 2 runs" in kept.stdout and files(base) == before
    measured = hw1("measure", base, "sensitivity", "--keep", "--dry-run")
    assert measured.returncode == 0 and "2 to measure" in measured.stdout, measured.stderr

    weights = [run.weights_digest() for run in runs]
    again = train("--rerun")
    assert again.returncode == 0, again.stderr
    assert f"moved to {base / 'replaced'}: {names}\n" in again.stdout and "2 runs, 2 to train" in again.stdout
    moved = {name.replace("runs/", "replaced/"): digest for name, digest in before.items() if name.startswith("runs/")}
    assert moved.items() <= files(base).items()
    assert all(Run(run.path).weights_digest() != digest for run, digest in zip(runs, weights, strict=True))
    assert all(Run(run.path).code != Run(base / "replaced" / run.path.name).code for run in runs)
    assert not any("sweeper" in word for word in read_record(Sweep.read(base).path / "sweep.json")["command"])
    assert "nothing to do: 2 runs" in train().stdout
