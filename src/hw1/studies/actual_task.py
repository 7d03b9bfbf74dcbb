"""Real classifiers: loss and accuracy against epochs, and the test accuracy that each model comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hw1.metrics import QUANTITIES, TEST_ACCURACY
from hw1.studies.headlines import Headline, headline, unseeded
from hw1.studies.learning_curves import DESCRIBED, SERIES, check_classes, ends, learning_curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Sweep
    from hw1.settings import RunSettings


class ActualTask:
    """Loss and accuracy of all models over the whole sets, in evaluation mode, after every epoch.

    Tables: `learning_curves` (one row an epoch, split and quantity of each training) and `models` (one row a model:
    mean test accuracy over seeds and its range, in per cent, and the seconds of a training).
    """

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Data with classes.

        Raises:
            ConfigError: a run's have none.
        """
        check_classes(runs)

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables `learning_curves` and `models`; {} where no run is complete."""
        final = ends(sweep)
        if final.empty:
            return {}
        of_models = final.groupby([*unseeded(sweep.keys), *DESCRIBED], sort=False)
        models = of_models[TEST_ACCURACY].agg(accuracy="mean", low="min", high="max", n="count").reset_index()
        percent = ["accuracy", "low", "high"]
        models[percent] = 100 * models[percent]
        models["seconds"] = of_models["seconds"].mean().to_numpy()
        return {"learning_curves": learning_curves(sweep), "models": models}

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """Loss of all models in one chart, accuracy in another."""
        from hw1.plots.learning_curves import draw_learning_curves

        curves = tables["learning_curves"]
        return {name: draw_learning_curves(curves, [name], "") for name in QUANTITIES}

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """The mean final test accuracy of each model."""
        curves = tables["learning_curves"]
        test = curves[(curves["split"] == "test") & (curves["quantity"] == "accuracy")]
        found = []
        for (*_, series), part in test.groupby([*unseeded(keys), SERIES], sort=False):
            last = part[part["epoch"] == part.groupby("seed")["epoch"].transform("max")]
            found.append(headline(f"test_accuracy {series}", list(last["value"])))
        return found
