"""Asked to stop at any step, a run saves there and ends; the next job goes on with the step behind it, bit by bit."""

import random
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from composed import same, settings, trained
from hw1 import preemption
from hw1.training.fit import fit

SMALL = (
    *("dataset=digits", "dataset.train_size=100", "dataset.batch_size=16", "logger=none", "trainer.progress=false"),
    *("model=mlp", "model.hidden=[6]", "model.dropout=0.5", "trainer.max_epochs=3", "trainer.checkpoint_seconds=1000"),
)  # 7 batches an epoch, the last of 4 examples
CNN = ("model=cnn", "model.layers=['c3(3)',bn,10]")

KINDS = {
    "dropout": ["callbacks=[default,gradient_norm]"],
    "augmentation, workers": [*CNN, "transform=shift", "dataset.workers=2"],
    "members, dropout": ["replicas=3"],
    "accumulation": ["+trainer.accumulate_grad_batches=3"],
    "objective switch": ["objective.minimise=squared_gradient_norm", "objective.after=1", "optimizer.lr=1e-3"],
    "augmentation": [*CNN, "transform=noise", "callbacks=[default,gradient_norm]"],
    "members, augmentation": [*CNN, "transform=noise", "replicas=2"],
    "batch-norm": CNN,
    "streams, workers": ["dataset.workers=1", "dataset.train_size=60"],
    "max_steps": ["trainer.max_epochs=-1", "+trainer.max_steps=17"],
    "max_steps, accumulation": ["trainer.max_epochs=-1", "+trainer.max_steps=8", "+trainer.accumulate_grad_batches=3"],
    "ema": ["callbacks=[default,ema]", "callbacks.ema.decay=0.9"],
    "swa": ["callbacks=[default,swa]", "callbacks.swa.swa_lrs=0.05", "callbacks.swa.swa_epoch_start=1"],
    "best": ["callbacks=[default,best_checkpoint]", "callbacks.best_checkpoint.monitor=train/accuracy",
             "callbacks.best_checkpoint.mode=max", "optimizer.lr=0.1"],
    "early stopping": ["callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1", "optimizer.lr=0.3"],
    "stop at loss": ["callbacks=[default,stop_at_train_loss]", "callbacks.stop_at_train_loss.loss=2.2"],
    "learning rate": ["callbacks=[default,lr_monitor]", "scheduler=onecycle", "optimizer=sgd"],
    "plateau": ["scheduler=plateau", "scheduler.monitor=train/loss"],
    "evaluated within": ["+trainer.val_check_interval=0.4", "+trainer.reload_dataloaders_every_n_epochs=1"],
    "evaluated every 5": ["+trainer.val_check_interval=5", "trainer.check_val_every_n_epoch=null"],
    "overfitting": ["trainer=overfit", "trainer.overfit_batches=3", "trainer.max_epochs=9"],
    "tracked": ["callbacks=[default,track]", "measures@callbacks.track.measure=sharpness",
                "callbacks.track.every_n_steps=3", "callbacks.track.every_n_epochs=null"],
    "bfloat16, clipped": ["trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=0.5", "optimizer.fused=false"],
    "sam": ["optimizer=sam"],
    "snapshots, full batch": ["callbacks=[default,weight_snapshots]", "dataset.batch_size=null",
                              "trainer.max_epochs=20"],
    "tensorboard": ["logger=tensorboard"],
}  # fmt: skip
NOT_MIDWAY = ("swa",)  # what it sets up with an epoch, it would not set up again


class Asks(Callback):
    """Asks to stop in the step with this number; notes the steps that are trained."""

    resumes_within_epochs = True
    at = None
    steps: list = []  # noqa: RUF012 - of the tests here, one after another

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == Asks.at:
            Asks.at = None
            signal.raise_signal(signal.SIGTERM)

    def on_train_batch_end(self, trainer, *args):
        if not Asks.steps or Asks.steps[-1] != trainer.global_step:
            Asks.steps.append(trainer.global_step)


def of(kind):
    asks = f"+callbacks.asks={{_target_: {__name__}.Asks}}"
    replaced = {word.partition("=")[0] for word in KINDS[kind]}
    whole = "model" in replaced  # another model has no such settings
    words = [w for w in SMALL if w.partition("=")[0] not in replaced and not (whole and w.startswith("model"))]
    return settings(*words, *KINDS[kind], asks)


def stopped(own, root, at):
    """The run, whose job is asked to stop in each of these steps, ended by a last one."""
    for step in at:
        Asks.at = step
        try:
            with preemption.listening(interrupts=True):
                fit(own, root / f"run-{own.key}")
        except KeyboardInterrupt:
            assert Asks.at is None and not (root / f"run-{own.key}" / "result.json").exists()
    Asks.at = None
    return trained(own, root)


def same_end(one, two):
    same(one, two)
    end = torch.load(one.path / "checkpoints" / "last.ckpt", weights_only=True)["hw1"]
    assert end["ended"] == one.key and "midway" not in end


SAMPLE = ("members, dropout", "accumulation", "objective switch")


@pytest.mark.parametrize(
    "kind", [kind if kind in SAMPLE else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_asked_to_stop_and_gone_on(kind, tmp_path):
    chance, own = random.Random(kind), of(kind)
    Asks.steps = []
    whole = trained(own, tmp_path / "whole")
    undisturbed, Asks.steps = Asks.steps, []
    at = sorted(chance.sample(undisturbed[:-1], 2))
    same_end(stopped(own, tmp_path / "stopped", at), whole)
    if kind not in NOT_MIDWAY:
        assert Asks.steps == undisturbed  # none twice, none left out


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_asked_to_stop_at_random_steps(seed, tmp_path):
    chance = random.Random(seed)
    own = of(chance.choice(list(KINDS)))
    Asks.steps = []
    whole = trained(own, tmp_path / "whole")
    steps = Asks.steps[:-1]
    same_end(stopped(own, tmp_path / "stopped", sorted(chance.sample(steps, min(len(steps), 4)))), whole)
