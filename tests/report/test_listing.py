"""`python -m hw1 list`: how runs and sweeps stand, told from what their commands left and the locks they hold."""

import contextlib
import json
import math
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from hw1.lease import is_held
from hw1.report.listing import listing
from hw1.runs import Sweep
from hw1.runs.inventory import Filter, inventory, selected
from hw1.runs.standing import read_progress
from hw1.settings import ConfigError
from hw1.terminal import table
from hw1.words import cut, printable, width
from made_runs import make_members, make_run, make_sweep


def statuses(path):
    return {run.folder: run.status for experiment in inventory(path) for run in experiment.runs}


def unfinished(root, **settings):
    folder, _ = make_run(root, **settings)
    (folder / "result.json").unlink()
    return folder


def heartbeat(folder, **told):
    now = time.time()
    usual = {"since": now - 20, "first": 100, "time": now, "step": 300, "steps": 500, "epochs": 5}
    (folder / "progress.json").write_text(json.dumps(usual | told))


def test_states_of_runs_and_sweeps(tmp_path):
    complete, failed = make_run(tmp_path, seed=0)[0], make_run(tmp_path, seed=1, status="failed")[0]
    running, waiting = unfinished(tmp_path, seed=2), unfinished(tmp_path, seed=3)
    never = waiting.with_name("seed=4-0123456789")
    orphan, _ = make_run(tmp_path, seed=5)
    sweep = make_sweep(tmp_path, [complete, failed, running, waiting, never], ["seed"])
    heartbeat(running)
    with FileLock(sweep / ".lock"), FileLock(running / ".lock"):
        assert Sweep.read(sweep).status == "running" == inventory(sweep)[0].sweeps[0].status
        assert statuses(tmp_path) == {
            complete: "complete", failed: "failed", running: "running", waiting: "waiting", never: "waiting",
            orphan: "complete",
        }  # fmt: skip
        lines, busy = listing(sweep, [], None)
        assert busy and lines[1] == "running; 5 runs: 2 waiting, 1 running, 1 complete, 1 failed"
        # (300 - 100) steps in 20 s; the 200 that are left take 20 s more.
        assert lines[4].split() == ["running", "batch_size=64_seed=2_lr=0.001", "3/5", "10", "steps/s", "20", "s"]
        assert lines[-3].endswith("the training loss is nan at step 3 (epoch 0)") and "failed" in lines[-3]
    # The command is dead: its record still says "running", its locks are free.
    assert json.loads((sweep / "sweep.json").read_text())["status"] == "running"
    assert Sweep.read(sweep).status == "interrupted"
    assert [statuses(sweep)[run] for run in (running, waiting, never)] == ["interrupted", "interrupted", "unstarted"]
    lines, busy = listing(sweep, [], None)
    assert not busy and lines[1].startswith("interrupted; ") and "goes on from the last checkpoints" in lines[2]
    assert statuses(orphan) == {orphan: "complete"}
    assert "1 run that no sweep names: python -P -m hw1 clean" in listing(tmp_path / "hand", [], None)[0]


def test_the_time_left_counts_what_those_at_work_have_done(tmp_path):
    complete, running, waiting = make_run(tmp_path, seed=0)[0], *(unfinished(tmp_path, seed=seed) for seed in (1, 2))
    sweep = make_sweep(tmp_path, [complete, running, waiting], ["seed"])
    record = json.loads((sweep / "sweep.json").read_text())
    names = [folder.name for folder in (complete, running, waiting)]
    (sweep / "sweep.json").write_text(json.dumps(record | {"launched": names, "launched_at": time.time() - 160}))
    heartbeat(running)
    with FileLock(sweep / ".lock"), FileLock(running / ".lock"):
        heartbeat(running, first=0)
        head = listing(sweep, [], None)[0][1]  # 1 and 3/5 runs in 160 s
        assert head.endswith("; 2 min 20 s left"), head
        heartbeat(running, first=200)  # of these 3/5, 2/5 are of an earlier command
        head = listing(sweep, [], None)[0][1]
        assert head.endswith("; 3 min 07 s left"), head


def test_looking_makes_no_lock_and_changes_nothing(tmp_path):
    folder = unfinished(tmp_path)
    sweep = make_sweep(tmp_path, [folder], [])
    before = sorted(tmp_path.rglob("*"))
    listing(tmp_path, [], 80)
    assert not is_held(folder) and sorted(tmp_path.rglob("*")) == before and not (sweep / ".lock").exists()


