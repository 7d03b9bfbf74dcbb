"""The commands of the tests of crowding; the figures that these note are printed behind them."""

import os

import pytest
from crowds import HERE, ROOT, WORDS

from figures import print_figures
from warm import WarmProcess, cpu_seconds


@pytest.fixture
def crowd(tmp_path):
    """`crowd(*words, output, odd, **environment)` -> the running process of a command whose steps are logged."""

    def start(*words, output="out", odd="", program=None, **environment):
        env = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
        path = os.pathsep.join([str(HERE), *filter(None, [env.get("PYTHONPATH")])])
        env |= {"PYTHONPATH": path, "CROWDED_LOG": str(tmp_path / "log"), "LOKY_MAX_CPU_COUNT": "1"}
        env |= {"ODD": odd} if odd else {}
        program = program or (HERE / "odd_machine.py" if odd else ROOT / "train.py")
        words = [*(words if program.name == "__main__.py" else (*WORDS, *words, f"output={tmp_path / output}"))]
        environment = {name: str(value) for name, value in environment.items()}
        gone = {name for name, value in environment.items() if value == "None"}
        env = {name: value for name, value in {**env, **environment}.items() if name not in gone}
        return WarmProcess(program, words, cwd=ROOT, env=env)

    return start


@pytest.fixture
def figure(record_property):
    """`figure(text)`: a line for the table that is printed in the end."""

    def note(text):
        record_property("crowding", text)

    return note


@pytest.fixture(autouse=True, scope="session")
def total():
    """Notes what all commands together have spent."""
    yield
    print(f"\ncrowding: {cpu_seconds():.0f} CPU s in commands")


def pytest_terminal_summary(terminalreporter):
    print_figures(terminalreporter, "crowding")
