"""What is recorded of whole sets is what the saved weights come to, whatever changed them and however it ended."""

import shutil

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn.functional import cross_entropy

from composed import settings, trained
from hw1.runs import Run
from hw1.training import build
from hw1.training.checkpoint import EpochCheckpoint
from hw1.training.fit import fit

SMALL = (
    *("dataset=digits", "dataset.train_size=100", "dataset.batch_size=32", "logger=none", "trainer.progress=false"),
    *("model=mlp", "model.hidden=[8]", "trainer.max_epochs=6", "optimizer.lr=0.03"),
)

SWA = ("callbacks=[default,swa]", "callbacks.swa.swa_lrs=0.5", "callbacks.swa.swa_epoch_start=2")
BATCHNORM = ("model=cnn", "model.layers=['c3(3)',bn,10]")
WEIGHTS = {
    "last": [],
    "no snapshot": ["callbacks=none"],
    "swa": SWA,
    "swa, no snapshot": [word.replace("[default,swa]", "swa") for word in SWA],
    "swa, batch-norm": [*SWA, *BATCHNORM],
    "ema": ["callbacks=[default,ema]", "callbacks.ema.decay=0.8"],
    "best": ["callbacks=[default,best_checkpoint]", "optimizer.lr=0.6", "dataset.val_fraction=0.1",
             "callbacks.best_checkpoint.monitor=val/loss"],
    "in the middle of an epoch": ["trainer.max_epochs=-1", "+trainer.max_steps=10"],
    "bf16-mixed": ["trainer.precision=bf16-mixed"],
    "bf16-true": ["trainer.precision=bf16-true"],
    "64-true": ["trainer.precision=64-true"],
    "changed at the very end": [f"+callbacks.late={{_target_: {__name__}.ChangesLate}}"],
}  # fmt: skip


class ChangesLate(Callback):
    """A user's callback that changes the weights when everything else has ended."""

    def on_fit_end(self, trainer, pl_module):
        with torch.no_grad():
            next(pl_module.parameters()).mul_(0.5)


class ChangesWhileTesting(Callback):
    """A user's callback that measures other weights than those it leaves."""

    def on_test_start(self, trainer, pl_module):
        with torch.no_grad():
            next(pl_module.parameters()).mul_(0.5)

    def on_test_end(self, trainer, pl_module):
        with torch.no_grad():
            next(pl_module.parameters()).mul_(2)


def of(words):
    plain = [w for w in SMALL if not w.startswith("model")] if "model=cnn" in words else SMALL
    return settings(*plain, *words)


def reproduced(run):
    """{set/loss} of the run's saved weights, by the run's own precision plugin and nothing else of the training."""
    plugin = lightning.Trainer(accelerator="cpu", precision=run.value("trainer.precision"), logger=False,
                               enable_progress_bar=False, enable_checkpointing=False).precision_plugin  # fmt: skip
    data, net, found = run.datamodule(), plugin.convert_module(run.net()), {}
    for name in data.eval_names:
        x, y = getattr(data, f"{name}_tensors")
        with torch.inference_mode(), plugin.forward_context():
            found[f"{name}/loss"] = cross_entropy(net(plugin.convert_input(x)), y).double().item()
    return found


def close(run):
    exact = run.value("trainer.precision") != "bf16-true"  # whose means are rounded to 8 bits, batch by batch
    for name, value in reproduced(run).items():
        assert run.metrics()[name] == pytest.approx(value, rel=2e-6 if exact else 1e-2), name


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_saved_weights_are_those_that_were_measured(kind, tmp_path):
    run = trained(of(WEIGHTS[kind]), tmp_path)
    close(run)
    checkpoint = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)
    net = run.net()
    for name, value in net.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][f"net.{name}"].to(value.dtype), value)
    # Killed after the last checkpoint: the training is not begun again, and comes to the same.
    before, theta = run.result, run.theta()
    (run.path / "result.json").unlink()
    again = fit(run.settings, run.path)
    assert again["status"] == "complete", again
    assert again["metrics"] == before["metrics"] and torch.equal(Run(run.path).theta(), theta)
    assert (again["epochs"], again["steps"]) == (before["epochs"], before["steps"])


