"""A job that is started again and again and comes no further fails its run, or its measures, with a reason."""

import json
import os
import signal

import pytest
from lightning.pytorch.callbacks import Callback

from composed import settings
from hw1 import preemption
from hw1.measures.take import asks_of, missing, take
from hw1.preemption import Preempted, listening
from hw1.runs import Run, read_measured
from hw1.training.fit import fit

SMALL = (
    *("dataset=digits", "dataset.train_size=64", "dataset.batch_size=16", "logger=none", "trainer.progress=false"),
    *("model=mlp", "model.hidden=[6]", "trainer.max_epochs=2", "trainer.checkpoint_seconds=1000"),
)


class Forgetful(Callback):
    """Gathers something within an epoch, it may be; asks to stop in the step with this number."""

    at = None

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == Forgetful.at:
            signal.raise_signal(signal.SIGTERM)


class Remembering(Forgetful):
    resumes_within_epochs = True


@pytest.fixture
def job():
    """`job(function, ...)` -> "stopped", or what it returns: a job of an engine's, whose handler only takes note."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)

    def run(function, *arguments):
        try:
            with listening():
                return function(*arguments)
        except Preempted:
            return "stopped"

    yield run
    signal.signal(signal.SIGTERM, before)
    preemption._asked = 0


def of(kind):
    return settings(*SMALL, f"+callbacks.mine._target_={__name__}.{kind}")


def test_a_training_that_comes_no_further(job, tmp_path, monkeypatch):
    own = of("Forgetful")
    folder = tmp_path / f"run-{own.key}"
    note = folder / "preempted.json"
    monkeypatch.setattr(Forgetful, "at", 1)
    for _ in range(4):  # where nobody starts it again, it may be stopped as often as one likes
        assert job(fit, own, folder) == "stopped" and not note.exists()
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert job(fit, own, folder) == "stopped"
    monkeypatch.setattr(Forgetful, "at", 3)  # the last step of an epoch: there it is saved
    assert job(fit, own, folder) == "stopped"
    assert json.loads(note.read_text())["stops"] == 1 and json.loads(note.read_text())["place"] == {"step": 4}
    monkeypatch.setattr(Forgetful, "at", 5)
    assert job(fit, own, folder) == "stopped" and not (folder / "result.json").exists()
    result = job(fit, own, folder)
    assert result["status"] == "failed" and not note.exists()
    assert result["error"].startswith("stopped 3 times at step 4 without coming further, expected")
    assert "hydra.launcher.timeout_min" in result["error"] and "trainer.checkpoint_seconds" in result["error"]
    monkeypatch.setattr(Forgetful, "at", None)
    assert job(fit, own, folder)["status"] == "complete"


def test_a_training_that_comes_a_step_further_each_time(job, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    own = of("Remembering")
    for step in (0, 2, 3, 6):
        monkeypatch.setattr(Forgetful, "at", step)
        assert job(fit, own, tmp_path / f"run-{own.key}") == "stopped"
    monkeypatch.setattr(Forgetful, "at", None)
    result = job(fit, own, tmp_path / f"run-{own.key}")
    assert (result["status"], result["steps"]) == ("complete", 8) and "preempted.json" not in result["files"]


def test_measures(job, tmp_path, monkeypatch):
    own = settings(*SMALL, "measures=[sensitivity,predictions]")
    folder, asks = tmp_path / f"run-{own.key}", asks_of(own.measures)
    assert fit(own, folder)["status"] == "complete"
    run = Run(folder)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")

    def asked(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return take(*arguments)

    assert job(asked, run, asks) == "stopped"
    (one,) = job(take, run, asks[:1])  # a measure further
    assert not one.error
    assert [job(asked, run, asks) for _ in range(2)] == ["stopped", "stopped"]
    (failed,) = job(asked, run, asks)
    assert failed.name == "predictions" and failed.error.startswith("stopped 3 times at its measures")
    assert read_measured(asks[1].file(run.path)).error == failed.error and missing(run, asks) == asks[1:]
    assert [one.error for one in job(take, run, asks)] == [""] and not missing(run, asks)


def test_lightning_requeues_nothing(tmp_path, monkeypatch):
    """Under Slurm it would set handlers that save a checkpoint of its own and call `scontrol requeue`."""
    slurm = {"NTASKS": 1, "JOB_ID": 7, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "JOB_NAME": "hw1", "NTASKS_PER_NODE": 1}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    found = {}

    def look(self, trainer, *args):
        environment = trainer._accelerator_connector.cluster_environment
        found.update({n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)})
        found["environment"] = type(environment).__name__

    monkeypatch.setattr(Forgetful, "on_train_start", look)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    own = of("Forgetful")
    assert fit(own, tmp_path / f"run-{own.key}")["status"] == "complete"
    assert found.pop("environment") == "LightningEnvironment" and found == before


def test_a_login_node_is_no_reason_to_warn(tmp_path, monkeypatch, recwarn):
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    own = of("Forgetful")
    assert fit(own, tmp_path / f"run-{own.key}")["status"] == "complete"
    assert not [warning for warning in recwarn if "srun" in str(warning.message)]
