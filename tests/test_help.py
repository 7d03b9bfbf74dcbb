"""What train.py says of itself: fits a terminal, knows every experiment, reads neither Hydra nor torch."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hw1
from hw1.help import WIDTH, experiment_help, help_for, help_text, start_line, version_text
from hw1.settings import ConfigError

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
EXPERIMENTS = sorted(
    file.relative_to(CONF / "experiment").with_suffix("").as_posix() for file in (CONF / "experiment").rglob("*.yaml")
)


def about_of(name):
    return yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())["about"]


def test_the_help_fits_a_terminal_and_asks_every_question():
    text = help_text(CONF)
    assert text.startswith("usage: python train.py") and max(map(len, text.splitlines())) <= WIDTH
    flat = " ".join(text.split())
    for name in (name for name in EXPERIMENTS if "/" not in name):
        about = about_of(name)
        assert re.search(rf"^  {name} \(", text, re.MULTILINE)
        assert about["question"].partition("? (")[0] in flat and "(report" not in flat
        time = re.search(rf"{name} \((\d+ minutes)\)", text)[1]
        assert time in about["expect"]
    assert sum(line.startswith("  python train.py ") for line in text.splitlines()) == 3


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_help_of_an_experiment(name):
    text, about = experiment_help(name, CONF), about_of(name)
    assert max(map(len, text.splitlines())) <= WIDTH
    flat = " ".join(text.split())
    assert flat.startswith(f"{name}: {about['title']} question {about['question']} expect {about['expect']}")
    assert f"command python train.py experiment={name}" in flat and "study hw1.studies." in flat
    node = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
    for key, value in node.get("hydra", {}).get("sweeper", {}).get("params", {}).items():
        assert ("".join(f"{key}={value}".split()) in "".join(text.split())) == (value is not None)


def test_a_variant_has_what_it_takes_over():
    text = experiment_help("gradient_norm/networks_cnn", CONF)
    rows = {line.split()[0]: line for line in text.splitlines() if not line.startswith(" ")}
    assert "runs        6" in text and rows["groups"].split()[1:3] == ["dataset=mnist", "model=networks/cnn"]
    assert "optimizer.weight_decay=" not in text and "            seed=0,1,2" in text.splitlines()
    assert "replicas=1" in rows["settings"] and rows["measures"].split()[1:] == ["predictions"]


def test_a_folder_of_ones_own(tmp_path):
    for file, text in {
        "experiment/mine.yaml": "defaults: [/experiment/random_labels]\nabout: {title: Mine, expect: 2 hours.}",
        "experiment/function.yaml": "hydra: {sweeper: {params: {seed: 'range(1,4)'}}}\nseed: null\nlayers: [a(1),true]",
        "model/base/shared.yaml": "{}",
        "model/deep/wide.yaml": "{}",
        "hydra/launcher/mine.yaml": "{}",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    text = help_text(CONF, tmp_path)
    assert "  mine (2 hours)\n      Mine\n" in text and "  function\n" in text
    assert "deep/wide" in text and "base/shared" not in text and "two_workers, mine" in text
    words = ["--config-dir", str(tmp_path), "experiment=mine", "--help"]
    mine = help_for(words, CONF)
    assert mine.startswith("mine: Mine\n") and "hw1.studies.RandomLabels" in mine
    assert help_for([f"--config-dir={tmp_path}", "experiment=mine,random_labels"], CONF).startswith(f"{mine}\n\nrandom")
    assert help_for(["--help", "model=mlp"], CONF) == help_text(CONF)
    text = experiment_help("function", CONF, tmp_path)
    assert "runs" not in text and 'layers=["a(1)",true]' in text and text.startswith("function\n")
    assert start_line(words, CONF) == "planning mine: Mine (2 hours)"
    (tmp_path / "experiment" / "mine.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"mine\.yaml: got no YAML"):
        help_for(words, CONF)


def test_the_help_of_no_experiment():
    with pytest.raises(ConfigError, match=r"^experiment: got flatness, expected one of: .*mean flatness_interp"):
        experiment_help("flatness", CONF)
    with pytest.raises(ConfigError, match=r"\(did you mean actual_task/cifar10\?\)") as caught:
        experiment_help("cifar10", CONF)
    assert "random_labels, " in str(caught.value) and "random_labels/" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "planning: the default run"),
        (["model=mlp", "--dry-run", "output=x"], "planning: model=mlp"),
        (["experiment=zzz"], ""),
        (["measured_sweep='a b'"], "measuring: looking for what is missing in a b"),
        (
            ["experiment=min_ratio"],
            "planning min_ratio: What happens where the gradient is almost zero (2 minutes on 2 cores)",
        ),
        (
            ["experiment=min_ratio", "budget=quick"],
            "planning min_ratio: What happens where the gradient is almost zero; with budget=quick",
        ),
    ],
)
def test_the_first_line_says_what_is_run(words, said):
    assert start_line(words, CONF) == said


SAID = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    loaded = {"torch", "hydra", "lightning", "pandas", "matplotlib"} & set(sys.modules)
    print("loaded:", *sorted(loaded), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["experiment=min_ratio", "--help"], ["--version"], ["seed=1-5"]])
def test_what_is_only_said_takes_less_than_half_a_second(words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-c", SAID, str(ROOT / "train.py"), *words]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.splitlines()[-1] == "loaded:"
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.5


def test_both_programs_say_their_version():
    said = version_text()
    assert said.startswith(f"hw1 {hw1.__version__} (Python 3.") and all(
        name in said for name in ("torch 2.", "hydra-core")
    )
    for program in (["-m", "hw1"], [str(ROOT / "train.py")]):
        done = subprocess.run([sys.executable, *program, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{said}\n", "")
