"""Runs as jobs of submitit on this machine, end to end: the same bits, so many at a time, ended with the command."""

import os
import signal
import time

import pytest
from test_slurm_matrix import hashes, runs, steps

pytest.importorskip("submitit", reason='pip install "hw1[submitit]"')
pytestmark = pytest.mark.slow
LOCAL = ("hydra/launcher=submitit_local", "hydra.launcher.array_parallelism=1")


def test_the_same_bits_and_one_at_a_time(tmp_path, user, figure):
    code, said, _ = user("seed=1,2", *LOCAL)
    assert code == 0 and said.count("test/accuracy") == 2
    order = [process for process, *_ in steps(tmp_path)]
    assert len(set(order)) == 2 and order == sorted(order, key=order.index)
    assert user("seed=1,2", "hydra/launcher=basic", output="basic")[0] == 0
    assert hashes(runs(tmp_path)) == hashes(runs(tmp_path, "basic"))
    assert not list((tmp_path / "home").glob("hw1/submitit/*")) and not list((tmp_path / "out").rglob("*.pkl"))
    figure("submitit_local, 2 runs one at a time: as under basic, SHA-256")


def test_they_end_with_the_command_and_a_killed_one_is_launched_again(tmp_path, user, cluster, figure):
    process = user("seed=1,2", *LOCAL, STEPS_SLEEP=0.3, background=True)
    cluster.until(lambda: len(steps(tmp_path)) > 2)
    killed, run, _ = steps(tmp_path)[-1]
    os.kill(int(killed), signal.SIGKILL)
    cluster.until(lambda: {one for one, at, _ in steps(tmp_path) if at == run} > {killed})  # behind the other run
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=120)
    made = len(steps(tmp_path))
    time.sleep(3)
    assert process.returncode == 130 and len(steps(tmp_path)) == made
    assert user("seed=1,2", *LOCAL)[0] == 0 and len(hashes(runs(tmp_path))) == 2
    figure("a killed job launched again; the command ended, and its jobs with it; gone on by the same words")
