"""A folder of the user's own: begun by `hw1 init`, its modules and conf/ found, from a wheel and a checkout."""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from hw1.__main__ import main
from hw1.command import refuse_slips
from hw1.explaining import explain
from hw1.help import help_for
from hw1.project import enter, importable, is_project, start
from hw1.project.start import files
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.settings.conf import PROJECT, project_conf, refuse_replaced, shipped
from hw1.typed import program, training
from warm import WarmProcess

ROOT = Path(__file__).parents[1]
MAIN = ROOT / "src" / "hw1" / "__main__.py"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A new project, in which a command is at work; with nothing of it imported."""
    start(tmp_path / "p")
    monkeypatch.setenv(PROJECT, str(tmp_path / "p"))
    monkeypatch.chdir(tmp_path / "p")
    GlobalHydra.instance().clear()
    return tmp_path / "p"


def composed(*words):
    """What Hydra makes of a command's words."""
    with initialize_config_dir(str(shipped()), version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides=list(words)), resolve=False)


# init


def test_a_project_is_written_into_a_new_or_an_empty_folder_alone(tmp_path):
    start(tmp_path / "papers" / "first")
    assert (tmp_path / "papers" / "first" / "README.md").read_text().startswith("# first\n")
    assert not list(tmp_path.rglob("gitignore")) and is_project(tmp_path / "papers" / "first")
    (tmp_path / "empty").mkdir()
    assert "project" in start(tmp_path / "empty")[-1]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, got in (("file", "a file"), ("full", "a folder with files in it"), ("dangling", "a file")):
        with pytest.raises(ConfigError, match=rf"{name}: got {got}, expected a new or an empty folder"):
            start(tmp_path / name)
    assert (tmp_path / "full" / "README.md").read_text() == (tmp_path / "file").read_text() == "mine"
    assert len(list((tmp_path / "full").iterdir())) == 1 and not (tmp_path / "nowhere").exists()


def test_what_marks_a_project(tmp_path):
    assert not is_project(tmp_path) and is_project(ROOT)
    (tmp_path / "pyproject.toml").write_text("[tool.hw1]")
    assert not is_project(tmp_path)  # a file may have come with somebody else's results
    start(tmp_path / "mine")
    (tmp_path / "link").symlink_to("mine")
    assert (
        is_project(tmp_path / "mine") and is_project(tmp_path / "link") and not is_project(tmp_path / "mine" / "conf")
    )


# Its conf/


def test_its_conf_stands_before_hw1s(project):
    (project / "conf" / "model" / "mlp.yaml").write_text("_target_: my_models.Mine\n")
    assert composed("model=maxout")["model"]["_target_"] == "my_models.Maxout"
    assert composed("model=mlp")["model"] == {"_target_": "my_models.Mine"}
    assert composed("model=cnn")["model"]["_target_"] == "hw1.models.Cnn"
    assert composed()["output"] == f"${{oc.env:{PROJECT},.}}/multirun"


def test_what_is_local_stands_above_an_experiment_and_below_the_command_line(project):
    before = composed("experiment=seed_spread")
    assert before["optimizer"]["lr"] == 0.01 and before["trainer"]["accelerator"] == "cpu"
    node = {
        "defaults": [{"override /trainer": "gpu"}, {"override /logger": "csv"}],
        "optimizer": {"lr": 0.5},
        "hydra": {"launcher": {"workers": 3}},
    }
    (project / "conf" / "local.yaml").write_text(yaml.safe_dump(node))
    here = composed("experiment=seed_spread")
    assert here["optimizer"]["lr"] == 0.5 and here["trainer"]["accelerator"] == "gpu"
    assert here["logger"] == {} != before["logger"]
    assert here["trainer"]["max_epochs"] == 60 and here["dataset"] == before["dataset"]
    typed = composed("experiment=seed_spread", "optimizer.lr=2", "trainer=cpu")
    assert typed["optimizer"]["lr"] == 2 and typed["trainer"] == before["trainer"]
    assert "conf/local.yaml" in " ".join(help_for(["--help"], shipped()).split())


