import os
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from hw1.data import Function
from hw1.models import Mlp
from hw1.training.checkpoint import AtomicCheckpointIO, EpochCheckpoint
from tiny_fit import tiny_fit


def function():
    return Function("sin_2", [-1, 1], points=20, noise=0.0, noise_seed=0, test_points=10)


class Clock(Callback):
    """A clock that an epoch moves on by ten seconds."""

    def __init__(self, stop_after=None):
        self.now, self.epoch, self.stop_after = 100.0, None, stop_after

    def on_train_epoch_end(self, trainer, pl_module):
        self.now += 10
        self.epoch = trainer.current_epoch
        trainer.should_stop = trainer.current_epoch + 1 == self.stop_after


class Seeded(Mlp):
    """Notes the seed under which each training step runs, two steps an epoch."""

    def __init__(self):
        super().__init__((1,), 1, hidden=[3])
        self.seeds = []

    def forward(self, x):
        if self.training:
            self.seeds.append(torch.initial_seed())
        return super().forward(x)


@pytest.mark.parametrize(
    ("seconds", "stop_after", "written"),
    [
        (0, None, [0, 1, 2, 3, 4, 5, 6]),
        (10, None, [0, 1, 2, 3, 4, 5, 6]),
        (15, None, [1, 3, 5, 6]),
        (25, None, [2, 5, 6]),
        (1e9, None, [6]),  # the last always
        (1e9, 3, [2]),  # also where another callback stops early
    ],
)
def test_at_least_so_long_between_two_and_always_the_last(seconds, stop_after, written, tmp_path, monkeypatch):
    clock, epochs = Clock(stop_after), []
    monkeypatch.setattr("hw1.training.checkpoint.time", SimpleNamespace(monotonic=lambda: clock.now))
    file = tmp_path / "checkpoints" / "last.ckpt"

    def before():
        # Logs are written first: what the file holds at this moment is the checkpoint before.
        held = torch.load(file, weights_only=True)["epoch"] if file.exists() else None
        assert held == (epochs[-1] if epochs else None)
        epochs.append(clock.epoch)

    keep = EpochCheckpoint(seconds, lambda epoch, member: 7000 + epoch, before)
    net = Seeded()
    tiny_fit(net, function(), tmp_path, [keep, clock], epochs=7)
    assert epochs == written
    state = torch.load(file, weights_only=True)
    assert state["epoch"] == written[-1] + 1  # the end: that many are completed
    assert all(torch.equal(state["state_dict"][f"net.{name}"], value) for name, value in net.state_dict().items())
    assert net.seeds == [7000 + epoch for epoch in range(stop_after or 7) for _ in range(2)]


def test_seconds_are_counted_over_interruptions(monkeypatch):
    now = 0.0
    monkeypatch.setattr("hw1.training.checkpoint.time", SimpleNamespace(monotonic=lambda: now))
    first, second = (EpochCheckpoint(1, lambda epoch, member: 0, lambda: None) for _ in range(2))
    first.on_train_start(None, None)
    now = 30.0
    state = first.state_dict()
    now = 1000.0  # lost, then waiting
    second.load_state_dict(state)
    second.on_train_start(None, None)
    now = 1012.0
    assert second.seconds_trained == 42.0


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_save_that_breaks_off_leaves_the_old_file(error, tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1, "weights": torch.arange(5)}, path)
    old = path.read_bytes()

    def torn(checkpoint, file):
        with open(file, "wb") as stream:
            stream.write(b"half a checkpoint")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("hw1.training.checkpoint.torch.save", torn)
        with pytest.raises(error):
            AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert path.read_bytes() == old and os.listdir(path.parent) == ["last.ckpt"]
    AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 2} and os.listdir(path.parent) == ["last.ckpt"]


def test_it_is_written_beside_its_target(tmp_path, monkeypatch):
    places = []
    save = torch.save
    monkeypatch.setattr(
        "hw1.training.checkpoint.torch.save", lambda value, file: (places.append(file), save(value, file))
    )
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({}, path)
    assert [place.parent.parent for place in places] == [tmp_path] and places != [path]  # the same file system
