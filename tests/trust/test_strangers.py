"""Runs and sweeps of somebody else: opened without running anything; and the user's own, without a word."""

import importlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest
from omegaconf import OmegaConf

from composed import plain, trained
from hw1.__main__ import main
from hw1.data.downloads import may_download, nothing_downloaded
from hw1.records import make_key, read_record, rewrite_record, write_record
from hw1.report.conclude import conclude
from hw1.runs import Run, Sweep
from hw1.runs.sound import verify
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import call
from hw1.trust import TrustError, keep_code, reading
from hw1.trust.data import asked_of, strangers, with_given
from hw1.trust.owner import vouch
from hw1.trust.projects import add_project, is_project, projects
from hw1.trust.reading import SAID, take_words
from hw1.trust.sign import carry_out, lines, plan

TINY = ("dataset=digits", "dataset.train_size=60", "trainer.max_epochs=1", "logger=none", "trainer.threads=1")
FORGED = "0" * 64


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of hw1's own network, and one of the user's own, with a sweep of each."""
    make_key()
    tiny = plain("model=mlp", "model.hidden=[3]", *TINY, "callbacks=weight_snapshots")
    base = tmp_path_factory.mktemp("trained") / "multirun" / "mine"
    code = base.parent.parent
    (code / "her_net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_shape, out_features):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, out_features))\n"
    )
    sys.path.insert(0, str(code))
    try:
        runs = [
            trained(RunSettings.check(tiny), base / "runs"),
            trained(RunSettings.check({**tiny, "model": {"_target_": "her_net.Net"}}), base / "runs"),
        ]
    finally:
        sys.path.remove(str(code))
    record = {"format": 2, "name": "mine", "status": "complete", "command": ["model=mlp"], "swept": [], "study": None}
    entries = [{"key": run.key, "folder": run.path.name, "overrides": []} for run in runs]
    (base / "sweeps" / "one").mkdir(parents=True)
    write_record(base / "sweeps" / "one" / "sweep.json", {**record, "measures": [], "runs": entries})
    return base


@pytest.fixture
def handed_over(finished, tmp_path, monkeypatch):
    """The same, on the machine of a user with another key, who stands in a folder of her own."""
    shutil.copytree(finished.parents[1], tmp_path / "given")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setenv(SAID, "{}")
    sys.modules.pop("her_net", None)
    make_key()
    return tmp_path / "given" / "multirun" / "mine"


def runs_of(base):
    """(run of hw1's network, run of the user's own)."""
    runs = Sweep.read(base).runs
    return sorted((Run(run.path) for run in runs), key=lambda run: "her_net" in run.value("model._target_"))


def planted(run, **changed):
    """Other settings in the records of a run, as somebody without the key writes them."""
    for name in ("result.json", "settings.json"):
        record = read_record(run.path / name)
        record["settings"] |= changed
        (run.path / name).unlink()
        rewrite_record(run.path / name, record)
    return Run(run.path)


def test_a_strangers_run_opens_without_a_word(finished, handed_over):
    own, theirs = runs_of(finished)[0], runs_of(handed_over)[0]
    assert theirs.why_not_own and f"hw1 trust {handed_over} if it is yours" in theirs.why_not_own
    assert theirs.theta().equal(own.theta()) and theirs.snapshots().values.shape[0] == 2
    assert theirs.datamodule().sizes["train"] == 60 and theirs.net() is not None


def test_what_a_stranger_plants_in_a_runs_settings_is_refused_unrun(handed_over, tmp_path):
    canary = tmp_path / "canary"
    node = {"_target_": "torch.os.system", "command": f"touch {canary}"}
    call(node, "model")  # the naive way
    canary.unlink()
    run, other = runs_of(handed_over)
    model, dataset = run.settings.plain["model"], run.settings.plain["dataset"]
    for changed in ({"model": node}, {"model": {**model, "hidden": [node]}}, {"dataset": {**dataset, "x": node}}):
        run = planted(run, **{"model": model, "dataset": dataset} | changed)
        for opened in (run.net, run.nets, run.theta, run.snapshots, run.datamodule):
            with pytest.raises(TrustError, match=r"_target_: got 'torch\.os\.system'"):
                opened()
    assert not canary.exists()
    assert other.value("model._target_") == "her_net.Net"
    with pytest.raises(TrustError, match=r"^model\._target_: got 'her_net.Net', expected .*trust=\[her_net"):
        other.net()
    assert "her_net" not in sys.modules


def test_a_signature_is_that_of_the_record_that_is_read(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "mine")
    run = runs_of(tmp_path / "mine")[0]
    assert run.is_signed and not run.why_not_own  # the same key
    record = read_record(run.path / "result.json")
    record["settings"]["model"] = {"_target_": "os.getcwd"}
    (run.path / "result.json").write_text(json.dumps(record | {"signature": FORGED, "format": 1}))
    rewrite_record(run.path / "result.json", record)  # beside her own settings.json
    with pytest.raises(TrustError, match=r"^model\._target_: got 'os.getcwd'"):
        Run(run.path).net()


def test_the_study_and_measures_of_a_strangers_sweep_are_hw1s_alone(handed_over, tmp_path, capsys):
    canary = tmp_path / "canary"
    node = {"_target_": "os.system", "command": f"touch {canary}"}
    call(node, "study")
    canary.unlink()
    file = handed_over / "sweeps" / "one" / "sweep.json"
    record = read_record(file)
    rewrite_record(file, {**record, "study": node})
    with pytest.raises(TrustError, match=r"^study\._target_: got 'os.system', expected .* of hw1.studies"):
        conclude(file.parent)
    assert main(["report", str(file.parent)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: study._target_: got 'os.system'") and said.count("\n") == 1 and not canary.exists()


def test_ones_own_model_is_measured_without_a_word_while_it_is_what_it_was(finished, tmp_path, monkeypatch):
    shutil.copytree(finished.parents[1], tmp_path / "p")
    monkeypatch.syspath_prepend(str(tmp_path / "p"))
    sys.modules.pop("her_net", None)
    folder = runs_of(tmp_path / "p" / "multirun" / "mine")[1].path
    assert Run(folder).net() is not None and Run(folder).why_not_own == ""
    assert Path(sys.modules["her_net"].__file__).parent == tmp_path / "p"


def in_place_of(module, folder, monkeypatch, text):
    """Another module of this name first on the path, as a stranger's folder may hold one."""
    folder.mkdir()
    (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop(module, None)


def test_ones_own_run_does_not_take_somebody_elses_module_of_the_same_name(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "mine")  # signed, as she has published it
    in_place_of("her_net", tmp_path / "evil", monkeypatch, f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    run = runs_of(tmp_path / "mine")[1]
    with pytest.raises(TrustError, match=r"her_net \(.*evil.*\) is not what .* was trained with; restore it"):
        run.net()
    assert not (tmp_path / "canary").exists()
    importlib.import_module("her_net")  # the naive way
    assert (tmp_path / "canary").exists()
    sys.modules.pop("her_net")
    keep_code(run.path, run.settings.plain, run.key)  # --keep
    assert Run(run.path).why_not_own == ""
    shutil.copy(run.path / "kept.json", runs_of(tmp_path / "mine")[0].path)
    record = read_record(run.path / "kept.json")
    rewrite_record(run.path / "kept.json", {**record, "key": "x"})
    assert Run(run.path).why_not_own  # of another run


def test_trusting_a_folder_says_what_it_imports_and_makes_it_ones_own(handed_over, capsys, monkeypatch):
    given = handed_over.parents[1]
    monkeypatch.syspath_prepend(str(given))
    before = {path: path.read_bytes() for path in given.rglob("*") if path.is_file()}
    assert main(["trust", str(given)]) == 1  # no terminal
    out, err = capsys.readouterr()
    assert "2 runs, 1 sweep, and the folder as a project" in out and "would import her_net" in out
    assert "--yes signs it" in err and {path: path.read_bytes() for path in before} == before
    assert not is_project(given) and runs_of(handed_over)[1].why_not_own
    assert main(["trust", str(given), "--yes"]) == 0
    assert is_project(given) and projects() == [given.resolve()]
    assert runs_of(handed_over)[1].net() is not None and not Sweep.read(handed_over).why_not_own
    assert "0 of 5 records signed" in carry_out(plan(given))
    found = verify(handed_over)
    assert not found.damage and not found.foreign  # results list the files as they are now
    with pytest.raises(ConfigError, match="got no results and no project"):
        plan(handed_over / "runs" / runs_of(handed_over)[0].path.name / "snapshots")


def test_what_is_signed_is_what_was_shown(handed_over):
    file = runs_of(handed_over)[0].path / "result.json"
    made, shown = plan(handed_over), read_record(file)
    rewrite_record(file, {**shown, "settings": {**shown["settings"], "model": {"_target_": "os.system"}}})
    carry_out(made)  # whatever somebody puts there while the user reads
    assert read_record(file)["settings"] == shown["settings"]


def test_what_is_signed_lies_in_the_folder(handed_over, tmp_path):
    elsewhere = runs_of(handed_over)[1].path
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "run").symlink_to(elsewhere)
    shutil.copytree(runs_of(handed_over)[0].path, tmp_path / "small" / "own")
    (tmp_path / "small" / "own" / "result.json").write_text("{")
    made = plan(tmp_path / "small")
    assert [file.name for file in made.records] == ["settings.json"] and "left as it is" in "".join(lines(made))


def test_modules_are_trusted_on_the_command_line_in_python_and_in_the_configuration_folder(handed_over, tmp_path):
    run, here = runs_of(handed_over)[1], Path.cwd()
    for name in ("her_net.py", "json.py", "wandb.py"):
        text = (handed_over.parents[1] / "her_net.py").read_text() if name == "her_net.py" else "raise SystemExit\n"
        (here / name).write_text(text)
    (here / "trusted.yaml").write_text("modules: [her_net]\n")  # of the current folder: nobody's word
    (run.path / "trusted.yaml").write_text("modules: [her_net]\n")
    with pytest.raises(TrustError):
        Run(run.path).net()
    assert take_words(["report", "x", "trust=[her_net]"], here) == ["report", "x"]
    assert reading().trusted == ("her_net",) and Run(run.path).net() is not None
    assert (
        importlib.util.find_spec("wandb") is None or here not in Path(importlib.util.find_spec("wandb").origin).parents
    )
    sys.modules.pop("her_net")
    take_words(["report"], here)
    with pytest.raises(TrustError):
        Run(run.path).net()
    with pytest.raises(TrustError, match="that is found here"):
        Run(run.path, trust=["her_net"]).net()
    sys.path.insert(0, str(here))
    assert Run(run.path, trust=["her_net"]).net() is not None
    sys.path.remove(str(here))
    sys.modules.pop("her_net")
    (tmp_path / "config" / "hw1" / "trusted.yaml").write_text("modules: [her_net]\n")
    take_words(["report"], here)
    assert Run(run.path).net() is not None
    for words in (["trust=a-b"], ["trust="], ["trust=[x:y]"]):
        with pytest.raises(ConfigError, match=r"^trust: got .*, expected names of modules"):
            take_words(words, here)


def test_projects_are_a_signed_list_of_resolved_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "p").mkdir()
    assert add_project(tmp_path / "p") == "" and is_project(tmp_path / "p" / ".." / "p")
    file = tmp_path / "config" / "hw1" / "projects.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "projects": [str(tmp_path)]}))
    assert not is_project(tmp_path) and not is_project(tmp_path / "p")


