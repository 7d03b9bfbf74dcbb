"""What every launcher does, see `matrix`; by default what of it needs no process: settings, places, refusals."""

import functools
import importlib.util
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from hw1 import machine
from hw1.data.downloads import JOBS, may_download, nothing_downloaded
from hw1.explaining import explain
from hw1.settings import ConfigError, RunSettings
from hydra_plugins.hw1_launcher import joblib_launcher, launcher
from hydra_plugins.hw1_launcher.elsewhere import in_worker
from hydra_plugins.hw1_launcher.joblib_launcher import JoblibLauncher
from hydra_plugins.hw1_launcher.launcher import ParallelLauncher, Share
from hydra_plugins.hw1_launcher.ray_launcher import RayLauncher
from made_runs import run_settings

from .commands import LAUNCHERS, ROOT, missing
from .killing import kill
from .matrix import CASES, Matrix

OF_EVERY = {"workers": None, "memory_per_worker": 1.0}


def settings(**trainer):
    plain = run_settings()
    return RunSettings.check(plain | {"trainer": {**plain["trainer"], **trainer}})


def composed(*words):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=list(words), return_hydra_config=True).hydra.launcher


@pytest.fixture
def with_ray(monkeypatch):
    """As if Ray were installed."""
    found = importlib.util.find_spec("json")
    monkeypatch.setattr("hydra_plugins.hw1_launcher.ray_launcher.find_spec", lambda name: found)


# Settings


@pytest.mark.parametrize(("option", "kind"), [("joblib", JoblibLauncher), ("ray", RayLauncher)])
def test_presets_stand_in_the_place_of_hydra_s_and_have_the_default_s_settings(option, kind, with_ray, recwarn):
    own = composed(f"hydra/launcher={option}", "hydra.launcher.workers=3")
    assert not recwarn.list  # that a schema of the same name was taken for it
    made = Plugins.instance()._instantiate(own)
    assert type(made).__name__ == kind.__name__ and made.workers == 3  # Hydra imports what it finds anew
    usual = composed("hydra/launcher=parallel")
    assert {key for key in usual if usual[key] == own[key]} == set(usual) - {"_target_", "workers"}


def test_ray_that_is_not_installed_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("hydra_plugins.hw1_launcher.ray_launcher.find_spec", lambda name: None)
    with pytest.raises(Exception, match="pip install") as caught:
        Plugins.instance()._instantiate(composed("hydra/launcher=ray"))
    said = 'hydra/launcher: got ray, expected a launcher whose package is installed: pip install "hw1[ray]"'
    assert explain(caught.value) == said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"address": "auto", "object_store_memory": 1.0},
            "object_store_memory: got 1.0 with hydra.launcher.address=auto",
        ),
        ({"object_store_memory": 0.01}, "object_store_memory: got 0.01, expected GiB from 0.075"),
        ({"runs_per_gpu": 0}, "runs_per_gpu: got 0, expected a positive integer"),
        ({"threads_per_worker": 0}, "threads_per_worker: got 0, expected a positive integer or null"),
    ],
)
def test_what_cannot_be_is_refused(given, message, with_ray):
    with pytest.raises(ValueError, match=message):
        RayLauncher(**(OF_EVERY | given))


