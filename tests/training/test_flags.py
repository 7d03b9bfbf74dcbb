"""Each argument of the trainer works, or is refused before anything trains in a line that says what to do instead."""

import json
import random
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from composed import settings, trained
from hw1.runs.standing import read_progress
from hw1.settings import ConfigError
from hw1.training import build, heartbeat

SMALL = (
    *("dataset=digits", "dataset.train_size=100", "dataset.batch_size=16", "logger=none", "trainer.progress=false"),
    *("model=mlp", "model.hidden=[6]", "trainer.max_epochs=2", "callbacks=none"),
)  # 7 batches an epoch

SWA = "callbacks=[default,swa]"
STOP = "callbacks=[default,early_stopping]"
BEST = "callbacks=[default,best_checkpoint]"

REFUSED = {
    "+trainer.fast_dev_run=true": r"trainer\.fast_dev_run: got True, expected false: trainer=debug takes",
    "+trainer.barebones=true": r"trainer\.barebones: got True, expected false: .*callbacks=none logger=none",
    "+trainer.overfit_batches=0.5": r"trainer\.overfit_batches: got 0\.5, expected a number of batches, 0 to 7",
    "+trainer.overfit_batches=8": r"trainer\.overfit_batches: got 8, expected a number of batches, 0 to 7",
    "+trainer.overfit_batches=1 +trainer.limit_train_batches=2": r"trainer\.limit_train_batches: got 2, .*overfit",
    "+trainer.limit_train_batches=0": r"trainer\.limit_train_batches: got 0, expected a positive integer, a fraction",
    "+trainer.limit_train_batches=0.1": r"trainer\.limit_train_batches: got 0\.1, expected",
    "+trainer.limit_val_batches=1": r"trainer\.limit_val_batches: got 1, expected 1\.0, or 0 .*check_val_every_n_epoch",
    "+trainer.limit_test_batches=0.5": r"trainer\.limit_test_batches: got 0\.5, expected 1\.0: .*whole sets",
    "+trainer.limit_test_batches=0": r"trainer\.limit_test_batches: got 0, expected 1\.0",
    "+trainer.limit_predict_batches=1": r"trainer\.limit_predict_batches: got 1, expected nothing: .*predictions",
    "+trainer.val_check_interval=8": r"trainer\.val_check_interval: got 8, .*at most the 7 of an epoch",
    "+trainer.val_check_interval=00:00:01:00": r"trainer\.val_check_interval: got '00:00:01:00', expected",
    "trainer.check_val_every_n_epoch=null": r"trainer\.check_val_every_n_epoch: got None, .*val_check_interval",
    "trainer.check_val_every_n_epoch=0": r"trainer\.check_val_every_n_epoch: got 0, expected a positive",
    "+trainer.accumulate_grad_batches=0": r"trainer\.accumulate_grad_batches: got 0, expected a positive",
    "+trainer.accumulate_grad_batches=2 objective.minimise=squared_gradient_norm":
        r"trainer\.accumulate_grad_batches: got 2, .*squared",
    "+trainer.gradient_clip_val=-1": r"trainer\.gradient_clip_val: got -1, expected a number of at least 0",
    "+trainer.gradient_clip_algorithm=value": r"trainer\.gradient_clip_algorithm: got 'value', .*gradient_clip_val",
    "trainer.precision=16-mixed": r"trainer\.precision: got '16-mixed', expected .*bf16-mixed, or with trainer=gpu",
    "trainer.precision=bf16": r"trainer\.precision: got 'bf16', expected .*bf16-mixed",
    "trainer.precision=8-true": r"trainer\.precision: got '8-true', expected",
    "+trainer.profiler=slow": r"trainer\.profiler: got 'slow', expected one of simple, advanced, pytorch",
    "+trainer.max_time=long": r"trainer: .*'long'.* is not a valid duration",
    "+trainer.max_steps=0": r"trainer\.max_steps: got 0, expected a positive integer, or -1 for no limit",
    "trainer.max_epochs=-1": r"trainer\.max_epochs: got -1, expected .*\+trainer\.max_steps",
    "+trainer.min_epochs=3": r"trainer\.min_epochs: got 3, expected at most as many",
    "+trainer.min_steps=9 +trainer.max_steps=8": r"trainer\.min_steps: got 9, expected at most",
    "+trainer.callbacks=[]": r"trainer\.callbacks: got \[\], expected nothing, .*\+callbacks\.mine\._target_",
    "+trainer.logger=true": r"trainer\.logger: got True, expected nothing, .*logger=tensorboard",
    "+trainer.enable_checkpointing=false": r"trainer\.enable_checkpointing: .*checkpoint_seconds",
    "+trainer.enable_progress_bar=false": r"trainer\.enable_progress_bar: .*trainer\.progress=false",
    "+trainer.default_root_dir=x": r"trainer\.default_root_dir: .*output=",
    "+trainer.use_distributed_sampler=false": r"trainer\.use_distributed_sampler: got False, expected true",
    "+trainer.sync_batchnorm=true": r"trainer\.sync_batchnorm: got True, expected false",
    "trainer.max_epochs=-1 +trainer.max_steps=20 objective.minimise=squared_gradient_norm objective.after=3":
        r"objective\.after: got 3, expected less than the 3 epochs of trainer\.max_steps=20",
    "weights=mean": r"weights: got 'mean', expected last, best or averaged",
    "weights=best": r"weights: got best, expected last, or a callback .*best_checkpoint",
    "weights=averaged": r"weights: got averaged, expected last, or a callback .*\[default,swa\] or \[default,ema\]",
    f"{SWA} weights=last": r"weights: got last with callbacks\.swa, expected averaged",
    "callbacks=[swa,ema]": r"callbacks\.ema: got it beside callbacks\.swa",
    f"{SWA} trainer.max_epochs=-1 +trainer.max_steps=9": r"trainer\.max_steps: got 9 with callbacks\.swa, .*ema",
    f"{SWA} callbacks.swa.swa_epoch_start=3": r"callbacks\.swa\.swa_epoch_start: got 3, .*max_epochs=2",
    "callbacks=[swa,early_stopping]": r"callbacks\.early_stopping: got it with callbacks\.swa",
    f"{STOP} callbacks.early_stopping.monitor=val/loss":
        r"monitor: got 'val/loss', expected one of train/loss, train/accuracy; dataset\.val_fraction=0\.1",
    f"{STOP} callbacks.early_stopping.monitor=test/loss dataset.val_fraction=0.2":
        r"monitor: got 'test/loss', expected one of train/loss, train/accuracy, val/loss, val/accuracy, the test set",
    f"{BEST} replicas=2": r"callbacks\.best_checkpoint: got replicas=2, expected 1",
    f"{BEST} trainer.check_val_every_n_epoch=3": r"monitor: got 'train/loss', which is never evaluated",
    f"{BEST} callbacks.best_checkpoint.mode=least": r"callbacks\.best_checkpoint\.mode: got 'least', expected",
}  # fmt: skip


