"""Ten or more sizes of one network: do more parameters fit better, and generalise worse?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import ACCURACY, LOSS, METRICS, TEST_ACCURACY, TEST_LOSS, TRAIN_LOSS, label
from hw1.settings import ConfigError
from hw1.studies.answers import Answer, listed, number, percent, rank, settled, where_in_words
from hw1.studies.called import rho
from hw1.studies.correlations import correlation_of_means_headline
from hw1.studies.headlines import (
    Headline,
    bounded_headline,
    headline,
    labelled,
    parts,
    suffix,
    told_apart,
    unseeded,
)
from hw1.studies.learned import TABLE
from hw1.studies.learning_curves import DESCRIBED, SHAPE, check_classes, ends
from hw1.words import settings_in_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Sweep
    from hw1.settings import RunSettings

GAP = "gap"  # test loss - train loss, nats


class ParamsVsGeneralization:
    """Final loss and accuracy on the training and the test set against the number of parameters, or of hidden layers.

    Tables: `points` (one row a training: parameters, depth, losses, accuracies, gap = test loss - train loss) and
    `sizes` (one row a size: mean, lowest and highest of each over seeds).

    Args:
        against: what a size is: parameters, or depth where all networks have about as many parameters.

    Raises:
        ValueError: anything else.
    """

    def __init__(self, against: str) -> None:
        if against not in ("parameters", "depth"):
            raise ValueError(f"against: got {against!r}, expected parameters or depth")
        self.against = against

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Networks of different size, on data with classes.

        Raises:
            ConfigError: all are of one, or a run's data have no classes.
        """
        check_classes(runs)
        sizes = [key.partition(".")[2] for key in SHAPE[1:]]
        shapes = {str({size: run.model.get(size) for size in sizes}) for run in runs}
        if len(shapes) < 2:
            raise ConfigError(
                "model: got networks of one size, expected two sizes or more, as model.width=0.5,1,2 or "
                "'model.hidden=[4,8],[8,16]'"
            )

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables `points` and `sizes`; {} where no run is complete."""
        points = ends(sweep)
        if points.empty:
            return {}
        points[GAP] = points[TEST_LOSS] - points[TRAIN_LOSS]
        groups = [*unseeded(sweep.keys), *DESCRIBED]
        statistics = points.groupby(groups, sort=False)[[*METRICS, GAP]].agg(["mean", "min", "max"])
        statistics.columns = [" ".join(names) for names in statistics.columns]
        sizes = statistics.assign(n=points.groupby(groups, sort=False).size()).reset_index()
        return {"points": points, "sizes": sizes}

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """Loss beside accuracy against the size, one figure for each combination of other swept keys."""
        from hw1.plots.sizes import draw_sizes

        figures, found = {}, self.headlines(tables, keys)
        for values, part in _parts(tables["points"], keys):
            rhos = {column: rho(found, self._rho(column, values)) for column in (TEST_LOSS, GAP, TEST_ACCURACY)}
            told = {column: f"{label(column)} {words}" for column, words in rhos.items() if words}
            losses = [told[column] for column in (TEST_LOSS, GAP) if column in told]
            notes = {LOSS: "\n".join(losses), ACCURACY: told.get(TEST_ACCURACY, "")}
            figure = draw_sizes(part, self.against, settings_in_words(values), notes)
            figures[f"params_vs_generalization{suffix(values)}"] = figure
        return figures

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """Those of the largest size: that a small network learns nothing is a finding, or that a deep one does not."""
        points = tables["points"]
        if self.against == "depth":  # where one depth has learned, what the others do is the answer
            return training.iloc[:0] if training["learned"].any() else training
        largest = points.loc[points[self.against] == points[self.against].max(), ["run", "member"]]
        return training.merge(largest, on=["run", "member"])

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """What rises and falls with the size, and between which values."""
        sentences, by_name = [], {found.name: found for found in numbers}
        of = {"parameters": "number of parameters", "depth": "number of hidden layers"}[self.against]
        trained = tables[TABLE]
        unlearned = trained.loc[~trained["learned"], ["run", "member"]]
        told = {
            TRAIN_LOSS: "train loss", TEST_LOSS: "test loss",
            TEST_ACCURACY: "test accuracy", GAP: "gap between test and train loss",
        }  # fmt: skip
        for values, part in _parts(tables["points"], keys):
            where = where_in_words(values)
            start = f"{where[:1].upper()}{where[1:]} the" if where else "The"
            sizes = part.groupby(self.against)
            for column, word in told.items():
                found = by_name[self._rho(column, values)]
                if math.isnan(found.value):
                    text = f"by the {of}"
                elif settled(found, 0):
                    text = f"{'grows' if found.value > 0 else 'falls'} with the {of}"
                else:
                    text = f"shows no settled relation to the {of}"
                means = sizes[column].mean()
                write = percent if column == TEST_ACCURACY else number
                least, most = means.index.min(), means.index.max()
                ends = f"{write(means[least])} at {least:,}, {write(means[most])} at {most:,}"
                rho_of = "" if math.isnan(found.value) else f" ({rank(found, 'size')})"
                sentences.append(f"{start} {word} {text}{rho_of}: {ends}.")
            lost = part.merge(unlearned, on=["run", "member"])
            if len(lost):
                names = listed([f"{size:,}" for size in sorted(set(lost[self.against]))])
                sentences.append(f"{len(lost)} of {len(part)} networks learned nothing: {self.against} {names}.")
        caption = f"Train and test values at the end, against the {of}: a dot is a mean over seeds, the band a range."
        columns = [*unseeded(keys), "seed", "parameters", "depth", *METRICS, GAP]
        return Answer(sentences, {"params_vs_generalization": caption}, {"points": columns})

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """Test accuracy and gap of each size, and rank correlations of the size with what it may change.

        Trainings of one size are alike: the correlations are of the means over their seeds.
        """
        found, shape = [], [key for key in unseeded(keys) if key in SHAPE]
        for values, part in _parts(tables["points"], keys):
            name = labelled(values)
            groups = list(part.groupby([self.against, "architecture", *shape]))
            named = [(f"{size} {word}", dict(zip(shape, own, strict=True))) for (size, word, *own), _ in groups]
            for called, (_, points) in zip(told_apart(named), groups, strict=True):
                label = f"{name} {self.against}={called}"
                found.append(bounded_headline(f"test_accuracy{label}", list(points[TEST_ACCURACY]), 0, 1))
                found.append(headline(f"gap{label}", list(points[GAP])))
            sizes = [tuple(row) for row in part[[self.against, "architecture", *shape]].astype(str).to_numpy()]
            for column in (*METRICS, GAP):
                label = self._rho(column, values)
                found.append(correlation_of_means_headline(label, list(part[self.against]), list(part[column]), sizes))
        return found

    def _rho(self, column: str, values: Mapping[str, Any]) -> str:
        """The name of the headline that correlates the size with a column."""
        return f"spearman_rho_{self.against}_{column.replace('/', '_')}{labelled(values)}"


def _parts(points: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(values of the swept keys that are no sizes, points) of each of their combinations."""
    return parts(points, [key for key in unseeded(keys) if key not in SHAPE])
