"""What several test files share: the command, as a user types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def start(*words, output, cwd=ROOT, **environment):
    """Start `python train.py words...` with its outputs below `output`."""
    env = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"} | environment
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words, f"output={output}"],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def command():
    """`command(*words, output=folder)` -> the finished process, with its stdout and stderr."""

    def run(*words, output, **more):
        process = start(*words, output=output, **more)
        stdout, stderr = process.communicate(timeout=1800)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def background():
    """`background(*words, output=folder)` -> the running process."""
    return start
