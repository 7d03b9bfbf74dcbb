"""Self-checking, signed files: every change of their content shows, and whose they are."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hw1.records import DamagedError, is_own, key_file, make_key, read_record, rewrite_record, sums, write_record
from hw1.sealed import is_whole, seal

CONTENT = {"format": 2, "name": "ünder", "loss": 0.1 + 0.2, "nothing": float("nan"), "list": [1, {"a": None}], "key": 7}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user without a key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path / "a.json", CONTENT)
    read = read_record(tmp_path / "a.json")
    assert read.pop("nothing") != 0 and read == {name: value for name, value in CONTENT.items() if name != "nothing"}


def test_every_changed_byte_shows_or_changes_nothing(home):
    make_key()
    file = home / "a.json"
    write_record(file, CONTENT)
    text, whole, seen = file.read_bytes(), json.dumps(read_record(file)), 0
    for place in range(len(text)):
        for bit in (0, 3):
            file.write_bytes(text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :])
            try:
                assert json.dumps(read_record(file)) == whole, place  # white space, or the signature
            except DamagedError as error:
                seen += 1
                assert str(error).startswith(str(file)) and str(error).endswith("delete it and run the command again")
    assert seen > len(text)  # of two changes at each byte
    file.write_bytes(text[: len(text) // 2])
    with pytest.raises(DamagedError):
        read_record(file)


def test_records_of_the_first_format_have_no_checksum(tmp_path):
    (tmp_path / "a.json").write_text('{"format": 1, "status": "complete"}')
    assert read_record(tmp_path / "a.json")["status"] == "complete" and not is_own(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"format": 2, "status": "complete"}')
    with pytest.raises(DamagedError, match="its checksum is another"):
        read_record(tmp_path / "b.json")


def test_the_key_is_made_once_and_for_its_user_alone(home):
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: make_key(), range(16))) == {""}
    (file,) = key_file().parent.iterdir()
    key = file.read_text()
    assert file == key_file() and stat.S_IMODE(file.stat().st_mode) == 0o600 and len(key) == 64
    assert make_key() == "" and file.read_text() == key


def test_where_no_key_can_be_made_results_are_not_signed(home):
    (home / "config").write_text("a file where a folder is wanted")
    assert make_key().startswith(str(key_file()))
    write_record(home / "a.json", CONTENT)
    assert read_record(home / "a.json")["key"] == 7 and not is_own(home / "a.json")


def test_only_what_carried_a_valid_signature_is_signed_anew(home, monkeypatch):
    make_key()
    file = home / "a.json"
    write_record(file, CONTENT)
    rewrite_record(file, CONTENT | {"key": 8})
    assert is_own(file) and read_record(file)["key"] == 8
    other = home / "b.json"  # a signature belongs to a name
    other.write_bytes(file.read_bytes())
    assert read_record(other)["key"] == 8 and not is_own(other)
    stranger = json.loads(file.read_text())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "another"))
    make_key()
    assert not is_own(file)
    rewrite_record(file, CONTENT)
    assert "signature" not in json.loads(file.read_text()) and stranger["signature"]
    write_record(file, CONTENT)
    assert is_own(file)


def test_a_sealed_archive_is_torch_s_and_shows_every_damage(tmp_path):
    file = tmp_path / "a.ckpt"
    torch.save({"weights": torch.arange(100.0), "epoch": 3}, file)
    assert is_whole(file) is None
    seal(file)
    assert is_whole(file) is True
    for mmap in (False, True):
        assert torch.load(file, weights_only=True, mmap=mmap)["weights"].equal(torch.arange(100.0))
    with pytest.raises(ValueError, match="no zip archive without a comment"):
        seal(file)
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert not is_whole(file), place
    for cut in (1, 8, 60, 100, len(content) - 1):
        file.write_bytes(content[:-cut])
        assert not is_whole(file), cut


def test_sums_are_the_size_and_the_sha256():
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sums(b"") == [0, empty] and os.path.basename(key_file()) == "key"
