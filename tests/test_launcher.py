"""Runs side by side: the same weights, whole lines, and nothing lost when a process is killed or interrupted."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from hw1 import machine as this_machine
from hw1 import workers
from hw1.measures import needs
from hw1.runs import Sweep
from hw1.settings import RunSettings
from hydra_plugins.hw1_launcher.launcher import ParallelLauncher, length
from hydra_plugins.hw1_launcher.screen import Screen
from hydra_plugins.hw1_sweeper.sweeper import Hw1Sweeper
from made_runs import run_settings

GIB = 2**30
CONF = Path(__file__).parents[1] / "conf"
SMALL = ("model=mlp", "dataset=digits", "trainer.max_epochs=3", "dataset.batch_size=16,256,64")
LONG = ("model=mlp", "dataset=digits", "trainer.max_epochs=20", "trainer.checkpoint_seconds=0", "seed=1,2,3")
TWO = "hydra/launcher=two_workers"


def settings(**changes):
    plain = run_settings()
    for key, value in changes.items():
        group, _, name = key.partition("__")
        plain[group] = {**plain[group], name: value}
    return RunSettings.check(plain)


# The machine


def machine(tmp_path, cgroup, **files):
    """(proc, groups) of a machine with 8 GiB free and these files."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        file = tmp_path / "groups" / name.replace("__", "/").replace("--", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(text))
    return tmp_path / "proc", tmp_path / "groups"


def of_version_1(group, limit, used, cache):
    names = {"memory--limit_in_bytes": limit, "memory--usage_in_bytes": used}
    names["memory--stat"] = f"total_inactive_file {cache}\ntotal_rss 5\n"
    return {f"memory__{group}{name}": value for name, value in names.items()}


def of_version_2(group, limit, used, cache):
    names = {"memory--max": limit, "memory--current": used, "memory--stat": f"anon 7\ninactive_file {cache}\n"}
    return {f"{group}{name}": value for name, value in names.items()}


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        ("", {}, 8),
        ("4:memory:/a/b\n0::/\n", of_version_1("a__b__", 3 * GIB, 2 * GIB, GIB // 2), 1.5),
        ("4:cpu,memory:/a/b\n", of_version_1("a__", 6 * GIB, GIB, 0), 5),  # set above it
        ("4:memory:/a/b\n", of_version_1("", 2 * GIB, GIB, 0), 1),  # a container's: its path is not to be seen
        ("4:memory:/a\n", of_version_1("a__", 2**63 - 4096, GIB, 0), 8),
        ("0::/a/b\n", of_version_2("a__b__", "max", GIB, 0) | of_version_2("a__", 4 * GIB, 3 * GIB, GIB), 2),
        ("0::/\n", of_version_2("", GIB, 2 * GIB, 0), 0),
    ],
)
def test_free_memory_is_the_least_that_anyone_leaves(cgroup, files, free, tmp_path):
    assert this_machine.free_memory(*machine(tmp_path, cgroup, **files)) == free * GIB


