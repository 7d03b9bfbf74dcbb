"""What every process but the first does of a run: train its share of each batch, and write nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger

from hw1.data.batches import Share
from hw1.seeds import mixed
from hw1.settings import RunSettings
from hw1.settings.run_settings import LAST as LAST_WEIGHTS
from hw1.training import build
from hw1.training.checkpoint import LAST, MIDWAY, AtomicCheckpointIO, EpochCheckpoint, recorded_in
from hw1.training.distributed_strategy import SharedBatches
from hw1.training.ending import EvaluatedWeights, measure_end
from hw1.training.midway import StopsMidway
from hw1.training.process import expected_warnings, threads, torch_switches
from hw1.training.snapshots import digest
from hw1.training.step_loss import StepLoss
from hw1.trust.reading import ready


class DivergedWeightsError(RuntimeError):
    """The processes that train one network hold different ones."""


class SameWeights(Callback):
    """Sees that all processes hold the same network, bit by bit, wherever whole sets are evaluated and at the end.

    Raises:
        DivergedWeightsError: a callback or a layer changes it by what one process alone has seen.
    """

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare."""
        self._compare(pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare what is kept."""
        self._compare(pl_module)

    def _compare(self, module: lightning.LightningModule) -> None:
        mine = {name: digest({name: value}) for name, value in module.state_dict().items()}
        all_of_them: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(all_of_them, mine)
        if others := [name for name in mine if len({one.get(name) for one in all_of_them}) > 1]:
            raise DivergedWeightsError(
                f"{others[0]} differs between the processes of trainer=ddp: a layer or a callback changes it by what "
                "one process alone has seen; train it in one process (trainer=cpu or gpu)"
            )


class StepSeed(Callback):
    """Seeds every generator before each step behind an epoch's first, which `EpochCheckpoint` sees to.

    So a training goes on in the middle of an epoch without what this process alone had drawn until then.

    Args:
        seed: (epoch, number of the batch) -> seed.
    """

    def __init__(self, seed: Callable[[int, int], int]) -> None:
        self._seed = seed

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed."""
        if batch_idx:
            lightning.seed_everything(self._seed(trainer.current_epoch, batch_idx), verbose=False)


def train_share(
    settings: RunSettings, folder: Path, strategy: SharedBatches, share: Share, resumes: bool, ended: bool
) -> None:
    """Train a share of a run, in step with its other processes.

    Args:
        settings: of the run.
        folder: of the run, from whose checkpoint it may go on.
        strategy: by which it trains with the others.
        share: (rank, number of processes).
        resumes: whether it goes on from the checkpoint.
        ended: whether that is the end of a training.
    """
    ready()
    seed, (rank, _) = settings.member_seeds[0], share
    with threads(settings.threads), expected_warnings(), torch_switches():
        data, task = build.learner(settings, share)
        clock = EpochCheckpoint(
            float("inf"),
            lambda epoch, member: mixed(seed, "epoch", epoch, rank),  # dropout of its own
            lambda: None,
            key=settings.key,
            ended=ended,
            beyond=settings.weights != LAST_WEIGHTS,
        )
        evaluated = EvaluatedWeights()
        within = StepSeed(lambda epoch, batch: mixed(seed, "step", epoch, batch, rank))
        checkpoint = folder / "checkpoints" / LAST if resumes else None
        midway = recorded_in(checkpoint).get(MIDWAY) if checkpoint is not None else None
        if midway is not None:
            data.behind = midway["epoch"], midway["batches"]
        callbacks = [within, StepLoss(), *build.callbacks(settings), evaluated, SameWeights(), clock]
        trainer = build.trainer(settings, folder, callbacks, [DummyLogger()], strategy)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        StopsMidway(trainer, task, clock, evaluated, midway)  # goes on; it is never asked to stop
        trainer.precision_plugin.convert_module(task)
        data.prepare_data()
        trainer.fit(task.module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        clock.settle(trainer, task)
        measure_end(trainer, task, data, callbacks, evaluated)
