"""Schedules: what the learning rate is at each step, against closed forms; stopped and resumed, the same bits."""

import math

import pytest
import torch

from composed import plain
from composed import settings as composed
from hw1.runs import Run
from hw1.settings import ConfigError, RunSettings
from hw1.training import build
from hw1.training.checkpoint import EpochCheckpoint
from hw1.training.fit import fit
from hw1.training.step_loss import StepLoss

SMALL = (
    *("dataset=digits", "dataset.train_size=120", "dataset.batch_size=32", "model=mlp", "model.hidden=[8]"),
    *("trainer.max_epochs=5", "trainer.checkpoint_seconds=0", "callbacks=none", "logger=none", "optimizer.lr=0.1"),
)
STEPS, EPOCHS, EACH = 20, 5, 4


def with_scheduler(node, *words):
    """The settings with a scheduler that is a node, as a command makes them."""
    return RunSettings.check({**plain(*SMALL, *words), "scheduler": node})


@pytest.fixture
def rates(monkeypatch):
    """The learning rate of every step of the fits of a test."""
    found = []

    def note(self, trainer, pl_module, batch, batch_idx):
        self._step = trainer.global_step
        found.append(trainer.optimizers[0].param_groups[0]["lr"])

    monkeypatch.setattr(StepLoss, "on_train_batch_start", note)
    return found


def trained(settings, root):
    folder = root / f"run-{settings.key}"
    result = fit(settings, folder)
    assert result["status"] == "complete", result["traceback"]
    return Run(folder)


def cosine(s, total):
    return 0.1 * (1 + math.cos(math.pi * s / total)) / 2


def warm(s):
    return 0.1 * (s + 1) / 4 if s < 4 else cosine(s - 4, 16)


