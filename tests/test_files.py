import os

import pytest

from hw1 import files
from hw1.files import replacing, write_json, write_text
from hw1.lease import LostError
from hw1.stored_json import read_json


def test_a_block_that_ends_well_replaces_the_file(tmp_path):
    file = tmp_path / "deep" / "down" / "a.txt"
    write_text(file, "one")
    with replacing(file) as temporary:
        assert temporary.parent.parent == file.parent  # the same file system: os.replace is one step
        temporary.write_text("two")
        assert file.read_text() == "one"
    assert file.read_text() == "two" and os.listdir(file.parent) == ["a.txt"]


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, old, error):
    file = tmp_path / "a.txt"
    if old:
        file.write_text(old)
    with pytest.raises(error), replacing(file) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert (file.read_text() if file.exists() else None) == old
    assert os.listdir(tmp_path) == (["a.txt"] if old else [])


def test_globs_do_not_see_half_a_file(tmp_path):
    with replacing(tmp_path / "epoch=000001.safetensors") as temporary:
        temporary.write_bytes(b"half")
        assert list(tmp_path.glob("*.safetensors")) == []


def test_json_round_trip_and_a_broken_file(tmp_path):
    file = tmp_path / "a.json"
    value = {"name": "ä", "loss": 0.1 + 0.2, "tiny": 5e-324, "list": [1, None, True]}
    write_json(file, value)
    assert read_json(file) == value
    write_json(file, {"loss": float("nan")})
    assert read_json(file)["loss"] != read_json(file)["loss"]
    file.write_text('{"status": "comp')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON .*; delete it and run the command again$"):
        read_json(file)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_a_failed_write_of_json_keeps_the_old_content(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, 1)
    with pytest.raises(TypeError):
        write_json(file, object())
    assert read_json(file) == 1 and os.listdir(tmp_path) == ["a.json"]


def test_a_room_that_a_taker_removed_is_no_missing_file(tmp_path, monkeypatch):
    """A writer that was stopped between making its temporary folder and locking it, and wakes up."""
    asked = []

    def require(path):
        asked.append(path)
        if len(asked) > 1:
            raise LostError("another process took it over")

    def gone(room):
        raise FileNotFoundError(room)

    monkeypatch.setattr(files.lease, "require", require)
    monkeypatch.setattr(files, "_held", gone)
    with pytest.raises(LostError), files.replacing(tmp_path / "a"):
        pass
