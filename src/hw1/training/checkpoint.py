"""Checkpoints, from which training goes on bit by bit as if it had not stopped; the last one is the end."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from hw1 import preemption
from hw1.files import lasting
from hw1.models import Members
from hw1.records import DamagedError
from hw1.sealed import is_whole, seal
from hw1.settings import ConfigError
from hw1.settings.identity import run_key
from hw1.tensor_files import refuse_claims
from hw1.training.snapshots import digest, holds, save_snapshot, snapshot_file
from hw1.training.task import Task

log = logging.getLogger(__name__)

LAST = "last.ckpt"
RECORDED = "hw1"  # the entry of a checkpoint that says what the run's other files were
TEXT = "settings"  # in that entry: the text of settings.json
MIDWAY = "midway"  # in that entry: of a checkpoint in the middle of an epoch, what it holds besides, see `midway`
ENDED = "ended"  # in that entry: the key of the run whose training has ended with this checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a sealed checkpoint beside its target and renames it; Lightning's goes through the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save `checkpoint` at `path`, whole or not at all, with its own hash."""
        with lasting(Path(path)) as temporary:
            torch.save(checkpoint, temporary)
            seal(temporary)


class EpochCheckpoint(Checkpoint):  # Lightning calls Checkpoint callbacks last: it holds the state of the others
    """Writes `<run>/checkpoints/last.ckpt` at the end of an epoch, and when training and all callbacks have ended.

    A job that is asked to stop does so behind it; `midway` has it written in the middle of an epoch for that, too.

    The last one holds the weights that the run came to, which may be averaged, or of the middle of an epoch: then
    training cannot go on from it as if it had not ended, and that of the last epoch's end stands beside it as
    `epoch.ckpt`. A snapshot of the end that a callback took before others changed the weights is written again.

    Randomness needs no state: before the first step of every epoch all generators are seeded from the run's seed and
    the epoch, so an epoch sees the same dropout whether or not training was interrupted before it, and a
    member sees the same as the single run with its seed.

    Args:
        seconds: at least so long between two checkpoints.
        epoch_seed: (epoch, member) -> 32-bit seed.
        before: called before a checkpoint is written, so that no log falls behind it.
        beside: what the checkpoint holds, under `RECORDED`, of the run's other files.
        key: of the run, by which its last checkpoint says that training has ended.
        ended: whether the checkpoint from which it goes on says so: then nothing is trained.
        beyond: whether the run's weights are others than those with which training would go on.
    """

    def __init__(
        self,
        seconds: float,
        epoch_seed: Callable[[int, int], int],
        before: Callable[[], None],
        beside: Callable[[], dict[str, Any]] = dict,
        key: str = "",
        ended: bool = False,
        beyond: bool = False,
    ) -> None:
        self._seconds = seconds
        self._epoch_seed = epoch_seed
        self._before = before
        self._beside = beside
        self._key, self._ended, self._beyond = key, ended, beyond
        self._loaded: dict[str, Any] | None = None  # the weights of a training that had ended before
        self._midway: dict[str, Any] | None = None
        self._weights: str | None = None  # digest of those that the last checkpoint holds
        self._earlier = 0.0  # seconds trained before this process took over
        self._started = self._written = time.monotonic()

    @property
    def seconds_trained(self) -> float:
        """Training time so far, over all interruptions, up to the last checkpoint of each."""
        return self._earlier + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """What outlives a process: the training time."""
        return {"seconds": self.seconds_trained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._earlier = state_dict["seconds"]

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """What else stands in the run's folder by now, and whether this is the end of the run."""
        checkpoint[RECORDED] = self._beside() | ({ENDED: self._key} if self._ended else {})
        if self._midway is not None:
            checkpoint[RECORDED][MIDWAY] = self._midway

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Load the end of a training that has ended, and train no further, whatever stopped it."""
        # Lightning would take a training with max_steps for one that stopped in the middle of an epoch, and end the
        # finished one once more; hw1's checkpoints from which training goes on are of an epoch's end.
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        if self._ended:
            self._loaded = {name: value.cpu().clone() for name, value in pl_module.state_dict().items()}
            trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = 0, None
            trainer.should_stop = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clocks."""
        self._started = self._written = time.monotonic()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed every generator before the first step of an epoch.

        Not in on_train_epoch_start: Lightning leaves that out in the epoch that it resumes at, and building a
        DataLoader's iterator after it draws from torch's generator.
        """
        if batch_idx == 0:
            epoch = trainer.current_epoch
            net = Task.of(pl_module).net
            if isinstance(net, Members):
                net.seed(lambda member: self._epoch_seed(epoch, member))
            lightning.seed_everything(self._epoch_seed(epoch, 0), verbose=False)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write a checkpoint if it is time, or the job is to stop; the end is written when it has come.

        Raises:
            Preempted: the job was asked to stop, and can go on from here.
        """
        if not _epoch_is_whole(trainer):
            return
        stopped = trainer.should_stop and trainer.fit_loop._can_stop_early
        whole = trainer.current_epoch + 1 == trainer.fit_loop.max_epochs or stopped
        steps, most = trainer.global_step, trainer.max_steps
        ends = whole or steps == most
        breaks_off = not ends and 0 < most < steps + steps_an_epoch(trainer)
        if breaks_off or (ends and self._beyond):
            self._write(trainer, "epoch.ckpt")
        if not ends and (preemption.requested() or time.monotonic() - self._written >= self._seconds):
            self._write(trainer, LAST)
            preemption.require()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the end."""
        self.settle(trainer, pl_module)

    def settle(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the end, unless what stands there is of these weights: something may have changed them since.

        Where training had ended before, its end stands, whatever the hooks of this process made of it.
        """
        if self._loaded is not None:
            pl_module.load_state_dict(self._loaded)
            return
        weights = digest(pl_module.state_dict())
        if self._weights != weights:
            self._weights, self._ended = weights, True
            folder, net = Path(trainer.default_root_dir), Task.of(pl_module).net
            snapshot = snapshot_file(folder, trainer.current_epoch)
            if trainer.is_global_zero and snapshot.exists() and not holds(snapshot, net):
                save_snapshot(net, folder, trainer.current_epoch)
            self._write(trainer, LAST)

    def write_midway(self, trainer: lightning.Trainer, state: dict[str, Any]) -> None:
        """Write a checkpoint in the middle of an epoch, at which training stops.

        Args:
            trainer: behind a step.
            state: what it needs besides to go on from there.
        """
        self._midway = state
        self._write(trainer, LAST)

    def _write(self, trainer: lightning.Trainer, name: str) -> None:
        self._before()
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / name)
        self._written = time.monotonic()


