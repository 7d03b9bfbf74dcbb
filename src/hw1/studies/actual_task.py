"""Real classifiers: loss and accuracy against epochs, and the test accuracy beside the reported one (section 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.studies.learning_curves import check_classes, ends, learning_curves, swept_keys
from hw1.studies.protocol import Headline, Measurements, headline

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.runs import Sweep


class ActualTask:
    """Loss and accuracy of all models over the whole sets, in evaluation mode, after every epoch.

    Tables: `learning_curves` (one row an epoch, split and quantity of each training) and `models` (one row a model:
    mean test accuracy over seeds, its range, the report's value and the difference from it, in percentage points).

    Args:
        reported: test accuracies in per cent that a report gives, {dataset: {number of parameters: accuracy}}, as
            {"mnist": {"371581": 98.37}}. They stand beside what the whole dataset gives at full budget only.
    """

    def __init__(self, reported: Mapping[str, Mapping[str, float]]) -> None:
        self.reported = {data: {str(size): value for size, value in of.items()} for data, of in reported.items()}

    def check(self, runs: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> None:
        """Data with classes.

        Raises:
            ConfigError: a run's have none.
        """
        check_classes(runs)

    def measure(self, sweep: Sweep, measurements: Measurements) -> dict[str, pd.DataFrame]:
        """Tables `learning_curves` and `models`; {} where no run is complete."""
        final = ends(sweep)
        if final.empty:
            return {}
        groups = final.columns[: list(final.columns).index("seed")].tolist()
        of_models = final.groupby(groups, sort=False)
        models = of_models["test/accuracy"].agg(accuracy="mean", low="min", high="max", n="count").reset_index()
        percent = ["accuracy", "low", "high"]
        models[percent] = 100 * models[percent]
        whole = sweep.record.get("budget", "full") == "full" and (final["source"] != "bundled").all()
        models["reported"] = [
            self.reported.get(data, {}).get(str(parameters), math.nan) if whole else math.nan
            for data, parameters in zip(models["data"], models["parameters"], strict=True)
        ]
        models["difference"] = models["accuracy"] - models["reported"]
        models["seconds"] = of_models["seconds"].mean().to_numpy()
        return {"learning_curves": learning_curves(sweep), "models": models}

    def draw(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
        """Loss of all models in one chart, accuracy in another."""
        from hw1.plots.learning_curves import draw_learning_curves

        curves = tables["learning_curves"]
        return {name: draw_learning_curves(curves, [name], "") for name in ("loss", "accuracy")}

    def headlines(self, tables: Mapping[str, pd.DataFrame]) -> list[Headline]:
        """The mean final test accuracy of each model."""
        curves = tables["learning_curves"]
        test = curves[(curves["split"] == "test") & (curves["quantity"] == "accuracy")]
        found = []
        for (*_, series), part in test.groupby([*swept_keys(test), "series"], sort=False):
            last = part[part["epoch"] == part.groupby("seed")["epoch"].transform("max")]
            found.append(headline(f"test_accuracy {series}", list(last["value"])))
        return found