def test_progress_that_cannot_be_is_none(tmp_path):
    folder = unfinished(tmp_path)
    assert read_progress(folder) is None
    for told in ({"steps": 0}, {"step": "x"}, {"step": 600}, {"epochs": -1}, {"first": 400}, {"since": None}):
        heartbeat(folder, **told)
        assert read_progress(folder, time.time()) is None, told
    heartbeat(folder, step=100)  # nothing done yet: no rate
    assert math.isnan(read_progress(folder, time.time()).rate) and math.isnan(read_progress(folder, time.time()).left)
    for text in ("[]", "{", '{"step": 1e999}'):
        (folder / "progress.json").write_text(text)
        assert read_progress(folder) is None


def test_filters(tmp_path):
    runs = [make_run(tmp_path, lr=lr, seed=seed)[0] for lr in (0.1, 0.01) for seed in (0, 1)]
    failed, _ = make_run(tmp_path, lr=0.1, seed=2, status="failed")
    members = make_members(tmp_path, [make_run(tmp_path, lr=1.0, seed=seed) for seed in (0, 1)], lr=1.0)
    make_sweep(tmp_path, [*runs, failed], ["seed"], overrides=[["model=small"]] * 5)

    def found(*words):
        every = [run for experiment in inventory(tmp_path) for run in experiment.runs]
        return [run.folder for run in selected(every, [Filter.of(word) for word in words])]

    assert found("optimizer.lr=1e-1") == [runs[0], runs[1], failed]
    assert found("optimizer.lr=0.1,0.01", "seed=1") == [runs[1], runs[3]]
    assert found("status=failed") == [failed] and found("model=small", "seed=2") == [failed]
    assert set(found("model=mlp")) > set(runs)  # by the class that it builds
    assert found("model.hidden=[4]", "status=failed") == [failed]
    assert members in found("seed=1") and found("replicas=2", "seed=1") == [members]
    assert found("optimizer.lr=7") == [] and found("scheduler=null", "status=failed") == [failed]
    with pytest.raises(
        ConfigError, match=r"^lr: got a setting that none of these runs has: did you mean optimizer\.lr"
    ):
        found("lr=0.1")
    with pytest.raises(ConfigError, match=r"^status: got done, expected one of: waiting, queued, running"):
        found("status=done")
    for word in ("nothing", "=3", "seed="):
        with pytest.raises(ConfigError, match="got no such path and no filter"):
            Filter.of(word)


def test_text_from_elsewhere_cannot_command_the_terminal(tmp_path):
    folder, _ = make_run(tmp_path, status="failed")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"error": "\x1b]0;mine\x07\x1b[2Jloss\u202e is\nnan\x00"}))
    sweep = make_sweep(tmp_path, [folder], [])
    record = json.loads((sweep / "sweep.json").read_text())
    told = {"command": ["\x1b[31mred"], "about": {"title": "\x1b]0;title\x07 of\nmine"}}
    (sweep / "sweep.json").write_text(json.dumps(record | told))
    (tmp_path / "hand").rename(tmp_path / "ha\x1b[2Jnd")
    (experiment,) = (path for path in tmp_path.iterdir() if path.name.startswith("ha"))
    sweep = experiment / "sweeps" / sweep.name
    damaged = experiment / "sweeps" / "dam\x1b[Haged"
    damaged.mkdir()
    (damaged / "sweep.json").write_text("{")
    every = ((tmp_path, "loss"), (experiment, "ha[2Jnd: "), (sweep, "]0;title of mine"), (damaged, "dam[Haged"))
    for cells in (None, 60):
        for path, said in every:
            lines = listing(path, [], cells)[0]
            assert all(line.isprintable() for line in lines) and any(said in line for line in lines)
    assert printable("a\tb\r\nc") == "a b  c"


def test_names_in_a_record_lead_nowhere_else(tmp_path):
    folder, _ = make_run(tmp_path)
    sweep = make_sweep(tmp_path, [folder], [])
    record = json.loads((sweep / "sweep.json").read_text())
    strange = [{"folder": name} for name in ("../../..", "/etc", "..", "", 3, "a\0b")] + ["x", None]
    (sweep / "sweep.json").write_text(json.dumps(record | {"runs": [*record["runs"], *strange]}))
    assert list(statuses(tmp_path)) == [folder]