# Data

TABLE = {"_target_": "hw1.data.Table", "root": "/etc", "file": "x/a.csv", "test_file": None, "target": "passwd"}


def test_no_path_of_a_strangers_is_opened(tmp_path):
    with pytest.raises(TrustError, match=r"^dataset\.file: got 'x/a.csv' of a stranger, expected where yours is"):
        strangers(TABLE, {})
    found = strangers(TABLE, {"root": str(tmp_path)})
    assert found["root"] == str(tmp_path) and found["file"] == str(tmp_path / "x" / "a.csv")
    assert strangers(TABLE, {"file": "mine.csv"})["file"] == "mine.csv"
    assert strangers(TABLE, {"file": "mine.csv"})["root"] is None
    (tmp_path / "link").symlink_to("/etc")
    for path in ("/etc/passwd", "../a.csv", "link/passwd", "x/../../a.csv", "a\0"):
        with pytest.raises(TrustError, match=r"^dataset\.file: got .* not below dataset\.root"):
            strangers({**TABLE, "file": path}, {"root": str(tmp_path)})
    hub = {"_target_": "hw1.data.HuggingFace", "root": None, "folder": "f", "train": "../..", "test": "test"}
    with pytest.raises(TrustError, match=r"^dataset\.train: got '\.\./\.\.'"):
        strangers(hub, {"folder": "mine"})
    sets = {"_target_": "hw1.data.TorchvisionSet", "root": "/", "set": "SVHN", "options": {}, "train": None}
    assert strangers(sets, {})["root"] is None
    for changed in ({"set": "CocoCaptions"}, {"options": {"annFile": "/etc/passwd"}}, {"options": {"download": True}}):
        with pytest.raises(TrustError, match=r"^dataset\.(set|options\.\w+): got"):
            strangers({**sets, **changed}, {})
    own = {"_target_": "her_data.Rows", "file": "/etc/passwd", "size": 3, "kind": "values"}  # trusted, its path is not
    with pytest.raises(TrustError, match=r"^dataset\.file"):
        strangers(own, {})
    inside = {"_target_": "hw1.data.TorchDataset", "train": {"_target_": "her_data.Rows", "file": "/etc/passwd"}}
    with pytest.raises(TrustError, match=r"^dataset\.train\.file"):
        strangers(inside, {})
    listed = {"_target_": "her_data.Rows", "files": ["/etc/passwd"]}
    with pytest.raises(TrustError, match=r"^dataset\.files\.0"):
        strangers(listed, {})
    assert strangers({**TABLE, "features": ["a/b"]}, {"file": "x.csv"})["features"] == ["a/b"]
    assert with_given(TABLE, {"root": "/data"})["root"] == "/data"
    with pytest.raises(ConfigError, match=r"^dataset\.target: got a setting of the run"):
        with_given(TABLE, {"target": "x"})
    with nothing_downloaded():
        assert not may_download()
    assert may_download()


