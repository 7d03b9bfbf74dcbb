"""Callbacks act on one run while it trains."""

from hw1.callbacks.best_weights import BestWeights
from hw1.callbacks.gradient_norm import GradientNorm
from hw1.callbacks.stop_at_train_loss import StopAtTrainLoss
from hw1.callbacks.track import Track
from hw1.callbacks.weight_snapshots import WeightSnapshots

__all__ = ["BestWeights", "GradientNorm", "StopAtTrainLoss", "Track", "WeightSnapshots"]
