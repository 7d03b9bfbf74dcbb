import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from hw1.arguments import parser
from hw1.command import fail, job_line, normalised, refuse_slips, with_budget
from hw1.explaining import explain
from hw1.measures.take import Taken
from hw1.runs.order import Order
from hw1.settings import ConfigError

CONF = Path(__file__).parents[1] / "conf"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["--multirun"]),
        (["seed=1"], ["--multirun", "seed=1"]),
        (["-m", "seed=1,2"], ["--multirun", "seed=1,2"]),
        (["seed=1,2", "-m", "model=mlp"], ["--multirun", "seed=1,2", "model=mlp"]),
        (["seed=1", "--multirun", "-m"], ["--multirun", "seed=1"]),
        (["--config-dir", "mine", "seed=1"], ["--multirun", "--config-dir", "mine", "seed=1"]),
        (["seed=1", "--cfg", "job"], ["seed=1", "--cfg", "job"]),
        (["--cfg=job", "-m"], ["--cfg=job"]),
        (["-c", "job"], ["-c", "job"]),
        (["--info", "searchpath"], ["--info", "searchpath"]),
        (["--hydra-help"], ["--hydra-help"]),
        (["-sc", "install=bash"], ["-sc", "install=bash"]),
        (["hydra.mode=RUN", "seed=1"], ["hydra.mode=RUN", "seed=1"]),
        (["hydra.mode=MULTIRUN"], ["--multirun", "hydra.mode=MULTIRUN"]),
        (["--dry-run", "seed=1"], ["--multirun", "hydra.sweeper.dry_run=true", "seed=1"]),
    ],
)
def test_a_command_is_a_sweep_unless_another_mode_is_asked_for(words, expected):
    before = list(words)
    assert normalised(words) == expected and words == before


def test_what_cfg_shows_is_what_the_budget_makes_of_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HW1_PROJECT", "checkout")
    GlobalHydra.instance().clear()
    words = ["experiment=flatness_interp", "budget=quick"]
    assert with_budget(words, CONF) == words and with_budget(["--cfg", "job", words[0]], CONF)[2:] == words[:1]
    pins = ["dataset.train_size=2000", "dataset.source=bundled"]
    shown = with_budget(["--cfg", "job", *words], CONF)
    assert shown[:2] == ["--cfg", "job"] and shown[-2:] == words and set(pins) < set(shown)
    typed = with_budget([*words, "dataset.train_size=5", "--cfg=job"], CONF)
    assert pins[1] in typed and pins[0] not in typed
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nquick: {trainer.max_epochs: 3, seed: '0,1', model.layers: '[p2,4]'}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    shown = with_budget(["--config-dir", str(tmp_path), "-c", "job", "experiment=mine", "budget=quick"], CONF)
    assert shown[4:] == ["trainer.max_epochs=3", "model.layers=[p2,4]", *pins, "experiment=mine", "budget=quick"]


