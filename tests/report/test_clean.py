"""`python -m hw1 clean`: what is removed, and above all what is not."""

import json
import os
import time

import pytest
from filelock import FileLock

from hw1.files import file_sums
from hw1.records import write_record
from hw1.report import clean as module
from hw1.report.clean import Level, lines, offers, plan, spaced
from hw1.report.removal import carry_out
from hw1.runs import Run, Sweep
from hw1.runs.sound import verify
from hw1.settings import ConfigError
from made_runs import make_run, make_sweep, measured_by_hand

WEIGHTS = Level(weights=True)


def old(*folders):
    """Let folders look as if nothing had changed there for an hour."""
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (time.time() - 3600,) * 2, follow_symlinks=False)


def finished(root, *, epochs=(0, 1, 2, 3), **settings):
    """A run as it is written today: with a checkpoint, and with the sums of its files."""
    folder, _ = make_run(root, epochs=epochs, **settings)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights" * 100)
    files = {path.relative_to(folder).as_posix(): file_sums(path) for path in folder.rglob("*.*") if path.is_file()}
    files.pop("result.json")
    result = json.loads((folder / "result.json").read_text())
    write_record(folder / "result.json", result | {"format": 2, "files": files})
    return folder


def concluded(sweep, **record):
    before = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps(before | {"status": "complete"} | record))
    return sweep


def removed(path, level, *words):
    """What stood there before and not after."""
    before = {file for file in path.rglob("*") if file.name != ".lock"}
    carry_out(plan(path, words, level), lambda: plan(path, words, level))
    return before - set(path.rglob("*"))


def test_what_belongs_to_nothing(tmp_path):
    named, orphan = finished(tmp_path, seed=0), finished(tmp_path, seed=1)
    sweep = concluded(make_sweep(tmp_path, [named], []))
    empty = concluded(make_sweep(tmp_path, [named.with_name("gone-0123456789")], [], time="2026-01-02_00-00-00"))
    nameless = tmp_path / "hand" / "sweeps" / "2026-01-03_00-00-00"
    nameless.mkdir()
    aside = tmp_path / "hand" / "replaced" / "x-0123456789"
    aside.mkdir(parents=True)
    made = plan(tmp_path, [], Level())
    assert not made.removals and len(made.left) == 4 and "a command may be starting" in next(iter(made.left))
    old(tmp_path)
    assert [one.folder for one in plan(tmp_path, ["seed=1"], Level()).removals] == [orphan]
    made = plan(tmp_path, [], Level())
    assert {one.folder for one in made.removals} == {orphan, empty, nameless, aside} and not made.left
    assert made.size > sum(file.stat().st_size for file in orphan.rglob("*.safetensors"))
    assert named.exists() and orphan.exists(), "a plan removes nothing"
    freed, left = carry_out(made, lambda: plan(tmp_path, [], Level()))
    assert freed == made.size and not left
    assert {named, sweep} == {*(tmp_path / "hand" / "runs").iterdir(), *(tmp_path / "hand" / "sweeps").iterdir()}
    assert not list((tmp_path / "hand").glob(".removed*")) and not plan(tmp_path, [], Level()).removals
    assert verify(tmp_path).damage == []


def test_what_is_at_work_stays(tmp_path):
    """By any level: locked runs, those that a running sweep asks for, and the sweep."""
    locked, waiting, orphan = (finished(tmp_path, seed=seed) for seed in range(3))
    for folder in (locked, waiting, orphan):
        (folder / "result.json").unlink()
    sweep = make_sweep(tmp_path, [waiting], [])
    old(tmp_path)
    with FileLock(locked / ".lock"), FileLock(sweep / ".lock"):
        for level in (Level(), Level(True), Level(keep=2), WEIGHTS, Level(results=True)):
            assert {one.folder for one in plan(tmp_path, [], level).removals} <= {orphan}
        assert removed(tmp_path, Level(results=True)) >= {orphan}
        assert locked.exists() and waiting.exists() and sweep.exists()


