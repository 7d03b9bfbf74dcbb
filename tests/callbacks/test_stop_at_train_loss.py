import json
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from composed import settings, trained
from hw1.callbacks import StopAtTrainLoss, WeightSnapshots
from hw1.data import Function
from hw1.models import Mlp
from hw1.settings import ConfigError
from hw1.training import build
from hw1.training.checkpoint import EpochCheckpoint
from tiny_fit import Lines, tiny_fit

EPOCHS = 8


def fitted(folder, *callbacks, **more):
    """(trainer, train loss after each epoch, by epochs completed)."""
    lines = Lines()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Mlp((1,), 1, hidden=[6])
    function = Function("sin_2", [-1, 1], points=64, noise=0.0, noise_seed=0, test_points=10)
    trainer = tiny_fit(net, function, folder, callbacks, logger=lines, **{"epochs": EPOCHS} | more)
    found = {metrics["epoch"] + 1: metrics["train/loss"] for _, metrics in lines.lines if "train/loss" in metrics}
    return trainer, found


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """Training losses of all epochs, undisturbed; they fall."""
    _, found = fitted(tmp_path_factory.mktemp("whole"))
    assert list(found) == list(range(1, EPOCHS + 1)) and sorted(found.values(), reverse=True) == list(found.values())
    return found


@pytest.mark.parametrize("epoch", [1, 4, EPOCHS])
@pytest.mark.parametrize("exactly", [True, False])
def test_the_first_epoch_at_or_below_it_is_the_last(epoch, exactly, losses, tmp_path):
    stop = StopAtTrainLoss(losses[epoch] * (1 if exactly else 1.0001), replicas=1)
    keep = EpochCheckpoint(1e9, lambda epoch, member: 0, lambda: None)
    trainer, found = fitted(tmp_path, WeightSnapshots(None), stop, keep)
    assert trainer.current_epoch == epoch and found == {i: losses[i] for i in range(1, epoch + 1)}
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] == epoch and state["callbacks"]["StopAtTrainLoss"] == {"reached": True}
    snapshot = load_file(tmp_path / "snapshots" / f"epoch={epoch:06d}.safetensors")
    assert all(torch.equal(value, state["state_dict"][f"net.{name}"]) for name, value in snapshot.items())


def test_a_loss_that_is_not_reached_changes_nothing(losses, tmp_path):
    trainer, found = fitted(tmp_path, StopAtTrainLoss(losses[EPOCHS] * 0.9999, replicas=1))
    assert trainer.current_epoch == EPOCHS and found == losses


def test_only_what_is_evaluated_counts(losses, tmp_path):
    trainer, _ = fitted(tmp_path, StopAtTrainLoss(losses[4], replicas=1), check_val_every_n_epoch=3)
    assert trainer.current_epoch == 6


@pytest.mark.parametrize("loss", [0, -1.0, float("nan"), float("inf")])
def test_bad_losses_are_refused(loss):
    with pytest.raises(ValueError, match=rf"^loss: got {loss}, expected a number above 0$"):
        StopAtTrainLoss(loss, replicas=1)


# With everything else that a run consists of

SMALL = (
    "dataset=digits",
    "dataset.train_size=300",
    "model=mlp",
    "model.hidden=[16]",
    "optimizer.lr=1e-2",
    "logger=none",
)
STOP = "callbacks=[default,stop_at_train_loss]"


def test_the_result_says_whether_it_was_reached(tmp_path):
    own = settings(*SMALL, STOP, "trainer.max_epochs=30", "callbacks.stop_at_train_loss.loss=0.5")
    run = trained(own, tmp_path)
    losses = run.history()["train/loss"].dropna().tolist()
    assert len(losses) == run.result["epochs"] < 30 and losses[-1] <= 0.5 < min(losses[:-1])
    assert run.result["metrics"]["stopped_at_train_loss/reached"] == 1.0
    never = settings(*SMALL, STOP, "trainer.max_epochs=2", "callbacks.stop_at_train_loss.loss=1e-6")
    other = trained(never, tmp_path)
    assert other.result["epochs"] == 2 and other.result["metrics"]["stopped_at_train_loss/reached"] == 0.0


@pytest.mark.parametrize("lost", ["result", "end", "epoch"])
def test_a_run_that_was_killed_near_its_stop_ends_as_if_it_was_not(lost, tmp_path, monkeypatch):
    words = (*SMALL, STOP, "trainer.max_epochs=30", "callbacks.stop_at_train_loss.loss=0.5")
    own = settings(*words, "trainer.checkpoint_seconds=0")
    whole = trained(own, tmp_path / "whole")
    assert whole.result["epochs"] < 30
    if lost == "end":  # the process dies when its last epoch has ended, before the snapshot and the last checkpoint
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(WeightSnapshots, "on_train_end", Mock(side_effect=KeyboardInterrupt))
            trained(own, tmp_path / "killed")
    elif lost == "epoch":  # in the evaluation before its last epoch would have ended
        with monkeypatch.context() as patch:
            stopped = StopAtTrainLoss.on_train_epoch_end

            def killed(self, trainer, pl_module):
                if trainer.current_epoch + 1 == whole.result["epochs"]:
                    raise KeyboardInterrupt
                stopped(self, trainer, pl_module)

            patch.setattr(StopAtTrainLoss, "on_train_epoch_end", killed)
            with pytest.raises(KeyboardInterrupt):
                trained(own, tmp_path / "killed")
    else:  # after its last checkpoint
        folder = trained(own, tmp_path / "killed").path
        (folder / "result.json").unlink()
    again = trained(own, tmp_path / "killed")
    assert again.result["metrics"] == whole.result["metrics"] and again.result["epochs"] == whole.result["epochs"]
    assert torch.equal(again.theta(), whole.theta()) and again.weights_file.name == whole.weights_file.name
    assert {path.name for path in again.weights_file.parent.iterdir()} == {
        path.name for path in whole.weights_file.parent.iterdir()
    }
    assert again.history().equals(whole.history())
    assert json.loads((again.path / "result.json").read_text())["status"] == "complete"


def test_members_cannot_stop_alone(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^callbacks\.stop_at_train_loss\.replicas: got 3, expected 1: members cannot stop alone"
    ):
        build.validate(settings(*SMALL, STOP, "replicas=3"), tmp_path)