def test_every_path_that_a_source_of_hw1s_takes_is_known():
    import inspect

    import hw1.data

    harmless = "size channels kind target features split_column test_fraction split_seed standardise"
    harmless += " classes mmap length inputs stream source function domain points noise noise_seed"
    harmless += " test_points p operation train_fraction test_size options set in_shape out_features"
    harmless += " train test self"
    for name in set(hw1.data.__all__) - {"DataModule"}:
        taken = set(inspect.signature(getattr(hw1.data, name).__init__).parameters) - {"args", "kwargs"}
        assert taken - set(harmless.split()) <= set(asked_of({"_target_": f"hw1.data.{name}"})), name


def test_data_that_are_not_here_are_asked_for_and_not_downloaded(handed_over, tmp_path, monkeypatch):
    run = runs_of(handed_over)[0]
    node = {"_target_": "hw1.data.FashionMnist", "root": str(tmp_path / "theirs")}
    run = planted(run, dataset={**run.settings.plain["dataset"], **node})
    monkeypatch.setenv("HW1_DATA", str(tmp_path / "nothing"))
    with pytest.raises(TrustError, match=r"nothing is downloaded.*add dataset.root=FOLDER"):
        run.datamodule()
    with pytest.raises(TrustError, match=r"elsewhere.*nothing is downloaded"):
        run.datamodule(root=tmp_path / "elsewhere")
    assert not (tmp_path / "nothing").exists() and not (tmp_path / "theirs").exists()