def test_what_began_after_the_question_stays(tmp_path):
    first, second, third = (finished(tmp_path, seed=seed) for seed in range(3))
    old(tmp_path)
    made = plan(tmp_path, [], Level())
    concluded(make_sweep(tmp_path, [first], []))  # while the user thought
    with FileLock(second / ".lock"):
        freed, left = carry_out(made, lambda: plan(tmp_path, [], Level()))
    assert first.exists() and second.exists() and not third.exists() and len(left) == 2
    assert freed == next(one.size for one in made.removals if one.folder == third)
    again = made  # a process that took the lock after the second look
    with FileLock(second / ".lock"):
        freed, left = carry_out(again, lambda: again)
    assert second.exists() and any("a process is at work" in line for line in left)


def test_links_and_names_lead_nowhere(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    run = finished(tmp_path / "out")
    (tmp_path / "out" / "hand" / "runs" / "link-0123456789").symlink_to(outside)
    (run / "inner").symlink_to(outside)
    sweep = make_sweep(tmp_path / "out", [run], [])
    record = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps(record | {"runs": [{"folder": "../../../outside", "overrides": []}]}))
    old(tmp_path / "out")
    assert removed(tmp_path / "out", Level(results=True)) >= {run}
    assert (outside / "precious").read_text() == "x"


def test_a_damaged_record_keeps_all_orphans(tmp_path):
    finished(tmp_path)
    (make_sweep(tmp_path, [], []) / "sweep.json").write_text("{")
    old(tmp_path)
    made = plan(tmp_path, [], Level())
    assert not made.removals and "its record is damaged" in next(iter(made.left))


def test_weights_before_results(tmp_path):
    run = finished(tmp_path)
    measured_by_hand(run, "sharpness", {"sharpness/trace": 3.0})
    sweep = concluded(make_sweep(tmp_path, [run], [], measures=["sharpness"]))
    before, table = Run(run).weights_digest(), Sweep.read(sweep).table()
    assert removed(tmp_path, Level(checkpoints=True)) == {run / "checkpoints" / "last.ckpt"}
    assert Run(run).theta().numel() > 0 and verify(tmp_path).damage == []
    assert removed(tmp_path, WEIGHTS) == {run / "snapshots" / f"epoch={epoch:06d}.safetensors" for epoch in range(4)}
    assert Run(run).status == "complete" and Run(run).weights_digest() == before and verify(tmp_path).damage == []
    assert Sweep.read(sweep).table().equals(table) and removed(tmp_path, WEIGHTS) == set()
    with pytest.raises(FileNotFoundError, match="has no weights: removed since it ended; delete the folder"):
        Run(run).theta()
    assert (run / "result.json").exists() and removed(tmp_path, Level(results=True)) >= {run, sweep}


def test_a_run_with_a_checkpoint_alone(tmp_path):
    run = finished(tmp_path, epochs=())
    concluded(make_sweep(tmp_path, [run], []))
    before = Run(run).weights_digest()
    assert removed(tmp_path, Level(checkpoints=True)) == set()  # it is all that there is of the end
    assert removed(tmp_path, WEIGHTS) == {run / "checkpoints" / "last.ckpt"} and Run(run).weights_digest() == before


def test_a_killed_cleaning_is_finished_by_the_next(tmp_path):
    run = finished(tmp_path)
    concluded(make_sweep(tmp_path, [run], []))
    kept = (run / "snapshots" / "epoch=000001.safetensors").read_bytes()
    removed(tmp_path, WEIGHTS)
    (run / "snapshots" / "epoch=000001.safetensors").write_bytes(kept)  # the record was written, the file not unlinked
    sums = Run(run).removed
    assert removed(tmp_path, WEIGHTS) == {run / "snapshots" / "epoch=000001.safetensors"} and Run(run).removed == sums


