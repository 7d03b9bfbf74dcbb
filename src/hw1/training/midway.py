"""Stopping in the middle of an epoch, and going on from there bit by bit.

At the end of an epoch randomness needs no state, and callbacks have written what they gathered. In the middle, a
checkpoint holds besides what Lightning keeps: how many batches of the epoch it has behind it, the state of every
generator, and what the last evaluation of whole sets came to. Of several processes it is the first one's: the others
are seeded at every step (`distributed_share.StepSeed`), and hold the same else. What a class of the user's own gathers
within an epoch nobody knows: where there is one that does not say that it keeps it, the last checkpoint of an epoch's
end stands.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from hw1 import preemption
from hw1.models import Members
from hw1.training.checkpoint import EpochCheckpoint
from hw1.training.ending import EvaluatedWeights
from hw1.training.task import Task

log = logging.getLogger(__name__)

SAYS = "resumes_within_epochs"  # true in a class whose state within an epoch its checkpoint holds, or that has none
_WITHIN = (
    *("on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad"),
    *("on_before_backward", "on_after_backward", "on_before_optimizer_step"),
)
_ONLY_LOG = ("LearningRateMonitor", "DeviceStatsMonitor")  # of Lightning's


class StopsMidway:
    """Lets a training stop at the step at which it is asked to, and restores one that was stopped so.

    Args:
        trainer: before its `fit`.
        task: that it fits.
        clock: its checkpoints.
        evaluated: of its callbacks.
        before: what the checkpoint that it goes on from holds of the middle of an epoch; None where it is of an end.
    """

    def __init__(
        self,
        trainer: lightning.Trainer,
        task: Task,
        clock: EpochCheckpoint,
        evaluated: EvaluatedWeights,
        before: Mapping[str, Any] | None,
    ) -> None:
        self._trainer, self._task, self._clock, self._evaluated = trainer, task, clock, evaluated
        self._before = before
        self._callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's own are in it
        # Lightning's handlers would make of SIGTERM an exit without a checkpoint, and requeue Slurm's jobs a second
        # time; and no hook comes when a step is all over, with the evaluation that it may be followed by.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        loop = trainer.fit_loop.epoch_loop
        self._begins, self._ends = loop.on_run_start, loop.on_advance_end
        loop.on_run_start = self._epoch_begins  # type: ignore[assignment,method-assign]
        loop.on_advance_end = self._step_ends  # type: ignore[assignment,method-assign]

    def _epoch_begins(self, fetcher: Any) -> None:
        self._begins(fetcher)
        if self._before is not None:
            # The step behind which it was stopped is all over: nothing of it is repeated.
            self._trainer.fit_loop.restarting = False
            self._restore(self._before)
            self._before = None

    def _step_ends(self, fetcher: Any) -> None:
        self._ends(fetcher)
        trainer, asked = self._trainer, preemption.requested()
        loop = trainer.fit_loop.epoch_loop
        # Behind its last batch, the epoch ends first; a step whose gradients are half gathered goes on.
        if not asked or loop.done or loop._num_ready_batches_reached() or loop._should_accumulate():
            return
        name = Path(trainer.default_root_dir).name
        if lacking := forgetful(self._callbacks, self._task):
            log.info(
                "%s: asked to stop at step %d; it goes on from the last checkpoint of an epoch's end: %s may gather "
                "something within an epoch (%s = True says that a checkpoint holds it)",
                *(name, trainer.global_step, lacking, SAYS),
            )
        else:
            for callback in self._callbacks:
                if (catch_up := getattr(callback, "catch_up", None)) is not None:
                    catch_up(trainer, self._task.module)
            self._clock.write_midway(trainer, self._state())
            log.info("%s: asked to stop; it goes on from step %d", name, trainer.global_step)
        preemption.require()

    def _state(self) -> dict[str, Any]:
        net = self._task.net
        return {
            "epoch": self._trainer.current_epoch,
            "batches": self._trainer.fit_loop.epoch_loop.batch_progress.current.completed,
            "random": _random_states(self._task.device),
            "members": net.random_states() if isinstance(net, Members) else [],
            "evaluated": {
                "at": self._task.evaluated_at,
                "metrics": self._task.member_metrics,
                "digest": self._evaluated.digest,
                "logged": {name: float(value) for name, value in self._trainer.callback_metrics.items()},
            },
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        evaluated = state["evaluated"]
        self._task.evaluated_at, self._task.member_metrics = evaluated["at"], dict(evaluated["metrics"])
        self._evaluated.digest = evaluated["digest"]
        logged = {name: torch.tensor(value) for name, value in evaluated["logged"].items()}
        self._trainer._logger_connector._callback_metrics.update(logged)
        if isinstance(self._task.net, Members):
            self._task.net.set_random_states(state["members"])
        _set_random_states(state["random"], self._task.device)


def forgetful(callbacks: Sequence[Callback], task: Task) -> str:
    """The name of the first of a user's own classes that may gather within an epoch what no checkpoint holds, or ""."""
    if task.module is not task and not getattr(task.module, SAYS, False):
        return type(task.module).__name__
    return next((type(callback).__name__ for callback in callbacks if _forgets(callback)), "")


def _forgets(callback: Callback) -> bool:
    kind = type(callback)
    if kind.__module__.startswith("hw1."):
        return False
    if kind.__module__.startswith("lightning.") and kind.__name__ in _ONLY_LOG:
        return False

    def own(name: str) -> bool:
        return getattr(kind, name) is not getattr(Callback, name)

    # What begins with an epoch is not begun again where it goes on in the middle.
    keeps = own("state_dict") and not own("on_train_epoch_start")
    return any(own(name) for name in _WITHIN) and not getattr(callback, SAYS, keeps)


def _random_states(device: torch.device) -> dict[str, Any]:
    """Of torch's generators, NumPy's and Python's: tensors and numbers, as `torch.load` takes them from anyone."""
    own: Any = np.random.get_state(legacy=True)
    kind, keys, *rest = own
    version, numbers, following = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(numbers), following],
    }
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["device"] = torch.mps.get_rng_state()
    return states


def _set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"].clone())
    kind, keys, position, has, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has, cached))
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers), following))
    if "device" in states:
        state: Tensor = states["device"].clone()
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        elif device.type == "mps":
            torch.mps.set_rng_state(state)
