"""Runs as jobs of Slurm, end to end against the stand-ins: the same bits as in one process, whatever befalls a job."""

import hashlib
import json
import os
import signal

import pytest
from safetensors.torch import load_file
from slurm_words import SLURM

from hw1.runs import Run

pytest.importorskip("submitit", reason='pip install "hw1[submitit]"')
pytestmark = pytest.mark.slow
STEPS = 12  # of a run: 3 epochs of 4


def runs(tmp_path, output="out"):
    return [Run(file.parent) for file in sorted((tmp_path / output / "default" / "runs").glob("*/config.yaml"))]


def hashes(found):
    return {
        run.key: hashlib.sha256(
            b"".join(v.numpy().tobytes() for _, v in sorted(load_file(run.weights_file).items()))
        ).hexdigest()
        for run in found
        if run.status == "complete"
    }


def steps(tmp_path):
    """[process, run, step] of each line."""
    file = tmp_path / "steps"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def undisturbed(tmp_path, user):
    """`undisturbed(*words)`: the hashes of the same runs under Hydra's basic launcher."""

    def train(*words):
        kept = steps(tmp_path)
        code, *said = user(*words, "hydra/launcher=basic", output="basic", STEPS_LOG=tmp_path / "other")
        assert code == 0, said
        assert steps(tmp_path) == kept
        return hashes(runs(tmp_path, "basic"))

    return train


def test_trained_skipped_measured_and_failed(tmp_path, cluster, user, undisturbed, figure):
    words = ("seed=1,2,3", SLURM, "hydra.launcher.array_parallelism=1")
    code, said, _ = user(*words)
    assert code == 0 and said.count("test/accuracy") == 3 and cluster.most == 1
    assert hashes(runs(tmp_path)) == undisturbed("seed=1,2,3")
    cluster.until(lambda: [*cluster.states().values()] == 3 * ["COMPLETED"])
    assert not list((tmp_path / "home").glob("hw1/submitit/*")) and not list((tmp_path / "out").rglob("*.pkl"))
    code, said, _ = user(*words)
    assert code == 0 and "nothing to do" in said and len(cluster.jobs()) == 3
    sweep = next((tmp_path / "out" / "default" / "sweeps").iterdir())
    code, *said = user("measure", sweep, "sharpness", "sharpness.examples=16", "sharpness.trace_products=6", SLURM)
    assert code == 0, said
    assert len(cluster.jobs()) == 6 and all(list(run.path.glob("measures/sharpness*")) for run in runs(tmp_path))
    code, _, errors = user("seed=4", SLURM, STEPS_FAIL=1)
    assert code == 1 and "RuntimeError: told to fail" in errors
    assert "told to fail" in user("list", tmp_path / "out", "status=failed")[1]
    cluster.until(lambda: {*cluster.states().values()} == {"COMPLETED"})  # a failed run is no failed job
    figure("3 runs in an array of 1 at a time, skipped, measured; 1 failed: 3 of 3 as under basic, SHA-256")


def test_left_found_again_added_to_and_concluded(tmp_path, cluster, user, undisturbed, figure):
    cluster.paused = True
    code, said, errors = user("seed=1,2", SLURM, "--detach")
    told = json.loads(said)
    assert code == 0 and [job["new"] for job in told["jobs"]] == [True, True] and "2 to train" in errors
    listed = user("list", tmp_path / "out" / "default")[1]
    assert "2 queued" in listed and "job 101_0" in listed and "running  0/2" in listed
    again = json.loads(user("seed=1,2", SLURM, "--detach")[1])
    assert again["sweep"] == told["sweep"] and [job["job"] for job in again["jobs"]] == ["101_0", "101_1"]
    assert not any(job["new"] for job in again["jobs"])
    more = json.loads(user("seed=1,2,3", SLURM, "--detach")[1])
    assert [(job["job"], job["new"]) for job in more["jobs"]] == [("101_0", False), ("101_1", False), ("102", True)]
    cluster.paused = False
    code, said, _ = user("seed=1,2", SLURM)
    assert code == 0 and said.count("test/accuracy") == 2 and told["sweep"] in said
    assert json.loads((tmp_path / told["sweep"] / "sweep.json").read_text())["status"] == "complete"
    cluster.until(lambda: cluster.states()["102"] == "COMPLETED")
    code, said, _ = user("seed=1,2,3", SLURM)
    assert code == 0 and more["sweep"] in said and len(cluster.jobs()) == 3
    assert hashes(runs(tmp_path)) == undisturbed("seed=1,2,3")
    assert not list((tmp_path / "out").rglob("submitted-*")) and not list((tmp_path / "out").rglob(".sweep-*"))
    assert not list((tmp_path / "home").glob("hw1/submitit/*"))
    figure("left, found 2 times, added to, concluded twice: 3 jobs for 3 runs, as under basic, SHA-256")


