"""Stopped after any batch and run again, a run ends on the bits of an undisturbed one, whatever else is on."""

import random

import pytest
from lightning.pytorch.callbacks import Callback

from composed import same, settings, trained
from hw1.training.fit import fit

SMALL = (
    *("dataset=digits", "dataset.train_size=100", "dataset.batch_size=16", "logger=none", "trainer.progress=false"),
    *("model=mlp", "model.hidden=[6]", "model.dropout=0.5", "trainer.max_epochs=5", "trainer.checkpoint_seconds=0"),
)  # 7 batches an epoch, the last of 4 examples
BATCHES = 35

KINDS = {
    "dropout": ["callbacks=[default,gradient_norm]"],
    "members": ["replicas=3"],
    "accumulation": ["+trainer.accumulate_grad_batches=3"],
    "objective switch": ["objective.minimise=squared_gradient_norm", "objective.after=2", "optimizer.lr=1e-3"],
    "middle of an epoch": ["trainer.max_epochs=-1", "+trainer.max_steps=31"],
    "accumulation, middle": ["trainer.max_epochs=-1", "+trainer.max_steps=14", "+trainer.accumulate_grad_batches=3"],
    "swa": ["callbacks=[default,swa]", "callbacks.swa.swa_lrs=0.05", "callbacks.swa.swa_epoch_start=2"],
    "swa, batch-norm": ["callbacks=[default,swa]", "model=cnn", "model.layers=['c3(3)',bn,10]"],
    "ema": ["callbacks=[default,ema]", "callbacks.ema.decay=0.9"],
    "ema, members": ["callbacks=[default,ema]", "callbacks.ema.decay=0.9", "replicas=2"],
    "best": ["callbacks=[default,best_checkpoint]", "callbacks.best_checkpoint.monitor=train/accuracy",
             "callbacks.best_checkpoint.mode=max", "optimizer.lr=0.1"],
    "early stopping": ["callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1", "optimizer.lr=0.3"],
    "learning rate": ["callbacks=[default,lr_monitor]",
                      "scheduler={_target_: torch.optim.lr_scheduler.ExponentialLR, gamma: 0.7}"],
    "evaluated within": ["+trainer.val_check_interval=0.4", "+trainer.reload_dataloaders_every_n_epochs=1"],
    "overfitting": ["trainer=overfit", "trainer.max_epochs=30", "trainer.checkpoint_seconds=0"],
    "clipped, bfloat16": ["trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=0.5", "optimizer.fused=false"],
}  # fmt: skip


class Stops(Callback):
    """Ctrl-C after so many batches of this process."""

    after = None

    def __init__(self):
        self.batches = 0

    def on_train_batch_end(self, *args):
        self.batches += 1
        if self.batches == Stops.after:
            raise KeyboardInterrupt


def of(kind):
    words = [word for word in SMALL if not (kind == "swa, batch-norm" and word.startswith("model"))]
    return settings(*words, *KINDS[kind], f"+callbacks.stops={{_target_: {__name__}.Stops}}")  # fmt: skip


def stopped(own, root, after, monkeypatch):
    """The run, begun, stopped after each of these numbers of batches, and run to its end."""
    for batches in after:
        monkeypatch.setattr(Stops, "after", batches)
        try:
            assert fit(own, root / f"run-{own.key}")["status"] == "complete"  # it was shorter than that
        except KeyboardInterrupt:
            continue
    monkeypatch.setattr(Stops, "after", None)
    return trained(own, root)


SAMPLE = ("members", "accumulation", "objective switch", "middle of an epoch", "swa", "ema", "best", "overfitting")


@pytest.mark.parametrize(
    "kind", [kind if kind in SAMPLE else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_stopped_and_resumed(kind, tmp_path, monkeypatch):
    chance, own = random.Random(kind), of(kind)
    whole = trained(own, tmp_path / "whole")
    after = [chance.randrange(8, 20), chance.randrange(1, 14)]  # in the second or third epoch; later
    same(stopped(own, tmp_path / "stopped", after, monkeypatch), whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_stopped_at_random_steps(seed, tmp_path, monkeypatch):
    chance = random.Random(seed)
    own = of(chance.choice(list(KINDS)))
    whole = trained(own, tmp_path / "whole")
    after = [chance.randrange(1, BATCHES) for _ in range(chance.randrange(1, 6))]
    same(stopped(own, tmp_path / "stopped", after, monkeypatch), whole)
