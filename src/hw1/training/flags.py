"""What the trainer's arguments mean here: each works, or is refused before anything trains with what to do instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.accelerators import AcceleratorRegistry

from hw1.data import DataModule
from hw1.settings import ConfigError, RunSettings
from hw1.settings.run_settings import LOSS
from hw1.training.which_weights import check_weights

_PROFILERS = {name.lower(): f"lightning.pytorch.profilers.{name}Profiler" for name in ("Simple", "Advanced", "PyTorch")}


@dataclass(frozen=True)
class Situation:
    """What a flag is judged by, besides its value.

    Attributes:
        settings: of the run.
        batches: of a whole epoch, before any limit.
    """

    settings: RunSettings
    batches: int

    def flag(self, name: str, default: Any = None) -> Any:
        """Another flag's value."""
        return self.settings.trainer.get(name, default)

    @property
    def epoch_batches(self) -> int:
        """Of an epoch as it is trained."""
        limit = self.flag("overfit_batches") or self.flag("limit_train_batches")
        if limit is None:
            return self.batches
        return min(self.batches, limit) if isinstance(limit, int) else int(self.batches * limit)

    @property
    def epochs(self) -> int:
        """That it trains at most."""
        return self.settings.epochs_of(math.ceil(self.epoch_batches / (self.flag("accumulate_grad_batches") or 1)))


@dataclass(frozen=True)
class Flag:
    """An argument of lightning.Trainer that not every value works for.

    Attributes:
        good: whether a value does; also called with what Lightning itself would refuse.
        expected: the values that do, and what to do instead; {whole} stands for the batches of an epoch, {batches} for
            those that are trained, {here} for the accelerators of this machine.
    """

    good: Callable[[Any, Situation], bool]
    expected: str


def _count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _fraction(value: Any) -> bool:
    return isinstance(value, float) and 0 < value <= 1


def _off(value: Any, _: Situation) -> bool:
    return not value


def _unset(value: Any, _: Situation) -> bool:
    return value is None


def _check_interval(value: Any, at: Situation) -> bool:
    most = at.epoch_batches if at.flag("check_val_every_n_epoch", 1) is not None else math.inf
    return value is None or _fraction(value) or (_count(value) and value <= most)


_SHORT = ("16", 16, "bf16", "32", 32, "64", 64)


def _precision(value: Any, at: Situation) -> bool:
    if value in _SHORT:  # which Lightning takes, with a warning, for what they do not say
        return False
    return bool(value != "16-mixed" or at.flag("accelerator") != "cpu")


def _clip(value: Any, at: Situation) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def _here() -> list[str]:
    """The accelerators that this machine has, by Lightning's names; gpu is any GPU."""
    known = [name for name, entry in AcceleratorRegistry.items() if entry["accelerator"].is_available()]
    return ["auto", *known, *(["gpu"] if {"cuda", "mps"} & set(known) else [])]


