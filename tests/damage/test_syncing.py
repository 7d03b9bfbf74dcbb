"""What must not be lost is on the disk before it has its name, and its name is before anything depends on it."""

import errno
import os
from pathlib import Path

import pytest
from whole_runs import fitted

from hw1 import files
from hw1.files import lasting, replacing, sync_folder, write_json
from hw1.records import read_record

LASTING = ("settings.json", "result.json", ".ckpt", ".safetensors")


@pytest.fixture
def calls(monkeypatch):
    """(what was asked of the system, of which path), in order."""
    made, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        made.append(("fsync", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def replaced(source, target, **more):
        made.append(("rename", os.path.abspath(target)))
        replace(source, target, **more)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(files, "_led_to", set())
    return made


def test_write_then_sync_then_rename_then_sync_the_folder(tmp_path, calls):
    file = tmp_path / "a.json"
    with lasting(file) as temporary:
        temporary.write_text("whole")
        assert calls == []
    of = [(kind, Path(path)) for kind, path in calls]
    assert of[:3] == [("fsync", temporary), ("rename", file), ("fsync", tmp_path)]
    assert of[3:] == [("fsync", folder) for folder in list(tmp_path.parents)[:4]]  # which lead to it
    calls.clear()
    write_json(file, 1)
    assert [kind for kind, _ in calls] == ["fsync", "rename", "fsync"]
    calls.clear()
    with replacing(file) as temporary:  # what is made again in a moment
        temporary.write_text("x")
    assert [kind for kind, _ in calls] == ["rename"]


def test_a_training_is_on_the_disk_before_it_is_vouched_for(small, tmp_path, calls):
    folder = fitted(small, tmp_path)
    renamed = [at for at, (kind, _) in enumerate(calls) if kind == "rename"]
    kept = [at for at in renamed if calls[at][1].endswith(LASTING)]
    assert {Path(calls[at][1]).name for at in kept} >= {"settings.json", "result.json", "last.ckpt"}
    for at in kept:
        path = Path(calls[at][1])
        before, after = calls[at - 1], calls[at + 1]
        assert before[0] == after[0] == "fsync" and Path(before[1]).name == path.name and after[1] == str(path.parent)
    for at in kept:
        if calls[at][1].endswith(".ckpt"):  # it says what metrics.csv was
            last = max(i for i in renamed if i < at and "metrics.csv" in calls[i][1])
            assert ("fsync", str(folder / "metrics.csv")) in calls[last:at]
    (end,) = [at for at in kept if calls[at][1] == str(folder / "result.json")]
    synced = {path for kind, path in calls[:end] if kind == "fsync"}
    assert {str(folder / name) for name in read_record(folder / "result.json")["files"]} <= synced


def test_a_failed_sync_leaves_the_old_content(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_json(file, "old")

    def fails(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError), lasting(file) as temporary:
        temporary.write_text("new")
    assert file.read_text() == '"old"\n' and os.listdir(tmp_path) == ["a.json"]


def test_file_systems_that_sync_no_folders(tmp_path, monkeypatch):
    fails = iter([errno.EINVAL, errno.ENOTSUP])

    def refused(handle):
        raise OSError(next(fails), "")

    monkeypatch.setattr(files, "_led_to", {str(tmp_path)})
    monkeypatch.setattr(os, "fsync", refused)
    sync_folder(tmp_path)
    sync_folder(tmp_path)
