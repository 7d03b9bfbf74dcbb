"""Callbacks measure one run while it trains, or right after."""

from hw1.callbacks.epoch_checkpoint import EpochCheckpoint
from hw1.callbacks.gradient_norm import GradientNorm
from hw1.callbacks.minimal_ratio import MinimalRatio
from hw1.callbacks.progress import TrainingProgress
from hw1.callbacks.sensitivity import Sensitivity
from hw1.callbacks.sharpness import Sharpness
from hw1.callbacks.step_loss import NonFiniteLossError, StepLoss
from hw1.callbacks.stop_at_train_loss import StopAtTrainLoss
from hw1.callbacks.weight_snapshots import WeightSnapshots

__all__ = [
    "EpochCheckpoint",
    "GradientNorm",
    "MinimalRatio",
    "NonFiniteLossError",
    "Sensitivity",
    "Sharpness",
    "StepLoss",
    "StopAtTrainLoss",
    "TrainingProgress",
    "WeightSnapshots",
]