def test_snapshots_are_thinned(tmp_path, monkeypatch):
    run = finished(tmp_path, epochs=(0, 1, 2, 3))
    concluded(make_sweep(tmp_path, [run], []))
    with pytest.raises(ConfigError, match="--snapshots: got 1, expected at least 2"):
        plan(tmp_path, [], Level(keep=1))
    assert plan(tmp_path, [], Level(keep=4)).removals == []
    monkeypatch.setattr(module, "epochs_wanted", lambda asks, settings: {2})  # what a measure looks at
    assert removed(tmp_path, Level(keep=2)) == {run / "snapshots" / "epoch=000001.safetensors"}
    assert Run(run).snapshots().epochs == [0, 2, 3] and verify(tmp_path).damage == []
    assert spaced(list(range(101)), 5) == [0, 25, 50, 75, 100]


def test_a_study_that_has_still_to_look_keeps_weights(tmp_path):
    node = {"_target_": "hw1.studies.LearningCurves"}
    run, other = finished(tmp_path, seed=0), finished(tmp_path, seed=1)
    sweep = make_sweep(tmp_path, [run], ["seed"], study=node)  # interrupted
    concluded(make_sweep(tmp_path, [run, other], ["seed"], study=node, time="2026-01-02_00-00-00"))
    made = plan(tmp_path, [], WEIGHTS)
    assert [one.folder for one in made.removals] == [other]
    assert f"the study of sweep {sweep.name} (interrupted) has still to look" in next(iter(made.left))


def test_a_study_that_reads_snapshots_is_named(tmp_path):
    callbacks = {"weight_snapshots": {"_target_": "hw1.callbacks.WeightSnapshots", "every_n_epochs": 1}}
    run = finished(tmp_path, callbacks=callbacks)
    study = {"_target_": "hw1.studies.WeightTrajectories", "layer": None, "filters": []}
    sweep = concluded(make_sweep(tmp_path, [run], [], study=study))
    made = plan(tmp_path, [], Level(keep=2))
    assert [one.folder for one in made.removals] == [run]
    assert list(made.left) == [
        f"{sweep}: its study reads snapshots; its tables and figures stay, and are drawn again from what was measured, "
        "but measured anew it would look at fewer"
    ]


def test_results_of_one_sweep(tmp_path):
    shared, own = finished(tmp_path, seed=0), finished(tmp_path, seed=1)
    one = concluded(make_sweep(tmp_path, [shared, own], []))
    other = concluded(make_sweep(tmp_path, [shared], [], time="2026-01-02_00-00-00"))
    assert removed(one, Level(results=True)) >= {one / "sweep.json"}
    assert not own.exists() and not one.exists() and shared.exists() and other.exists()


def test_every_level_is_offered_with_its_size(tmp_path):
    run = finished(tmp_path)
    concluded(make_sweep(tmp_path, [run], []))
    told = offers(tmp_path, [])
    assert [line.split()[0] for line in told] == ["--checkpoints", "--snapshots", "--weights", "--results"]
    assert told[0].startswith("--checkpoints would free 700 B: ")
    assert lines(plan(tmp_path, [], WEIGHTS), tmp_path)[1].startswith(f"  hand/runs/{run.name}: weights, ")


def test_the_command(tmp_path, hw1):
    run = finished(tmp_path)
    concluded(make_sweep(tmp_path, [run], []))
    asked = hw1("clean", tmp_path, "--weights")  # nobody to ask
    assert asked.returncode == 1 and "--yes removes it without asking" in asked.stderr and Run(run).theta().numel()
    done = hw1("clean", tmp_path, "--weights", "--yes")
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("freed ")
    done = hw1("clean", tmp_path)
    assert done.returncode == 0 and f"{tmp_path}: nothing to remove" in done.stdout and "--results would" in done.stdout
    for words in (["clean", tmp_path, "--snapshots", "1"], ["clean", tmp_path / "no"], ["clean", tmp_path, "lr=1"]):
        done = hw1(*words)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
