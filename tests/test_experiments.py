"""Every option of every group composes; every experiment YAML runs for two steps and concludes."""

import contextlib
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from hw1.command import help_text
from hw1.runs import Sweep
from hw1.training import build
from hw1.training.identity import ConfigError, run_key

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
GROUPS = ("dataset", "model", "optimizer", "callbacks", "trainer", "logger")
OPTIONS = [
    (group, file.relative_to(CONF / group).with_suffix("").as_posix())
    for group in GROUPS
    for file in sorted((CONF / group).rglob("*.yaml"))
    if file.parent.name != "base"
]
QUICK = ("dataset.source=bundled", "dataset.train_size=200", "trainer.max_epochs=1", "+trainer.limit_train_batches=2")
QUICK_MEASURES = {
    "sharpness": ("examples=32", "trace_products=6"),
    "minimal_ratio": ("probes=2", "steps=10", "samples=20"),
}
EXPERIMENTS = sorted(
    file.relative_to(CONF / "experiment").with_suffix("").as_posix() for file in (CONF / "experiment").rglob("*.yaml")
)


@contextlib.contextmanager
def composer(monkeypatch):
    monkeypatch.setenv("HW1_CHECKOUT", str(ROOT))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *words: OmegaConf.to_container(compose("train", overrides=list(words)), resolve=True)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_builds(group, option, monkeypatch, tmp_path):
    words = [f"{group}={option}"] if (group, option) != ("model", "cnn") else []
    words += ["dataset.source=bundled"] if (group, option) != ("dataset", option) or option == "mnist" else []
    if option in ("function", "digits"):  # too small for the default CNN
        words.append("model=mlp")
    if option == "image_folder":
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                (tmp_path / "pets" / split / name).mkdir(parents=True)
        words += [f"dataset.root={tmp_path}", "dataset.folder=pets"]
    with composer(monkeypatch) as settings:
        composed = settings(*words)
    assert len(run_key(composed)) == 10
    data = build.datamodule(composed)
    net = build.network(composed, data)
    optimizer, _ = build.optimization(composed)
    assert optimizer(net.parameters()).param_groups[0]["lr"] == composed["optimizer"]["lr"]
    assert len(build.callbacks(composed)) == len(composed["callbacks"] or {})
    if composed["trainer"]["accelerator"] == "cpu":  # gpu: lightning refuses it where there is none
        trainer = build.trainer(composed, tmp_path, [], [])
        assert trainer.max_epochs == composed["trainer"]["max_epochs"]
    assert len(build.loggers(composed, tmp_path, 0)) == len(composed["logger"] or {})


def test_launchers_compose(monkeypatch):
    monkeypatch.setenv("HW1_CHECKOUT", str(ROOT))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for file in (CONF / "hydra" / "launcher").glob("*.yaml"):
            composed = compose("train", overrides=[f"hydra/launcher={file.stem}"], return_hydra_config=True)
            assert composed.hydra.launcher._target_.endswith("Launcher")


def test_the_help_lists_every_option():
    text = help_text(CONF)
    listed = {line.split("=", 1)[0].strip(): line.split("=", 1)[1] for line in text.splitlines() if "=   " in line}
    for group, option in [*OPTIONS, *(("experiment", name) for name in EXPERIMENTS)]:
        assert option in [word.strip() for word in listed[group].split(",")]


REFUSED = {
    "dataset.train_size=100000": r"^dataset\.train_size: got 100000, expected at most 4000$",
    "+model.depth=3": r"^model\.depth: no such setting of hw1\.models\.Cnn; expected one of: .*layers",
    "model.layers=[c9]": r"^model\.layers: got 'c9' in \['c9'\]: expected c3\(10\)",
    "trainer.max_epochs=0": r"^trainer\.max_epochs: got 0, expected a positive integer$",
    "trainer.threads=0": r"^trainer\.threads: got 0, expected a positive integer$",
    "+trainer.epochs=3": r"^trainer\.epochs: no such setting of lightning\.Trainer",
    "optimizer.weight_decay=-1": r"^optimizer: .*weight_decay.*-1",
    "optimizer.fused=maybe": r"^optimizer\.fused: got 'maybe', expected true or false or null$",
    "init=same": r"^init: got 'same', expected shared or independent$",
    "seed=-1": r"^seed: got -1, expected an integer of at least 0$",
    "callbacks.weight_snapshots.every_n_epochs=0": r"^callbacks\.weight_snapshots\.every_n_epochs: got 0, expected",
    "+scheduler._target_=torch.optim.lr_scheduler.Step": r"^scheduler\._target_: got .* cannot be imported",
}


@pytest.mark.parametrize("word", REFUSED)
def test_bad_values_are_refused_by_their_key(word, monkeypatch, tmp_path):
    with composer(monkeypatch) as settings:
        composed = settings("dataset.source=bundled", word.replace("+scheduler", "++scheduler"))
    with pytest.raises(ConfigError, match=REFUSED[word]):
        build.validate(composed, tmp_path)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_yaml_says_question_command_and_expectation(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    for word in ("# Question:", f"python train.py experiment={name}", "# Expect:"):
        assert word in text


def test_the_variant_in_contributing_works(command, tmp_path):
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    file = tmp_path / "conf" / "experiment" / "flatness_interp" / "wide.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(block)
    done = command(
        "--config-dir",
        str(tmp_path / "conf"),
        "experiment=flatness_interp/wide",
        *QUICK,
        output=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert {run.result["parameters"] for run in Sweep.read(tmp_path / "flatness_interp_wide").runs} == {57906}


def quick(name, monkeypatch):
    """QUICK as far as it fits the experiment: functions have no source; two of many values are enough, one seed of
    runs that take longer to measure than to train.
    """
    monkeypatch.setenv("HW1_CHECKOUT", str(ROOT))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", overrides=[f"experiment={name}"], return_hydra_config=True)
    words = [word for word in QUICK if "source" not in word or "source" in composed.dataset]
    measures = [measure for measure in QUICK_MEASURES if measure in (composed.callbacks or {})]
    words += [f"callbacks.{measure}.{word}" for measure in measures for word in QUICK_MEASURES[measure]]
    for key, values in (composed.hydra.sweeper.params or {}).items():
        if key == "seed":
            words.append("seed=0" if "sharpness" in measures else "seed=0,1")
        elif "[" not in str(values):
            words.append(f"{key}={','.join(str(values).split(',')[:2])}")
    return words


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_for_two_steps(name, command, tmp_path, monkeypatch):
    done = command(f"experiment={name}", *quick(name, monkeypatch), output=tmp_path)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / name.replace("/", "_") / "sweeps").iterdir()
    assert {"sweep.json", "runs.csv", "report.html"} <= {path.name for path in sweep.iterdir()}
    assert list(sweep.glob("*.png")) and len(list(sweep.glob("*.png"))) == len(list(sweep.glob("*.svg")))