def test_damage_is_said_and_hides_nothing_else(tmp_path):
    good, bad = make_run(tmp_path, seed=0)[0], make_run(tmp_path, seed=1)[0]
    (bad / "result.json").write_text("{")
    other, _ = make_run(tmp_path, seed=2)
    (other / "config.yaml").write_text("seed: [")
    sweep = make_sweep(tmp_path, [good, bad, other], [])
    (make_sweep(tmp_path, [good], [], time="2026-01-02_00-00-00") / "sweep.json").write_text("[]")
    assert statuses(tmp_path) == {good: "complete", bad: "damaged", other: "damaged"}
    text = "\n".join(listing(tmp_path, [], None)[0])
    assert "is not valid JSON" in text and "holds a list, not a record" in text
    assert listing(sweep, ["status=damaged"], None)[0][0] == "2 of 3 runs: 2 damaged"


def test_several_experiments_are_one_line_each(tmp_path):
    make_sweep(tmp_path, [make_run(tmp_path)[0], make_run(tmp_path, seed=1, status="failed")[0]], ["seed"])
    os.rename(tmp_path / "hand", tmp_path / "other")
    make_sweep(tmp_path, [make_run(tmp_path)[0]], ["seed"])
    lines, busy = listing(tmp_path, [], None)
    assert not busy and [line.split()[:3] for line in lines[1:3]] == [["hand", "1", "1"], ["other", "1", "2"]]
    assert lines[4] == "failed:" and lines[6].split()[:2] == ["failed", "other"]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        listing(tmp_path / "nosuch", [], None)
    (tmp_path / "empty").mkdir()
    assert "no results yet" in listing(tmp_path / "empty", [], None)[0][0]


@pytest.mark.parametrize("cells", [20, 40, 80, 200])
def test_lines_fit_the_terminal(tmp_path, cells):
    folders = [make_run(tmp_path, seed=seed, status=("complete", "failed")[seed])[0] for seed in (0, 1)]
    make_sweep(tmp_path, folders, ["seed"])
    assert all(width(line) <= cells for line in listing(tmp_path, [], cells)[0][2:])
    assert all("…" not in line for line in listing(tmp_path, [], None)[0])


def test_cells_of_wide_letters():
    rows = [["学习率=0.1_批大小=64", "x"], ["e\u0301" * 30, "y"]]
    for cells in range(4, 40):
        assert all(width(line) <= cells for line in table(["run", "note"], rows, cells, {"run": 3}))
    assert cut("abcdef", 1) == "…" and cut("abcdef", 0) == "" and cut("abcdef", 6) == "abcdef"


def test_the_command(tmp_path, hw1):
    failed, _ = make_run(tmp_path, status="failed")
    make_sweep(tmp_path, [failed, make_run(tmp_path, seed=1)[0]], ["seed"])
    done = hw1("list", tmp_path, "status=failed", "optimizer.lr=0.001")
    assert done.returncode == 0 and done.stdout.startswith("1 of 2 runs: 1 failed\n") and not done.stderr
    for words, said in (
        (["list", tmp_path / "none"], "no such folder"),
        (["list", tmp_path, tmp_path], "expected one, then filters"),
        (["list", tmp_path, "status=x"], "status: got x"),
        (["list", tmp_path, "--watch"], "--watch: got a file or a pipe"),
    ):
        done = hw1(*words)
        assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_watching_ends_when_nothing_is_at_work(tmp_path):
    folder = unfinished(tmp_path)
    sweep = make_sweep(tmp_path, [folder], [])
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "hw1", "list", str(tmp_path), "--watch"]
    with FileLock(sweep / ".lock"), FileLock(folder / ".lock"):
        heartbeat(folder)
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "COLUMNS": "70"}
        process = subprocess.Popen(words, stdout=theirs, stdin=theirs, stderr=subprocess.PIPE, env=env)
        os.close(theirs)
        text = b""
        while b"steps/s" not in text:
            text += os.read(ours, 4096)
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(ours, 4096):
            text += more
    assert process.wait() == 0 and not process.stderr.read()
    lines = text.decode().replace("\x1b[K", "").replace("\x1b[J", "").replace("\x1b[H", "").splitlines()
    assert "interrupted" in text.decode() and max(map(len, lines)) <= 70
