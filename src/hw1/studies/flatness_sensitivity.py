"""Batch size (or learning rate) against loss, accuracy, sensitivity and sharpness (section 9)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.studies.protocol import Headline, Measurements, correlation_headline, parts, share_headline
from hw1.training.identity import ConfigError, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.runs import Run, Sweep

GAPS = ("loss_gap", "accuracy_gap")
BATCH_SIZE = "dataset.batch_size"
REACHED = "stopped_at_train_loss/reached"  # of the callback that stops a run at a train loss
_MEASURED = ("sensitivity/", "sharpness/", "minimal_ratio/")
_QUALITY = ("train/loss", "test/loss", "train/accuracy", "test/accuracy")


class FlatnessSensitivity:
    """How a setting of the training goes along with sensitivity and sharpness, or how these do with generalisation.

    Reads what the callbacks `Sensitivity`, `Sharpness` and `MinimalRatio` added to the runs' metrics. Where the runs
    stop at a train loss, means and numbers are over those that reached it; the others are named and drawn by
    themselves.

    Tables: `points` (one row a member: swept keys, seed, position on the x axis, losses, accuracies, gaps, measures),
    `means` (one row a setting and quantity: mean, standard deviation and range over seeds) and, where there are any,
    `unreached` (the members that never reached the train loss).

    Args:
        across: what the x axis shows: the dotted key of a swept number, as dataset.batch_size or optimizer.lr; or
            loss_gap (test minus train loss) or accuracy_gap (train minus test accuracy), for a scatter of all runs.
    """

    def __init__(self, across: str) -> None:
        self.across = across

    def check(self, runs: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> None:
        """Runs that measure sensitivity, at two values of `across` or more.

        Raises:
            ConfigError: one does not, or there is nothing to compare.
        """
        if any("sensitivity" not in (run["callbacks"] or {}) for run in runs):
            raise ConfigError(
                "callbacks: got none that measures sensitivity, expected callbacks=[default,sensitivity,sharpness]"
            )
        if self.across in GAPS:
            return
        values = {str(value): value for value in (select(run, self.across) for run in runs)}
        for value in values.values():
            full_batch = value is None and self.across == BATCH_SIZE
            if not (full_batch or isinstance(value, int | float)) or (value is not None and value <= 0):
                raise ConfigError(
                    f"study.across: got {self.across}, which is {value} in one of the runs, expected a setting with "
                    f"positive numbers, as {BATCH_SIZE} or optimizer.lr, or one of {', '.join(GAPS)}"
                )
        if len(values) < 2:
            raise ConfigError(
                f"{self.across}: got {', '.join(values)}, expected two values or more: this experiment compares runs "
                "that differ in it (study.across)"
            )

    def measure(self, sweep: Sweep, measurements: Measurements) -> dict[str, pd.DataFrame]:
        """Tables `points`, `means` and `unreached`; {} where no run is complete."""
        import pandas as pd

        keys = [key for key in sweep.swept if key != "seed"]
        rows = []
        for run in sweep.complete().runs:
            own = {key: sweep.cell(run, key) for key in keys}
            rows += [{**own, **self._point(run, member)} for member in range(run.members)]
        if not rows:
            return {}
        points = pd.DataFrame(rows)
        settings = [*keys, "x"] if self.across not in GAPS else keys
        tables = {"points": points, "means": _means(points[points["reached"]], settings)}
        if not points["reached"].all():
            tables["unreached"] = points.loc[~points["reached"], [*keys, "seed", "train/loss", "epochs", "run"]]
        return tables

    def _point(self, run: Run, member: int) -> dict[str, Any]:
        """A member's row behind its swept keys."""
        metrics, result = run.metrics(member), run.result
        dataset = result["dataset"]
        row: dict[str, Any] = {"seed": run.value("seed") + member, "x": None}
        row |= {name: metrics[name] for name in _QUALITY if name in metrics}
        row["loss_gap"] = metrics["test/loss"] - metrics["train/loss"]
        if "test/accuracy" in metrics:
            row["accuracy_gap"] = metrics["train/accuracy"] - metrics["test/accuracy"]
        if self.across in GAPS:
            row["x"] = row.get(self.across)
        else:
            value = run.value(self.across)
            row["x"] = dataset["train"] if value is None else value  # the full batch
        row |= {name: value for name, value in metrics.items() if name.startswith(_MEASURED)}
        row |= {"reached": bool(metrics.get(REACHED, True)), "epochs": result["epochs"]}
        sharpness = (run.settings["callbacks"] or {}).get("sharpness")
        if sharpness:
            row["sharpness_examples"] = min(sharpness["examples"] or math.inf, dataset["train"])
        row |= {"parameters": result["parameters"], "run": run.path.name}
        return row | {"data": dataset["name"], "source": dataset["source"], "n_train": dataset["train"]}

    def draw(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
        """Loss and accuracy with sensitivity, and sharpness, against the setting; or one scatter against the gap."""
        from hw1.plots.flatness_sensitivity import draw_gap, draw_measures, draw_quality

        points = tables["points"]
        named = [(_words(values), part) for values, part in self._groups(points)]
        names = _measures(points)
        if self.across in GAPS:
            return {"gap": draw_gap(named, self.across, names)}
        found = {
            quantity: draw_quality(named, quantity, self.across, [n for n in names if n.startswith("sensitivity/")])
            for quantity in ("loss", "accuracy")
            if f"test/{quantity}" in points
        }
        sharpness = [name for name in names if not name.startswith("sensitivity/")]
        return found | ({"sharpness": draw_measures(named, self.across, sharpness)} if sharpness else {})

    def headlines(self, tables: Mapping[str, pd.DataFrame]) -> list[Headline]:
        """Rank correlations over the runs of `across` with every measure, and with test loss, accuracy and gap.

        The logarithm of a batch size ranks as the batch size does.
        """
        points, found = tables["points"], []
        if "unreached" in tables:
            found.append(share_headline("reached_train_loss", int(points["reached"].sum()), len(points)))
        names = [name for name in ("test/accuracy", "test/loss", "loss_gap") if name in points]
        names = [*([] if self.across in GAPS else names), *_measures(points)]
        groups = [({}, points)] if self.across in GAPS else self._groups(points)
        for values, part in groups:
            used = part[part["reached"]]
            for name in names:
                label = " ".join(word for word in ("spearman_rho", name, f"{self.across}", _words(values)) if word)
                both = used[["x", name]].dropna()
                found.append(correlation_headline(label, list(both["x"]), list(both[name])))
        return found

    def _groups(self, points: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """(values, rows) of each combination of the swept keys other than the seed and what the x axis shows."""
        return parts(points, [key for key in _keys(points) if key != self.across])


def _keys(points: pd.DataFrame) -> list[str]:
    """The swept keys: what stands before the seed."""
    return list(itertools.takewhile(lambda name: name != "seed", points.columns))


def _measures(points: pd.DataFrame) -> list[str]:
    return [name for name in points if name.startswith(_MEASURED) and not name.endswith("_error")]


def _words(values: Mapping[str, Any]) -> str:
    """`model=cnn lr=0.001`: a group's option without its folder."""
    return " ".join(f"{key.rpartition('.')[2]}={str(value).rpartition('/')[2]}" for key, value in values.items())


def _means(points: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """One row a setting and quantity."""
    names = [*(name for name in (*_QUALITY, *GAPS) if name in points), *_measures(points)]
    long = points.melt([*settings], names, var_name="quantity").dropna(subset="value")
    values = long.groupby([*settings, "quantity"], sort=False)["value"]
    return values.agg(mean="mean", sd="std", low="min", high="max", n="count").reset_index()