# Commands


def test_a_measure_in_a_strangers_sweep_is_not_taken(handed_over, tmp_path, monkeypatch):
    from hw1.runs import Ask
    from hydra_plugins.hw1_sweeper import measuring

    node = {"_target_": "os.system", "command": f"touch {tmp_path / 'canary'}"}
    file = handed_over / "sweeps" / "one" / "sweep.json"
    rewrite_record(file, {**read_record(file), "measures": [Ask("sharpness", node).record()]})
    config = OmegaConf.create({"measures": {"sharpness": {"_target_": "hw1.measures.Sharpness"}}})
    loader = mock.Mock()
    loader.load_configuration.return_value = config
    monkeypatch.setattr(measuring, "limited", lambda settings, _: {})
    parser = mock.Mock()
    parser.create.return_value.parse_overrides.return_value = []
    monkeypatch.setattr(measuring, "OverridesParser", parser)
    with pytest.raises(TrustError, match=r"^measures\.sharpness\._target_: got 'os.system'"):
        measuring.asks_of_command(config, loader, Sweep.read(file), [])
    assert not (tmp_path / "canary").exists()


def test_a_strangers_data_are_not_asked_whether_they_have_changed(handed_over, monkeypatch):
    from hw1.runs import changed as compared

    asked = []
    monkeypatch.setattr(compared, "today", lambda node, known_only: asked.append(known_only))
    compared.changed(runs_of(handed_over))
    assert asked == [True]


def test_what_a_command_has_composed_is_its_users_own_without_a_key(handed_over):
    run = runs_of(handed_over)[0]
    planted_one = planted(run, seed=12345)
    assert planted_one.why_not_own
    vouch([planted_one.settings.plain])
    assert not Run(run.path).why_not_own
    assert runs_of(handed_over)[1].why_not_own


@pytest.mark.slow
def test_the_same_command_again_and_measures_in_a_folder_that_a_stranger_filled(tmp_path, command, hw1, monkeypatch):
    words = ("model=mlp", "model.hidden=[3]", "dataset=digits", "dataset.train_size=60", "trainer.max_epochs=1")
    first = command(*words, "logger=none", "trainer.threads=1", output=tmp_path)
    assert first.returncode == 0, first.stderr
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    again = command(*words, "logger=none", "trainer.threads=1", output=tmp_path)
    assert again.returncode == 0 and "nothing to do: 1 run" in again.stdout
    assert hw1("report", tmp_path / "default").returncode == 0
    measured = hw1("measure", tmp_path / "default", "sensitivity")
    assert measured.returncode == 0, measured.stderr
    canary = tmp_path / "canary"
    run = Sweep.read(tmp_path / "default").runs[0]
    planted(run, model={"_target_": "os.system", "command": f"touch {canary}"})
    refused = hw1("measure", tmp_path / "default", "sharpness")
    assert refused.returncode == 1 and "model._target_: got 'os.system'" in refused.stderr.splitlines()[-1]
    for words in (("report", tmp_path / "default"), ("list", tmp_path), ("export", tmp_path), ("verify", tmp_path)):
        assert "Traceback" not in hw1(*words).stderr
    assert not canary.exists()
