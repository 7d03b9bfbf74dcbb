"""Whatever becomes of settings.json, the code and the data that a run began with stay known, and signed."""

import json

import pytest
import torch
from whole_runs import CODE

from hw1.records import DamagedError, is_own, read_record, write_record
from hw1.runs import Run
from hw1.runs.changed import changed
from hw1.runs.damage import passing_damage, run_damage
from hw1.runs.mending import copied, mend_finished, mend_unfinished
from hw1.sealed import seal
from hw1.training.checkpoint import RECORDED, TEXT


def middle(file, content):
    whole = file.read_bytes()
    at = len(whole) // 2
    file.write_bytes(whole[:at] + content + whole[at + len(content) :])


def of_another(file):
    write_record(file, {**read_record(file), "key": "0123456789", "code": {"theirs": "another"}})


DAMAGES = {
    "zeros": lambda file: middle(file, b"\0" * 64),
    "a digit": lambda file: file.write_text(file.read_text().replace('"max_epochs": 2', '"max_epochs": 3')),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "emptied": lambda file: file.write_bytes(b""),
    "garbage behind it": lambda file: file.write_bytes(file.read_bytes() + b"\0garbage"),
    "deleted": lambda file: file.unlink(),
    "another's": of_another,
}
damages = pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))


@damages
def test_of_a_finished_run_they_are_written_again_from_its_result(folder, damage):
    file, result = folder / "settings.json", read_record(folder / "result.json")
    before = file.read_bytes()
    damage(file)
    (line,) = passing_damage(folder)
    assert line in run_damage(folder) and str(file) in line and line.endswith("which writes it from result.json")
    assert mend_finished(folder, result).endswith("settings.json was damaged, and written again from its result.json")
    assert file.read_bytes() == before and is_own(file) and run_damage(folder) == []


def test_its_config_as_well(folder):
    (folder / "config.yaml").unlink()
    (folder / "settings.json").unlink()
    result = read_record(folder / "result.json")
    assert mend_finished(folder, result).endswith(
        "config.yaml and settings.json were damaged, and written again from its result.json"
    )
    assert run_damage(folder) == []
    (folder / "config.yaml").unlink()
    assert "config.yaml is missing" in run_damage(folder)[0]


def test_a_flipped_bit_in_the_config_of_an_unfinished_run_is_named(folder):
    unfinished(folder)
    file = folder / "config.yaml"
    content = file.read_bytes()
    file.write_bytes(content[:5] + bytes([content[5] | 0x80]) + content[6:])  # no UTF-8 any more
    assert any(line.startswith(f"{file} is damaged: it differs from settings.json") for line in run_damage(folder))


def test_the_command_writes_a_missing_config_again(folder, again):
    (folder / "config.yaml").unlink()
    assert again(folder)["code"] == CODE and run_damage(folder) == []


@pytest.mark.parametrize("finished", [True, False])
def test_what_was_not_signed_is_not_signed_by_that(folder, finished, again):
    for file in (folder / "settings.json", folder / "result.json"):
        record = json.loads(file.read_text())
        record.pop("signature")
        file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if not finished:  # a stranger's, whose text in the checkpoint is signed with another key
        unfinished(folder)
        _with_text(folder, json.dumps(json.loads(_text(folder)) | {"signature": "0" * 64}))
    result = read_record(folder / "result.json") if finished else {}
    (folder / "settings.json").unlink()
    assert mend_finished(folder, result) if finished else mend_unfinished(folder)
    assert not is_own(folder / "settings.json") and read_record(folder / "settings.json")["code"] == CODE
    if not finished:
        again(folder)
    assert not is_own(folder / "result.json")


def unfinished(folder):
    """As a process leaves it that died before its last file."""
    (folder / "result.json").unlink()


@damages
def test_of_a_run_that_goes_on_they_are_restored_from_its_checkpoint(folder, damage):
    file = folder / "settings.json"
    before = file.read_bytes()
    unfinished(folder)
    damage(file)
    lines = run_damage(folder)
    assert lines and str(file) in lines[0] and "; " in lines[0]
    assert copied(folder)["code"] == CODE and len(changed([Run(folder)])) == 1  # today it has no code of its own
    assert mend_unfinished(folder).endswith(
        "settings.json was damaged, and written again from its checkpoints/last.ckpt"
    )
    assert file.read_bytes() == before and is_own(file) and run_damage(folder) == []
    assert mend_unfinished(folder) == ""


@pytest.mark.parametrize("name", ["deleted", "emptied", "another's"])
def test_going_on_restores_them_itself(folder, again, name):
    weights = Run(folder).theta()
    unfinished(folder)
    DAMAGES[name](folder / "settings.json")
    result = again(folder)
    assert (result["status"], result["code"]) == ("complete", CODE) and is_own(folder / "result.json")
    assert read_record(folder / "settings.json")["data"] == result["dataset"]["sha256"]
    assert Run(folder).theta().equal(weights) and run_damage(folder) == []


def test_both_records_damaged(folder, again):
    for name in ("settings.json", "result.json"):
        DAMAGES["zeros"](folder / name)
    result = again(folder)
    assert result["code"] == CODE and is_own(folder / "settings.json") and run_damage(folder) == []


def _text(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[RECORDED][TEXT]


def _with_text(folder, text):
    """Put another copy of the settings into a run's checkpoint; None for none, as earlier versions had."""
    file = folder / "checkpoints" / "last.ckpt"
    state = torch.load(file, weights_only=True)
    state[RECORDED][TEXT] = text
    torch.save(state, file)
    seal(file)


@pytest.mark.parametrize("text", [None, "{}", "no json"])
def test_without_a_copy_it_does_not_go_on_as_if_nothing_were_lost(folder, again, text):
    unfinished(folder)
    _with_text(folder, text)
    DAMAGES["zeros"](folder / "settings.json")
    damaged = (folder / "settings.json").read_bytes()
    assert copied(folder) == {} or "code" not in copied(folder)
    with pytest.raises(DamagedError, match=r"settings\.json is damaged .* is not known; delete it and run the command"):
        again(folder)
    assert (folder / "settings.json").read_bytes() == damaged
    (folder / "settings.json").unlink()
    assert again(folder)["status"] == "complete" and not is_own(folder / "result.json")
