"""What happens where the gradient is almost zero: the Hessian's minimal ratio against the loss."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import LOSS, TEST_ACCURACY, unit
from hw1.studies.answers import Answer, percent, rank, settled, where_in_words
from hw1.studies.called import rho
from hw1.studies.correlations import correlation_headline
from hw1.studies.headlines import (
    Headline,
    labelled,
    median_headline,
    parts,
    share_headline,
    suffix,
    unseeded,
)
from hw1.studies.learned import without
from hw1.studies.needed import found_on, require_measure
from hw1.words import counted, settings_in_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Sweep
    from hw1.settings import RunSettings

MEASURE = "minimal_ratio"
DIGITS = 4  # of the loss, that points of zero gradient have alike which count as one
LEAST = 10  # values of the loss at converged, non-constant points below which no correlation is reported


class MinRatio:
    """Minimal ratio against loss, after training and after the gradient has been driven to zero.

    Reads the rows of the measure `minimal_ratio`. Two estimators, never merged: the share of positive eigenvalues and
    the share of sampled neighbours with a higher loss. Numbers are over converged, non-constant points alone (|g| <
    1e-6; predictions that depend on the input); all points are drawn, by the reason why their search stopped. Of
    medians and correlations points of one loss, to `DIGITS` digits, are one observation: many searches end at the same
    saddle.

    Runs without the measure are left out. Points of networks that diverged have the reason "not finite": they are
    counted, and have no place in a figure.

    Tables: `points` (one row a member and phase) and `reasons` (number of points by phase, reason and constant).
    """

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Runs of which the minimal ratio is measured.

        Raises:
            ConfigError: of one it is not.
        """
        require_measure(runs, MEASURE)

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables `points` and `reasons`; {} where no run is complete.

        Raises:
            ConfigError: no run has been measured.
        """
        import pandas as pd

        rows, found = [], found_on(sweep, MEASURE)
        for run, of_run in itertools.groupby(sweep.members(), key=lambda member: member.run):
            if run not in found:
                continue
            members = list(of_run)
            own = {key: members[0].cells[key] for key in unseeded(sweep.keys)} | members[0].origin
            nats = unit(LOSS, TEST_ACCURACY in members[0].metrics, own)
            own = {"run": run.path.name, **own, "parameters": run.result["parameters"], "loss_unit": nats}
            rows += [{**row, "seed": members[row["member"]].seed, **own} for row in found[run].rows]
        if not rows:
            return {}
        points = pd.DataFrame(rows)
        points["reason"] = points["reason"].replace("budget", "not converged")  # as earlier versions called it
        points["constant"] = points["constant"].eq(True)  # what is not finite is not constant either
        points["counted"] = (points["reason"] == "converged") & ~points["constant"]
        groups = [*unseeded(sweep.keys), "phase", "epoch", "reason", "constant"]
        reasons = points.groupby(groups, sort=False).size().rename("points").reset_index()
        return {"points": points, "reasons": reasons}

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """One figure for each combination of swept keys: a column a phase, a row an estimator."""
        from hw1.plots.minimal_ratio import draw_minimal_ratio

        figures, found = {}, self.headlines(tables, keys)
        for values, part in parts(tables["points"], unseeded(keys)):
            phases = _last(part)["phase"].unique()
            words = {phase: rho(found, _rho("positive", phase, values)) for phase in phases}
            notes = {phase: f"rank correlation of share and loss {word}" for phase, word in words.items() if word}
            figures[f"minimal_ratio{suffix(values)}"] = draw_minimal_ratio(
                _last(part), settings_in_words(values), notes
            )
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """Share of converged and of constant points, median ratio and index, and their correlations with the loss."""
        found = []
        for values, part in parts(tables["points"], unseeded(keys)):
            for phase, points in _last(part).groupby("phase", sort=False):
                name = labelled({"phase": phase, **values}).strip()
                n, used = len(points), points[points["counted"]]
                found.append(share_headline(f"converged {name}", int((points["reason"] == "converged").sum()), n))
                found.append(share_headline(f"constant_predictors {name}", int(points["constant"].sum()), n))
                if len(at_values := _at_values(used)) >= LEAST:
                    for share in ("positive", "negative"):
                        found.append(median_headline(f"{share}_share {name}", list(at_values[share])))
                        found.append(_correlation(_rho(share, phase, values), at_values, share))
        return found

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """All whose predictions depend on the input after training: constant predictors are a finding, and counted."""
        points = tables["points"]
        return without(training, points[(points["phase"] == "training") & points["constant"]])

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """What converged, what of it is constant, and whether index and loss go together there."""
        sentences = []
        for values, part in parts(tables["points"], unseeded(keys)):
            where = where_in_words(values)
            start = f"{where[:1].upper()}{where[1:]}, " if where else ""
            for phase, points in _last(part).groupby("phase", sort=False):
                sentences += _told(f"{start}{_PHASES.get(str(phase), f'in phase {phase}')}", points)
        caption = (
            "Each dot is one network: the share of positive eigenvalues of its Hessian (or of sampled neighbours with "
            "a higher loss) against its loss, by the reason why the search for a point of zero gradient stopped. "
            f"In a rank correlation points of one loss, to {DIGITS} digits, count once."
        )
        columns = [*unseeded(keys), "phase", "reason", "constant", "points"]
        return Answer(sentences, {"minimal_ratio": caption}, {"reasons": columns})


_PHASES = {"training": "after training", "search": "after the search for points of zero gradient"}


def _told(start: str, points: pd.DataFrame) -> list[str]:
    """Sentences on the points of one phase."""
    n, used = len(points), points[points["counted"]]
    converged = share_headline("converged", int((points["reason"] == "converged").sum()), n)
    hits, constant = round(converged.value * n), int(points["constant"].sum())
    there = int(((points["reason"] == "converged") & points["constant"]).sum())
    share = f"{percent(converged.value)} [{percent(converged.low)}, {percent(converged.high)}]"
    sentences = [f"{start[:1].upper()}{start[1:]} {hits} of {n} networks are where the gradient is zero ({share})."]
    if constant:
        which = f"{there} of them where the gradient is zero" if there else "none of them where the gradient is zero"
        sentences.append(
            f"{constant} of {n} {'is a constant predictor' if constant == 1 else 'are constant predictors'}, {which}."
        )
    at_values = _at_values(used)
    if len(at_values) < LEAST:
        words = "no network that is" if not len(used) else f"only {len(used)} that are"
        at = f", at {counted(len(at_values), 'value')} of the loss," if len(at_values) < len(used) else ","
        sentences.append(f"With {words} there and not constant{at} nothing follows about index and loss.")
        return sentences
    for column, word in (("positive", "go up"), ("negative", "go down")):
        found = _correlation("", at_values, column)
        if settled(found, 0):
            text = f"the higher the loss, the {'more' if found.value > 0 else 'fewer'} directions {word}"
        else:
            text = f"whether the directions that {word} go with the loss is undecided"
        sentences.append(f"There {text} ({rank(found, 'value')}).")
    return sentences


def _rho(share: str, phase: str, values: Mapping[str, Any]) -> str:
    """The name of the headline that correlates the loss with a share, in a phase."""
    return f"spearman_rho_{share}{labelled({'phase': phase, **values})}"


def _at_values(used: pd.DataFrame) -> pd.DataFrame:
    """One row for each value of the loss of points that count: the means of the loss and of the shares.

    Many searches end at one value, at one point or at copies of it with other hidden units: they are one observation.
    """
    values = used["loss"].map(lambda loss: f"{loss:.{DIGITS - 1}e}")
    return used.groupby(values, sort=False)[["loss", "positive", "negative"]].mean()


def _correlation(name: str, at_values: pd.DataFrame, share: str) -> Headline:
    """Spearman's rho of the loss with a share."""
    return correlation_headline(name, list(at_values["loss"]), list(at_values[share]))


def _last(points: pd.DataFrame) -> pd.DataFrame:
    """The last measurement of each phase."""
    last = points.groupby(["run", "phase"])["epoch"].transform("max")
    return points[points["epoch"] == last]
