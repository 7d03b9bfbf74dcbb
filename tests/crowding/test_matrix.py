"""Commands that meet: at once, in one output, on odd machines. Each ends right, bit by bit, or says why in one line."""

import json
import os
import signal
import time
from collections import Counter

import pytest
from crowds import BASIC, HERE, PARALLEL, ROOT, STEPS, WORDS, ends, logged, runs, weights

from hw1 import lease
from hw1.runs import Sweep
from warm import WarmProcess


def trained_once(tmp_path, number):
    """Every step of every run was made once, none after its run had ended."""
    lines = logged(tmp_path)
    steps = Counter((key, step) for _, key, step, _ in lines if step != "0")
    assert len(steps) == number * STEPS and set(steps.values()) == {1}, steps.most_common(3)
    assert {state for *_, state in lines} == {"open"}
    return len({key for key, _ in steps})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """{key: weights} of runs that nothing disturbed, of the seeds that the tests here use."""
    folder = tmp_path_factory.mktemp("alone")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    words = [*WORDS, "seed=1,2,3,4,5", BASIC, f"output={folder}"]
    ends(WarmProcess(ROOT / "train.py", words, cwd=ROOT, env=env | {"CROWDED_LOG": str(folder / "log")}))
    return weights(folder)


def as_alone(alone, output, number):
    found = weights(output)
    assert len(found) == number and found == {key: alone[key] for key in found}
    assert all(run.status == "complete" for run in runs(output))
    assert not list(output.rglob(".*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_identical_commands_at_once(number, crowd, alone, tmp_path, figure):
    processes = [crowd("seed=1,2", BASIC) for _ in range(number)]
    for process in processes:
        ends(process)
    as_alone(alone, tmp_path / "out", 2)
    trained_once(tmp_path, 2)
    sweeps = [Sweep.read(file) for file in (tmp_path / "out" / "default" / "sweeps").glob("*/sweep.json")]
    assert len(sweeps) == number and {sweep.record["status"] for sweep in sweeps} == {"complete"}
    figure(f"{number} identical commands of 2 runs at once: 2 runs trained, {number} sweeps complete, bits equal")


@pytest.mark.slow
def test_overlapping_sweeps_in_one_output(crowd, alone, tmp_path, figure):
    processes = [crowd(f"seed={seeds}", PARALLEL) for seeds in ("1,2,3", "3,2,4", "5,4,3")]
    for process in processes:
        ends(process)
    as_alone(alone, tmp_path / "out", 5)
    trained_once(tmp_path, 5)
    figure("3 sweeps of 3 runs that share 4 of 5: 5 runs trained, bits equal")


def stopped_at(crowd, tmp_path, step, *words, **environment):
    """A command that was stopped in the middle of a training."""
    process = crowd("seed=1", BASIC, *words, CROWDED_PAUSE=0.1, **environment)
    while not (tmp_path / "log").exists() or not any(int(at) >= step for _, _, at, _ in logged(tmp_path)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    return process


@pytest.mark.parametrize("logger", ["none", pytest.param("tensorboard", marks=pytest.mark.slow)])
def test_a_stopped_command_is_taken_over_and_writes_nothing_when_it_wakes(logger, crowd, alone, tmp_path, figure):
    words, environment = [f"logger={logger}"], {"HW1_LEASE_SECONDS": 2}
    sleeper = stopped_at(crowd, tmp_path, 6, *words, **environment)
    try:
        ends(crowd("seed=1", BASIC, *words, **environment))
        (run,) = runs(tmp_path / "out")

        def files():
            return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.path.rglob("*")}

        before, lines = files(), logged(tmp_path)
    finally:
        sleeper.send_signal(signal.SIGCONT)
    _, stderr = ends(sleeper, 1)
    (said,) = [line for line in stderr.splitlines() if line.startswith("failed: ")]
    assert "took it over while this one was silent" in said
    assert files() == before
    as_alone(alone, tmp_path / "out", 1)
    late = [line for line in logged(tmp_path)[len(lines) :] if line[2] != str(STEPS)]
    assert len(late) <= 1  # the step at which it was stopped
    figure(f"stopped at step 6 of {STEPS}, taken over, woken ({logger}): nothing written, exit code 1, one line")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "memory"])