@pytest.fixture
def refusal(monkeypatch):
    """refusal(*overrides) -> how the exception of composing them is explained."""
    monkeypatch.setenv("HW1_PROJECT", str(CONF.parent))
    GlobalHydra.instance().clear()

    def explained(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(Exception) as caught:
            compose("train", overrides=list(overrides))
        text = explain(caught.value)
        assert "\n" not in text
        return text

    return explained


@pytest.mark.parametrize(
    ("words", "start", "parts"),
    [
        (["model=mlpp"], "model: got mlpp, expected one of: ", ["cnn, ", " mlp, ", " rnn", "(did you mean mlp?)"]),
        (["model=MLP"], "model: got MLP, expected one of: ", ["(did you mean mlp?)"]),
        (
            ["model=mine.Net"],
            "model: got mine.Net, expected one of: ",
            ["(did you mean 'model={_target_: mine.Net}'?)"],
        ),
        (["dataset=my.csv"], "dataset: got my.csv, ", ["(did you mean dataset=table dataset.file=my.csv?)"]),
        (["model=zzz"], "model: got zzz, expected one of: ", ["cnn, ", " mlp, ", " rnn"]),
        (["experiment=flatness"], "experiment: got flatness, expected one of: ", ["(did you mean flatness_interp?)"]),
        (["optimizer.lrr=1"], "optimizer.lrr: no such setting; did you mean optimizer.lr?", ["+optimizer.lrr="]),
        (["optimiser.lr=1"], "optimiser.lr: no such setting; did you mean optimizer.lr?", []),
        (["optimizer.zzz=1"], "optimizer.zzz: no such setting; expected one of: ", ["lr, weight_decay"]),
        (["zzz=1"], "zzz: no such setting; expected one of: ", ["name, ", "seed"]),
        (["callbacks=[default,sharpness]"], "callbacks: got sharpness, which is a measure; ", ["measures=[sharpness]"]),
        (["callbacks.sensitivity.a=1"], "callbacks.sensitivity.a: no such setting; ", ["measures=[sensitivity]"]),
        (["seed.deep=1"], "seed.deep: no such setting", []),
        (["loss.gamma=1"], "loss.gamma: no such setting; expected loss=focal, which has it (+loss.gamma=", []),
        (
            ["scheduler.warmup=5"],
            "scheduler.warmup: no such setting; expected scheduler=cosine_warmup or ",
            ["have it"],
        ),
        (
            ["trainer.max_steps=5"],
            "trainer.max_steps: no option sets it; expected +trainer.max_steps=..., with a plus",
            [],
        ),
        (["trainer.gradient_clip_val=1"], "trainer.gradient_clip_val: no option sets it; expected +trainer.gra", []),
        (["lr=0.1"], "lr: no such setting; did you mean optimizer.lr?", []),
        (["batch_size=3"], "batch_size: no such setting; did you mean dataset.batch_size?", []),
        (["epochs=3"], "epochs: no such setting; did you mean trainer.max_epochs or callbacks.", []),
        (["trainer.lr=3"], "trainer.lr: no such setting; did you mean optimizer.lr?", []),
        (
            ["model.layers=[c3(10),p2]"],
            "model.layers: got [c3(10),p2], expected quotes",
            ["'model.layers=[\"c3(10)\",p2]'"],
        ),
        (["seed=rang(1,6)"], "seed: got rang(1,6), expected one of the functions", ["(did you mean range?)"]),
        (["~nope"], "~nope: no such setting to remove; see ", ["--help"]),
        (["+seed=1"], "Could not append to config. An item is already at 'seed'.", ["++seed=1"]),
    ],
)
def test_what_hydra_refuses_is_one_line(words, start, parts, refusal):
    text = refusal(*words)
    assert text.startswith(start) and all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "defaults: [override /model: mlp]",
            "conf/experiment/a/mine.yaml: got settings below experiment, expected '# @package _global_'",
        ),
        (
            "# @package _global_\ndefaults: [override /modle: mlp]",
            r"conf/experiment/a/mine.yaml: got override /modle, expected a group: .* \(did you mean model\?\)$",
        ),
    ],
)
def test_defaults_of_a_file_that_do_not_fit_name_the_file(text, said, monkeypatch, tmp_path):
    monkeypatch.setenv("HW1_PROJECT", str(CONF.parent))
    GlobalHydra.instance().clear()
    (tmp_path / "experiment" / "a").mkdir(parents=True)
    (tmp_path / "experiment" / "a" / "mine.yaml").write_text(text.replace("[", "[{").replace("]", "}]"))
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(Exception) as caught:
        compose("train", overrides=["experiment=a/mine", f"hydra.searchpath=[file://{tmp_path}]"])
    text = explain(caught.value)
    assert re.match(said, text), text


def test_a_setting_without_a_default_says_what_it_is(monkeypatch):
    monkeypatch.setenv("HW1_PROJECT", str(CONF.parent))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(Exception) as caught:
        OmegaConf.to_container(compose("train", ["dataset=image_folder"]), resolve=True, throw_on_missing=True)
    text = explain(caught.value)
    assert text.startswith("dataset.folder: got no value, expected dataset.folder=VALUE (below the root"), text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--experiment=x"], "--experiment=x: got a setting with dashes, expected experiment=x"),
        (["--experiment", "x"], "--experiment: got a setting with dashes, expected experiment=x"),
        (["-seed=1"], "-seed=1: got a setting with dashes, expected seed=1"),
        (["--optimizer.lr=1"], "--optimizer.lr=1: got a setting with dashes, expected optimizer.lr=1"),
        (["--lr=1"], "--lr=1: no such option; a setting has no dashes: lr=1"),
        (["--dryrun"], "--dryrun: no such option; did you mean --dry-run?"),
        (["--qqq"], "--qqq: no such option; see python train.py --help"),
        (["experiment", "x"], "experiment x: got no =, expected experiment=x"),
        (["experiment=", "x"], "experiment= x: got a space behind =, expected experiment=x"),
        (["experiment", "=", "x"], "experiment =: got a space before =, expected experiment=x"),
        (["experiment", "=x"], "experiment =x: got a space before =, expected experiment=x"),
        (["seed"], "seed: got no value, expected seed=VALUE"),
        (["min_ratio"], "min_ratio: got no =, expected experiment=min_ratio"),
        (["zzz"], "zzz: got no =, expected KEY=VALUE, see python train.py --help"),
        (["seed=1,", "2"], "seed=1,: got a space behind a comma, expected seed=1,2"),
        (["seed=1,2,"], "seed: got '1,2,', expected a value on both sides of each comma: seed=1,2"),
        (["optimizer.lr=,1"], "optimizer.lr: got ',1', expected a value on both sides of each comma: optimizer.lr=1"),
        (["seed=1-5"], "seed: got 1-5, expected values with commas, or 'seed=range(1,6)'"),
        (["dataset.seed=0..2"], "dataset.seed: got 0..2, expected values with commas, or 'dataset.seed=range(0,3)'"),
        (["seed=0-2,7"], "seed: got 0-2,7, expected seed=0,1,2,7"),
    ],
)
def test_a_slip_is_refused_with_its_remedy(words, said):
    for among in (words, ["model=mlp", *words], [*words, "--dry-run"]):
        with pytest.raises(ConfigError) as caught:
            refuse_slips(among, CONF)
        assert str(caught.value) == said


