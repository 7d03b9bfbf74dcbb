"""Making way for a new attempt, and telling what a launcher lost: under the hands of others, with whatever clock."""

import json
import os
import time

from hw1.lease import hold
from hydra_plugins.hw1_sweeper import launching
from hydra_plugins.hw1_sweeper.launching import allot
from hydra_plugins.hw1_sweeper.plan import Job
from made_runs import checked


def job(tmp_path, seed):
    settings = checked(seed=seed)
    return Job([f"seed={seed}"], settings, tmp_path / "runs" / f"seed={seed}-{settings.key}")


def failed(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps({"format": 1, "status": "failed", "error": "x"}))


def test_a_failure_is_not_forgotten_while_another_process_holds_the_run(tmp_path):
    """It may write its result, a good one, at any moment: between the look at it and its removal, too."""
    held, free = job(tmp_path, 1), job(tmp_path, 2)
    for one in (held, free):
        failed(one.folder)
    with hold(held.folder):
        assert allot(tmp_path, [held, free]) == [held, free]
    assert (held.folder / "result.json").exists() and not (free.folder / "result.json").exists()


def test_a_failure_of_a_launcher_is_not_written_over_another_process_s_run(tmp_path):
    one = job(tmp_path, 1)
    one.folder.mkdir(parents=True)
    with hold(one.folder):
        launching._record_failure(one, RuntimeError("killed"), {"measures": []})
        assert not (one.folder / "result.json").exists()
    launching._record_failure(one, RuntimeError("killed"), {"measures": []})
    assert "killed" in (one.folder / "result.json").read_text()


def test_which_runs_had_begun_is_told_without_a_clock(tmp_path, monkeypatch):
    """The clock of this machine is a year ahead of the file server's."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3e7)
    jobs = [job(tmp_path, seed) for seed in range(3)]
    calls = []

    class Launcher:
        def launch(self, batch, initial_job_idx):
            calls.append([words[0] for words in batch])
            if len(calls) == 1:
                (jobs[0].folder / "config.yaml").write_text("{}")
                raise RuntimeError("a worker was killed")
            for words in batch:
                failed(jobs[int(words[0][-1])].folder)
            return [type("Result", (), {"_return_value": None})() for _ in batch]

    allot(tmp_path, jobs)
    record = {"measures": [], "trained": [job.folder.name for job in jobs]}
    launching.launch(Launcher(), jobs, tmp_path / "sweep.json", record)
    assert calls == [["seed=0", "seed=1", "seed=2"], ["seed=1", "seed=2"], ["seed=0"]]


def test_a_stale_listing_finds_the_run_all_the_same(tmp_path, monkeypatch):
    one = job(tmp_path, 1)
    failed(one.folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": listed(empty if str(path).endswith("runs") else path))
    assert allot(tmp_path, [one]) == [one]
    monkeypatch.undo()
    assert os.listdir(tmp_path / "runs") == [one.folder.name]