_OWN = "nothing, which hw1 sets itself"
FLAGS = {
    "accelerator": Flag(
        lambda value, at: not isinstance(value, str) or value in _here(),
        "{here}, which this machine has: trainer=cpu trains on any",
    ),
    "accumulate_grad_batches": Flag(
        lambda value, at: _count(value) and (value == 1 or at.settings.objective.minimise == LOSS),
        "a positive integer, and 1 where objective.minimise is not the loss: the mean of batches' squared gradient "
        "norms is not that of the batches together; dataset.batch_size makes larger ones",
    ),
    "barebones": Flag(_off, "false: hw1 records what it trains; callbacks=none logger=none leave out what can be"),
    "callbacks": Flag(_unset, f"{_OWN}: +callbacks.mine._target_=module.Class adds one"),
    "check_val_every_n_epoch": Flag(
        lambda value, at: _count(value) or (value is None and _count(at.flag("val_check_interval"))),
        "a positive integer, or null where +trainer.val_check_interval counts batches",
    ),
    "default_root_dir": Flag(_unset, f"{_OWN}: output= says where runs stand"),
    "enable_checkpointing": Flag(_unset, f"{_OWN}: trainer.checkpoint_seconds says how often"),
    "enable_model_summary": Flag(_unset, f"{_OWN}: result.json counts the parameters"),
    "enable_progress_bar": Flag(_unset, f"{_OWN}: trainer.progress=false takes the bar away"),
    "fast_dev_run": Flag(_off, "false: trainer=debug takes a few steps of everything, --dry-run trains nothing"),
    "gradient_clip_algorithm": Flag(
        lambda value, at: value is None or (value in ("norm", "value") and bool(at.flag("gradient_clip_val"))),
        "norm or value, with +trainer.gradient_clip_val beside it",
    ),
    "gradient_clip_val": Flag(_clip, "a number of at least 0, or null for none"),
    "limit_predict_batches": Flag(_unset, "nothing: no run predicts while it trains; measures=predictions does"),
    "limit_test_batches": Flag(
        lambda value, at: value is None or (isinstance(value, float) and value == 1),
        "1.0: the metrics of a run are those of whole sets; dataset.train_size makes the training set smaller",
    ),
    "limit_train_batches": Flag(
        lambda value, at: (
            value is None
            or (not at.flag("overfit_batches") and _count(value))
            or (_fraction(value) and int(at.batches * value) > 0)
        ),
        "a positive integer, a fraction that leaves a batch of {whole}, or null for all; without overfit_batches",
    ),
    "limit_val_batches": Flag(
        lambda value, at: value is None or value == 0 or (isinstance(value, float) and value == 1),
        "1.0, or 0 for no evaluation before the end: the metrics along a training are those of whole sets; "
        "trainer.check_val_every_n_epoch evaluates less often",
    ),
    "log_every_n_steps": Flag(_unset, f"{_OWN}: metrics.csv has every step"),
    "logger": Flag(_unset, f"{_OWN}: logger=tensorboard, or another of the group"),
    "max_time": Flag(
        lambda value, at: value is None or isinstance(value, str | Mapping),
        "days:hours:minutes:seconds as '00:01:30:00', or {{minutes: 90}}",
    ),
    "min_epochs": Flag(
        lambda value, at: value is None or (_count(value, 0) and value <= at.epochs),
        "at most as many as are trained",
    ),
    "min_steps": Flag(
        lambda value, at: value is None or (_count(value, 0) and value <= (at.settings.max_steps or math.inf)),
        "at most as many as are trained",
    ),
    "model_registry": Flag(_unset, "nothing: a run's folder is where its weights are"),
    "num_sanity_val_steps": Flag(_unset, f"{_OWN}: what cannot work is refused before anything trains"),
    "overfit_batches": Flag(
        lambda value, at: _count(value, 0) and value <= at.batches,
        "a number of batches, 0 to {whole}; training takes those first ones of every epoch, in one order",
    ),
    "plugins": Flag(_unset, "nothing: hw1 trains in one process and writes checkpoints itself"),
    "precision": Flag(
        _precision,
        "32-true, 64-true, bf16-true, 16-true, bf16-mixed, or with trainer=gpu 16-mixed, which a CPU cannot do",
    ),
    "profiler": Flag(
        lambda value, at: value is None or isinstance(value, Mapping) or value in _PROFILERS,
        f"one of {', '.join(_PROFILERS)}; what it finds stands in the run's folder",
    ),
    "reload_dataloaders_every_n_epochs": Flag(lambda value, at: _count(value, 0), "a number of epochs, or 0 for never"),
    "use_distributed_sampler": Flag(
        lambda value, at: value is True, "true: hw1 divides each batch among processes itself (trainer=ddp)"
    ),
    "val_check_interval": Flag(
        _check_interval,
        "a fraction of an epoch, or a number of batches, at most the {batches} of an epoch unless "
        "trainer.check_val_every_n_epoch=null; times would make a run depend on how busy the machine is",
    ),
}


def check_flags(settings: RunSettings, data: DataModule) -> None:
    """Refuse what would not do what it says.

    Args:
        settings: of the run.
        data: of the run, set up.

    Raises:
        ConfigError: one line that names the key, what was got, what is expected and what to do instead.
    """
    examples = data.sizes["train"]
    at = Situation(settings, math.ceil(examples / min(data.batch_size or examples, examples)))
    for name, value in settings.trainer.items():
        flag = FLAGS.get(name)
        if flag is not None and not flag.good(value, at):
            expected = flag.expected.format(batches=at.epoch_batches, whole=at.batches, here=" or ".join(_here()))
            raise ConfigError(f"trainer.{name}: got {value!r}, expected {expected}")
    if settings.objective.minimise != LOSS and settings.objective.after >= at.epochs:
        raise ConfigError(
            f"objective.after: got {settings.objective.after}, expected less than the {at.epochs} epochs of "
            f"trainer.max_steps={settings.max_steps}, or objective.minimise={LOSS}"
        )
    check_weights(settings, data, at.epochs)


def lightning_arguments(trainer: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings `trainer` as lightning.Trainer takes them.

    Lightning's overfit_batches would put a sampler of its own in the place of hw1's, and limit evaluation too: here it
    limits the training, whose batches come in one order (`DataModule.same_batches`). A profiler by name writes into the
    run's folder.
    """
    made = {name: value for name, value in trainer.items() if name != "overfit_batches"}
    if trainer.get("overfit_batches"):
        made["limit_train_batches"] = trainer["overfit_batches"]
    if isinstance(name := trainer.get("profiler"), str) and name in _PROFILERS:
        made["profiler"] = {"_target_": _PROFILERS[name], "dirpath": str(folder), "filename": "profile"}
    return made
