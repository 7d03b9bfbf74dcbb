"""Runs of several processes: one folder, one result, whatever happens to one of them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from composed import ROOT, settings, trained
from hw1.preemption import Preempted, listening
from hw1.runs import Sweep
from hw1.training.fit import fit

from .cases import CASES
from .matrix import compare, words_of

NAMES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")
FAILS = "+callbacks.fails._target_=distributed.failing.FailsAt"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
CASE = CASES["ragged last batch"]


def several(*own):
    """The settings of a run of two processes."""
    return settings("trainer=ddp", *words_of(CASE, own))


def fails(step, rank, how, once=None):
    values = {"step": step, "rank": rank, "how": how} | ({} if once is None else {"once": once})
    return [FAILS, *(f"+callbacks.fails.{name}={value}" for name, value in values.items())]


def test_two_processes_come_to_what_one_comes_to_and_leave_the_process_as_it_was(tmp_path):
    before, hook = dict(os.environ), sys.excepthook
    found = compare(CASES["a share may be empty"], tmp_path)
    assert max(found.parameters, found.metrics) < 1e-8
    assert found.steps == 102
    assert not dist.is_initialized()
    assert sys.excepthook is hook
    assert {name: os.environ.get(name) for name in NAMES} == {name: before.get(name) for name in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_matrix(name, tmp_path):
    found = compare(CASES[name], tmp_path)
    assert max(found.parameters, found.metrics) < CASES[name].limit


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", r"ValueError: the disk of this machine is on fire"),
        ("drifts", r"DivergedWeightsError|net\.1\.weight differs between the processes of trainer=ddp"),
    ],
)
def test_a_failure_of_one_is_that_of_the_run(rank, how, reason, tmp_path):
    run = several(*fails(10, rank, how))
    begun = time.monotonic()
    result = fit(run, tmp_path / f"run-{run.key}")
    assert time.monotonic() - begun < 30 + 30  # what it takes to begin, besides
    assert result["status"] == "failed"
    assert "\n" not in result["error"]
    assert re.search(reason, result["error"]), result["error"]
    if how == "raises":
        assert ("process 1 of 2 (from 0) failed" in result["error"]) == (rank == 1)


@pytest.mark.slow
def test_a_killed_one_fails_the_run_within_30_seconds_and_the_sweep_goes_on(tmp_path):
    words = [*words_of(CASE, fails(10, 1, "killed", tmp_path / "once")), "trainer=ddp", "seed=0,1"]
    words += [f"output={tmp_path}", "hydra/launcher=basic"]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert time.monotonic() - begun < 300
    said = done.stdout + done.stderr
    runs = Sweep.read(tmp_path / "default").runs
    assert sorted(run.status for run in runs) == ["complete", "failed"], said
    failed = next(json.loads((run.path / "result.json").read_text()) for run in runs if run.status == "failed")
    assert "process 1 of 2 (from 0) failed: a worker process was killed by SIGKILL" in failed["error"]
    again = subprocess.run(
        [sys.executable, "train.py", *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert [run.status for run in Sweep.read(tmp_path / "default").runs] == ["complete"] * 2, again.stderr


@pytest.mark.slow
def test_an_interrupted_run_goes_on_bit_by_bit(tmp_path):
    """With dropout, of which each process has its own."""
    own = ["model.dropout=0.3", "trainer.precision=32-true", "trainer.checkpoint_seconds=0"]
    undisturbed = trained(several(*own), tmp_path / "undisturbed")
    run = several(*own, *fails(52, 1, "killed", tmp_path / "once"))
    folder = tmp_path / "disturbed" / f"run-{run.key}"
    assert fit(run, folder)["status"] == "failed"
    assert (folder / "checkpoints" / "last.ckpt").exists()
    disturbed = trained(run, tmp_path / "disturbed")
    kept = [torch.load(one.path / "checkpoints" / "last.ckpt")["state_dict"] for one in (undisturbed, disturbed)]
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())
    assert undisturbed.metrics() == disturbed.metrics()
    assert (undisturbed.path / "metrics.csv").read_text() == (disturbed.path / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_all_processes_stops_the_run_and_it_goes_on(number, tmp_path):
    words = ["+callbacks.stops._target_=distributed.failing.StopsAll", "+callbacks.stops.step=30"]
    words += [f"+callbacks.stops.number={int(number)}", f"+callbacks.stops.folder={tmp_path}"]
    run = several("trainer.checkpoint_seconds=0", *words)
    folder = tmp_path / f"run-{run.key}"
    heard = []
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        with pytest.raises(Preempted), listening():
            fit(run, folder)
    finally:
        signal.signal(number, before)
    assert heard == [number]
    assert (folder / "checkpoints" / "last.ckpt").exists()
    assert not (folder / "result.json").exists()
    assert fit(run, folder)["status"] == "complete"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["parallel", "joblib"])
def test_runs_side_by_side_are_what_they_are_one_after_the_other(launcher, tmp_path):
    words = [*words_of(CASE), "trainer=ddp", "seed=0,1", f"output={tmp_path}", f"hydra/launcher={launcher}"]
    words += ["hydra.launcher.workers=2"]
    subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=True)
    runs = Sweep.read(tmp_path / "default").runs
    for run in runs:
        alone = trained(run.settings, tmp_path / "alone")
        assert torch.equal(run.theta(), alone.theta())
        assert not list(run.path.glob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_first(number, tmp_path):
    words = [*words_of(CASE), "trainer=ddp", f"output={tmp_path}", "+callbacks.slow.seconds=0.2"]
    words += ["+callbacks.slow._target_=distributed.failing.Slow", f"+callbacks.slow.folder={tmp_path}"]
    first = subprocess.Popen([sys.executable, "train.py", *words], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE)
    files = [tmp_path / "0", tmp_path / "1"]
    while not all(file.exists() and file.read_text() for file in files):
        assert first.poll() is None, first.stderr.read().decode()
        time.sleep(0.1)
    processes = [int(file.read_text()) for file in files]
    first.send_signal(number)
    first.wait(30)
    last = time.monotonic() + 30
    while any(_lives(process) for process in processes):
        assert time.monotonic() < last
        time.sleep(0.1)


def _lives(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_by_nccl_comes_to_what_it_comes_to_alone(tmp_path):
    words = words_of(
        CASE, ["~model.hidden", "model=resnet", "model.channels=2", "model.blocks=[1,1]", "trainer.max_epochs=2"]
    )
    alone = trained(settings("trainer=gpu", *words), tmp_path)
    by_nccl = trained(settings("trainer=ddp_gpu", "trainer.devices=1", *words), tmp_path)
    assert (alone.theta() - by_nccl.theta()).abs().max() < 1e-8
