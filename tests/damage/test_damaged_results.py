"""A result, history or snapshot that is not what was written: named with what costs least; done, all is sound again."""

import json

import pytest
import torch
from whole_runs import fitted

from hw1.lease import hold
from hw1.measures import take as taking
from hw1.records import DamagedError, read_record, write_record
from hw1.runs import Run, is_complete
from hw1.runs.damage import passing_damage, run_damage, training_damage
from hw1.runs.standing import standing
from hw1.sealed import seal
from hw1.settings.identity import run_key
from hw1.training.checkpoint import require_own


@pytest.fixture(scope="session")
def twin(small, tmp_path_factory):
    """The same run, trained once more."""
    return fitted(small, tmp_path_factory.mktemp("twin"))


def untrained(folder):
    """What changes where anything is trained."""
    return [file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))], (folder / "metrics.csv").read_bytes()


def test_a_result_of_another_run_is_named_and_costs_no_training(folder, again):
    before, file = untrained(folder), folder / "result.json"
    write_record(file, {**read_record(file), "key": "0123456789"})
    assert not is_complete(folder)
    (line,) = run_damage(folder)
    assert line == f"{file} is of another run, 0123456789; delete it and run the command again"
    with pytest.raises(DamagedError, match="is of another run"):
        Run(folder).status  # noqa: B018
    assert standing(folder).reason == line
    assert again(folder)["key"] == Run(folder).key and run_damage(folder) == [] and untrained(folder) == before


def test_a_result_under_an_earlier_key_is_its_own(folder):
    file, key = folder / "result.json", Run(folder).key
    write_record(file, {**read_record(file), "key": "0123456789", "formerly": [key]})
    assert is_complete(folder) and run_damage(folder) == []


def test_a_result_of_another_training_costs_none(folder, twin, again):
    before, file = untrained(folder), folder / "result.json"
    other = read_record(twin / "result.json")
    size, _ = other["files"]["settings.json"]  # which says when it began: another time, unless both took no second
    write_record(file, {**other, "files": {**other["files"], "settings.json": [size, "0" * 64]}})
    lines = passing_damage(folder)
    assert lines and all("ends it without training" in line or "which writes it" in line for line in lines)
    assert any(
        f"delete {file} and run the run's command again, which ends it" in line for line in training_damage(folder)
    )
    file.unlink()
    assert again(folder)["status"] == "complete" and run_damage(folder) == [] and untrained(folder) == before


def test_a_damaged_history_says_what_is_lost(folder):
    file = folder / "metrics.csv"
    text = file.read_bytes()
    file.write_bytes(text.replace(b"1", b"2", 1))
    (line,) = training_damage(folder)
    assert "the weights are whole, the history can only be trained again: delete the run's folder" in line
    file.write_bytes(text + b"9,9\n")  # behind what the checkpoint knows of
    assert "ends it without training" in training_damage(folder)[0]


@pytest.mark.parametrize("name", ["snapshots/epoch=000002.safetensors", "checkpoints/last.ckpt"])
def test_damaged_weights_are_trained_again(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(content)
    (line,) = training_damage(folder)
    assert name in line and line.endswith("delete the run's folder and run its command again")
    (folder / "result.json").unlink()
    assert name in training_damage(folder)[0]


def test_a_file_that_no_checkpoint_knows_of_is_not_made_again_by_ending(folder, twin):
    """What a callback of the user's own wrote: the result alone says what it was."""
    (folder / "own.txt").write_text("whole")
    result = read_record(folder / "result.json")
    write_record(folder / "result.json", {**result, "files": {**result["files"], "own.txt": [5, "0" * 64]}})
    (line,) = training_damage(folder)
    assert "own.txt" in line and line.endswith("delete the run's folder and run its command again")


def test_what_stands_beside_unlisted_is_named(folder):
    (folder / "measures").mkdir()
    (folder / "measures" / "spectrum-0123456789.points.safetensors").write_bytes(b"of none")
    (folder / "snapshots" / "epoch=000009.safetensors").write_bytes(b"of none")
    lines = run_damage(folder)
    assert len(lines) == 2 and all(line.endswith("remove it") for line in lines)
    (folder / "kept.json").write_text('{"format": 2, "code": {}}')
    assert any("kept.json is damaged" in line for line in run_damage(folder))


def test_measuring_takes_away_what_a_killed_process_left(folder, monkeypatch):
    room = folder / "measures" / ".spectrum-0123456789.json.0123456789abcdef.part"
    room.mkdir(parents=True)
    (room / "half").write_text("")

    def taken_over(path):
        lease = hold(path)
        lease.succeeds = True
        return lease

    monkeypatch.setattr(taking, "hold", taken_over)
    assert taking.take(Run(folder), []) == [] and not room.exists()


def test_the_checkpoint_beside_that_of_the_end_is_the_runs_own(tmp_path):
    file = tmp_path / "epoch.ckpt"
    mine, others = {"seed": 1, "model": {"width": 1}}, {"seed": 0, "model": {"width": 1}}
    require_own(file, run_key(mine))  # there need be none
    torch.save({"hw1": {"settings": json.dumps({"settings": mine | {"output": "elsewhere"}})}}, file)
    seal(file)
    require_own(file, run_key(mine))  # where results go has no effect on them
    with pytest.raises(DamagedError, match="got that of another run, expected this one's; delete the run's folder"):
        require_own(file, run_key(others))
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (flipped, whole[:-8], whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        with pytest.raises(DamagedError, match="is damaged"):
            require_own(file, run_key(mine))
