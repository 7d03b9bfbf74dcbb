import os

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, load_model
from torch import nn

from hw1.callbacks import WeightSnapshots
from hw1.data import Digits, Function
from hw1.models import Cnn, Mlp
from tiny_fit import tiny_fit


class States(Callback):
    """The network's own tensors after every epoch; 0 is the initialisation."""

    def __init__(self, stop_after=None):
        self.states, self.stop_after = {}, stop_after

    def on_train_start(self, trainer, pl_module):
        self.keep(0, pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.keep(trainer.current_epoch + 1, pl_module)
        trainer.should_stop = trainer.current_epoch + 1 == self.stop_after

    def keep(self, epoch, pl_module):
        self.states[epoch] = {name: value.clone() for name, value in pl_module.net.state_dict().items()}


class Tied(nn.Sequential):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1))
        self[3].weight = self[1].weight


def function():
    return Function("sin_2", [-1, 1], points=20, noise=0.0, noise_seed=0, test_points=10)


def kept(folder):
    return {int(path.stem.partition("=")[2]): path for path in sorted((folder / "snapshots").iterdir())}


@pytest.mark.parametrize(
    ("every", "epochs", "expected"),
    [(1, 3, [0, 1, 2, 3]), (2, 5, [0, 2, 4, 5]), (2, 4, [0, 2, 4]), (None, 3, [0, 3]), (10, 3, [0, 3])],
)
def test_the_first_every_nth_and_the_last(every, epochs, expected, tmp_path):
    torch.manual_seed(0)  # of some starts every unit is dead
    states = States()
    tiny_fit(Mlp((1,), 1, hidden=[3]), function(), tmp_path, [states, WeightSnapshots(every)], epochs=epochs)
    files = kept(tmp_path)
    assert list(files) == expected
    for epoch, path in files.items():
        tensors = load_file(path)
        assert tensors.keys() == states.states[epoch].keys()
        assert all(torch.equal(tensors[name], value) for name, value in states.states[epoch].items())
    assert not torch.equal(load_file(files[0])["1.weight"], load_file(files[epochs])["1.weight"])


@pytest.mark.parametrize("every", [None, 3])
def test_the_end_is_kept_where_another_callback_stops_early(every, tmp_path):
    states = States(stop_after=2)
    tiny_fit(Mlp((1,), 1, hidden=[3]), function(), tmp_path, [states, WeightSnapshots(every)], epochs=9)
    files = kept(tmp_path)
    assert list(files) == [0, 2]
    assert torch.equal(load_file(files[2])["1.weight"], states.states[2]["1.weight"])


def test_buffers_and_channels_last(tmp_path):
    states, net = States(), Cnn((1, 8, 8), 10, layers=["c3(4)", "bn", "p2", 5]).to(memory_format=torch.channels_last)
    tiny_fit(net, Digits(), tmp_path, [states, WeightSnapshots(None)], data={"train_size": 40})
    tensors = load_file(kept(tmp_path)[1])
    assert {"0.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"} <= tensors.keys()
    assert all(torch.equal(tensors[name], value) for name, value in states.states[1].items())


def test_tied_weights_are_stored_once_and_read_back(tmp_path):
    net = Tied()
    tiny_fit(net, function(), tmp_path, [WeightSnapshots(None)])
    path = kept(tmp_path)[1]
    assert len([name for name in load_file(path) if name.endswith("weight")]) == 1
    other = Tied()
    load_model(other, str(path))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())


def test_nothing_but_whole_files_is_left(tmp_path, monkeypatch):
    def torn(module, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("hw1.training.snapshots.save_model", torn)
    with pytest.raises(OSError, match="No space left"):
        tiny_fit(Mlp((1,), 1, hidden=[3]), function(), tmp_path, [WeightSnapshots(None)])
    assert os.listdir(tmp_path / "snapshots") == []


@pytest.mark.parametrize("every", [0, -2])
def test_bad_distances_are_refused(every):
    with pytest.raises(ValueError, match=rf"^every_n_epochs: got {every}, expected a positive integer or null$"):
        WeightSnapshots(every)
