"""Every option of every group composes; every experiment YAML runs for two steps and concludes."""

import contextlib
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hw1.help import help_text
from hw1.measures.take import asks_of, measure_of
from hw1.runs import Sweep
from hw1.settings import ConfigError, RunSettings
from hw1.settings.about import experiments
from hw1.settings.budget import budget_words
from hw1.settings.identity import select
from hw1.studies.protocol import make
from hw1.training import build
from hw1.training.learning import validate_learning
from hw1.training.optimization import optimizer_of

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
GROUPS = (
    *("dataset", "model", "loss", "metrics", "optimizer", "scheduler", "callbacks", "measures", "trainer", "logger"),
)
OPTIONS = [
    (group, file.relative_to(CONF / group).with_suffix("").as_posix())
    for group in GROUPS
    for file in sorted((CONF / group).rglob("*.yaml"))
    if file.parent.name != "base"
]
QUICK = ("dataset.source=bundled", "dataset.train_size=200", "trainer.max_epochs=1", "+trainer.limit_train_batches=2")
EXPERIMENTS = sorted(
    file.relative_to(CONF / "experiment").with_suffix("").as_posix() for file in (CONF / "experiment").rglob("*.yaml")
)


@contextlib.contextmanager
def composer(monkeypatch):
    monkeypatch.setenv("HW1_PROJECT", str(ROOT))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *words: OmegaConf.to_container(compose("train", overrides=list(words)), resolve=True)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_builds(group, option, monkeypatch, tmp_path):
    words = [f"{group}={option}"] if (group, option) != ("model", "cnn") else []
    words += ["dataset.source=bundled"] if (group, option) != ("dataset", option) or option == "mnist" else []
    if option in ("function", "digits"):  # too small for the default CNN
        words.append("model=mlp")
    if option == "mean_absolute_error":  # of numbers, not of classes
        words += ["dataset=mnist_mean"]
    if option in ("characters", "modular", "gpt"):
        words = ["model=gpt", f"dataset={option if group == 'dataset' else 'characters'}"]
    if option in ("huggingface", "torch_dataset", "torchvision"):  # built in tests/data, of files and classes
        with composer(monkeypatch) as settings:
            assert settings(*words)["dataset"]["_target_"].startswith("hw1.data.")
        return
    if option == "table":
        (tmp_path / "rows.csv").write_text("a,b,kind\n" + "1,2,red\n3,4,blue\n" * 10)
        words += [f"dataset.file={tmp_path}/rows.csv", "dataset.target=kind", "model=mlp"]
    if option == "arrays":
        for name, array in {"x": np.zeros((20, 1, 28, 28), np.float32), "y": np.arange(20) % 10}.items():
            np.save(tmp_path / f"{name}.npy", array)
        words += [f"dataset.{split}_{name}={tmp_path}/{name}.npy" for split in ("train", "test") for name in "xy"]
    if option == "image_folder":
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                (tmp_path / "pets" / split / name).mkdir(parents=True)
        words += [f"dataset.root={tmp_path}", "dataset.folder=pets"]
    with composer(monkeypatch) as settings:
        composed = settings(*words, f"output={tmp_path}")
    for package in {"wandb", "mlflow"} & set(composed["logger"] or {}):
        pytest.importorskip(package)
    checked = RunSettings.check(composed)
    assert len(checked.key) == 10
    data = build.datamodule(checked.dataset)
    net = build.network(checked, data)
    optimizer = optimizer_of(checked, net)(net.parameters())
    assert optimizer.param_groups[0]["lr"] == composed["optimizer"]["lr"]
    if group in ("loss", "metrics", "scheduler", "optimizer"):
        data.prepare_data()
        validate_learning(checked, data, net)
    assert len(build.callbacks(checked)) == len(composed["callbacks"] or {})
    assert all(measure_of(ask).columns for ask in asks_of(checked.measures))
    assert list(checked.measures) == ([option] if group == "measures" and option != "none" else [])
    if composed["trainer"]["accelerator"] == "cpu":  # gpu: lightning refuses it where there is none
        trainer = build.trainer(checked, tmp_path, [], [])
        assert trainer.max_epochs == composed["trainer"]["max_epochs"]
    assert len(build.loggers(checked, tmp_path, 0)) == len(composed["logger"] or {})


def test_launchers_compose(monkeypatch):
    monkeypatch.setenv("HW1_PROJECT", str(ROOT))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for file in (CONF / "hydra" / "launcher").glob("*.yaml"):
            composed = compose("train", overrides=[f"hydra/launcher={file.stem}"], return_hydra_config=True)
            assert composed.hydra.launcher._target_.endswith("Launcher")


