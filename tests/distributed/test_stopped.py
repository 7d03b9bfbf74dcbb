"""Several processes that are asked to stop: the first saves behind the step, all end, and go on bit by bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from composed import ROOT, settings, trained
from hw1 import preemption
from hw1.runs import Sweep
from hw1.training.fit import fit

from .cases import CASES
from .matrix import words_of
from .stopping import Asks

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
OWN = ["model.dropout=0.5", "trainer.precision=32-true", "trainer.checkpoint_seconds=1000", "trainer.max_epochs=3"]
ASKS = "+callbacks.asks._target_=distributed.stopping.Asks"
KINDS = {
    "dropout, three processes": ("trainer.devices=3",),
    "gradient norms, accumulation": ("callbacks=[default,gradient_norm]", "+trainer.accumulate_grad_batches=3"),
    "averaged weights, evaluated within": ("callbacks=[default,ema]", "+trainer.val_check_interval=3"),
    "augmentation, processes that read": ("transform=noise", "dataset.workers=1"),
    "shares may be empty, plateau": ("dataset.train_size=33", "dataset.batch_size=3", "scheduler=plateau"),
}


def several(*own):
    """The settings of a run of several processes."""
    return settings("trainer=ddp", *words_of(CASES["ragged last batch"], [*own, ASKS]))


def same(one, two):
    assert torch.equal(one.theta(), two.theta()) and one.metrics() == two.metrics()
    assert (one.path / "metrics.csv").read_text() == (two.path / "metrics.csv").read_text()
    ends = [torch.load(run.path / "checkpoints" / "last.ckpt")["state_dict"] for run in (one, two)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_asked_to_stop_at_two_steps_and_gone_on(kind, tmp_path):
    own = several(*OWN, *KINDS[kind])
    Asks.at, Asks.steps = None, []
    whole = trained(own, tmp_path / "whole")
    undisturbed, Asks.steps = Asks.steps, []
    folder = tmp_path / "stopped" / f"run-{own.key}"
    for step in sorted(random.Random(kind).sample(undisturbed[:-1], 2)):
        Asks.at = step
        with pytest.raises(KeyboardInterrupt), preemption.listening(interrupts=True):
            fit(own, folder)
        assert time.monotonic() - Asks.asked < 5 and not (folder / "result.json").exists()
    same(trained(own, tmp_path / "stopped"), whole)
    assert Asks.steps == undisturbed  # none twice, none left out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
@pytest.mark.parametrize("group", [False, True])
def test_a_command_of_two_processes_that_is_asked_to_stop(group, name, tmp_path):
    """By a signal to the first, or to all processes of the job, as Slurm sends it; USR2 as by submitit."""
    words = [*words_of(CASES["ragged last batch"], [*OWN, ASKS]), "trainer=ddp", "hydra/launcher=basic"]
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "stopped"

    def begin(output, **environment):
        return subprocess.Popen(
            [sys.executable, "train.py", *words, f"output={output}"], cwd=ROOT, env={**ENVIRONMENT, **environment},
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    process = begin(folder, STEPS_LOG=str(tmp_path / "log"), STEPS_PAUSE="0.1")
    log = tmp_path / "log"
    while not log.exists() or len(log.read_text().split()) < 2 * 10:  # in the second epoch
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    begun, number = time.monotonic(), getattr(signal, name)
    os.killpg(process.pid, number) if group else process.send_signal(number)
    while not (saved := list(folder.glob("default/runs/*/checkpoints/last.ckpt"))) and process.poll() is None:
        time.sleep(0.02)
    assert saved and time.monotonic() - begun < 5
    said = process.communicate(timeout=30)[1]  # an interpreter with torch ends in seconds where the machine is busy
    assert process.returncode == 130, said
    while _of_group(process.pid):  # they end with it, in moments
        assert time.monotonic() - begun < 40
        time.sleep(0.02)
    assert not list(folder.glob("default/runs/*/result.json")), said
    (checkpoint,) = folder.glob("default/runs/*/checkpoints/last.ckpt")
    assert "midway" in torch.load(checkpoint)["hw1"]
    assert begin(folder, STEPS_LOG=str(log)).wait(300) == 0
    steps = log.read_text().split()
    assert sorted(steps) == sorted(f"{rank}:{step}" for rank in range(2) for step in range(21))
    assert begin(undisturbed).wait(300) == 0
    (one,), (two,) = (Sweep.read(output / "default").runs for output in (undisturbed, folder))
    same(one, two)


def _of_group(group):
    """Processes of a session that live."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = file.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        found += [file.parent.name] if int(session) == group and state not in "ZX" else []
    return found
