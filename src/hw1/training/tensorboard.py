"""TensorBoard in a run's own folder, so that its name there is the run's readable name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from hw1.lease import over
from hw1.training.charts import Charts


def tensorboard_logger(
    save_dir: str, first_step: int, charts: Charts, histograms_every_n_epochs: int | None
) -> TensorBoard:
    """TensorBoard events in `save_dir`, one chart group a question.

    Args:
        save_dir: the run's folder.
        first_step: what a killed process logged at or after this step is hidden.
        charts: what the tab "Custom Scalars" shows together.
        histograms_every_n_epochs: distance between two histograms of the weights; null for none. As nothing that is
            trained depends on it, a run that has ended is not trained again for its sake.

    Raises:
        ValueError: `histograms_every_n_epochs` is not positive.
    """
    every = histograms_every_n_epochs
    if every is not None and every < 1:
        raise ValueError(f"histograms_every_n_epochs: got {every}, expected a positive integer or null")
    if first_step == 0:  # a failed attempt that left no checkpoint is no part of this curve
        for old in Path(save_dir).glob("events.out.tfevents.*"):
            old.unlink()
    logger = TensorBoard(save_dir, first_step, every)
    logger.experiment.add_custom_scalars(
        {q: {title: ["Multiline", curves] for title, curves in group.items()} for q, group in charts.items()}
    )
    _ends_with_the_lease(logger, save_dir)
    return logger


def _ends_with_the_lease(logger: TensorBoard, folder: str) -> None:
    """Drop what is still to be written once another process has taken the run over.

    A thread of TensorBoard's writes, some time after it was logged: where training checks, it is too late.
    """
    leases, file = over(folder), logger.experiment._get_file_writer().event_writer._general_file_writer
    written = file.write

    def write(content: bytes) -> None:
        if not any(lease.is_lost() for lease in leases):
            written(content)

    file.write = write


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, with a row of hyperparameters from the beginning on, in one event file a process.

    Lightning writes beside each row which columns there are; TensorBoard takes those of the first run that it meets,
    shows no others, and knows of none that it differs between runs. Without it, TensorBoard looks at all runs: the
    columns that differ come first.

    Args:
        save_dir: where its events go.
        first_step: what was logged at or after this step is hidden.
        histograms_every_n_epochs: distance between two histograms of the weights; None for none.
    """

    def __init__(self, save_dir: str, first_step: int, histograms_every_n_epochs: int | None) -> None:
        purge: dict[str, Any] = {"purge_step": first_step} if first_step else {}
        super().__init__(save_dir, name="", version="", default_hp_metric=False, **purge)
        self.histograms_every_n_epochs = histograms_every_n_epochs
        self._first_step = first_step
        self._complete, self._end = False, None

    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """One row of the tab "HParams", whose metrics are the run's last scalars."""
        words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items()}
        _, begin, self._end = hparams(words, {})
        self._write(begin)

    def save(self) -> None:
        """Let readers see what was logged."""
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Lightning calls it after the training and again after the test: the file is closed by `close`."""
        self._complete = status == "success"
        self.save()

    def close(self) -> None:
        """Tell that the run of this row has ended well, if it has, and end the file."""
        if self._complete:
            self._write(self._end)
        self.experiment.close()

    def _write(self, summary: Any) -> None:
        if summary is not None:
            self.experiment._get_file_writer().add_summary(summary, self._first_step)