def test_a_limit_of_the_process_s_own_counts():
    code = (
        "import resource, hw1.machine as w; resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2);"
        "print(w.free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 2 * GIB


@pytest.mark.parametrize(
    ("given", "runs", "cores", "free", "expected"),
    [
        (None, [1] * 9, 4, 99, 4),
        (None, [1] * 3, 4, 99, 3),
        (None, [2] * 9, 5, 99, 2),
        (None, [8] * 9, 4, 99, 1),
        (None, [1] * 9, 8, 3, 2),  # (3 - 0.4) / 1
        (None, [1] * 9, 8, 0, 1),
        (None, [1], 8, 99, 1),
        (3, [2] * 9, 2, 1, 3),
        (3, [1] * 2, 2, 1, 2),
    ],
)
def test_as_many_workers_as_there_is_room_for(given, runs, cores, free, expected, monkeypatch):
    for module in (this_machine, sys.modules[ParallelLauncher.__module__]):
        monkeypatch.setattr(module, "cores", lambda: cores)
        monkeypatch.setattr(module, "free_memory", lambda: free * GIB)
    launcher = ParallelLauncher(given, 1.0)
    runs = [settings(trainer__threads=threads) for threads in runs]
    assert launcher.count(runs) == expected
    said = launcher._counted(runs, len(runs))[1]
    assert ("3.0 GiB of memory are free" in said and "2 of 8 runs at a time" in said) if free == 3 else "\n" not in said


def test_a_large_network_with_a_measure_gets_fewer_workers_and_says_why(monkeypatch):
    for module in (this_machine, sys.modules[ParallelLauncher.__module__]):
        monkeypatch.setattr(module, "cores", lambda: 4)
        monkeypatch.setattr(module, "free_memory", lambda: 7 * GIB)
    launcher, runs = ParallelLauncher(None, None), [settings(model__width=77)] * 4
    assert launcher.count(runs) == 4  # nothing is known of them
    needs.expect(runs[0], parameters=11_181_642, curvature=True)
    assert launcher.count(runs) == 2
    said = launcher._counted(runs, 4)[1]
    assert "2 of 4 runs at a time: 7.0 GiB of memory are free, and each takes up to 2.79 (hydra" in said
    assert launcher._memory_of(runs, 2) is None and launcher._memory_of(runs, 4) == 7 * GIB / 4
    assert ParallelLauncher(None, 1.0).count(runs) == 4


def test_runs_on_a_gpu_share_it_only_when_asked_to():
    runs = [settings(trainer__accelerator="gpu")] * 4
    assert ParallelLauncher(None, 1.0).count(runs) == 1 and ParallelLauncher(2, 1.0).count(runs) == 2


def test_settings_that_cannot_be():
    for words, message in (((0, 1.0), "workers: got 0"), ((None, 0.0), "memory_per_worker: got 0")):
        with pytest.raises(ValueError, match=message):
            ParallelLauncher(*words)


def test_the_longest_runs_begin():
    runs = [
        {},
        {"trainer__max_epochs": 9},
        {"dataset__batch_size": 1},
        {"model__width": 3},
        {"dataset__train_size": 50},
    ]
    plain, *longer, shorter = [length(settings(**changes)) for changes in runs]
    assert all(one > plain for one in longer) and shorter < plain


# Processes


def square(number):
    """What the workers below do."""
    print("half ", end="")
    print(number)
    workers.tell(("at", number))
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        raise OSError(2, "no such number")
    return number**2


def test_what_is_spread_comes_back_and_a_killed_worker_takes_one_item():
    lines, told = [], []
    done = workers.spread(
        square, range(6), 2, line=lambda *line: lines.append(line), told=lambda *what: told.append(what)
    )
    results = dict(done)
    assert {number: results[number] for number in (0, 1, 2, 5)} == {0: 0, 1: 1, 2: 4, 5: 25}
    assert isinstance(results[3], workers.WorkerLostError) and "SIGKILL" in str(results[3])
    assert isinstance(results[4], OSError) and results[4].errno == 2
    assert sorted(lines) == [("stdout", f"half {number}") for number in range(6)]
    assert {(number, ("at", number)) for number in range(6)} | {(number, None) for number in range(6)} == set(told)


def seen(item):
    """The GPUs that a worker sees; the first kills itself, the second waits for the third."""
    kind, file = item
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "last":
        file.touch()
    while not file.exists():
        time.sleep(0.01)
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel which signals a process blocks")
def test_a_signal_to_all_processes_does_not_reach_the_server():
    words = (
        "from hw1 import workers; workers.start_server(); from multiprocessing import forkserver; "
        "print(open(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read())"
    )
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    blocked = int(next(line for line in said.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        assert blocked >> (number - 1) & 1, number


def test_each_worker_sees_its_gpu_also_in_the_place_of_one_that_was_killed(tmp_path):
    environments = [{"CUDA_VISIBLE_DEVICES": name} for name in ("4", "7")]
    items = [(kind, tmp_path / "file") for kind in ("killed", "waiting", "last")]
    found = dict(workers.spread(seen, items, 2, environments=environments))
    assert isinstance(found.pop(0), workers.WorkerLostError) and found == {1: "7", 2: "4"}


def test_bars_stay_below_whole_lines_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2, raising=False)
    with Screen() as screen:
        screen.told(0, ("a" * 30 + "b" * 30, 5, 10, ("test/loss=0.5", "x" * 80)))
        screen.told(1, ("short", 0, 10, ()))
        screen.line("stderr", "a line")
        screen.told(0, None)
    said = capsys.readouterr().err
    assert all(len(re.sub(r"\x1b\[\w+", "", line).lstrip("\r")) < 80 for line in said.split("\n"))
    before, after = said.split("a line\n")
    assert (
        before.endswith("\x1b[J") and f"{'a' * 14}…{'b' * 14} " in after and "50%" in after and "test/loss=0.5" in after
    )
    assert "short" in after and "xx" not in after and said.endswith("\x1b[J")


# Commands


def runs_of(folder):
    """{slug: run} of the only experiment below a folder."""
    return {run.slug: run for run in Sweep.read(folder / "default").runs}


def hashes(folder):
    found = {}
    for slug, run in runs_of(folder).items():
        tensors = load_file(run.weights_file).items()
        found[slug] = hashlib.sha256(b"".join(value.numpy().tobytes() for _, value in sorted(tensors))).hexdigest()
    return found


def process_of(run):
    """The id of the process that trained it, from the name of its TensorBoard file."""
    return int(next(run.path.glob("events.*")).name.split(".")[5])


def test_the_same_weights_as_one_after_the_other_and_whole_lines(command, background, tmp_path):
    process = background(*SMALL, TWO, output=tmp_path / "two")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert command(*SMALL, "hydra/launcher=basic", output=tmp_path / "one").returncode == 0
    assert hashes(tmp_path / "two") == hashes(tmp_path / "one")
    lines = [line for line in stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 3 and all(
        re.match(r"\[\d/3\] batch_size=\d+_.*test/accuracy 0\.\d+ in ", line) for line in lines
    )
    assert "\r" not in stdout + stderr and "\x1b" not in stdout + stderr
    assert re.fullmatch(r"planning: .*\n([a-z, ]+ \.\.\.\n)*", stderr), stderr  # of a slow machine, what it waits for
    processes = {slug: process_of(run) for slug, run in runs_of(tmp_path / "two").items()}
    assert len(set(processes.values())) == 2 and process.pid not in processes.values()
    for run in runs_of(tmp_path / "two").values():  # each has the log of its own
        assert (run.path / "run.log").exists()


def test_one_run_stays_in_the_process(background, tmp_path):
    process = background("model=mlp", "dataset=digits", "trainer.max_epochs=1", TWO, output=tmp_path)
    assert (process.communicate(timeout=60), process.returncode)[1] == 0
    assert [process_of(run) for run in runs_of(tmp_path).values()] == [process.pid]


def gone(pid):
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


OTHER_ENDS = (signal.SIGTERM, signal.SIGKILL)


def training(process, folder):
    """The processes of two runs that have checkpoints, by folder."""
    found = {}
    while len(found) < 2:
        assert process.poll() is None, process.communicate()
        paths = [file.parent.parent for file in (folder / "default" / "runs").glob("*/checkpoints/last.ckpt")]
        found = {path: int(next(path.glob("events.*")).name.split(".")[5]) for path in paths}
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, *(pytest.param(one, marks=pytest.mark.slow) for one in OTHER_ENDS)])
def test_an_end_of_the_command_ends_its_workers_and_the_command_goes_on(number, background, command, tmp_path):
    process = background(*LONG, TWO, output=tmp_path)
    processes = training(process, tmp_path)
    begun = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    while not all(gone(pid) for pid in processes.values()):
        assert time.monotonic() - begun < 20
        time.sleep(0.02)
    assert "Traceback" not in stderr and not list(tmp_path.glob("default/runs/*/result.json"))
    if number != signal.SIGKILL:
        *_, said = stderr.splitlines()
        assert process.returncode == 130 and "interrupted" in said and stderr.count("interrupted") == 1
    again = command(*LONG, TWO, output=tmp_path)
    assert again.returncode == 0, again.stderr
    for path in processes:
        assert "resuming from checkpoints/last.ckpt" in (path / "run.log").read_text()
    steps = [run.history()["step"].tolist() for run in runs_of(tmp_path).values()]
    assert steps == [list(range(20 * 23))] * 3


def test_a_killed_worker_loses_nothing(background, tmp_path):
    process = background(*LONG, TWO, output=tmp_path)
    processes = training(process, tmp_path)
    path = min(processes, key=lambda path: (path / "metrics.csv").stat().st_size)  # the farther from its end
    pid = processes[path]
    os.kill(pid, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0 and stdout.count("test/accuracy") == 3
    assert "killed by SIGKILL" in stderr and "going on with 1 run" in stderr
    assert "resuming from checkpoints/last.ckpt" in (path / "run.log").read_text()
    assert all(run.status == "complete" for run in runs_of(tmp_path).values())


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(given, expected):
    code = "import sys, hw1, os; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env=clean | given, capture_output=True, text=True, check=True)
    assert done.stdout == f"{expected} False\n"


@pytest.mark.parametrize(("option", "expected"), [("basic", 1), ("parallel", 8), ("two_workers", 2), ("joblib", 8)])
def test_under_hydra_s_basic_launcher_a_study_stays_in_the_process(option, expected, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"hydra/launcher={option}"], return_hydra_config=True)
    launcher = ParallelLauncher(config.hydra.launcher.get("workers"), 1.0) if expected != 1 else None
    sweeper = SimpleNamespace(config=config, launcher=launcher)
    with this_machine.at_most(Hw1Sweeper._most_cores(sweeper)):
        assert this_machine.cores() == expected
    assert this_machine.cores() == 8