def test_a_cluster_that_does_not_answer_is_named_before_anything_is_written(with_ray, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    made = RayLauncher(address="127.0.0.1:1", **OF_EVERY)
    with pytest.raises(ConfigError, match=r"address: got 127.0.0.1:1, expected a Ray cluster that answers: .*refused"):
        made.prepare([settings()] * 2)


# Places


@pytest.mark.parametrize("kind", [ParallelLauncher, JoblibLauncher, RayLauncher])
@pytest.mark.parametrize(
    ("visible", "per_gpu", "trainer", "count", "seen"),
    [
        ("0,1,2", 1, {}, 3, ["0", "1", "2"]),
        ("4,GPU-7", 2, {}, 4, ["4", "GPU-7", "4", "GPU-7"]),
        ("0,1,2,3", 1, {"devices": 2}, 2, ["0,1", "2,3"]),
        ("0,1,2,3", 2, {"devices": 2}, 4, ["0,1", "2,3", "0,1", "2,3"]),
        ("0,1", 1, {"devices": [1]}, 1, []),  # told which
        ("0,1", 1, {"devices": -1}, 1, []),  # all
        ("", 1, {}, 1, []),
        ("", 2, {"accelerator": "mps"}, 2, []),
        ("0,1", 3, {"accelerator": "cpu"}, 5, []),
    ],
)
def test_processes_on_gpus(kind, visible, per_gpu, trainer, count, seen, monkeypatch, with_ray):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)  # stands in for so many GPUs
    for module in (machine, launcher):
        monkeypatch.setattr(module, "free_memory", lambda: 99 * 2**30)
    monkeypatch.setattr(launcher, "cores", lambda: 5)
    runs = [settings(**({"accelerator": "gpu"} | trainer))] * 9
    made = kind(runs_per_gpu=per_gpu, **OF_EVERY)
    if kind is RayLauncher and trainer == {"devices": 2}:  # of one GPU Ray gives parts, of several none
        count, seen = count // per_gpu, seen[: len(seen) // per_gpu]
    assert made.count(runs) == count and made._gpus(runs) == seen
    assert kind(runs_per_gpu=per_gpu, **{**OF_EVERY, "workers": 2}).count(runs) == 2
    if kind is RayLauncher and seen:
        each = len(seen[0].split(","))
        assert made._needs(Share(1, 1, seen, 0.0))["num_gpus"] == (each if each > 1 else 1 / per_gpu)


