"""MLflow, in one store for all runs below an output folder, into which several processes write."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from hw1.inside import is_link
from hw1.lease import hold
from hw1.settings import ConfigError

try:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("mlflow: got no such package, expected it: pip install mlflow") from error

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # not every table that a new store gets

_BATCH = 1000  # metrics, the most that MLflow takes at once
_FILE = "sqlite:///"


def mlflow_logger(run_name: str, first_step: int, experiment_name: str, tracking_uri: str) -> Mlflow:
    """Lightning's logger under the name that a run has here; a run that is resumed goes on.

    Args:
        run_name: `<slug>-<key>`.
        first_step: the step at which training goes on; 0 begins a new run there.
        experiment_name: what MLflow lists runs under.
        tracking_uri: of the store: sqlite:///<file>, or the address of a server.
    """
    key = run_name.rpartition("-")[2]
    with _alone(tracking_uri):
        client = MlflowClient(tracking_uri)
        found = client.get_experiment_by_name(experiment_name)
        experiment = found.experiment_id if found else client.create_experiment(experiment_name)
        begun = client.search_runs([experiment], f"tags.key = '{key}'") if first_step else []
        run = begun[0].info.run_id if begun else None
        logger = Mlflow(experiment_name, run_name, tracking_uri, {"key": key}, run_id=run)
        _ = logger.experiment  # begins the run there
    return logger


class Mlflow(MLFlowLogger):
    """Lightning's logger, which would write one transaction a step; here they are written together."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._pending: list[Metric] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep values for the next batch."""
        now = int(time() * 1000)
        self._pending += [Metric(name, float(value), now, step or 0) for name, value in metrics.items()]
        if len(self._pending) >= _BATCH:
            self.save()

    def save(self) -> None:
        """Write what is pending; Lightning calls it after every evaluation."""
        while self._pending:
            batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
            self.experiment.log_batch(self.run_id, metrics=batch)

    def finalize(self, status: str = "success") -> None:
        """Write the rest, and tell how the run ended."""
        self.save()
        super().finalize(status)


@contextmanager
def _alone(tracking_uri: str) -> Iterator[None]:
    """While a store that is a file is made, no other process makes it."""
    if not tracking_uri.startswith(_FILE):
        yield
        return
    file = Path(tracking_uri.removeprefix(_FILE)).absolute()
    if is_link(file):
        raise ConfigError(f"logger.mlflow.tracking_uri: got {file}, a link; expected a file: name what it leads to")
    file.parent.mkdir(parents=True, exist_ok=True)
    with hold(file.parent):
        yield
