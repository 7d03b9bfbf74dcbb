"""Runs of several machines as jobs of Slurm: a job takes them all, and what befalls it befalls all of them."""

import pytest
from slurm_words import SLURM
from test_slurm_matrix import STEPS, hashes, runs, steps

pytest.importorskip("submitit", reason='pip install "hw1[submitit]"')
pytestmark = pytest.mark.slow
TWO = ("trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2", SLURM)
ONE = ("trainer=ddp", "hydra/launcher=basic")


def made(tmp_path):
    """Each step, and how often a process of a run made it."""
    return sorted(int(step) for _, _, step in steps(tmp_path))


def test_a_job_takes_the_machines_that_its_run_asks_for(tmp_path, cluster, user, figure):
    code, said, errors = user("seed=1,2", *TWO)
    assert code == 0 and said.count("test/accuracy") == 2, (said, errors)
    (script,) = cluster.scripts()
    assert "#SBATCH --nodes=2\n" in script and "#SBATCH --ntasks-per-node=1\n" in script
    assert made(tmp_path) == sorted([*range(1, STEPS + 1)] * 4)  # two processes, two runs
    code, *said = user("seed=1,2", *ONE, output="basic", STEPS_LOG=tmp_path / "other")
    assert code == 0, said
    assert [*hashes(runs(tmp_path)).values()] == [*hashes(runs(tmp_path, "basic")).values()]
    assert not list((tmp_path / "home").glob("hw1/submitit/*"))
    figure("two machines a job, 2 runs: SHA-256 of the weights equal to two processes of one machine")


@pytest.mark.parametrize("how", ["preempt", "time_out", "lose"])
def test_what_befalls_a_job_of_two_machines(how, tmp_path, cluster, user, figure):
    waiting = user("seed=1", *TWO, background=True, STEPS_SLEEP=0.2)
    cluster.until(lambda: len(steps(tmp_path)) >= 8)
    (name,) = cluster.jobs()
    getattr(cluster, how)(name)
    assert waiting.communicate(timeout=300) and waiting.returncode == 0
    assert cluster.jobs()[name]["restarts"] == 1
    again = len(steps(tmp_path)) - 2 * STEPS
    assert again <= (2 * 4 if how == "lose" else 0)  # a checkpoint each epoch of 4 steps
    code, *said = user("seed=1", *ONE, output="basic", STEPS_LOG=tmp_path / "other")
    assert code == 0, said
    assert [*hashes(runs(tmp_path)).values()] == [*hashes(runs(tmp_path, "basic")).values()]
    figure(f"two machines a job, {how}: requeued, {again} of {2 * STEPS} steps again, bits equal")
