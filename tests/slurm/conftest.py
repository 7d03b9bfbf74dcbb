"""A cluster to submit to, and commands that do; the figures that tests note are printed behind them."""

import os
import subprocess
from pathlib import Path

import pytest
from cluster import Cluster
from slurm_words import WORDS

from figures import print_figures
from warm import WarmProcess

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def cluster(tmp_path):
    """Two nodes."""
    with Cluster(tmp_path / "queue") as cluster:
        yield cluster


@pytest.fixture
def user(tmp_path, cluster):
    """`user(*words, output, background, **environment)` -> exit code, stdout, stderr of a command."""

    def environment(**more):
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"PATH": cluster.path, "PYTHONPATH": path, "XDG_STATE_HOME": str(tmp_path / "home")}
        own |= {"STEPS_LOG": str(tmp_path / "steps"), "HW1_QUEUE_SECONDS": "1", "LOKY_MAX_CPU_COUNT": "1"}
        return {**os.environ, **own, **{name: str(value) for name, value in more.items()}}

    def run(*words, output="out", background=False, **more):
        if words[0] in ("list", "measure"):
            program, words = ROOT / "src" / "hw1" / "__main__.py", [str(word) for word in words]
        else:
            program, words = ROOT / "train.py", [*WORDS, *words, f"output={tmp_path / output}"]
        process = WarmProcess(program, words, cwd=ROOT, env=environment(**more))
        if background:
            return process
        stdout, stderr = process.communicate(timeout=600)
        assert "Traceback" not in stderr, stderr
        return process.returncode, stdout, stderr

    return run


@pytest.fixture
def slurm(cluster, monkeypatch, tmp_path):
    """The cluster's commands on this process's own PATH."""
    monkeypatch.setenv("PATH", cluster.path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return lambda *words: subprocess.run(words, capture_output=True, text=True)


@pytest.fixture
def figure(record_property):
    """`figure(text)`: a line for the table that is printed in the end."""
    return lambda text: record_property("slurm", text)


def pytest_terminal_summary(terminalreporter):
    print_figures(terminalreporter, "slurm")