def test_every_slip_is_named():
    with pytest.raises(ConfigError) as caught:
        refuse_slips(["--seed=1", "experiment", "x", "name=1,"], CONF)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["--seed=1", "experiment x", "name"]


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "--multirun", "--dry-run", "--rerun", "--keep", "seed=1,2"],
        ["--config-dir", "conf", "-cd", "conf", "--cfg", "job", "-c", "job", "--info", "searchpath", "--resolve"],
        ["--config-dir=conf", "--info", "--mult", "--hydra-help"],
        ["-sc", "query=bash"],
        ["--config-path", "run", "--config-name", "config", "hydra.mode=RUN", "hydra.run.dir=run"],
        ["~callbacks", "~model.hidden=[1]", "+model.depth=3", "++seed=1", "experiment=null", "name="],
        ["model.hidden=[1,2],[3]", 'model.layers=["c3(10)",p2],[p2]', "name='a,'", "seed=range(1,6)", "name=1-5"],
        ["optimizer={lr: 1,weight_decay: 0}", "seed=choice(1,2)", "seed=5-1", "seed=-1"],
        ["measured_sweep='a b=c'", "hydra.sweep.dir='x'"],
    ],
)
def test_what_hydra_understands_is_no_slip(words):
    refuse_slips(words, CONF)


def test_a_reader_that_has_seen_enough_is_no_error():
    words = f"{sys.executable} {CONF.parent / 'train.py'} --help | head -1"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: ") and done.stderr == ""
    closed, end = os.pipe()
    os.close(closed)
    with os.fdopen(end, "w") as pipe:  # nobody reads at all
        program = [sys.executable, str(CONF.parent / "train.py"), "--help"]
        done = subprocess.run(program, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("experiment=min_r", "experiment=min_ratio"),
        ("--dry-run --config-dir conf seed=1 experiment=min_r", "experiment=min_ratio"),
        ("experiment=min_ratio/s", "experiment=min_ratio/smooth"),
        ("--dry-run model=reports/", "model=reports/cnn_242k model=reports/dense_102k"),
        ("budget=", "budget=full budget=quick"),
        ("model.wid", "model.width="),
        ("--re", "--rerun"),
        ("seed=1 --", "--dry-run --rerun --keep --detach --continue --zip --cfg --config-dir --help --version"),
    ],
)
def test_what_a_shell_completes(line, said):
    line = f"python train.py {line}"
    env = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    words = [sys.executable, "train.py", "-sc", "query=bash"]
    done = subprocess.run(words, cwd=CONF.parent, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, said, "")


def test_no_close_name_no_hint(refusal):
    assert "did you mean" not in refusal("model=zzz") and "did you mean" not in refusal("zzz=1")


@pytest.mark.parametrize("word", ["optimizer.lr=1=2", "model.hidden=[1", "seed", "seed=choice("])
def test_a_word_that_cannot_be_read_is_named(word, refusal):
    text = refusal(word, "model=mlp")
    assert word in text, text


def test_other_errors():
    assert explain(ConfigError("seed: got -1\nsize: got 0")) == "seed: got -1\nsize: got 0"
    assert explain(RuntimeError("a\n  b\n")) == "RuntimeError: a b"
    assert explain(KeyError()) == "KeyError"
    assert explain(FileNotFoundError(2, "No such file or directory", "x.yaml")) == "x.yaml: no such file or directory"
    assert explain(OSError("plain")) == "OSError: plain"


