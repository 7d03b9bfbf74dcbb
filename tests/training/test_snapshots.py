import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from composed import settings, trained
from hw1.models import Cnn, members_of, side_by_side
from hw1.training.fit import fit
from hw1.training.snapshots import save_snapshot

SMALL = (
    *("dataset=digits", "dataset.train_size=90", "dataset.batch_size=32", "logger=none", "trainer.progress=false"),
    *("model=mlp", "model.hidden=[6]", "model.dropout=0.5", "trainer.max_epochs=4", "trainer.checkpoint_seconds=0"),
)

EVALUATED_BY_9 = "dataset.eval_batch_size=9"


def kept(run):
    return {int(file.stem.partition("=")[2]): file for file in sorted((run.path / "snapshots").glob("*"))}


def test_epochs_that_are_asked_for_are_kept_and_training_is_the_same(tmp_path):
    own = settings(*SMALL, "callbacks=none")
    asked = trained(own, tmp_path / "asked", snapshots=[0, 2, 9])
    plain = trained(own, tmp_path / "plain")
    assert list(kept(asked)) == [0, 2] and not (plain.path / "snapshots").exists()
    assert torch.equal(asked.theta(), plain.theta()) and asked.result["metrics"] == plain.result["metrics"]
    assert asked.history().equals(plain.history()) and asked.key == plain.key
    every = trained(settings(*SMALL, "callbacks.weight_snapshots.every_n_epochs=1"), tmp_path)
    for epoch, file in kept(asked).items():
        expected = load_file(kept(every)[epoch])
        assert load_file(file).keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in load_file(file).items())


def test_the_end_is_tested_on_whole_sets_however_epochs_are_evaluated(tmp_path):
    whole = trained(settings(*SMALL, "callbacks=none"), tmp_path).result["metrics"]
    seldom = trained(settings(*SMALL, "callbacks=none", "trainer.check_val_every_n_epoch=3"), tmp_path)
    parts = trained(settings(*SMALL, "callbacks=none", "+trainer.limit_val_batches=1", EVALUATED_BY_9), tmp_path)
    assert whole == seldom.result["metrics"]
    assert parts.result["metrics"] == pytest.approx(whole, rel=1e-6) and len(whole) == 4
    assert parts.history()["train/loss"].dropna().iloc[-1] != pytest.approx(whole["train/loss"], rel=1e-6)


class Killed(Callback):
    """Ctrl-C in the middle of an epoch, once."""

    armed = True

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2 and Killed.armed:
            Killed.armed = False
            raise KeyboardInterrupt


def test_a_resumed_run_lacks_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Killed, "armed", True)
    own = settings(*SMALL, "callbacks=none", f"+callbacks.killed={{_target_: {__name__}.Killed}}")
    with pytest.raises(KeyboardInterrupt):
        fit(own, tmp_path / f"run-{own.key}", snapshots=[2, 3])
    resumed = trained(own, tmp_path, snapshots=[2, 3])
    whole = trained(settings(*SMALL, "callbacks=none"), tmp_path, snapshots=[2, 3])
    assert list(kept(resumed)) == list(kept(whole)) == [2, 3]
    for epoch, file in kept(whole).items():
        assert file.read_bytes() == kept(resumed)[epoch].read_bytes()


def test_members_are_stacked_with_their_buffers(tmp_path):
    nets = [Cnn((1, 8, 8), 3, layers=["c3(4)", "bn", 5]) for _ in range(3)]
    for net in nets:
        net(torch.randn(7, 1, 8, 8))
    together = side_by_side(nets)
    path = save_snapshot(together, tmp_path, 12)
    assert path == tmp_path / "snapshots" / "epoch=000012.safetensors"
    tensors = load_file(path)
    for member, net in enumerate(nets):
        assert all(torch.equal(tensors[name][member], value) for name, value in net.state_dict().items())
    other = side_by_side([Cnn((1, 8, 8), 3, layers=["c3(4)", "bn", 5]) for _ in range(3)])
    other.load_stacked(tensors)
    for one, two in zip(members_of(together), members_of(other), strict=True):
        assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