def test_the_help_lists_every_option():
    text = help_text(CONF)
    part = re.search(r"\ngroups .*?\n\n", text, re.DOTALL)[0]
    listed = {
        name: " ".join(said.split()) for name, said in re.findall(r"^  (\S+)= ((?:.|\n   )*)", part, re.MULTILINE)
    }
    for group, option in OPTIONS:
        assert option in listed[group].split(", ")
    for name in EXPERIMENTS:
        question, _, variant = name.partition("/")
        block = re.search(rf"^  {question} \(.*\)\n(      .*\n)*", text, re.MULTILINE)[0]
        assert not variant or f"/{variant}" in re.split(r",?\s+", block)


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
    "trainer.devices=2": r"^trainer\.devices: got 2, expected 1",
    "+nonsense=1": r"^nonsense: no such setting; expected one of: about, adopted, budget, ",
    "callbacks.weight_snapshots.every_n_epochs=0": r"^callbacks\.weight_snapshots\.every_n_epochs: got 0, expected",
    "+scheduler._target_=torch.optim.lr_scheduler.Step": r"^scheduler\._target_: got .* cannot be imported",
}


@pytest.mark.parametrize("word", REFUSED)
def test_bad_values_are_refused_by_their_key(word, monkeypatch, tmp_path):
    with composer(monkeypatch) as settings:
        composed = settings("dataset.source=bundled", word.replace("+scheduler", "++scheduler"))
    with pytest.raises(ConfigError, match=REFUSED[word]):
        build.validate(RunSettings.check(composed), tmp_path)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_yaml_says_question_command_and_expectation(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    about = experiments(CONF)[name]
    assert f"# python train.py experiment={name}\n" in text
    assert about.title and about.question[0].isupper() and about.expect.endswith(".") and 0 < about.hours < 24


@pytest.mark.slow  # the questions and their variants run for two steps by default
def test_the_variant_in_contributing_works(command, tmp_path):
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    file = tmp_path / "conf" / "experiment" / "flatness_interp" / "wide.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(block)
    done = command(
        "--config-dir",
        str(tmp_path / "conf"),
        "experiment=flatness_interp/wide",
        "measures=none",  # sharpness takes longer than the trainings
        "study.points=7",
        *QUICK,
        output=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert {run.result["parameters"] for run in Sweep.read(tmp_path / "flatness_interp_wide").runs} == {57906}


def quick(composed):
    """QUICK as far as it fits the experiment: a function is all its points; two seeds, members or values are enough,
    and one seed where measuring a run takes longer than two steps.
    """
    words, swept = list(QUICK), composed.hydra.sweeper.params or {}
    if "source" not in composed.dataset:
        words.remove("dataset.source=bundled")
    if "function" in composed.dataset:
        words.remove("dataset.train_size=200")
    if composed.dataset._target_ == "hw1.data.Cifar10":  # which is not bundled
        words.append("dataset=digits")
    if "seed" in swept:
        words.append("seed=0" if "sharpness" in composed.measures else "seed=0,1")
    for key in {"model.width", "dataset.batch_size", "optimizer.lr"} & set(swept):
        words.append(f"{key}={','.join(str(swept[key]).split(',')[:2])}")
    if swept.get("model.hidden"):
        nets = re.findall(r"\[[^]]*\]", swept["model.hidden"])
        words.append(f"model.hidden={','.join(nets[:2])}")
    if (composed.study or {}).get("points") == 31:  # from -1 to 2
        words.append("study.points=7")
    if "sharpness" in composed.measures:
        words += ["measures.sharpness.examples=8", "measures.sharpness.trace_products=6", "model.width=0.25"]
    if composed.replicas > 1:
        words.append("replicas=2")
    if composed.objective.after:
        words[words.index("trainer.max_epochs=1")] = "trainer.max_epochs=2"
        words.append("objective.after=1")
    if "minimal_ratio" in composed.measures:
        words += [f"measures.minimal_ratio.{name}=2" for name in ("probes", "steps", "samples")]
        if composed.measures.minimal_ratio.search_iterations:
            words.append("measures.minimal_ratio.search_iterations=1")
    return [*words, "trainer.check_val_every_n_epoch=1", "trainer.threads=1"]


def two_steps(names, folder, in_one_process):
    """{experiment: (exit code, what it said, folder)} after two steps of every run."""
    commands = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HW1_PROJECT", str(ROOT))
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            for name in names:
                composed = compose("train", overrides=[f"experiment={name}"], return_hydra_config=True)
                commands[name] = [f"experiment={name}", *quick(composed), f"output={folder}"]
    ends = in_one_process(commands)
    return {
        name: (code, stdout + stderr, folder / name.replace("/", "_")) for name, (code, stdout, stderr) in ends.items()
    }


def concluded(code, said, folder):
    """Whether a command ended well and left a page with figures."""
    assert code == 0, said
    (sweep,) = (folder / "sweeps").iterdir()
    assert {"sweep.json", "runs.csv", "report.html"} <= {path.name for path in sweep.iterdir()}
    assert list(sweep.glob("*.png")) and len(list(sweep.glob("*.png"))) == len(list(sweep.glob("*.svg")))


QUESTIONS = [name for name in EXPERIMENTS if "/" not in name]
VARIANTS = [name for name in EXPERIMENTS if "/" in name]
SOME_QUESTIONS = sorted(random.Random(0).sample(QUESTIONS, 4))
OTHER_QUESTIONS = sorted({*QUESTIONS} - {*SOME_QUESTIONS})
SOME_VARIANTS = random.Random(0).sample(VARIANTS, 16)


@pytest.fixture(scope="module")
def questions(tmp_path_factory, in_one_process):
    return two_steps(SOME_QUESTIONS, tmp_path_factory.mktemp("questions"), in_one_process)


@pytest.fixture(scope="module")
def other_questions(tmp_path_factory, in_one_process):
    return two_steps(OTHER_QUESTIONS, tmp_path_factory.mktemp("questions"), in_one_process)


@pytest.fixture(scope="module")
def variants(tmp_path_factory, in_one_process):
    return two_steps(VARIANTS, tmp_path_factory.mktemp("variants"), in_one_process)


@pytest.mark.parametrize("name", SOME_QUESTIONS)
def test_some_questions_run_for_two_steps(name, questions):
    concluded(*questions[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_QUESTIONS)
def test_the_other_questions_run_for_two_steps(name, other_questions):
    concluded(*other_questions[name])


@pytest.mark.parametrize(
    "name", [name for name in EXPERIMENTS if OmegaConf.load(CONF / f"experiment/{name}.yaml").get("quick")]
)
def test_every_setting_of_a_quick_budget_is_one(name, monkeypatch):
    with composer(monkeypatch) as settings:
        words = [f"experiment={name}", "budget=quick"]
        own = OverridesParser.create().parse_overrides(budget_words(settings(*words)))
        composed = settings(*words, *(word.input_line for word in own if not word.is_sweep_override()))
    for word in own:
        assert word.is_sweep_override() or select(composed, word.key_or_group) == word.value()


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("flatness")])
def test_a_quick_budget_keeps_what_the_study_compares(name, monkeypatch):
    """A variant takes on the quick settings of its experiment: one learning rate, say, where it compares three."""
    with composer(monkeypatch) as settings:
        words = [f"experiment={name}", "budget=quick"]
        params = compose("train", overrides=words, return_hydra_config=True).hydra.sweeper.params or {}
        swept = dict(params) | dict(word.split("=", 1) for word in budget_words(settings(*words)))
        study = settings(*words)["study"]
    for key in {study.get("across"), study.get("pair_by")} & set(swept):
        (word,) = OverridesParser.create().parse_overrides([f"{key}={swept[key]}"])
        assert word.is_sweep_override() and len(list(word.sweep_string_iterator())) > 1


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_says_only_what_differs(name):
    text = re.sub(r"^about:\n(  .*\n)+", "", (CONF / "experiment" / f"{name}.yaml").read_text(), flags=re.MULTILINE)
    assert len(text.splitlines()) < 13


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_runs_for_two_steps(name, variants):
    concluded(*variants[name])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SOME_VARIANTS else pytest.mark.slow) for name in VARIANTS]
)
def test_every_run_of_a_variant_can_be_built(name, monkeypatch, tmp_path):
    """The first combination of what it sweeps: data, network, optimizer, callbacks and trainer; and its study."""
    with composer(monkeypatch) as settings:
        config = compose("train", overrides=[f"experiment={name}"], return_hydra_config=True)
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items() if value is not None]
        first = []
        for word in OverridesParser.create().parse_overrides(params):
            value = next(word.sweep_string_iterator()) if word.is_sweep_override() else word.get_value_element_as_str()
            first.append(f"{word.key_or_group}={value}")
        words = ["dataset.source=bundled"] if "source" in config.dataset else []
        words += ["dataset.train_size=200"] if "function" not in config.dataset else []
        composed = settings(f"experiment={name}", *first, *words)
    if composed["dataset"]["_target_"] != "hw1.data.Cifar10":  # which is not at hand everywhere
        build.validate(RunSettings.check(composed), tmp_path)
    assert make(composed["study"])