def test_failing_prints_one_line_a_problem_and_leaves_with_one(capsys):
    with pytest.raises(SystemExit) as caught:
        fail(ConfigError("seed: got -1\nsize: got 0"), full=False)
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "error: seed: got -1\nerror: size: got 0\n")
    with pytest.raises(ConfigError):
        fail(ConfigError("seed: got -1"), full=True)


def sweep_of(tmp_path, results, **result):
    """A sweep of runs a-0, b-1, ... of which all but the first were trained by this command; their results on disk."""
    names = [f"{letter}-{number}" for number, letter in enumerate("abcd"[: len(results)])]
    for name, status in zip(names, results, strict=True):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text("{}")
        if status:
            came_to = {"metrics": {}, "dataset": {"name": "made", "source": "made", "train": 1}, "parameters": 1}
            (tmp_path / "runs" / name / "result.json").write_text(json.dumps(came_to | result | {"status": status}))
    sweep = tmp_path / "sweeps" / "now"
    sweep.mkdir(parents=True)
    return sweep


def order_of(sweep, trains=True, runs=4):
    """What jobs of this sweep were told a minute ago, when all but the first were launched."""
    return Order(trains, [], None, runs, runs - 1, time.time() - 60, str(sweep / "ended"))


def test_the_line_of_a_job(tmp_path):
    metrics = {"train/loss": 1.0, "test/loss": 0.12345, "test/accuracy": 0.9}
    sweep = sweep_of(tmp_path, ["complete", "complete", None, None], metrics=metrics, seconds=61.2)
    line = job_line(order_of(sweep), tmp_path / "runs" / "b-1", [], ended=1)
    assert line == "[2/4] b: test/loss 0.1235, test/accuracy 0.9000 in 1 min 01 s; about 2 min 00 s left"


@pytest.mark.parametrize(
    ("workers", "ended", "left"),
    [
        (1, 1, "2 min 00 s"),
        (2, 1, "1 min 00 s"),  # in the minute since then one and a half of the three that were launched were done
        (9, 1, "30 s"),  # the other two are at work
        (2, 2, "12 s"),  # the last one is at work
    ],
)
def test_what_is_at_work_is_half_done(workers, ended, left, tmp_path):
    sweep = sweep_of(tmp_path, ["complete", "complete", None, None], metrics={}, seconds=60)
    order = replace(order_of(sweep), workers=workers)
    assert job_line(order, tmp_path / "runs" / "b-1", [], ended).endswith(f"; about {left} left")


def test_the_line_of_a_failed_and_of_the_last_job(tmp_path):
    sweep = sweep_of(tmp_path, ["complete", "failed", "complete"], error="the training loss is nan at step 3")
    line = job_line(order_of(sweep, runs=3), tmp_path / "runs" / "b-1", [], ended=2)
    assert line == "[3/3] b: FAILED: the training loss is nan at step 3"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.12 s"),
        (9.4, "9.4 s"),
        (9.6, "10 s"),
        (59.7, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text, tmp_path):
    sweep = sweep_of(tmp_path, ["complete", "complete"], metrics={}, seconds=seconds)
    line = job_line(order_of(sweep, runs=2), tmp_path / "runs" / "b-1", [], ended=1)
    assert line.endswith(f" in {text}")


def test_the_line_of_a_job_says_what_was_measured(tmp_path):
    sweep = sweep_of(tmp_path, ["complete", "complete"], metrics={"test/loss": 0.5}, seconds=2)
    order, measuring = order_of(sweep, runs=2), order_of(sweep, trains=False, runs=2)
    folder = tmp_path / "runs" / "b-1"
    taken = [Taken("flat", 1.5)]
    line = job_line(order, folder, taken, ended=0)
    assert line.endswith("b: test/loss 0.5000 in 2 s; measured flat in 1.5 s; about 1 min 00 s left")
    taken.append(Taken("round", 0.5, "no such thing"))
    line = job_line(order, folder, taken, ended=1)
    assert line.endswith("measured flat in 1.5 s; measures.round FAILED: no such thing")
    line = job_line(measuring, folder, taken, ended=1)
    assert line == "[2/2] b: measured flat in 1.5 s; measures.round FAILED: no such thing"
    assert job_line(measuring, folder, [], ended=1) == "[2/2] b: measured already"


def test_words_that_a_command_lacks_are_one_line(capsys):
    for words, said in (
        (["measure", "x"], "error: .* measure: got no words, expected some; .* measure --help says more"),
        (["mesure"], "error: .*"),
    ):
        with pytest.raises(SystemExit) as left:
            parser().parse_args(words)
        assert left.value.code == 1 and re.fullmatch(said, capsys.readouterr().err.rstrip("\n"))
