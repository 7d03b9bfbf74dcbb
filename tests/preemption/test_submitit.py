"""submitit itself, on this machine: its signal saves the run, then its own handler starts the job again."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from engine_job import Job

from composed import settings, trained
from hw1.runs import Run

WORDS = (
    *("model=mlp", "model.hidden=[8]", "model.dropout=0.5", "dataset=digits", "dataset.train_size=192"),
    *("dataset.batch_size=16", "trainer.max_epochs=2", "trainer.checkpoint_seconds=1000", "trainer.progress=false"),
    *("logger=none", "+callbacks.log._target_=listening_log.Log"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["USR2", "USR1"])
def test_the_engine_s_signal(name, tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="an extra: pip install hw1[submitit]")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("STEPS_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STEPS_PAUSE", "0.05")
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", name)
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=10)
    job = executor.submit(Job(WORDS, str(tmp_path / "engine")))

    def lines():
        return [line.split() for line in (tmp_path / "log").read_text().splitlines()]

    for step in (5, 14):  # in the middle of both epochs
        while not (tmp_path / "log").exists() or int(lines()[-1][2]) < step:
            assert job.state == "RUNNING", job.stderr()
            time.sleep(0.01)
        pid, begun = int(lines()[-1][0]), time.monotonic()
        os.kill(pid, getattr(signal, f"SIG{name}"))
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() - begun < 60
            time.sleep(0.01)
    assert job.result() == "complete"
    assert len({pid for pid, *_ in lines()}) == 3 and [int(step) for *_, step in lines()] == list(range(1, 25))
    monkeypatch.setenv("STEPS_LOG", str(tmp_path / "undisturbed"))
    monkeypatch.setenv("STEPS_PAUSE", "0")
    own = settings(*WORDS)
    whole, one = trained(own, tmp_path / "alone"), Run(tmp_path / "engine" / f"run-{own.key}")
    assert whole.theta().tolist() == one.theta().tolist() and whole.result["metrics"] == one.result["metrics"]
    assert not (one.path / "preempted.json").exists()
