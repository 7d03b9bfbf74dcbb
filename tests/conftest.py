"""What several test files share: the command, as a user types it."""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from warm import WarmProcess, seldom_look_for_garbage

ROOT = Path(__file__).parents[1]
sys.dont_write_bytecode = False  # else every process that a test starts compiles all of hw1 again
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()  # the key that records are signed with is not the user's own
os.environ["HW1_CACHE"] = tempfile.mkdtemp()  # nor are what data came to, and decoded images

# Files that take longest, the longest first: the last one to begin keeps one core at work while the others wait.
LONGEST = [
    f"tests/{name}.py"
    for name in (
        *("test_docs", "test_experiments", "test_launcher", "test_train", "test_measures", "test_python"),
        *("test_resume", "test_contributing", "test_project", "test_code_counts", "callbacks/test_track"),
        *("test_own_models", "test_combinations", "test_adopt", "test_gpu_benchmark", "curvature/test_components"),
    )
]


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What collecting brings in stays, torch and thousands of tests: to look for garbage there took half the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        seldom_look_for_garbage()


def pytest_collection_modifyitems(config, items):
    """What is handed to workers, file by file in this order: commands before functions, many tests before few."""
    if hasattr(config, "workerinput"):
        tests = Counter(item.nodeid.partition("::")[0] for item in items)

        def place(item):
            file = item.nodeid.partition("::")[0]
            first = LONGEST.index(file) if file in LONGEST else len(LONGEST)
            return first, file.count("/"), -tests[file], file

        items.sort(key=place)


def start(*words, output, cwd=ROOT, cold=False, **environment):
    """Start `python train.py words...` with its outputs below `output`; `cold`: in a new interpreter."""
    env = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    env |= {"LOKY_MAX_CPU_COUNT": "1"} | environment  # of the cores, pytest takes care
    program, words = ROOT / "train.py", [*words, f"output={output}"]
    if not cold:
        return WarmProcess(program, words, cwd=cwd, env=env)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, str(program), *words], cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True
    )


@pytest.fixture(scope="session")
def hw1():
    """`hw1(*words)` -> the finished process of `python -m hw1 words...`."""

    def run(*words):
        process = WarmProcess(
            ROOT / "src" / "hw1" / "__main__.py",
            [str(word) for word in words],
            cwd=ROOT,
            env={**os.environ, "LOKY_MAX_CPU_COUNT": "1"},
        )
        stdout, stderr = process.communicate(timeout=600)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    return run


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


DRIVER = """
import contextlib, io, json, os, sys
sys.path.insert(0, sys.argv[1])
import train
ends = {}
for name, words in json.loads(sys.argv[2]).items():
    sys.argv[1:] = words
    os.environ.pop("HYDRA_FULL_ERROR", None)
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            train.main()
            code = 0
        except SystemExit as end:
            code = end.code
    ends[name] = [code, stdout.getvalue(), stderr.getvalue()]
print(json.dumps(ends))
"""


@pytest.fixture(scope="session")
def in_one_process(tmp_path_factory):
    """`in_one_process({name: words})` -> {name: [exit code, stdout, stderr]} of `python train.py words...`, in turn."""
    driver = tmp_path_factory.mktemp("driver") / "driver.py"
    driver.write_text(DRIVER)
    environment = {**os.environ, "LOKY_MAX_CPU_COUNT": "1"}

    def run(commands):
        process = WarmProcess(driver, [str(ROOT), json.dumps(commands)], cwd=ROOT, env=environment)
        stdout, stderr = process.communicate(timeout=1800)
        assert process.returncode == 0, stderr
        return json.loads(stdout.splitlines()[-1])

    return run
