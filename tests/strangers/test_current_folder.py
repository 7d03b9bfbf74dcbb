"""What lies in the current folder, or in one that is read, is not run: plugins of Hydra's, git's programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hw1.project import enter
from hw1.project.folder import PLUGINS, has_plugins
from hw1.runs import Run
from hw1.runs.sound import verify
from hw1.training import made_with
from hw1.trust.projects import add_project
from hw1.typed import program
from made_runs import make_run, make_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def canary(tmp_path):
    """A file that is there once planted code has run."""
    return tmp_path / "canary"


@pytest.fixture
def strange(tmp_path, canary):
    """A folder with a package that Hydra would import."""
    folder = tmp_path / "strange"
    (folder / PLUGINS).mkdir(parents=True)
    (folder / PLUGINS / "__init__.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    return folder


def started(folder, *words, **environment):
    path = os.pathsep.join([str(ROOT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_hydras_plugins_in_the_current_folder(strange, canary):
    naive = started(strange, "-c", "import sys; sys.path.insert(0, ''); import hydra_plugins")
    assert naive.returncode == 0 and canary.exists()
    canary.unlink()
    made = started(strange, "-m", "hw1", "train", "--cfg", "job")  # Hydra looks for plugins before it composes
    assert made.returncode == 0, made.stderr
    assert not canary.exists()
    assert f"{PLUGINS}: got plugins" in made.stderr and "no project of yours" in made.stderr


def test_the_path_has_no_folder_with_plugins_that_is_no_project(strange, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    enter(strange, runs_code=True)
    assert str(strange) not in sys.path and str(strange) not in os.environ["PYTHONPATH"]  # nor for workers
    (strange / "pyproject.toml").write_text("[tool.hw1]\n")  # says nothing by itself
    enter(strange, runs_code=True)
    assert str(strange) not in sys.path
    assert add_project(strange) == ""
    enter(strange, runs_code=True)
    assert sys.path[0] == str(strange) and capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    "name", [PLUGINS, f"{PLUGINS}.py", f"{PLUGINS}.so", f"{PLUGINS}.cpython-311-x86_64-linux-gnu.so"]
)
def test_what_python_would_find_by_that_name(tmp_path, name):
    assert not has_plugins(tmp_path)
    (tmp_path / name).touch()
    assert has_plugins(tmp_path)


@pytest.fixture
def repository(tmp_path, canary):
    """A repository whose configuration names a program, as git runs it on every look at its files."""
    folder = tmp_path / "repository"
    folder.mkdir()
    script = tmp_path / "monitor"
    script.write_text(f"#!/bin/sh\ntouch {canary}\n")
    script.chmod(0o755)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    (folder / "file").write_text("x")
    subprocess.run(["git", "add", "file"], cwd=folder, check=True)
    with (folder / ".git" / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = {script}\n")
    return folder


def test_git_runs_nothing_that_a_repository_names(repository, canary, monkeypatch):
    subprocess.run(["git", "describe", "--always", "--dirty"], cwd=repository, capture_output=True, check=False)
    assert canary.exists()  # naively
    canary.unlink()
    monkeypatch.chdir(repository)
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    made_with.commit()  # of hw1's own checkout, whatever the current folder is
    assert not canary.exists()
    monkeypatch.setattr(made_with, "_CHECKOUT", repository)
    assert made_with.commit().endswith("+") and not canary.exists()  # nor if its own had such a configuration


def test_reading_starts_no_program(tmp_path, monkeypatch):
    def started_one(*words, **more):
        raise AssertionError(words)

    from hw1.report.compare import compare
    from hw1.report.export import tidy
    from hw1.report.listing import listing
    from hw1.runs import Sweep

    sweep = make_sweep(tmp_path, [make_run(tmp_path)[0]], [])
    other = make_sweep(tmp_path, [make_run(tmp_path, seed=1)[0]], [], time="2026-01-02_00-00-00")
    monkeypatch.setattr(subprocess, "Popen", started_one)
    monkeypatch.setattr(os, "system", started_one)
    assert listing(tmp_path, [], None)[0] and len(tidy(tmp_path, [])) == 2
    assert Sweep.read(sweep).table() is not None and compare(Sweep.read(sweep), Sweep.read(other), [])
    assert verify(tmp_path).damage == [] and Run(Sweep.read(sweep).runs[0].path).count == 1


def test_hints_keep_the_current_folder_off_the_path(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest"])
    assert program() == "python -P -m hw1"
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert not [
        page for page in pages if page.name in ("sweeps.md", "tutorial.md") and "python -m hw1 " in page.read_text()
    ]
