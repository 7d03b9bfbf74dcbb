"""TensorBoard in a run's own folder, so that its name there is the run's readable name."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from hw1.metrics import ACCURACY, LOSS, TEST_ACCURACY, TEST_LOSS, TRAIN_ACCURACY, TRAIN_LOSS


def tensorboard_logger(save_dir: str, first_step: int = 0) -> TensorBoardLogger:
    """TensorBoard events in `save_dir`, with train and test loss (and accuracy) in one custom chart each.

    Args:
        save_dir: the run's folder.
        first_step: what a killed process logged at or after this step is hidden.
    """
    if first_step == 0:  # a failed attempt that left no checkpoint is no part of this curve
        for old in Path(save_dir).glob("events.out.tfevents.*"):
            old.unlink()
    purge: dict[str, Any] = {"purge_step": first_step} if first_step else {}
    logger = TensorBoardLogger(save_dir, name="", version="", default_hp_metric=False, **purge)
    logger.experiment.add_custom_scalars(
        {
            "train and test": {
                LOSS: ["Multiline", [TRAIN_LOSS, TEST_LOSS]],
                ACCURACY: ["Multiline", [TRAIN_ACCURACY, TEST_ACCURACY]],
            }
        }
    )
    return logger