def test_its_options_are_listed_and_suggested(project):
    text = help_for(["--help"], shipped())
    assert "  seed_spread (1 minute)\n" in text and "spirals" in text and "maxout" in text and "fisher" in text
    assert "local.yaml" not in text
    assert "groups      dataset=spirals model=maxout" in help_for(["experiment=seed_spread", "--help"], shipped())
    with pytest.raises(ConfigError, match=r"^maxout: got no =, expected model=maxout$"):
        refuse_slips(["maxout"], shipped())
    with pytest.raises(Exception) as caught:
        composed("model=maxoot")
    assert explain(caught.value).endswith("(did you mean maxout?)")


def test_a_train_yaml_that_would_replace_hw1s_is_refused(project, monkeypatch):
    refuse_replaced(project / "conf")
    (project / "conf" / "train.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=r"train\.yaml: got a file of the name of hw1's own settings, .*local\.yaml"):
        refuse_replaced(project / "conf")
    monkeypatch.setenv(PROJECT, str(ROOT))
    assert project_conf() is None  # the checkout's conf/ is hw1's


def test_another_applications_settings_are_left_alone(project, tmp_path):
    (tmp_path / "other" / "model").mkdir(parents=True)
    (tmp_path / "other" / "main.yaml").write_text("defaults: [{optional model: maxout}, _self_]\na: 1\n")
    with initialize_config_dir(str(tmp_path / "other"), version_base="1.3"):
        assert OmegaConf.to_container(compose("main")) == {"a": 1}


# Its modules


def test_which_commands_take_modules_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    here, before = tmp_path, list(sys.path)
    enter(here, runs_code=False)
    assert sys.path == before
    importable(here)
    enter(here, runs_code=True)
    assert sys.path == [str(here), *before] and os.environ["PYTHONPATH"] == os.pathsep.join([str(here), "elsewhere"])
    enter(here, runs_code=False)
    assert sys.path[0] == str(here)  # the user's doing
    monkeypatch.setattr(sys, "argv", [str(MAIN), "list"])
    enter(here, runs_code=False)
    assert sys.path == before  # python -m had put it there
    sys.path.insert(0, str(ROOT / "src"))
    enter(ROOT / "src", runs_code=False)
    assert sys.path[0] == str(ROOT / "src")  # where hw1 itself is found


@pytest.mark.parametrize(
    ("started", "train", "other"),
    [
        ("/usr/bin/hw1", "hw1 train", "hw1"),
        ("C:/python/Scripts/hw1.exe", "hw1 train", "hw1"),
        ("/checkout/train.py", "python train.py", "python -P -m hw1"),
        ("/site-packages/hw1/__main__.py", "python -m hw1 train", "python -P -m hw1"),
        ("/usr/bin/pytest", "python train.py", "python -P -m hw1"),
    ],
)
def test_hints_name_the_command_that_was_typed(started, train, other, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.chdir(tmp_path)
    assert (training(), program()) == (train, other)
    if started.endswith("__main__.py"):
        monkeypatch.chdir(ROOT)
        assert training() == "python train.py"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hw1 tra", "train"),
        ("hw1 re", "report rekey results"),
        ("hw1 train --dr", "--dry-run"),
        ("hw1 train model=x experiment=min_ratio/c", "experiment=min_ratio/cnn"),
    ],
)
def test_the_command_is_completed(line, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, value in {"COMP_LINE": line, "COMP_POINT": str(len(line)), PROJECT: "", "PYTHONPATH": ""}.items():
        monkeypatch.setenv(name, value)
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out == f"{said}\n"


def in_folder(folder, *words, **more):
    """`python -m hw1 words...` in a folder; its exit code and what it said."""
    env = {name: value for name, value in os.environ.items() if name not in (PROJECT, "HYDRA_FULL_ERROR")}
    process = WarmProcess(MAIN, words, cwd=folder, env={**env, "LOKY_MAX_CPU_COUNT": "1", **more})
    said = process.communicate(timeout=600)
    return process.returncode, *said


def test_a_command_in_a_folder_of_ones_own(tmp_path):
    folder = tmp_path / "p"
    start(folder)
    code, out, err = in_folder(
        folder, "train", "experiment=seed_spread", "seed=0", "budget=quick", "trainer.max_epochs=1"
    )
    assert code == 0, err
    sweep = Sweep.read(folder / "multirun" / "seed_spread")
    assert sweep.runs[0].result["metrics"].keys() >= {"test/loss", "test/accuracy"} and "test_loss = " in out
    assert {"my_data", "my_losses", "my_models"} == set(sweep.runs[0].result["code"])
    page = (sweep.path / "report.html").read_text()
    assert "python -m hw1 train experiment=seed_spread" in page and "python train.py" not in page
    assert sweep.record["program"] == "python -m hw1 train"
    code, out, err = in_folder(folder, "list")
    assert code == 0 and "seed_spread" in out and "1 run" in out
    again = in_folder(folder, "report", "multirun/seed_spread")
    assert again[0] == 0
    other = {"XDG_CONFIG_HOME": str(tmp_path)}  # of another user
    code, out, err = in_folder(folder, "report", "multirun/seed_spread", **other)
    assert code == 1 and err.count("\n") == 1 and f"python -P -m hw1 trust {folder} if it is yours" in err
    assert in_folder(folder, "trust", str(folder), "--yes", **other)[0] == 0
    assert in_folder(folder, "report", "multirun/seed_spread", **other) == (0, *again[1:])


def test_a_folder_without_results(tmp_path):
    code, out, err = in_folder(tmp_path, "list")
    assert (code, err) == (0, "") and out == f"{tmp_path}/multirun: no results yet; " + (
        "python -m hw1 train --help says how to train some\n"
    )


# Installed


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel installed in it, and the environment in which its `hw1` is found."""
    if find_spec("hatchling") is None:
        pytest.skip("no hatchling to build the wheel with: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    wheel = folder / done.stdout.splitlines()[-1]
    there = folder / "there"
    words = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(there), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True, capture_output=True)
    env = {name: value for name, value in os.environ.items() if name != PROJECT}
    path = [one for one in env.get("PYTHONPATH", "").split(os.pathsep) if one != str(ROOT / "src")]
    env |= {"PYTHONPATH": os.pathsep.join([str(there), *path]), "LOKY_MAX_CPU_COUNT": "1"}
    return wheel, there, env


def test_the_wheel_brings_conf_and_the_template(installed):
    wheel, _, _ = installed
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"hw1/conf/{file.relative_to(ROOT / 'conf').as_posix()}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert {name for name in names if name.startswith("hw1/conf/")} == conf - {"hw1/conf/local.yaml"}
    template = [name for name in names if name.startswith("hw1/project/template/")]
    assert len(template) == len(files()) and any(name.startswith("hydra_plugins/hw1_searchpath/") for name in names)
    assert not {name.partition("/")[0] for name in names} - {"hw1", "hydra_plugins", *_info(names)}


def _info(names):
    return {name.partition("/")[0] for name in names if ".dist-info/" in name}


def run_installed(installed, folder, *words):
    """`hw1 words...` of the wheel, in a folder."""
    _, there, env = installed
    program = [sys.executable, str(there / "bin" / "hw1"), *words]
    done = subprocess.run(program, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_of_the_wheel_in_an_empty_folder(installed, tmp_path):
    assert run_installed(installed, tmp_path, "--help").startswith("usage: hw1 ")
    assert "no results yet; hw1 train --help" in run_installed(installed, tmp_path, "list")
    assert "README.md says" in run_installed(installed, tmp_path, "init", "p")
    text = run_installed(installed, tmp_path / "p", "train", "--help")
    assert text.startswith("usage: hw1 train ") and "seed_spread" in text and "flatness_interp" in text
    said = run_installed(installed, tmp_path / "p", "train", "experiment=seed_spread", "model.hidden=5", "--cfg", "job")
    node = yaml.safe_load(said)
    assert node["model"] == {"_target_": "my_models.Maxout", "hidden": 5, "pieces": 4, "width": 1}
    assert node["dataset"]["batch_size"] == 64


@pytest.mark.slow
def test_a_project_begun_with_the_wheel_passes_its_test_trains_and_reports(installed, tmp_path):
    run_installed(installed, tmp_path, "init", "p")
    folder, env = tmp_path / "p", installed[2]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout
    said = run_installed(installed, folder, "train", "experiment=seed_spread", "budget=quick")  # with workers
    assert "test_loss = " in said
    path = "multirun/seed_spread"
    page = (Sweep.read(folder / path).path / "report.html").read_text()
    assert "hw1 train experiment=seed_spread budget=quick" in page
    assert "2 runs" in run_installed(installed, folder, "list")
    assert "report: " in run_installed(installed, folder, "report", path)
    assert "sound" in run_installed(installed, folder, "verify", "multirun")
    small = ("sensitivity",)
    assert "2 to measure" in run_installed(installed, folder, "measure", path, *small)
    assert "nothing to do" in run_installed(installed, folder, "train", "experiment=seed_spread", "budget=quick")


# Never installed


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """`bare(*words, cwd)` runs python where all packages are but hw1, and nothing of hw1 is on the path."""
    packages = tmp_path_factory.mktemp("bare") / "site-packages"
    packages.mkdir()
    for entry in (Path(one) for one in sys.path if one.rstrip("/").endswith("site-packages") and Path(one).is_dir()):
        for file in entry.iterdir():
            if not file.name.startswith(("hw1", "_editable_impl_hw1", "_hw1")) and file.suffix != ".pth":
                (packages / file.name).symlink_to(file)
    env = {name: value for name, value in os.environ.items() if name != PROJECT}

    def run(*words, cwd, src=False):
        path = os.pathsep.join([str(packages), *([str(ROOT / "src")] if src else [])])
        program = [sys.executable, "-S", *map(str, words)]  # without site, which would find the installed hw1
        env_of_it = {**env, "PYTHONPATH": path, "LOKY_MAX_CPU_COUNT": "1"}
        return subprocess.run(program, cwd=cwd, env=env_of_it, capture_output=True, text=True, check=False)

    asked = "import importlib.metadata as m; print([d.name for d in m.distributions() if d.name == 'hw1'])"
    assert run("-c", asked, cwd=packages).stdout == "[]\n"
    return run


def test_a_checkout_that_was_never_installed(bare, tmp_path):
    done = bare(
        ROOT / "train.py", "model=mlp", "--cfg", "job", cwd=tmp_path
    )  # composed with hw1's sweeper and launcher
    assert done.returncode == 0 and "hw1.models.Mlp" in done.stdout, done.stderr
    assert bare("-m", "hw1", "--version", cwd=tmp_path, src=True).stdout.startswith("hw1 0.")
    assert "no results yet" in bare("-m", "hw1", "list", cwd=tmp_path, src=True).stdout


@pytest.mark.slow
def test_a_checkout_that_was_never_installed_trains_in_workers(bare, tmp_path):
    words = ("model=mlp", "dataset=digits", "dataset.train_size=100", "trainer.max_epochs=1", "seed=0,1")
    for begun, src in (((ROOT / "train.py",), False), (("-m", "hw1", "train"), True)):
        out = tmp_path / str(src)
        done = bare(*begun, *words, "hydra.launcher.workers=2", f"output={out}", cwd=tmp_path, src=src)
        assert done.returncode == 0, done.stderr
        assert [run.result["status"] for run in Sweep.read(out / "default").runs] == ["complete"] * 2