EXPECTED = {
    "cosine": (["scheduler=cosine"], lambda s: cosine(s, STEPS)),
    "cosine an epoch": (["scheduler=cosine", "scheduler.interval=epoch"], lambda s: cosine(s // EACH, EPOCHS)),
    "step": (["scheduler=step", "scheduler.step_size=2"], lambda s: 0.1 * 0.1 ** (s // EACH // 2)),
    "multistep": (["scheduler=multistep", "scheduler.milestones=[1,3]"], lambda s: 0.1 * 0.1 ** ((s >= 4) + (s >= 12))),
    "constant": (["scheduler=constant"], lambda s: 0.1),
    "warm-up": (["scheduler=linear_warmup", "scheduler.warmup=0.2"], lambda s: 0.1 * min(1, (s + 1) / 4)),
    "warm-up, cosine": (["scheduler=cosine_warmup", "scheduler.warmup=4"], warm),
    "accumulated": (
        ["scheduler=cosine", "+trainer.accumulate_grad_batches=2"],
        lambda batch: cosine(batch // 2, STEPS // 2),
    ),
    "sequential": (
        ["scheduler=sequential", "scheduler.milestones=[0.2]"],
        lambda s: 0.1 * (0.01 + 0.99 * s / 4) if s < 4 else cosine(s - 4, 16),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_learning_rate_of_every_step(name, rates, tmp_path):
    words, expected = EXPECTED[name]
    trained(composed(*SMALL, *words), tmp_path)
    assert rates == pytest.approx([expected(step) for step in range(STEPS)], abs=1e-9)


def halved(epoch, base=1):
    return base * 0.5**epoch


def test_a_user_s_function_and_schedules_in_a_list(rates, tmp_path):
    function = {"_target_": "test_schedule.halved", "base": 2}
    trained(with_scheduler({"_target_": "torch.optim.lr_scheduler.LambdaLR", "lr_lambda": function}), tmp_path)
    assert rates == pytest.approx([0.2 * 0.5 ** (step // EACH) for step in range(STEPS)])
    rates.clear()
    parts = [{"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": g} for g in (0.9, 0.5)]
    node = {"_target_": "torch.optim.lr_scheduler.ChainedScheduler", "schedulers": parts, "interval": "step"}
    trained(with_scheduler(node), tmp_path)
    assert rates == pytest.approx([0.1 * 0.45**step for step in range(STEPS)])


def test_a_schedule_of_before_steps_every_epoch_and_has_its_key(rates, tmp_path):
    node = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3}
    settings = with_scheduler(node)
    trained(settings, tmp_path)
    assert rates == pytest.approx([0.1 * 0.1 ** (step // EACH // 3) for step in range(STEPS)])
    without = with_scheduler(None)
    assert settings.key != without.key and without.key == composed(*SMALL).key


def test_a_plateau_follows_the_evaluations(rates, tmp_path):
    words = ("scheduler=plateau", "scheduler.mode=max", "scheduler.patience=1", "scheduler.factor=0.5")
    run = trained(composed(*SMALL, *words), tmp_path)  # the loss falls, so that no epoch is better than the first
    assert run.history()["train/loss"].dropna().is_monotonic_decreasing
    assert rates == pytest.approx([0.1] * 12 + [0.05] * 8)


def test_averaging_takes_the_place_of_a_plateau(rates, tmp_path):
    words = ("callbacks=swa", "callbacks.swa.swa_lrs=0.5", "callbacks.swa.swa_epoch_start=2")
    words += ("+callbacks.swa.annealing_epochs=1", "scheduler=plateau", "scheduler.mode=max", "scheduler.patience=0")
    trained(composed(*SMALL, *words), tmp_path)
    assert rates == pytest.approx([0.1] * 8 + [0.5] * 12)


STOPPED = {
    "cosine": ["scheduler=cosine"],
    "onecycle": ["scheduler=onecycle"],
    "plateau": ["scheduler=plateau", "scheduler.mode=max", "scheduler.patience=0", "scheduler.factor=0.5"],
    "sequential": ["scheduler=sequential", "scheduler.milestones=[0.3]"],
    "warm-up, cosine": ["scheduler=cosine_warmup", "scheduler.warmup=0.5", "optimizer=muon"],
    "replicas, switch": [
        *("scheduler=cosine", "replicas=2", "objective.minimise=squared_gradient_norm", "objective.after=2"),
    ],
    "sam": ["optimizer=sam", "optimizer.no_decay=[bias]", "scheduler=onecycle"],
    "lbfgs": ["optimizer=lbfgs", "optimizer.max_iter=3", "dataset.batch_size=null", "scheduler=step"],
}


ALWAYS = ("cosine", "onecycle", "plateau", "sequential")


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in STOPPED]
)
@pytest.mark.filterwarnings("error:The epoch parameter in")  # torch's SequentialLR starts its parts in that way
def test_stopped_and_resumed_it_ends_at_the_same_bits(name, rates, monkeypatch, tmp_path):
    settings = composed(*SMALL, *STOPPED[name])
    whole = trained(settings, tmp_path / "whole")
    undisturbed = list(rates)
    written = EpochCheckpoint.on_train_epoch_end

    def stop(self, trainer, pl_module):
        written(self, trainer, pl_module)
        if trainer.current_epoch in (1, 3):
            raise RuntimeError("stopped")

    rates.clear()
    folder = tmp_path / f"run-{settings.key}"
    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoint, "on_train_epoch_end", stop)
        assert [fit(settings, folder)["error"] for _ in range(2)] == ["RuntimeError: stopped"] * 2
    assert fit(settings, folder)["status"] == "complete"
    assert rates == undisturbed
    assert torch.equal(Run(folder).theta(), whole.theta())
    assert Run(folder).result["metrics"] == whole.result["metrics"]
    assert Run(folder).history().equals(whole.history())


REFUSED = {
    "scheduler.interval": (["scheduler=cosine", "scheduler.interval=batch"], "got 'batch', expected epoch or step"),
    "scheduler.frequency": (["scheduler=cosine", "+scheduler.frequency=0"], "got 0, expected a positive integer"),
    "scheduler.monitor": (["scheduler=plateau", "scheduler.monitor=val/loss"], "got val/loss, expected one of train/"),
    "scheduler.monitor ": (["scheduler=cosine", "+scheduler.monitor=train/loss"], "expected none"),
    "scheduler.monitor  ": (["scheduler=plateau", "replicas=2"], "with replicas=2, whose members share one"),
    "scheduler.total_steps": (["scheduler=onecycle", "scheduler.total_steps=9"], "got 9, expected at least 20"),
    "scheduler.warmup": (["scheduler=cosine_warmup", "scheduler.warmup=20"], "got 20 of 20 steps"),
    "scheduler.step": (["scheduler=step", "+scheduler.step=1"], "no such setting of torch.optim.lr_scheduler.StepLR"),
    "scheduler.milestones": (["scheduler=sequential", "scheduler.milestones=[x]"], "expected a list of numbers"),
    "scheduler._target_": (
        ["scheduler=step", "scheduler._target_=torch.optim.Adam"],
        "got torch.optim.Adam, expected a torch",
    ),
}


def test_a_length_is_that_of_the_batches_that_are_overfitted(tmp_path):
    words = ("scheduler=onecycle", f"scheduler.total_steps={EPOCHS}", "+trainer.overfit_batches=1")
    build.validate(composed(*SMALL, *words), tmp_path)


@pytest.mark.parametrize("key", REFUSED)
def test_refused_before_anything_trains(key, tmp_path):
    words, said = REFUSED[key]
    with pytest.raises(ConfigError) as caught:
        build.validate(composed(*SMALL, *words), tmp_path)
    assert str(caught.value).startswith(key.strip()) and said in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
