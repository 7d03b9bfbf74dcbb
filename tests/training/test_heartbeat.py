"""What a training run says of how far it has come, to who looks on from another process."""

import json
import time

import pytest
from lightning.pytorch.callbacks import Callback

from hw1.data import Digits
from hw1.models import Mlp
from hw1.runs.standing import read_progress
from hw1.training import heartbeat
from hw1.training.contents import contents
from hw1.training.heartbeat import Heartbeat
from tiny_fit import tiny_fit

SETTINGS = {"train_size": 160, "batch_size": 16}  # 10 steps an epoch


class Looking(Callback):
    """Notes what stands in the file after each step; ends training by an error after some."""

    def __init__(self, last=None):
        self.seen, self.last = [], last

    def on_train_batch_end(self, trainer, *args):
        self.seen.append(json.loads((self.folder / "progress.json").read_text()))
        if trainer.global_step == self.last:
            raise ArithmeticError("enough")


def test_every_step_is_told_and_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "_EVERY", 0.0)
    looking = Looking()
    looking.folder = tmp_path
    began = time.time()
    tiny_fit(Mlp((1, 8, 8), 10, hidden=[4]), Digits(), tmp_path, [Heartbeat(), looking], epochs=2, data=SETTINGS)
    assert [told["step"] for told in looking.seen] == list(range(1, 21))
    assert {(told["steps"], told["epochs"], told["first"]) for told in looking.seen} == {(20, 2, 0)}
    assert all(began <= told["since"] <= told["time"] <= time.time() for told in looking.seen)
    assert not (tmp_path / "progress.json").exists()


def test_what_was_interrupted_says_where(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "_EVERY", 0.0)
    looking = Looking(last=13)
    looking.folder = tmp_path
    with pytest.raises(ArithmeticError):
        tiny_fit(Mlp((1, 8, 8), 10, hidden=[4]), Digits(), tmp_path, [Heartbeat(), looking], epochs=3, data=SETTINGS)
    left = read_progress(tmp_path)
    assert (left.step, left.epoch, left.epochs) == (13, 1, 3) and left.left != left.left
    assert "progress.json" not in contents(tmp_path)


def test_it_is_written_every_two_seconds_at_most(tmp_path):
    looking = Looking()
    looking.folder = tmp_path
    began = time.monotonic()
    tiny_fit(Mlp((1, 8, 8), 10, hidden=[4]), Digits(), tmp_path, [Heartbeat(), looking], epochs=2, data=SETTINGS)
    assert len({told["step"] for told in looking.seen}) <= 1 + (time.monotonic() - began) // 2
