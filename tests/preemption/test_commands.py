"""Commands that are asked to stop, whose parent is killed, or whose node stalls: nothing is lost or made twice."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from hw1.lease import LEASE
from hw1.runs import Run
from warm import WarmProcess

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEPS = 24  # of a run: 2 epochs of 12
WORDS = (
    *("model=mlp", "model.hidden=[8]", "model.dropout=0.5", "dataset=digits", "dataset.train_size=192"),
    *("dataset.batch_size=16", "trainer.max_epochs=2", "trainer.checkpoint_seconds=1000", "trainer.progress=false"),
    *("logger=none", "+callbacks.log._target_=listening_log.Log"),
)
BASIC, TWO = ["hydra/launcher=basic"], ["hydra/launcher=two_workers"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.workers=2"]


@pytest.fixture
def begin(tmp_path):
    """`begin(*words, **environment)` -> the running process of a command whose steps are logged."""

    def start(*words, output="out", program=ROOT / "train.py", **environment):
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
        env |= {"PYTHONPATH": path, "STEPS_LOG": str(tmp_path / "log")} | {k: str(v) for k, v in environment.items()}
        return WarmProcess(program, [*WORDS, *words, f"output={tmp_path / output}"], cwd=ROOT, env=env)

    return start


def pause(launcher):
    """Seconds of a step: so many that none has ended when the last has begun."""
    return 0.3 if launcher == JOBLIB else 0.02


def logged(tmp_path):
    """[process, run, step] of every step."""
    file = tmp_path / "log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), run, int(step)) for pid, run, step in map(str.split, lines)]


def come_to(process, tmp_path, step, runs):
    """Wait until so many runs have trained so many steps; returns the processes that train them."""
    while len({run for _, run, at in logged(tmp_path) if at >= step}) < runs:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return {pid for pid, *_ in logged(tmp_path)}


def ends(process, code=0):
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == code, stdout + stderr
    assert "Traceback" not in stderr, stderr
    return stderr


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def weights(output):
    files = sorted((output / "default" / "runs").glob("*/result.json"))
    return {run.key: run.theta().tolist() for run in (Run(file.parent) for file in files)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """{key: weights} of runs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    env = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    words = [*WORDS, "seed=1,2,3", *BASIC, f"output={folder}"]
    ends(WarmProcess(ROOT / "train.py", words, cwd=ROOT, env=env | {"STEPS_LOG": str(folder / "log")}))
    return weights(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2", "SIGINT"])
@pytest.mark.parametrize("launcher", [BASIC, TWO, JOBLIB], ids=["basic", "parallel", "joblib"])
def test_a_command_that_is_asked_to_stop(launcher, name, begin, alone, tmp_path):
    if name == "SIGUSR2" and launcher != BASIC:
        pytest.skip("an engine's signal goes to the process of a job")
    process = begin("seed=1,2,3", *launcher, STEPS_PAUSE=pause(launcher))
    pids = come_to(process, tmp_path, 5, runs=1 if launcher == BASIC else 2)
    begun = time.monotonic()
    process.send_signal(getattr(signal, name))
    assert "interrupted; the same command goes on" in ends(process, 130)
    assert time.monotonic() - begun < 5 and all(map(gone, pids))
    assert not list(tmp_path.glob("out/default/runs/*/result.json"))
    ends(begin("seed=1,2,3", *launcher))
    assert weights(tmp_path / "out") == alone
    again = Counter((run, step) for _, run, step in logged(tmp_path))
    assert len(again) == 3 * STEPS
    if (launcher, name) != (BASIC, "SIGINT"):  # there Ctrl-C goes to the training itself, and ends it at once
        assert set(again.values()) == {1}, "steps made again"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TWO, JOBLIB], ids=["parallel", "joblib"])
def test_a_killed_command_s_workers_save_and_train_no_more(launcher, begin, alone, tmp_path):
    process = begin("seed=1,2,3", *launcher, STEPS_PAUSE=pause(launcher))
    pids = come_to(process, tmp_path, 5, runs=2)
    begun = time.monotonic()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    while not all(map(gone, pids)):
        assert time.monotonic() - begun < 5
        time.sleep(0.01)
    lines = logged(tmp_path)
    assert len({run for _, run, _ in lines}) == 2, "the rest of the queue was trained"
    assert not list(tmp_path.glob("out/default/runs/*/result.json"))
    ends(begin("seed=1,2,3", *launcher))
    assert weights(tmp_path / "out") == alone
    again = Counter((run, step) for _, run, step in logged(tmp_path))
    assert len(again) == 3 * STEPS and set(again.values()) == {1}, "steps made again"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TWO, JOBLIB], ids=["parallel", "joblib"])
def test_one_worker_that_is_asked_to_stop(launcher, begin, alone, tmp_path):
    """As by an engine that ends one process: the command goes on, and its run with it."""
    process = begin("seed=1,2,3", *launcher, STEPS_PAUSE=pause(launcher))
    come_to(process, tmp_path, 5, runs=2)
    pid = logged(tmp_path)[-1][0]
    os.kill(pid, signal.SIGTERM)
    assert ("exit code 143" if launcher == TWO else "asked to end by SIGTERM") in ends(process)
    assert weights(tmp_path / "out") == alone
    again = Counter((run, step) for _, run, step in logged(tmp_path))
    assert len(again) == 3 * STEPS and set(again.values()) == {1}, "steps made again"


@pytest.mark.slow
@pytest.mark.parametrize("asked", [False, True])
def test_a_node_that_stalls_and_wakes_up(asked, begin, alone, tmp_path):
    """Another node takes its run over and ends it; where it is asked to stop as it wakes, it saves nothing either."""
    environment = {"HW1_LEASE_SECONDS": 2}
    sleeper = begin("seed=1", *BASIC, STEPS_STOP=7, **environment)
    come_to(sleeper, tmp_path, 7, runs=1)
    try:
        taker = begin("seed=1", *BASIC, program=HERE / "other_node.py", **environment)
        while not (held := list(tmp_path.glob(f"out/default/runs/*/{LEASE}"))) or "node2" not in held[0].read_text():
            assert taker.poll() is None, taker.communicate()
            time.sleep(0.05)
        ends(taker)
        (run,) = (Run(file.parent) for file in tmp_path.glob("out/default/runs/*/result.json"))
        told = json.loads((run.path / LEASE).read_text())
        assert (told["host"], told["state"]) == ("node2", "free")

        def files():
            return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.path.rglob("*")}

        before = files()
        if asked:
            sleeper.send_signal(signal.SIGTERM)
    finally:
        sleeper.send_signal(signal.SIGCONT)
    if asked:
        ends(sleeper, 130)
    else:
        (said,) = [line for line in ends(sleeper, 1).splitlines() if line.startswith("failed: ")]
        assert "took it over while this one was silent" in said
    assert files() == before
    assert weights(tmp_path / "out") == {run.key: alone[run.key]}