def test_averages_and_the_best_are_what_they_say(tmp_path):
    every = "callbacks.weight_snapshots.every_n_epochs=1"
    swa = trained(of([*SWA, every]), tmp_path)
    # Lightning's class averages what stands at the beginnings of the epochs from the first averaged one on.
    path = dict(zip(swa.snapshots().epochs, swa.snapshots().values, strict=True))
    assert torch.allclose(path[6], torch.stack([path[epoch] for epoch in (1, 2, 3, 4, 5)]).mean(0), atol=1e-6)
    best = trained(of([*WEIGHTS["best"], every]), tmp_path)
    history = best.history().dropna(subset="val/loss")
    epoch = int(history["val/loss"].argmin()) + 1
    assert best.metrics()["best_checkpoint/epoch"] == epoch < 6
    assert best.metrics()["val/loss"] == pytest.approx(history["val/loss"].min(), rel=1e-12)
    path = dict(zip(best.snapshots().epochs, best.snapshots().values, strict=True))
    assert torch.equal(best.theta(), path[epoch]) and torch.equal(path[6], path[epoch])


def test_weights_that_change_while_they_are_tested_are_no_result(tmp_path):
    own = of([f"+callbacks.bad={{_target_: {__name__}.ChangesWhileTesting}}"])
    result = fit(own, tmp_path / f"run-{own.key}")
    assert result["status"] == "failed"
    assert "UnmeasuredWeightsError: a callback changes the weights while they are tested" in result["error"]


@pytest.mark.parametrize("kind", ["swa", "best", "swa, batch-norm"])
def test_killed_when_the_last_epoch_has_ended(kind, tmp_path, monkeypatch):
    """The callbacks that change the weights at the end have not been called: the last epochs are trained again."""
    own = of([*WEIGHTS[kind], "trainer.checkpoint_seconds=0"])
    whole = trained(own, tmp_path / "whole")

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EpochCheckpoint, "on_train_end", killed)
        fit(own, tmp_path / f"run-{own.key}")
    resumed = trained(own, tmp_path)
    assert torch.equal(resumed.theta(), whole.theta()) and resumed.result["metrics"] == whole.result["metrics"]


@pytest.mark.parametrize(("short", "long"), [(10, 22), (8, 13), (3, 7)])
def test_from_the_middle_of_an_epoch_training_goes_on_as_if_it_had_not_ended(short, long, tmp_path):
    steps = ("trainer.max_epochs=-1", "model.dropout=0.5", "trainer.checkpoint_seconds=1000")  # 4 steps an epoch
    ended = trained(of([*steps, f"+trainer.max_steps={short}"]), tmp_path)
    own = of([*steps, f"+trainer.max_steps={long}"])
    whole = trained(own, tmp_path / "whole")
    folder = tmp_path / f"run-{own.key}"
    checkpoints = ended.path / "checkpoints"
    (folder / "checkpoints").mkdir(parents=True)
    boundary = checkpoints / "epoch.ckpt"
    assert boundary.exists() == (short % 4 != 0 and short > 4)
    if short > 4:
        shutil.copy(boundary if boundary.exists() else checkpoints / "last.ckpt", folder / "checkpoints" / "last.ckpt")
        shutil.copy(ended.path / "metrics.csv", folder)
        shutil.copytree(ended.path / "snapshots", folder / "snapshots")
    assert (ended.result["steps"], ended.result["epochs"]) == (short, -(-short // 4))
    longer = trained(own, tmp_path)
    assert torch.equal(longer.theta(), whole.theta()) and longer.result["metrics"] == whole.result["metrics"]
    one, two = longer.history(), whole.history()
    assert one["train_step/loss"].equals(two["train_step/loss"]) and len(one) == long


def test_switches_of_the_process_are_put_back(tmp_path):
    trained(of(["+trainer.benchmark=true"]), tmp_path)
    build.validate(of(["+trainer.deterministic=true"]), tmp_path)
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