@pytest.mark.parametrize("what", ["time_out", "preempt", "lose"])
def test_a_job_that_is_stopped_goes_on(what, tmp_path, cluster, user, undisturbed, figure):
    code, *said = user("seed=1", SLURM, "--detach", STEPS_SLEEP=0.3)
    assert code == 0, said
    cluster.until(lambda: len(steps(tmp_path)) >= 6)
    getattr(cluster, what)("101")
    cluster.until(lambda: cluster.jobs()["101"]["restarts"] == 1)
    code, *said = user("seed=1", SLURM)
    assert code == 0, said
    cluster.until(lambda: cluster.states() == {"101": "COMPLETED"})
    assert hashes(runs(tmp_path)) == undisturbed("seed=1")
    at, made = [int(step) for *_, step in steps(tmp_path)], len(steps(tmp_path))
    # One that is told to stop saves at that very step; what is lost is lost from the last epoch's end on.
    assert len({process for process, *_ in steps(tmp_path)}) == 2
    assert made <= STEPS + 4 if what == "lose" else at == list(range(1, STEPS + 1))
    figure(f"{what} at step 6 of {STEPS}: requeued, went on, {made - STEPS} steps made again; as under basic, SHA-256")


@pytest.mark.parametrize(
    ("words", "stops", "why"),
    [
        (["+callbacks.other._target_=steps.Gathers"], 3, "stopped 3 times at step 0 without coming further"),
        (["hydra.launcher.timeout_min=5", "hydra.launcher.max_num_timeout=1"], 2, "hydra.launcher.max_num_timeout"),
    ],
)
def test_requeues_come_to_an_end(words, stops, why, tmp_path, cluster, user, figure):
    process = user("seed=1", SLURM, *words, STEPS_SLEEP=1, background=True)
    for number in range(stops):
        cluster.until(lambda: len({process for process, *_ in steps(tmp_path)}) == number + 1)  # noqa: B023
        assert cluster.jobs()["101"]["restarts"] == number
        cluster.time_out("101")
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 1 and why in errors, said + errors
    assert why in user("list", tmp_path / "out", "status=failed")[1]
    cluster.until(lambda: cluster.states() == {"101": "COMPLETED"})
    figure(f"time_out {stops} times, as {words[-1]}: requeued {stops - 1} times, failed with the reason")


def test_a_job_that_is_cancelled_is_a_failure_with_a_reason(tmp_path, cluster, user, slurm, figure):
    process = user("seed=1", SLURM, STEPS_SLEEP=1, background=True)
    cluster.until(lambda: steps(tmp_path))
    assert slurm("scancel", "101").returncode == 0
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 1 and "job 101 ended as CANCELLED" in errors, said + errors
    assert "job 101 ended as CANCELLED" in user("list", tmp_path / "out", "status=failed")[1]
    figure("cancelled: failed, with the end of its log")


def test_a_command_that_is_interrupted_or_killed_leaves_its_jobs(tmp_path, cluster, user, undisturbed, figure):
    for number, end in enumerate((signal.SIGINT, signal.SIGKILL)):
        process = user(f"seed={number}", SLURM, STEPS_SLEEP=0.5, background=True)
        told = tmp_path / "out" / "default" / "sweeps"
        cluster.until(lambda: len(cluster.jobs()) > number and list(told.glob("*/submitted-*.json")))  # noqa: B023
        os.kill(process.pid, end)
        _, errors = process.communicate(timeout=60)
        assert end == signal.SIGKILL or "scancel 101 ends them" in errors
        code, *said = user(f"seed={number}", SLURM)
        assert code == 0, said
    assert len(cluster.jobs()) == 2
    assert hashes(runs(tmp_path)) == undisturbed("seed=0,1")
    figure("the command interrupted, and killed: 2 jobs for 2 runs, found by the same words")


def test_seconds_that_are_none_are_refused_before_anything_is_submitted(tmp_path, cluster, user):
    code, said, errors = user("seed=1", SLURM, HW1_QUEUE_SECONDS="soon")
    assert code == 1 and not cluster.jobs() and not runs(tmp_path), (said, errors)
    assert "HW1_QUEUE_SECONDS: got 'soon', expected seconds from 0.001 to 3600" in errors
