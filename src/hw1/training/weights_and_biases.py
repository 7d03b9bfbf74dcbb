"""Weights & Biases, one run there for each of ours, also where several train in one process."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import WandbLogger

try:
    import wandb
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("wandb: got no such package, expected it: pip install wandb") from error


def wandb_logger(save_dir: str, run_name: str, project: str, group: str, offline: bool) -> Wandb:
    """Lightning's logger under the names that a run has here.

    Args:
        save_dir: the run's folder, where it writes `wandb/`.
        run_name: `<slug>-<key>`; the key is its id there, so that a run that is resumed goes on.
        project: where it stands on the server.
        group: of runs within the project.
        offline: whether nothing is sent; `wandb sync <run>/wandb/offline-run-*` sends it later.
    """
    # Its capture of what is printed would take the lines of the sweep's own progress for the run's.
    quiet = wandb.Settings(console="off", silent=True)
    key = run_name.rpartition("-")[2]
    return Wandb(
        name=run_name, id=key, save_dir=save_dir, project=project, group=group, offline=offline, settings=quiet
    )


class Wandb(WandbLogger):
    """Lightning's logger; it takes the process's open run for its own, so each has to be finished."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._wandb_init.pop("anonymous")  # Lightning hands it on always, and wandb warns of it
        self._complete = False

    def finalize(self, status: str) -> None:
        """Lightning calls it after the training and again after the test."""
        super().finalize(status)
        self._complete = status == "success"

    def close(self) -> None:
        """Finish the run there."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if self._complete else 1)
