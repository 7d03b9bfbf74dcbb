"""Real classifiers: loss and accuracy against epochs, and the test accuracy that each model comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hw1.metrics import QUANTITIES, TEST_ACCURACY
from hw1.studies.answers import Answer, level_of_all, number, percent, ranged, verdict
from hw1.studies.called import series_in_words
from hw1.studies.headlines import Headline, bounded, bounded_headline, headline, unseeded
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

        curves = series_in_words(tables["learning_curves"], keys)
        return {name: draw_learning_curves(curves, [name], "") for name in QUANTITIES}

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """All of them."""
        return training

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """How well each model classifies, and whether the best is better than the others."""
        final = _final(series_in_words(tables["learning_curves"], keys))
        own = [key for key in unseeded(keys) if key in final]
        groups = {
            series: part.drop_duplicates("seed").set_index("seed")["value"]
            for (*_, series), part in final.groupby([*own, SERIES], sort=False)
        }
        found = [(bounded_headline(name, list(part), 0, 1), part) for name, part in groups.items()]
        (best, of_best), *others = sorted(found, key=lambda one: -one[0].value)
        sentences = [f"The highest test accuracy is that of {best.name}: {ranged(best, write=percent)}."]
        level = level_of_all(len(found))  # the best was picked by these data
        for other, part in others:
            comes = f"{other.name} comes to {ranged(other, write=percent)}"
            both = sorted(set(of_best.index) & set(part.index))
            if not both:
                sentences.append(f"{comes}, over other seeds.")
                continue
            less = bounded(headline("less", [float(of_best[seed] - part[seed]) for seed in both], level=level), -1, 1)
            text = verdict(less, 0, "the difference is settled", "the difference is settled")
            points = ranged(less, "points", write=lambda share: number(100 * share))
            sentences.append(f"{comes}, {points} less: {text}.")
        if len(others) > 1:
            sentences.append("Intervals of differences are wide enough for all pairs of models together.")
        captions = {
            name: "Whole-set values after each epoch, in evaluation mode: full lines train, dashed ones test."
            for name in QUANTITIES
        }
        columns = [*own, SERIES, "parameters", "accuracy", "low", "high", "n", "seconds"]
        return Answer(sentences, captions, {"models": columns})

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """The mean final test accuracy of each model."""
        final = _final(tables["learning_curves"])
        return [
            bounded_headline(f"test_accuracy {series}", list(part["value"]), 0, 1)
            for (*_, series), part in final.groupby([*unseeded(keys), SERIES], sort=False)
        ]


def _final(curves: pd.DataFrame) -> pd.DataFrame:
    """The rows of the test accuracy at the end of each training."""
    test = curves[(curves["split"] == "test") & (curves["quantity"] == "accuracy")]
    return test[test["epoch"] == test.groupby([SERIES, "seed"])["epoch"].transform("max")]
