"""Loss and gradient norm against iterations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import GRADIENT_NORM, METRICS, STEP_LOSS, TEST_LOSS, TRAIN_LOSS
from hw1.settings import ConfigError
from hw1.studies.answers import Answer, percent, ranged, verdict, where_in_words
from hw1.studies.headlines import (
    Headline,
    bounded_headline,
    labelled,
    median_headline,
    paired_headline,
    parts,
    share_headline,
    suffix,
    unseeded,
)
from hw1.studies.learned import without
from hw1.studies.needed import found_on, keeping, require_measure
from hw1.words import layers_in_words, settings_in_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Sweep
    from hw1.settings import RunSettings


class GradientNormCurves:
    """How the gradient's norm goes along with the loss, and which nets end as constant predictors.

    The norm is that of the mini-batch loss over all parameters, before clipping and without weight decay (see the
    callback `GradientNorm`). Curves are means over bins of iterations that are evenly wide on a logarithmic axis; the
    line is the median over seeds and members, the band their range.

    Tables: `curves` (swept keys, quantity, layer, iteration, median, low, high, n) and `ends` (one row a member: final
    losses, mean norm over the last hundredth of the training, the rank correlation of norm and loss over its steps,
    constant predictor or not).

    Args:
        bins: number of bins, at least 10.

    Raises:
        ValueError: too few bins.
    """

    def __init__(self, bins: int) -> None:
        if bins < 10:
            raise ValueError(f"bins: got {bins}, expected at least 10")
        self.bins = bins

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Runs that log gradient norms, and whose predictions are measured.

        Raises:
            ConfigError: one does not, or of one they are not.
        """
        if not all(keeping("gradient_norms", run) for run in runs):
            raise ConfigError(
                "callbacks: got none that logs gradient norms, expected callbacks=[default,gradient_norm]"
            )
        require_measure(runs, "predictions")

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables `curves` and `ends`, of the runs whose predictions are measured; {} where no run is complete.

        Raises:
            ConfigError: there is none among the complete ones.
        """
        import pandas as pd

        keys = unseeded(sweep.keys)
        binned, ends, found = [], [], found_on(sweep, "predictions")
        for run, members in itertools.groupby(sweep.members(), key=lambda member: member.run):
            if run not in found:
                continue
            for member in members:
                own = {key: member.cells[key] for key in keys} | member.origin
                row = {"run": run.path.name, "seed": member.seed, "parameters": run.result["parameters"]}
                row |= {name: number for name, number in member.metrics.items() if name in METRICS}
                constant = bool(found[run].values["predictions/constant"][member.number])
                history = member.history()
                row |= {GRADIENT_NORM: _last_norm(history), "norm_follows_loss": _follows(history)}
                ends.append(row | {"constant": constant} | own)
            of_run = self._binned(run.history()).assign(**own)  # all members at once
            binned.append(of_run.assign(layer=_layers(of_run["quantity"], run.settings.model)))
        if not binned:
            return {}
        groups = [*keys, "data", "source", "n_train", "quantity", "layer", "iteration"]
        values = pd.concat(binned, ignore_index=True).groupby(groups, sort=False)["value"]
        curves = values.agg(median="median", low="min", high="max", n="count").reset_index()
        return {"curves": curves, "ends": pd.DataFrame(ends)}

    def _binned(self, history: pd.DataFrame) -> pd.DataFrame:
        """Columns member, quantity, iteration (the bin's geometric middle), value (mean in the bin)."""
        import numpy as np

        if "member" not in history:
            history = history.assign(member=0)
        of_layer = f"{GRADIENT_NORM}/"
        quantities = [name for name in history if name in (STEP_LOSS, GRADIENT_NORM) or name.startswith(of_layer)]
        iteration = history["step"].to_numpy() + 1.0
        edges = np.geomspace(1, iteration.max() + 1, self.bins + 1)
        position = np.searchsorted(edges, iteration, side="right") - 1
        middle = np.sqrt(edges[:-1] * edges[1:])
        long = history[["member", *quantities]].assign(iteration=middle[np.clip(position, 0, self.bins - 1)])
        long = long.melt(["member", "iteration"], var_name="quantity").dropna(subset="value")
        return long.groupby(["member", "quantity", "iteration"], sort=False, as_index=False)["value"].mean()

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """One figure for every combination of swept keys but one, which gives the columns."""
        from hw1.plots.gradient_norm import draw_gradient_norm

        curves, ends = tables["curves"], tables["ends"]
        across, others = next(iter(unseeded(keys)), None), unseeded(keys)[1:]
        figures = {}
        for values, part in parts(curves, others):
            own = ends[(ends[others] == list(values.values())).all(axis=1)]
            figures[f"gradient_norm{suffix(values)}"] = draw_gradient_norm(part, own, across, settings_in_words(values))
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """Median final loss of each setting, the share of constant predictors, and how that differs from the first's.

        The last is pair by pair over the seeds of both; with init=shared a pair has one start.
        """
        found, constant = [], {}
        for values, part in parts(tables["ends"], unseeded(keys)):
            name = labelled(values)
            found.append(median_headline(f"final_loss{name}", list(part[TRAIN_LOSS])))
            found.append(share_headline(f"constant_predictors{name}", int(part["constant"].sum()), len(part)))
            constant[name] = part.drop_duplicates("seed").set_index("seed")["constant"]
        first, *others = constant
        for name in others:
            both = constant[name].to_frame("one").join(constant[first].rename("other"), how="inner")
            if both.to_numpy().any():  # where none is constant there is nothing to compare
                label = f"constant_predictors{name} minus{first}"
                found.append(paired_headline(label, list(both["one"]), list(both["other"])))
        return found

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """All that are no constant predictors: these are a finding, and counted."""
        return without(training, tables["ends"][tables["ends"]["constant"]], ["run", "seed"])

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """Whether the norm follows the loss, where the loss ends, and how many nets collapsed."""
        ends, sentences = tables["ends"], []
        for values, part in parts(ends, unseeded(keys)):
            where = where_in_words(values)
            start = f"{where[:1].upper()}{where[1:]} the" if where else "The"
            alive = part[~part["constant"]]
            if len(alive):
                if values_of := list(alive["norm_follows_loss"].dropna()):
                    follows = bounded_headline("follows", values_of, -1, 1)
                    text = verdict(
                        follows, 0, "the smaller the loss, the smaller the gradient",
                        "the smaller the loss, the larger the gradient", "training",
                    )  # fmt: skip
                    sentences.append(
                        f"{start} gradient norm and the loss of a training have a rank correlation of "
                        f"{ranged(follows, of='training')}: {text}."
                    )
                final = median_headline("loss", list(alive[TRAIN_LOSS]))
                of = " of networks that did not collapse" if len(alive) < len(part) else ""
                sentences.append(f"The median final train loss{of} is {ranged(final, of='training')}.")
            lost = share_headline("constant", int(part["constant"].sum()), len(part))
            if lost.value:
                sentences.append(
                    f"{round(lost.value * len(part))} of {len(part)} networks collapsed to a constant prediction "
                    f"(share {percent(lost.value)} [{percent(lost.low)}, {percent(lost.high)}])."
                )
        caption = (
            "The loss of a training step's batch, and the norm of its gradient, against iterations, both axes "
            "logarithmic: the line is the median over seeds, the band their range."
        )
        columns = [*unseeded(keys), "seed", TRAIN_LOSS, TEST_LOSS, GRADIENT_NORM, "norm_follows_loss", "constant"]
        return Answer(sentences, {"gradient_norm": caption}, {"ends": columns})


def _follows(history: pd.DataFrame) -> float:
    """Spearman's rank correlation of gradient norm and step loss over a training's measured steps."""
    from scipy.stats import spearmanr

    both = history[[STEP_LOSS, GRADIENT_NORM]].dropna()
    if len(both) < 3 or both.nunique().min() < 2:
        return math.nan
    return float(spearmanr(both[STEP_LOSS], both[GRADIENT_NORM]).statistic)


def _layers(quantities: pd.Series, model: Mapping[str, Any]) -> pd.Series:
    """What the layer of each quantity is called; "" of what is no layer's."""
    names = layers_in_words(model)
    layers = {quantity: quantity.partition("/")[2] for quantity in quantities.unique() if quantity != STEP_LOSS}
    return quantities.map({quantity: names.get(layer, layer) for quantity, layer in layers.items()}).fillna("")


def _last_norm(history: pd.DataFrame) -> float:
    """The mean gradient norm over the last hundredth of a training's measured steps."""
    measured = history.dropna(subset=GRADIENT_NORM)
    return float(measured[GRADIENT_NORM][measured["step"] >= 0.99 * measured["step"].max()].mean())
