"""What is handed to Slurm, what its queue says, and what is refused; nothing trains."""

import contextlib
import functools
import json
import os
import re
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from cluster import spans
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from hw1.lease import hold
from hw1.machine import cores
from hw1.records import FORMAT, make_key, write_record
from hw1.report.listing import listing
from hw1.runs import submitted
from hw1.runs.order import read_order, write_orders
from hw1.runs.submitted import Left, Place, live_jobs, numbers, places, submitted_below, write_submitted
from hw1.settings import ConfigError, RunSettings
from hydra_plugins.hw1_launcher import submitit_jobs, submitit_local, submitit_slurm
from hydra_plugins.hw1_launcher.detached import refuse_detach, reopened, settle
from hydra_plugins.hw1_launcher.launcher import ParallelLauncher
from hydra_plugins.hw1_launcher.submitit_jobs import returned
from hydra_plugins.hw1_launcher.submitit_local import SubmititLocalLauncher
from hydra_plugins.hw1_launcher.submitit_slurm import SubmititSlurmLauncher
from hydra_plugins.hw1_sweeper.piecing import _launched, jobs_asked, refuse_pieces
from hydra_plugins.hw1_sweeper.plan import Job
from made_runs import run_settings

CONF = Path(__file__).parents[2] / "conf"
submitit = pytest.importorskip("submitit", reason='pip install "hw1[submitit]"')