def test_gpus_are_counted_without_a_driver(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert machine.gpus(tmp_path) == ["0", "1"] and machine.gpus(tmp_path / "none") == []
    for said, found in (("1,0", ["1", "0"]), ("1,-1,0", ["1"]), ("", []), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert machine.gpus(tmp_path) == found


def test_threads_of_a_worker_can_be_stated(monkeypatch):
    monkeypatch.setattr(launcher, "cores", lambda: 8)
    for module in (machine, launcher):
        monkeypatch.setattr(module, "free_memory", lambda: 99 * 2**30)
    runs = [settings(threads=2)] * 9
    assert ParallelLauncher(**OF_EVERY).count(runs) == 4
    assert ParallelLauncher(threads_per_worker=4, **OF_EVERY).count(runs) == 2


def test_memory_and_cores_are_those_of_a_run_in_all_its_processes(monkeypatch, with_ray):
    monkeypatch.setattr(launcher, "cores", lambda: 8)
    for module in (machine, launcher):
        monkeypatch.setattr(module, "free_memory", lambda: 9 * 2**30)
    runs = [settings(strategy="ddp", devices=2)] * 9
    assert ParallelLauncher(**OF_EVERY)._counted(runs, 9)[0] == 4  # 1 GiB each, as said, of a run
    estimated = {"workers": None, "memory_per_worker": None}
    alone = [kind(**estimated)._each(runs[:1]) - 2 * machine.PER_WORKER for kind in (ParallelLauncher, JoblibLauncher)]
    assert alone == pytest.approx([0, 2 * machine.SERVER])  # a fork shares what joblib's processes load anew


def test_what_is_free_here_bounds_nothing_on_a_cluster_that_is_there(monkeypatch, with_ray):
    monkeypatch.setattr(launcher, "free_memory", lambda: 2**30)
    runs = [settings()] * 100
    given = {"workers": None, "memory_per_worker": None}
    assert ParallelLauncher(**given)._memory_of(runs, 100) == 2**30 / 100
    elsewhere = RayLauncher(address="10.0.0.1:6379", **given)
    assert elsewhere._memory_of(runs, 100) is None
    needs = elsewhere._needs(Share(100, 2, [], elsewhere._each(runs)))
    assert needs["num_cpus"] == 2 and needs["memory"] == int(machine.PER_WORKER + machine.SERVER)
    assert RayLauncher(address="auto", **OF_EVERY)._memory_of(runs, 100) == 2**30


def seen(item):
    """What a worker sees; long enough that both have begun."""
    time.sleep(1)
    return os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.getpid()


@pytest.mark.slow
def test_each_of_joblib_s_workers_sees_its_gpu():
    made = JoblibLauncher(**OF_EVERY)
    found = dict(made._spread(seen, range(1, 9), Share(2, 1, ["4", "7"], 0.0)))
    processes = {pid: name for name, pid in found.values()}
    assert len(found) == 8 and sorted(processes.values()) == ["4", "7"] and os.getpid() not in processes
    found = dict(made._spread(seen, range(1, 4), Share(3, 1, ["4", "7"], 0.0)))  # more than was reckoned with
    assert {name for name, _ in found.values()} == {"4", "7"}


# Workers elsewhere


def test_a_cluster_s_folder_is_private_short_and_what_killed_commands_left_goes(tmp_path, monkeypatch):
    from hydra_plugins.hw1_launcher.ray_launcher import _short_folder

    for name in ("a" * 60, "t"):
        usual = tmp_path / name
        usual.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(usual))
        monkeypatch.setattr("hydra_plugins.hw1_launcher.ray_launcher._LONGEST", len(str(tmp_path)) + 25)
        left = usual / "hw1-ray-left"
        left.mkdir()
        (left / "lock").touch()
        with _short_folder() as first, _short_folder() as second:
            assert os.stat(first).st_mode & 0o777 == 0o700 and os.path.isdir(second)
            assert os.path.dirname(first) == (str(usual) if name == "t" else "/tmp")
            assert left.exists() == (name != "t")
        assert not os.path.exists(first) and not os.path.exists(second)


class Cancelled:
    """Ray, as far as the end of a command asks it: a job ends when it is cancelled, or by force alone."""

    def __init__(self, ended, deaf):
        self.ended, self.deaf, self.asked = set(ended), set(deaf), []

    def wait(self, jobs, num_returns, timeout):
        assert num_returns == len(jobs) > 0
        return [job for job in jobs if job in self.ended], [job for job in jobs if job not in self.ended]

    def cancel(self, job, force=False):
        assert job not in self.ended, "Ray 2.60 ends the process: Tried to complete task that was not pending"
        self.asked.append((job, force))
        if force or job not in self.deaf:
            self.ended.add(job)


def test_at_the_end_of_a_command_a_job_that_has_ended_is_not_cancelled(capsys):
    from hydra_plugins.hw1_launcher.ray_launcher import _end

    ray = Cancelled(ended="ab", deaf="d")
    _end(ray, list("abcd"))
    assert ray.asked == [("c", False), ("d", False), ("d", True)]
    assert capsys.readouterr().err == "saving what has been trained; Ctrl-C again ends at once\n"


@pytest.mark.slow
def test_ray_ends_jobs_300_times_and_lives():
    pytest.importorskip("ray", reason='pip install "hw1[ray]"')
    ended = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0 and ended.stdout == "300\n", ended.stderr[:2000]


ENDS = """
import ray
from hydra_plugins.hw1_launcher.ray_launcher import _end, _init

_init(ray, address="local", num_cpus=2, object_store_memory=2**27)


@ray.remote(max_retries=0)
def job():
    try:
        while True:
            sum(range(1000))
    except KeyboardInterrupt:
        return 1


for number in range(300):
    jobs = [job.remote() for _ in range(2)]
    ray.wait(jobs, timeout=0.05)
    _end(ray, jobs)
print(number + 1)
ray.shutdown()
"""


def test_a_job_elsewhere_has_the_folder_and_the_variables_of_the_command(tmp_path, monkeypatch):
    before = os.getcwd()
    monkeypatch.setenv("HERE", "as the node says")
    monkeypatch.setenv("HW1_DATA", "/elsewhere")
    told = {"HERE": "x", "HW1_DATA": "/shared", "ONLY_THERE": "y"}
    monkeypatch.delenv("ONLY_THERE", raising=False)

    def work(job):
        print(f"{job} in {os.getcwd()}: {os.environ['HERE']} {os.environ['HW1_DATA']} {os.environ['ONLY_THERE']}")
        print("half", end="", file=sys.stderr)
        raise OSError(2, "not there")

    place = {"environment": told, "folder": str(tmp_path), "path": []}
    try:
        lines, error = in_worker(work, "job", place)
    finally:
        os.chdir(before)
        os.environ.pop("ONLY_THERE", None)
    assert lines == [("stdout", f"job in {tmp_path}: as the node says /shared y"), ("stderr", "half")]
    assert isinstance(error, OSError) and error.errno == 2


def test_a_killed_worker_is_named():
    said = "unexpectedly terminated.\nThe exit codes of the workers are {SIGTERM(-15), SIGKILL(-9)}"
    assert joblib_launcher._death(said) == "a worker process was killed by SIGKILL; is there enough memory?"
    assert joblib_launcher._death("workers are {SIGSEGV(-11)}") == "a worker process was killed by SIGSEGV"


# Data


def test_a_job_downloads_nothing_and_says_who_does(monkeypatch, tmp_path):
    from hw1.data.images import FashionMnist
    from hw1.data.torch_dataset import TorchDataset

    monkeypatch.setattr("hw1.data.source._probe", lambda urls: pytest.fail("an address was asked"))
    asked = []

    def own(download):
        asked.append(download)
        raise RuntimeError("Dataset not found.")

    made = functools.partial(own, download=True)
    with nothing_downloaded(JOBS):
        assert not may_download()
        with pytest.raises(FileNotFoundError) as missing_files:
            FashionMnist(tmp_path).prepare()
        with pytest.raises(FileNotFoundError, match=r"train: Dataset not found\.; a job downloads nothing"):
            TorchDataset(made, made, "classes", None, None, False).prepare()
    said = str(missing_files.value)
    assert "is missing, and a job downloads nothing" in said and "HW1_DATA" in said and "\n" not in said
    assert asked == [False] and may_download()


def test_a_job_s_own_code_runs_without_downloads(monkeypatch):
    from hw1 import job

    found = []
    monkeypatch.setattr(job, "_run", lambda config: found.append(may_download()))
    job.run(OmegaConf.create())
    assert found == [False] and may_download()


def test_data_of_runs_that_are_measured_are_fetched_before(monkeypatch):
    from hydra_plugins.hw1_sweeper import fetching

    class Source:
        def prepare(self):
            raise FileNotFoundError("root: there is no network")

    class Finished:
        why_not_own = ""

        def __init__(self, folder, run):
            self.why_not_own = folder

        def dataset_node(self):
            return {"_target_": "somebody's", "root": None}

    monkeypatch.setattr(fetching, "Run", Finished)
    monkeypatch.setattr(fetching, "examples_of", lambda node: Source())
    fetching.fetch([SimpleNamespace(folder="not signed by you", settings=None)])  # is not asked for
    with pytest.raises(ConfigError) as caught:
        fetching.fetch([SimpleNamespace(folder="", settings=None)] * 3)
    assert str(caught.value) == "dataset.root: there is no network"


# The matrix


@pytest.fixture(scope="module")
def matrices(tmp_path_factory):
    """{launcher: its Matrix}, all of one reference."""
    folder = tmp_path_factory.mktemp("matrix")
    made = {"basic": Matrix("basic", folder / "basic")}
    made |= {name: Matrix(name, folder / name, made["basic"]) for name in LAUNCHERS if name != "basic"}
    yield made
    for one in made.values():
        one.bench.end()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_does_the_same(name, case, matrices):
    if LAUNCHERS[name][1]:
        pytest.importorskip(LAUNCHERS[name][1], reason="an extra")
    if reason := missing(name):
        pytest.skip(reason)
    CASES[case](matrices[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_nothing_is_lost_or_trained_twice_by_kills(name, tmp_path):
    """A small one; the figures of 200 runs and 20 kills are `python -m tests.launchers kill`'s."""
    if reason := missing(name):
        pytest.skip(reason)
    if name == "basic":
        pytest.skip("it has no workers")
    found = kill(name, runs=12, kills=2, seed=0, folder=tmp_path)
    assert not found.lost and not found.twice and not found.unequal and found.compared == 5