SAMPLE = random.Random(0).sample(list(REFUSED), 20)


@pytest.mark.parametrize("words", [w if w in SAMPLE else pytest.param(w, marks=pytest.mark.slow) for w in REFUSED])
def test_refused_before_anything_trains(words, tmp_path):
    with pytest.raises(ConfigError, match=REFUSED[words]) as caught:
        build.validate(settings(*SMALL, *words.split()), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "there"), [("gpu", False), ("cuda", False), ("cpu", True), ("gpuu", False)])
def test_an_accelerator_that_is_not_here_is_refused_with_those_that_are(name, there, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_built", lambda: False)
    run = settings(*SMALL, f"trainer.accelerator={name}")
    if there:
        return build.validate(run, tmp_path)
    with pytest.raises(ConfigError, match=rf"^trainer\.accelerator: got '{name}', expected auto or cpu, which.*=cpu"):
        build.validate(run, tmp_path)


def final(tmp_path, *words):
    own = settings(*SMALL, *words)
    build.validate(own, tmp_path)
    return trained(own, tmp_path)


def test_what_changes_nothing_changes_nothing(tmp_path):
    plain = final(tmp_path)
    for words in (
        ("+trainer.detect_anomaly=true",),
        ("+trainer.inference_mode=false",),
        ("+trainer.reload_dataloaders_every_n_epochs=1",),
        ("+trainer.limit_train_batches=1.0", "+trainer.limit_test_batches=1.0"),
        ("+trainer.limit_val_batches=0",),
        ("+trainer.max_steps=1000", "+trainer.min_steps=3"),
        ("+trainer.max_time=00:01:00:00",),
        ("+trainer.profiler=simple",),
        ("+trainer.gradient_clip_val=1e9",),
    ):
        other = final(tmp_path, *words)
        assert torch.equal(other.theta(), plain.theta()) and other.result["metrics"] == plain.result["metrics"], words
        assert other.key != plain.key
    assert "run_training_epoch" in (final(tmp_path, "+trainer.profiler=simple").path / "fit-profile.txt").read_text()


def test_accumulated_batches_are_one_larger_batch(tmp_path):
    """Of equal batches, and plain gradient descent: the steps and their losses are those of a batch of 50."""
    sgd = ("optimizer=sgd", "optimizer.lr=0.1", "trainer.max_epochs=1", "init=shared")
    two = final(tmp_path, *sgd, "dataset.batch_size=25", "+trainer.accumulate_grad_batches=2")
    one = final(tmp_path, *sgd, "dataset.batch_size=50")
    assert torch.allclose(two.theta(), one.theta(), atol=1e-6) and two.result["steps"] == one.result["steps"] == 2
    losses = [run.history()["train_step/loss"].tolist() for run in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_overfitting_sees_the_same_batches(tmp_path):
    run = final(tmp_path, "trainer=overfit", "trainer.max_epochs=60", "optimizer.lr=0.05")
    losses = run.history()["train_step/loss"].dropna()
    assert len(losses) == run.result["steps"] == 60 and losses.iloc[-1] < 0.02 < 1 < losses.iloc[0]


@pytest.mark.parametrize(
    "words", [("trainer=debug",), ("trainer=profile",), (STOP,), ("callbacks=[default,lr_monitor]",)]
)
def test_presets_train(words, tmp_path):
    run = final(tmp_path, *words)
    assert run.result["epochs"] == 2 and run.result["steps"] == (6 if words == ("trainer=debug",) else 14)
    if "lr_monitor" in words[0]:
        assert run.history()["lr-Adam"].dropna().tolist() == [1e-3] * 2


def test_early_stopping_stops(tmp_path):
    words = (STOP, "+callbacks.early_stopping.min_delta=1e9", "trainer.max_epochs=9")
    assert final(tmp_path, *words).result["epochs"] == 4  # the first, and three without such an improvement
    assert final(tmp_path, *words, "+trainer.min_epochs=6").result["epochs"] == 6


class Telling(Callback):
    """Keeps what was told last."""

    def on_train_end(self, trainer, pl_module):
        Telling.told = read_progress(self.folder(trainer))

    def on_train_batch_end(self, trainer, *args):
        Telling.told = json.loads((self.folder(trainer) / "progress.json").read_text())

    def folder(self, trainer):
        return Path(trainer.default_root_dir)


@pytest.mark.parametrize(
    ("words", "steps", "epochs"),
    [
        (("trainer.max_epochs=-1", "+trainer.max_steps=10"), 10, 2),
        (("+trainer.max_steps=10",), 10, 2),
        (("+trainer.accumulate_grad_batches=3",), 6, 2),
        (("+trainer.limit_train_batches=2",), 4, 2),
    ],
)
def test_the_steps_that_are_told_are_those_that_come(words, steps, epochs, tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "_EVERY", 0.0)
    monkeypatch.setattr(Telling, "on_train_end", Callback.on_train_end)
    run = final(tmp_path, *words, f"+callbacks.telling={{_target_: {__name__}.Telling}}")
    assert (Telling.told["steps"], Telling.told["epochs"], Telling.told["first"]) == (steps, epochs, 0)
    assert (run.result["steps"], run.result["epochs"]) == (steps, epochs)