def settings(option, *words):
    """What stands in the preset of a launcher, and in conf/local.yaml."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"hydra/launcher={option}", *words], return_hydra_config=True)
    found = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    target = found.pop("_target_")
    assert target.rpartition(".")[2] in (SubmititLocalLauncher.__name__, SubmititSlurmLauncher.__name__)
    return found


preset = functools.cache(settings)


def launcher(tmp_path, option="submitit_slurm", **changes):
    made = {"submitit_slurm": SubmititSlurmLauncher, "submitit_local": SubmititLocalLauncher}[option]
    own = made(**{**preset(option), **changes})
    sweep = {"dir": str(tmp_path / "out" / "default")}
    config = OmegaConf.create({"hydra": {"sweep": sweep}})
    own.setup(hydra_context=None, task_function=None, config=config)
    return own


def detached(tmp_path):
    own = launcher(tmp_path)
    own.detach = True
    return own


def sweep_of(tmp_path, *names):
    """(folder of a sweep whose command is no longer at work, words of its jobs)."""
    base = tmp_path / "out" / "default"
    sweep = base / "sweeps" / "2026-11-28_10-20-30"
    sweep.mkdir(parents=True)
    assert make_key() == ""
    runs = [{"key": name, "folder": name, "overrides": []} for name in names]
    record = {"format": FORMAT, "name": "default", "status": "running", "study": None, "measures": [], "runs": runs}
    write_record(sweep / "sweep.json", record)
    orders = write_orders(sweep / "sweep.json", record, len(names))
    return sweep, record, [["seed=1", f"hydra.sweep.subdir='runs/{name}'", f"sweep='{orders[True]}'"] for name in names]


def runs_with(*threads):
    plain = run_settings()
    return [RunSettings.check({**plain, "trainer": {**plain["trainer"], "threads": number}}) for number in threads]


def test_alike_runs_are_an_array_and_its_script_says_what_they_take(tmp_path, cluster, slurm):
    cluster.paused = True
    changes = {"partition": "gpu", "account": "me", "array_parallelism": 4, "setup": ["module load cuda"]}
    own = launcher(tmp_path, **changes, additional_parameters={"mail-type": "END"})
    own.detach = True
    sweep, record, words = sweep_of(tmp_path, "a", "b", "c", "d")
    own.expect(runs_with(1, 3, 1, 1))
    with pytest.raises(Left) as left:
        own.launch(words, 0)
    array, single = cluster.scripts()
    for line in ("array=0-2%3", "cpus-per-task=1", "mem=4GB", "time=60", "signal=USR2@120", "requeue", "partition=gpu"):
        assert f"#SBATCH --{line}\n" in array, array
    assert "--account=me" in array and "--mail-type=END" in array and "\nmodule load cuda\n" in array
    assert "#SBATCH --cpus-per-task=3\n" in single and "--array" not in single and "OMP_NUM_THREADS=3" in single
    assert [job.job for job in left.value.jobs] == ["101_0", "102", "101_1", "101_2"]
    answer = json.loads(left.value.told(sweep))
    assert answer["jobs"][1] == {"job": "102", "run": "b", "state": "PENDING", "new": True}

    folder = left.value.jobs[0].folder  # for nobody else, with what is unpickled there and nowhere else
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.is_relative_to(tmp_path / "home")
    assert len(list(folder.glob("*.pkl"))) == 5 and not list((tmp_path / "out").rglob("*.pkl"))
    told = json.loads(next(sweep.glob("submitted-*.json")).read_text())
    assert [job["run"] for job in told["jobs"]] == ["a", "b", "c", "d"]

    again = launcher(tmp_path, **changes)  # another command: nothing is submitted twice, and what is new is added
    again.detach = True
    _, _, new = sweep_of(tmp_path / "other", "e")
    more = [*words, [new[0][0], "hydra.sweep.subdir='runs/e'", words[0][2]]]
    with pytest.raises(Left) as left:
        again.launch(more, 0)
    assert left.value.new == {"103"} and [job.job for job in left.value.jobs][:2] == ["101_0", "102"]
    assert reopened(sweep.parent.parent, record) == (sweep, record)
    assert reopened(sweep.parent.parent, {**record, "study": "another"}) is None
    settle(sweep.parent.parent)
    assert len(list(sweep.glob("submitted-*.json"))) == 2  # they are at work


def test_the_queue_shows_in_a_list_and_so_does_a_job_that_died(tmp_path, cluster, slurm):
    cluster.paused = True
    own = launcher(tmp_path)
    own.detach = True
    sweep, _, words = sweep_of(tmp_path, "a-1", "b-2", "c-3")
    with pytest.raises(Left) as left:
        own.launch(words, 0)
    jobs = left.value.jobs
    cluster._set("101_1", state="RUNNING", node="node7")
    cluster._set("101_2", state="OUT_OF_MEMORY", node="node8")
    (jobs[2].folder / "101_2_0_log.err").write_text("first\nslurmstepd: error: oom_kill\n\n")
    base = sweep.parent.parent
    assert {run: place.state for run, ((_, place),) in live_jobs(submitted_below(base)).items()} == {
        "a-1": "PENDING",
        "b-2": "RUNNING",
    }
    lines, busy = listing(base, [], None)
    said = {re.split(r"\s{2,}", line)[1]: line for line in lines[-3:]}
    assert busy and said["a"].startswith("queued") and "job 101_0" in said["a"]
    assert said["b"].startswith("running") and "job 101_1 on node7" in said["b"]
    assert said["c"].startswith("failed") and said["c"].endswith(
        "job 101_2 ended as OUT_OF_MEMORY: slurmstepd: error: oom_kill; give it more memory (hydra.launcher.mem_gb)"
    )
    assert any(line.startswith(f"{sweep.name}  running") for line in lines)
    write_record(jobs[0].outcome, {"format": FORMAT, "error": "no headway\n", "lost": False})  # before its run could
    said = next(line for line in listing(base, ["status=failed"], None)[0] if "job 101_0" in line)
    assert said.endswith("job 101_0: no headway")
    jobs[2].folder.chmod(0o755)  # not this user's alone: nothing of it is shown
    assert "ended as OUT_OF_MEMORY; its log is empty" in "\n".join(listing(base, [], None)[0])


def test_pieces_that_are_queued_are_found_and_go_with_their_sweep(tmp_path, cluster, slurm, monkeypatch):
    """A command that waits for them is interrupted: they read what it has left until they have ended."""
    cluster.paused = True
    sweep, record, _ = sweep_of(tmp_path, "a")
    (run,) = runs_with(1)
    job = Job(["seed=1"], run, sweep.parent.parent / "runs" / "a")
    shares = [(job, [("spectrum.json", "member=0_probe=0")]), (job, [("spectrum.json", "member=0_probe=1")])]

    def interrupted(self, jobs):
        raise KeyboardInterrupt

    monkeypatch.setattr(SubmititSlurmLauncher, "_awaited", interrupted)
    for _ in range(2):  # by the same words nothing is submitted twice
        with pytest.raises(KeyboardInterrupt):
            _launched(launcher(tmp_path), shares, sweep / "sweep.json", record)
    jobs = submitted_below(sweep.parent.parent)
    assert [read_order(job.order).pieces for job in jobs] == [[list(piece) for piece in own] for _, own in shares]
    assert [job.job for job in jobs] == ["101_0", "101_1"]
    for one in jobs:
        cluster._set(one.job, state="COMPLETED")
        write_record(one.outcome, {"format": FORMAT, "error": "", "lost": False})
    write_record(sweep / "sweep.json", {**record, "status": "complete"})
    settle(sweep.parent.parent)
    assert not [*sweep.glob("submitted-*"), *sweep.glob(".*"), *(tmp_path / "home").glob("hw1/submitit/*")]


def test_what_is_at_work_here_says_so(tmp_path):
    sweep, _, _ = sweep_of(tmp_path, "a-1")
    folder = sweep.parent.parent / "runs" / "a-1"
    folder.mkdir(parents=True)
    with hold(folder):
        lines, _ = listing(sweep.parent.parent, [], None)
    assert lines[-1].startswith("running") and lines[-1].endswith(f"process {os.getpid()}")


def test_numbers_of_an_array_as_sacct_writes_them(cluster, slurm):
    assert spans([1, 2, 3, 5, 7, 8]) == ["1-3", "5", "7-8"]
    assert numbers("12_[1-3,5,7-8%4]") == [f"12_{number}" for number in (1, 2, 3, 5, 7, 8)]
    assert places([]) == {} and places(["7"]) == {}


def test_partition_and_account_stand_in_local_yaml(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "local.yaml").write_text(
        "hydra: {env: {partition: gpu, account: me, setup: [module load x]}}\n"
    )
    monkeypatch.setenv("HW1_PROJECT", str(tmp_path))
    found = settings("submitit_slurm")
    assert (found["partition"], found["account"], found["setup"]) == ("gpu", "me", ["module load x"])
    assert settings("submitit_slurm", "hydra.launcher.partition=long")["partition"] == "long"
    settings("submitit_local")


def test_what_cannot_be_launched_is_refused_in_a_line(tmp_path, cluster, monkeypatch, slurm):
    own, runs = launcher(tmp_path), runs_with(1)
    own.ready(runs)
    for changes, said in (
        ({"submitit_folder": str(tmp_path / "out" / "x" / "%j")}, "inside the output"),
        ({"nodes": 2}, r"^hydra\.launcher\.nodes: got 2, expected 1: "),
        ({"tasks_per_node": 2}, r"^hydra\.launcher\.tasks_per_node: got 2, expected 1: "),
    ):
        with pytest.raises(ConfigError, match=said):
            launcher(tmp_path, **changes).ready(runs)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigError, match="others can write"):
        launcher(tmp_path, submitit_folder=str(shared))._new_folder()
    for option, name, value in (
        ("submitit_slurm", "timeout_min", 0),
        ("submitit_slurm", "array_parallelism", 0),
        ("submitit_slurm", "signal_delay_s", 3600),
        ("submitit_slurm", "max_num_timeout", -1),
        ("submitit_slurm", "mem_gb", 0),
        ("submitit_local", "mem_gb", 0),
        ("submitit_local", "cpus_per_task", 0),
    ):
        with pytest.raises(ValueError, match=rf"^hydra\.launcher\.{name}: got {value}, expected"):
            launcher(tmp_path, option, **{name: value})
    for option in ("submitit_slurm", "submitit_local"):
        with pytest.raises(ValueError, match=rf"^hydra\.launcher\.workers: got a setting that {option} has not"):
            launcher(tmp_path, option, workers=2)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"without sbatch.*login node"):
        own.ready(runs)
    monkeypatch.setattr(submitit_jobs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "hw1\[submitit\]"$'):
        own.ready(runs)


def test_slurm_refuses_in_a_line(tmp_path, cluster, slurm):
    (cluster.folder / "limits").write_text(json.dumps({"partitions": ["gpu"], "minutes": 60}))
    sweep, _, words = sweep_of(tmp_path, "a")
    with pytest.raises(ConfigError, match=r"Slurm refused the jobs: .*invalid partition specified: none; expected"):
        launcher(tmp_path, partition="none").launch(words, 0)
    assert not list(sweep.glob("submitted-*")) and not list((tmp_path / "home").glob("hw1/submitit/*"))


def test_a_job_states_what_all_processes_of_its_run_take(tmp_path, monkeypatch):
    plain = run_settings()

    def run(**trainer):
        return RunSettings.check({**plain, "trainer": {**plain["trainer"], **trainer}})

    own = launcher(tmp_path)
    assert own._needs(run(threads=2)) == (2, 0)
    assert own._needs(run(threads=2, strategy="ddp", devices=3)) == (6, 0)
    assert own._needs(run(accelerator="gpu", strategy="ddp", devices=2)) == (2, 2)
    assert own._needs(run(accelerator="gpu", devices=[1])) == (1, 1)
    assert launcher(tmp_path, cpus_per_task=5, gpus_per_node=0)._needs(run(accelerator="gpu")) == (5, 0)
    monkeypatch.setattr(submitit_local, "cores", lambda: 8)
    local = launcher(tmp_path, "submitit_local", mem_gb=0.001)
    assert local.count([run(strategy="ddp", devices=2)] * 9) == 4


def test_what_was_submitted_before_a_refusal_keeps_what_it_reads(tmp_path, cluster, slurm, monkeypatch):
    cluster.paused = True
    own, sent = launcher(tmp_path), SubmititSlurmLauncher._sent
    sweep, _, words = sweep_of(tmp_path, "a", "b")
    own.expect(runs_with(1, 2))

    def full(self, folder, needs, share, jobs):
        if needs[0] == 2:
            raise ConfigError("hydra/launcher: Slurm refused the jobs: QOSMaxSubmitJobPerUserLimit")
        return sent(self, folder, needs, share, jobs)

    monkeypatch.setattr(SubmititSlurmLauncher, "_sent", full)
    for _ in range(2):  # the same words again: refused before anything is new
        own = launcher(tmp_path)
        own.expect(runs_with(1, 2))
        with pytest.raises(ConfigError):
            own.launch(words, 0)
        assert own.left and [job.run for job in submitted_below(sweep.parent.parent)] == ["a"]


def test_what_slurm_does_not_tell_has_not_ended(tmp_path, cluster, slurm, monkeypatch):
    cluster.paused = True
    sweep, record, words = sweep_of(tmp_path, "a")
    with pytest.raises(Left) as left:
        detached(tmp_path).launch(words, 0)
    monkeypatch.setattr(submitted, "_UNSEEN", 0.0)  # an hour later the data base is down
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sacct").write_text("#!/bin/sh\necho 'sacct: error: Problem talking to the database' >&2\nexit 1\n")
    (broken / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken}:{os.environ['PATH']}")
    with pytest.raises(Left) as again:
        detached(tmp_path).launch(words, 0)
    assert not again.value.new and again.value.jobs == left.value.jobs  # nothing is submitted twice
    write_record(sweep / "sweep.json", {**record, "status": "failed"})
    settle(sweep.parent.parent)
    assert left.value.jobs[0].order.exists() and submitted_below(sweep.parent.parent)


@pytest.mark.parametrize(("states", "ended"), [(["NODE_FAIL"], False), (["NODE_FAIL"] * 5, True)])
def test_a_job_has_ended_when_slurm_has_said_so_twice(states, ended, tmp_path, monkeypatch):
    clock, asked = [1e5], []

    class Waited(Exception):
        pass

    def answer(jobs):
        asked.append(1)
        if len(asked) > 8:
            raise Waited
        state = states[len(asked) - 2] if 1 < len(asked) <= len(states) + 1 else "PENDING"
        return dict.fromkeys(jobs, Place(state))

    passes = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda s: clock.__setitem__(0, clock[0] + s))
    monkeypatch.delenv("HW1_QUEUE_SECONDS", raising=False)
    monkeypatch.setattr(submitit_slurm, "time", passes)
    monkeypatch.setattr(submitit_slurm, "places", answer)
    job = submitted.Submitted("a", "101", 0, tmp_path, tmp_path / "file", tmp_path / "order", 0.0)
    with contextlib.nullcontext() if ended else pytest.raises(Waited):
        (result,) = launcher(tmp_path)._awaited([job])
        assert "job 101 ended as NODE_FAIL" in str(result._return_value)


def test_what_a_command_at_work_reads_is_not_taken_away(tmp_path, cluster, slurm):
    cluster.paused = True
    sweep, record, words = sweep_of(tmp_path, "a")
    with pytest.raises(Left) as left:
        detached(tmp_path).launch(words, 0)
    (job,) = left.value.jobs
    write_record(job.outcome, {"format": FORMAT, "error": "", "lost": False})
    write_record(sweep / "sweep.json", {**record, "status": "complete"})
    orders = write_orders(sweep / "measuring-ab12.json", record, 3)  # of `hw1 measure` under another launcher
    settle(sweep.parent.parent)
    assert orders[False].exists() and not job.order.exists()


@pytest.mark.parametrize("state", ["TIMEOUT", "OUT_OF_MEMORY"])
def test_what_ends_for_want_of_something_names_it(state, tmp_path):
    job = submitted.Submitted("a", "101", 0, tmp_path, tmp_path / "file", tmp_path / "order", 0.0)
    assert re.search(rf"^job 101 ended as {state}; .*; give it more (time|memory) \(hydra\.launcher\.", job.died(state))


@pytest.mark.parametrize("seen", ["0,1", "GPU-a,GPU-b", None])
def test_jobs_of_this_machine_have_a_gpu_each(seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen) if seen else monkeypatch.delenv("CUDA_VISIBLE_DEVICES", False)
    if seen is None:
        monkeypatch.setattr(submitit_local, "gpus", lambda: ["0", "1"])  # as the kernel shows them
    first, second = (seen or "0,1").split(",")
    assert [submitit_local._visible(1, slot) for slot in (0, 1, 2)] == [[first], [second], [first]]
    assert submitit_local._visible(2, 1) == [first, second] and submitit_local._visible(3, 0) == []


def test_what_submitit_would_not_do_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^hydra\.launcher\.max_num_timeout: got 6, expected 5 at .*timeout_min"):
        launcher(tmp_path, "submitit_local", max_num_timeout=6)


def test_only_a_cluster_s_jobs_are_left(tmp_path, cluster):
    with pytest.raises(ConfigError, match=r"^--detach: .*expected hydra/launcher=submitit_slurm"):
        refuse_detach(ParallelLauncher(None, 1.0), False)
    with pytest.raises(ConfigError, match=r"^--detach: .*search"):
        refuse_detach(launcher(tmp_path), True)
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.pieces: got 16 beside --detach"):
        refuse_pieces(16, leaves=True)
    own = launcher(tmp_path)  # whose nodes nobody has counted
    assert jobs_asked("auto", own, preset("submitit_slurm"), runs_with(1)) == 0
    assert jobs_asked(16, own, preset("submitit_slurm"), runs_with(1)) == 16


def test_never_more_at_a_time_than_was_asked_for(tmp_path, monkeypatch):
    begun, at_work, most = [], set(), []

    class Started:
        def __init__(self, job):
            self.job, self.until, self.paths = job, time.monotonic() + 0.02, SimpleNamespace(stdout=Path("/none"))
            begun.append(job.number)
            at_work.add(job.number)
            most.append(len(at_work))

        def done(self):
            if time.monotonic() < self.until:
                return False
            at_work.discard(self.job.number)
            write_record(
                Path(self.job.folder, f"{self.job.number}.json"), {"format": FORMAT, "error": "", "lost": False}
            )
            return True

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(submitit_local, "_POLL", 0.01)
    monkeypatch.setattr(SubmititLocalLauncher, "_started", lambda self, job, run, slot: Started(job))
    own = launcher(tmp_path, "submitit_local", array_parallelism=3)
    results = own.launch([["seed=1"]] * 8, 0)
    assert max(most) == 3 and sorted(begun) == list(range(8)) and len(results) == 8
    assert returned(None).return_value is None and all(result.return_value is None for result in results)
    own = launcher(tmp_path, "submitit_local", mem_gb=0.001)
    assert own.count(runs_with(*[1] * 999)) == cores() and own.count(runs_with(*[1000] * 9)) == 1


def test_a_stranger_s_file_leads_nowhere(tmp_path, cluster):
    sweep, _, _ = sweep_of(tmp_path, "a")
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o755)
    (secret / "1_0_log.err").write_text("password\n")
    order = sweep / ".sweep-train.json"
    entries = [
        ("../../x", "1", 0, order),
        ("a", "1; rm", 1, order),
        ("a", "1", 2, sweep / "x.json"),
        ("a", "1", 3, order),
    ]
    write_submitted(sweep, secret, entries)
    (job,) = submitted_below(sweep.parent.parent)
    assert job.number == 3 and job.last_line() == ""