def _epoch_is_whole(trainer: lightning.Trainer) -> bool:
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def steps_an_epoch(trainer: lightning.Trainer) -> int:
    """Optimizer steps of a whole epoch; Lightning steps at its last batch, however many were accumulated."""
    return -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)


def seal_earlier(checkpoint: Path) -> None:
    """Seal a checkpoint of an earlier version, in one step."""
    with lasting(checkpoint) as temporary:
        shutil.copyfile(checkpoint, temporary)
        with contextlib.suppress(ValueError, OSError):  # no checkpoint at all: said when it is read
            seal(temporary)


def recorded_in(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint recorded of its run's other files; {} where it is not what was written."""
    try:
        refuse_claims(checkpoint)
        if not is_whole(checkpoint):
            return {}
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return dict(state.get(RECORDED, {}))
    except Exception:  # whatever a file from elsewhere makes of reading it
        return {}


def require_own(checkpoint: Path, key: str) -> None:
    """Refuse the checkpoint of the last epoch's end, beside that of a training's end, where it is none of this run's.

    Args:
        checkpoint: need not be there.
        key: of the run; settings without effect may be others than when it was written.

    Raises:
        DamagedError: it is damaged, or of another run.
    """
    if not checkpoint.exists():
        return
    remedy = "delete the run's folder and run its command again"
    if not is_whole(checkpoint):  # one that was cut has lost its seal
        raise DamagedError(f"{checkpoint} is damaged: its content is not what was written; {remedy}")
    text = recorded_in(checkpoint).get(TEXT)
    if text is not None and run_key(json.loads(text)["settings"]) != key:
        raise DamagedError(f"{checkpoint}: got that of another run, expected this one's; {remedy}")


def steps_behind(checkpoint: Path) -> int:
    """The number of steps that a checkpoint of this process's has behind it; 0 without one."""
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def resume_from(checkpoint: Path) -> tuple[int, dict[str, Any]]:
    """The number of steps that a checkpoint has behind it, and what it recorded of other files; 0 without one.

    Raises:
        ConfigError: it is damaged.
    """
    if not checkpoint.exists():
        return 0, {}
    try:
        refuse_claims(checkpoint)
        if not is_whole(checkpoint):
            raise ValueError("it is not what was written")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged file makes of unpickling
        raise ConfigError(
            f"{checkpoint} cannot be read ({' '.join(str(error).split())[:120]}); delete it to train from the start"
        ) from error
    recorded = dict(state.get(RECORDED, {}))
    log.info(
        "%s: resuming from checkpoints/last.ckpt (epoch %d, step %d)",
        checkpoint.parent.parent.name,
        state["epoch"] + (0 if {ENDED, MIDWAY} & set(recorded) else 1),
        state["global_step"],
    )
    return int(state["global_step"]), recorded
