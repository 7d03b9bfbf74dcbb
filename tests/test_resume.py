"""kill -9 at any moment, then the same command: it goes on from a checkpoint and ends at the same bits."""

import random
import signal
import time

import pytest
import torch

from hw1.runs import Sweep

DROPOUT = (
    "dataset=digits",
    "model=cnn",
    'model.layers=["c3(6)",p2,drop.5,32,drop.5]',
    "trainer.max_epochs=20",
    "trainer.checkpoint_seconds=0",
    "trainer.threads=1",
    "callbacks=[default,gradient_norm]",
)


def kill_when(process, condition):
    """SIGKILL the process as soon as `condition` holds; False if it ended before."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)  # the core is the training's
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True


@pytest.fixture(scope="module")
def uninterrupted(command, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    done = command(*DROPOUT, output=output)
    assert done.returncode == 0, done.stderr
    return Sweep.read(output / "default").runs[0]


def test_five_kills_and_the_same_bits(uninterrupted, background, command, tmp_path):
    chance = random.Random(0)
    run = tmp_path / "default" / "runs" / uninterrupted.path.name
    checkpoint = run / "checkpoints" / "last.ckpt"
    kills = 0
    for moment in range(5):
        process = background(*DROPOUT, output=tmp_path)
        if moment == 2:  # during the write of a checkpoint
            hit = kill_when(process, lambda: list(checkpoint.parent.glob(".last.ckpt.*.part")))
        else:
            old = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            wait = chance.uniform(0, 0.2)

            def later(old=old, wait=wait):
                if not checkpoint.exists() or checkpoint.stat().st_mtime_ns == old:
                    return False
                time.sleep(wait)
                return True

            hit = kill_when(process, later)
        kills += hit
    assert kills == 5
    done = command(*DROPOUT, output=tmp_path)
    assert done.returncode == 0 and "resuming from checkpoints/last.ckpt (epoch " in done.stderr
    assert "resuming from checkpoints/last.ckpt" in (run / "run.log").read_text()
    resumed = Sweep.read(tmp_path / "default").runs[0]
    assert torch.equal(resumed.theta(), uninterrupted.theta())
    assert resumed.result["metrics"] == uninterrupted.result["metrics"]
    one, two = resumed.history(), uninterrupted.history()
    assert one.equals(two[list(one)])
    assert [path.name for path in sorted(run.rglob(".*.part"))] == []


def test_the_same_seed_is_the_same_bits_and_another_is_not(uninterrupted, command, tmp_path):
    assert command(*DROPOUT, "seed=1,0", "trainer.progress=false", output=tmp_path).returncode == 0
    other, same = Sweep.read(tmp_path / "default").runs
    assert same.key == uninterrupted.key and torch.equal(same.theta(), uninterrupted.theta())
    assert not torch.equal(other.theta(), uninterrupted.theta())


def test_a_damaged_checkpoint_is_named(uninterrupted, background, command, tmp_path):
    process = background(*DROPOUT, output=tmp_path)
    checkpoint = tmp_path / "default" / "runs" / uninterrupted.path.name / "checkpoints" / "last.ckpt"
    assert kill_when(process, checkpoint.exists)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = command(*DROPOUT, output=tmp_path)
    assert done.returncode == 1 and str(checkpoint) in done.stderr and "delete it" in done.stderr
