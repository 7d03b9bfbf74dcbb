"""One network of a run: what a reader of results iterates over."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hw1.metrics import OTHER_LOSS, not_in_nats
from hw1.runs.shown import as_html, as_text
from hw1.words import NETWORK, model_in_words

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from hw1.runs.run import Run


@dataclass(frozen=True)
class Member:
    """One network of a run.

    Attributes:
        run: its run.
        number: which of the run's members, from 0.
        cells: the sweep's swept keys and what this network has there, as in a table; a swept seed is its own.
        metrics: its final metrics, and what measures found on it.
    """

    run: Run
    number: int
    cells: Mapping[str, int | float | str]
    metrics: Mapping[str, float]

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())

    def _shown(self) -> tuple[str, list[dict[str, Any]]]:
        """What it says of itself, and its row."""
        row = {**self.cells, "seed": self.seed, **self.metrics}
        return f"Member({str(self.run.path)!r}, {self.number})", [row]

    @property
    def seed(self) -> int:
        """The seed of the single run that this member is."""
        return self.run.settings.seed + self.number

    @property
    def origin(self) -> dict[str, Any]:
        """Its data and what it is, as cells of a table: data, source, n_train, network_in_words.

        And `OTHER_LOSS`, where its losses are in no nats.
        """
        dataset, weights = self.run.result["dataset"], self.run.result["parameters"]
        examples = {"data": dataset["name"], "source": dataset["source"], "n_train": dataset["train"]}
        loss = not_in_nats(self.run.settings.loss)
        network = model_in_words(self.run.settings.model, weights)
        return {**examples, NETWORK: network, **({OTHER_LOSS: loss} if loss else {})}

    def history(self) -> pd.DataFrame:
        """Its rows of metrics.csv, see `Run.history`."""
        try:
            changed = (self.run.path / "metrics.csv").stat().st_mtime_ns
        except OSError:  # `Run.history` says what is wrong with it
            changed = -1
        history = _history(self.run, changed)
        if "member" not in history:
            return history.copy()
        return history[history["member"] == self.number].drop(columns="member").reset_index(drop=True)

    def theta(self) -> Tensor:
        """Its final weights as one vector [P]."""
        theta = self.run.theta()
        return theta if self.run.count == 1 else theta[self.number]

    def net(self) -> nn.Module:
        """Its network with the final weights, in evaluation mode, on the CPU."""
        return self.run.net(self.number)


@functools.lru_cache(maxsize=1)  # the members of a run come one after the other
def _history(run: Run, changed: int) -> pd.DataFrame:
    return run.history()
