"""Random labels: can a network fit them, and what is it then worth on true ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hw1.metrics import METRICS, QUANTITIES, SPLITS
from hw1.settings import ConfigError
from hw1.studies.answers import Answer, number, percent, ranged
from hw1.studies.called import series_in_words
from hw1.studies.headlines import Headline, bounded_headline, share_headline, unseeded
from hw1.studies.learning_curves import SERIES, ends, learning_curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Sweep
    from hw1.settings import RunSettings


class RandomLabels:
    """Loss and accuracy on shuffled training labels and on true test labels, after Zhang et al. 2017.

    Tables: `learning_curves` (one row an epoch, split and quantity of each training) and `fits` (one row a training:
    final losses and accuracies, and the epochs until the training accuracy came to `fitted`, NaN where it never did).

    Args:
        fitted: training accuracy in (0, 1] from which on the labels count as fitted.

    Raises:
        ValueError: it is out of range.
    """

    def __init__(self, fitted: float) -> None:
        if not 0 < fitted <= 1:
            raise ValueError(f"fitted: got {fitted}, expected a training accuracy above 0 and at most 1")
        self.fitted = fitted

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Some labels are random.

        Raises:
            ConfigError: none are.
        """
        if not any(run.value("dataset.corruption") for run in runs):
            raise ConfigError(
                "dataset.corruption: got 0, expected a fraction of random labels above 0, as dataset.corruption=1"
            )

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables `learning_curves` and `fits`; {} where no run is complete."""
        fits = ends(sweep)
        if fits.empty:
            return {}
        curves = learning_curves(sweep)
        accurate = curves[(curves["split"] == "train") & (curves["quantity"] == "accuracy")]
        training = [*unseeded(sweep.keys), SERIES, "seed"]
        first = accurate[accurate["value"] >= self.fitted].groupby(training)["epoch"].min()
        fits = fits.join(first.rename("epochs_to_fit"), on=training)
        return {"learning_curves": curves, "fits": fits}

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """Loss against epochs, accuracy beside it."""
        from hw1.plots.learning_curves import draw_learning_curves

        curves = series_in_words(tables["learning_curves"], keys)
        shares = ", ".join(f"{share:.0%}" for share in sorted(curves["corruption"].unique()))
        title = f"training labels shuffled: {shares}; test labels true"
        return {"random_labels": draw_learning_curves(curves, QUANTITIES, title)}

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """Those with true labels: that random ones are not fitted is a finding, and counted."""
        corruption = training.get("dataset.corruption")
        return training.iloc[:0] if corruption is None else training[corruption == 0]

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """Whether the random labels were fitted, and what the network is then worth on true ones."""
        sentences = []
        for (*_, series), part in series_in_words(tables["fits"], keys).groupby([*unseeded(keys), SERIES], sort=False):
            fitted, n = int(part["epochs_to_fit"].notna().sum()), len(part)
            train, test = (bounded_headline(split, list(part[f"{split}/accuracy"]), 0, 1) for split in SPLITS)
            corruption = float(part["corruption"].iloc[0])
            labels = {0.0: "true labels", 1.0: "shuffled labels"}.get(
                corruption, f"labels of which {percent(corruption)} are shuffled"
            )
            epochs = f"after {number(float(part['epochs'].median()))} epochs"
            if fitted == n:
                first = f"{series} fits {labels}: it comes to {percent(self.fitted)} of them in each of {n} trainings"
            elif fitted:
                first = f"{series} fits {labels} in {fitted} of {n} trainings"
            else:
                first = (
                    f"{series} has not fitted {labels} {epochs} (none of {n} trainings came to {percent(self.fitted)})"
                )
            sentences.append(f"{first}; train accuracy {ranged(train, write=percent)}.")
            sentences.append(f"On true test labels it is then right on {ranged(test, write=percent)}.")
        caption = (
            "Loss and accuracy after each epoch on the training set, whose labels are partly or wholly shuffled, and "
            "on the test set, whose labels are true."
        )
        columns = [*unseeded(keys), SERIES, "seed", "corruption", *METRICS, "epochs_to_fit"]
        return Answer(sentences, {"random_labels": caption}, {"fits": columns})

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """Final accuracies on random training labels and true test labels, and the share of trainings that fitted."""
        found = []
        for (*_, series), part in tables["fits"].groupby([*unseeded(keys), SERIES], sort=False):
            for split in SPLITS:
                found.append(bounded_headline(f"{split}_accuracy {series}", list(part[f"{split}/accuracy"]), 0, 1))
            found.append(share_headline(f"share_fitted {series}", int(part["epochs_to_fit"].notna().sum()), len(part)))
        return found
