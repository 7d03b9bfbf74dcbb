"""conf/local.yaml: errors about what it sets name it, and a data set that lies nowhere is not told where it lies."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from hw1.command import fail
from hw1.explaining import explain
from hw1.settings import ConfigError
from hw1.settings.conf import PROJECT, shipped
from hw1.settings.local import local_keys
from hydra_plugins.hw1_sweeper.composing import Composer
from hydra_plugins.hw1_sweeper.plan import Pins, jobs_of


@pytest.fixture
def local(tmp_path, monkeypatch):
    """`local(text)` writes the file of a project that a command is at work in."""
    (tmp_path / "conf").mkdir()
    monkeypatch.setenv(PROJECT, str(tmp_path))
    monkeypatch.setattr("sys.argv", ["hw1", "dataset=digits", "optimizer.lr=x"])
    GlobalHydra.instance().clear()
    return lambda text: (tmp_path / "conf" / "local.yaml").write_text(text)


def planned(*words, base):
    """The jobs of a command, one for each list of words."""
    with initialize_config_dir(str(shipped()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        parser = OverridesParser.create(config_loader=loader)
        composer = Composer(loader, loader.load_configuration("train", [], RunMode.MULTIRUN), parser)
        return jobs_of(words, composer, Pins(set()), [], base, loader)


def test_a_root_is_passed_over_by_data_that_have_none(local, tmp_path):
    before = [
        job.key for job in planned(["dataset=digits"], ["dataset=mnist", "dataset.source=bundled"], base=tmp_path)
    ]
    local("dataset: {root: /data, workers: 2}\n")
    digits, mnist = planned(["dataset=digits"], ["dataset=mnist", "dataset.source=bundled"], base=tmp_path)
    assert "root" not in digits.settings.dataset and digits.pins == ["~dataset.root"]
    assert mnist.settings.dataset["root"] == "/data" and digits.settings.dataset["workers"] == 2
    assert [digits.key, mnist.key] == before
    (typed,) = planned(["dataset=digits", "dataset.root=/typed"], base=tmp_path)  # which is refused when it is built
    assert typed.settings.dataset["root"] == "/typed"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("trainer: {thread: 1}", "trainer.thread: no such setting of lightning.Trainer", "trainer.thread"),
        ("trainr: {thread: 1}", "trainr: no such setting; expected one of: about", "trainr.thread"),
        ("trainer: 3", "trainer: got 3, expected a group option with a _target_", "trainer"),
        ("callbacks: {swa: {lr: 3}}", "callbacks.swa: got {'lr': 3}, expected a group option", "callbacks.swa.lr"),
        ("trainer: {threads: 1}", "trainer: got a thing that its threads did not do", None),
        ("optimizer: {lr: y}", "optimizer.lr: got 'x', expected a number", None),  # which is typed
        ("model: {width: 2}", "model.depth: no such setting of mine.Net", None),
        ("- 1", "seed: got 'x', expected an integer", None),
    ],
)
def test_what_is_wrong_in_it_is_said_to_stand_there(local, text, error, said, capsys):
    local(text)
    with pytest.raises(SystemExit):
        fail(ConfigError(f"{error}\nseed: one more"), full=False)
    assert capsys.readouterr().err.splitlines() == [
        f"error: {error}" + (f"; conf/local.yaml sets {said}" if said else ""),
        "error: seed: one more",
    ]


def test_what_hydra_refuses_in_a_file_is_said_to_stand_there(local):
    local("hydra: {launcher: {workrs: 1}}")
    with pytest.raises(Exception) as caught, initialize_config_dir(str(shipped()), version_base="1.3"):
        compose("train", overrides=["dataset=digits"])
    assert explain(caught.value) == "conf/local.yaml: workrs: no such setting of ParallelLauncherConf"
    local("hydra: {launcher: {workers: [1")
    assert local_keys() == []  # Hydra names the file