def test_workers_that_are_killed_or_out_of_memory(how, crowd, alone, tmp_path, figure):
    process = crowd("seed=1,2,3", PARALLEL, CROWDED_END=f"{how}:9")  # again in the second attempt
    _, stderr = process.communicate(timeout=900)
    assert process.returncode == 1 and "Traceback" not in stderr
    failed = [line for line in stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 3 and all(("SIGKILL" if how == "kill" else "Memory") in line for line in failed), stderr
    ends(crowd("seed=1,2,3", PARALLEL))
    as_alone(alone, tmp_path / "out", 3)
    assert {state for *_, state in logged(tmp_path)} == {"open"}
    figure(f"every worker at step 9: {how}; 3 runs named, all complete with the next command, bits equal")


def left(**changes):
    """What stands in a lease that was never given back."""
    found = {
        "token": "0" * 32,
        "counter": "0" * 20,
        "state": "held",
        "host": "vm",
        "space": "x",
        "pid": 1,
        "start": "1",
    }
    return json.dumps(found | changes)


@pytest.mark.slow
def test_leases_and_locks_that_were_left_behind(crowd, alone, tmp_path, figure):
    """In the folders of the runs, of the experiment, and beside them."""
    process = crowd("seed=1,2,3", BASIC, CROWDED_END="kill:9")
    process.communicate(timeout=900)
    base = tmp_path / "out" / "default"
    (killed,) = (base / "runs").glob("seed=1*")
    dead = json.loads((killed / lease.LEASE).read_text())
    (base / lease.LEASE).write_text(left(host="elsewhere", space="another machine"))
    for folder, text in zip((base / "runs").glob("seed=[23]*"), (left(space="an older boot"), "{"), strict=True):
        (folder / lease.LEASE).write_text(text)
        (folder / ".lease.next").write_text(json.dumps(dead))
    begun = time.monotonic()
    ends(crowd("seed=1,2,3", BASIC, HW1_LEASE_SECONDS=1))
    as_alone(alone, tmp_path / "out", 3)
    figure(f"a dead process, another machine, an older boot, half a lease: gone on in {time.monotonic() - begun:.0f} s")


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["no_locks", "idle_locks", "years:20", "years:-20", "stale"])
def test_odd_machines(odd, crowd, alone, tmp_path, figure):
    processes = [crowd("seed=1,2", BASIC, odd=odd) for _ in range(2)]
    for process in processes:
        ends(process)
    ends(crowd("seed=1,2", BASIC, odd=odd))  # nothing to do, or nothing but the page
    as_alone(alone, tmp_path / "out", 2)
    trained_once(tmp_path, 2)
    figure(f"{odd}: 2 identical commands at once, and again: 2 runs trained, bits equal")


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["no_locks", "years:-20"])
def test_killed_on_an_odd_machine(odd, crowd, alone, tmp_path, figure):
    crowd("seed=1,2", BASIC, odd=odd, CROWDED_END="kill:9").communicate(timeout=900)
    ends(crowd("seed=1,2", BASIC, odd=odd))
    as_alone(alone, tmp_path / "out", 2)
    assert Counter(step for _, _, step, _ in logged(tmp_path))["1"] == 2  # none began anew
    figure(f"{odd}, killed at step 9, and again: gone on, bits equal")


OWN = {"XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None, "HW1_CACHE": None}  # all that is the user's is in HOME
PLACES = {  # what is odd: (the machine, the environment)
    "no HOME": ("", {"HOME": None, **OWN}),
    "HOME that is not there": ("", {"HOME": "/nowhere", **OWN}),
    "HOME that cannot be written": ("error:30:{at}/home", {"HOME": "{at}/home", **OWN}),
    "HOME that is full": ("error:28:{at}/home", {"HOME": "{at}/home", **OWN}),
    "TMPDIR that is not there": ("", {"TMPDIR": "/nowhere"}),
    "TMPDIR that cannot be written": ("error:30:{at}/tmp", {"TMPDIR": "{at}/tmp"}),
    "TMPDIR that is full": ("error:28:{at}/tmp", {"TMPDIR": "{at}/tmp"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_homes_and_temporary_folders(place, crowd, alone, tmp_path, figure):
    odd, environment = PLACES[place]
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    environment = {name: value and value.format(at=tmp_path) for name, value in environment.items()}
    _, stderr = ends(crowd("seed=1", BASIC, odd=odd.format(at=tmp_path), **environment))
    as_alone(alone, tmp_path / "out", 1)
    figure(f"{place}: complete, bits equal; {len(stderr.splitlines())} lines on stderr")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "problem"), [(30, "read-only"), (28, "no space left"), (13, "permission denied")])
@pytest.mark.parametrize("part", ["", "/default/runs"])
def test_outputs_that_cannot_be_written(number, problem, part, crowd, tmp_path, figure):
    _, stderr = ends(crowd("seed=1", BASIC, odd=f"error:{number}:{tmp_path / 'out'}{part}"), 1)
    said = [line for line in stderr.splitlines() if not line.startswith("planning")]
    assert len(said) == 1 and problem in said[0].lower(), stderr
    assert not (tmp_path / "log").exists()
    figure(f"output{part}, errno {number}: {said[0].replace(str(tmp_path), '')[:100]}")


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_umasks(mask, crowd, alone, tmp_path, figure):
    ends(crowd("seed=1", BASIC, odd=f"umask:{mask:o}"))
    as_alone(alone, tmp_path / "out", 1)
    wrong = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and mask and path.stat().st_mode & mask]
    assert not wrong
    figure(f"umask {mask:03o}: complete, bits equal")


@pytest.mark.slow
def test_read_only_data(crowd, tmp_path, figure):
    data = tmp_path / "data"
    data.mkdir()
    words = (
        "dataset=mnist",
        "dataset.source=bundled",
        "dataset.train_size=64",
        "dataset.batch_size=16",
        "seed=1",
        BASIC,
    )
    for output, odd in (("usual", ""), ("odd", f"error:30:{data}")):
        ends(crowd(*words, odd=odd, output=output, HW1_DATA=data))
    assert weights(tmp_path / "usual") == weights(tmp_path / "odd")
    figure("a data folder that cannot be written: complete, bits equal")
