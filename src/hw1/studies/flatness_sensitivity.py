"""Batch size (or learning rate) against loss, accuracy, sensitivity and sharpness."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import (
    ACCURACY,
    ACCURACY_GAP,
    BATCH_SIZE,
    GAPS,
    LOSS,
    LOSS_GAP,
    METRICS,
    REACHED,
    TEST_ACCURACY,
    TEST_LOSS,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
)
from hw1.settings import ConfigError
from hw1.studies.answers import Answer
from hw1.studies.called import called, rho
from hw1.studies.correlations import correlation_headline, correlation_of_means_headline
from hw1.studies.flatness_in_words import GIVEN, flatness_in_words
from hw1.studies.headlines import Headline, parts, share_headline, unseeded
from hw1.studies.learned import alike, learned_in_settings
from hw1.studies.needed import columns_found, require_measure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Member, Sweep
    from hw1.settings import RunSettings

_SENSITIVITY = "sensitivity/"  # the columns of the measure that has the second axis of the figures loss and accuracy
_OWN_SCALE = "sensitivity/logits"  # but for this one, which that axis has no room for
_STOPS_AT = "callbacks.stop_at_train_loss.loss"
_SEVERAL = 3  # networks, of which that can be said


class FlatnessSensitivity:
    """How a setting of the training goes along with sensitivity and sharpness, or how these do with generalisation.

    Reads what measures found of the runs' members: `sensitivity`, and whatever else was asked for. Where the runs stop
    at a train loss, means and numbers are over those that reached it; the others are named and drawn by themselves.
    They stop where an epoch ends, a little below it, so correlations with a setting are given the train loss. Against a
    gap, a network that has learned nothing has none: it is left out and counted, and so are all networks of a setting
    most of which have learned nothing.

    Tables: `points` (one row a member: swept keys, seed, position on the x axis, losses, accuracies, gaps, measures,
    the train loss that it was to stop at, NaN where there is none, whether it came to it, and, against a gap, whether
    it counts as one that has learned), `means` (one row a setting and quantity: mean, standard deviation and range over
    seeds), `measures` (one row a column that measures found, but for standard errors: name, label, unit, the column of
    its standard error, the measure as it was asked for and the number of training examples that it takes, NaN where
    that is no setting) and, where there are any, `unreached` (the members that never reached the train loss).

    Args:
        across: what the x axis shows: the dotted key of a swept number, as dataset.batch_size or optimizer.lr; or
            loss_gap (test minus train loss) or accuracy_gap (train minus test accuracy), for a scatter of all runs.
    """

    def __init__(self, across: str) -> None:
        self.across = across

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Runs of which sensitivity is measured, at two values of `across` or more.

        Raises:
            ConfigError: of one it is not, or there is nothing to compare.
        """
        require_measure(runs, "sensitivity", "sharpness")
        if self.across in GAPS:
            return
        values = {str(value): value for value in (run.value(self.across) for run in runs)}
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

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables `points`, `means`, `measures` and `unreached`; {} where no run is complete."""
        import pandas as pd

        keys, told, columns = unseeded(sweep.keys), sweep.columns(), columns_found(sweep)
        errors = {column["error"] for column in told.values()} - {""}
        rows = [
            {**{key: member.cells[key] for key in keys}, **self._point(member, columns)} for member in sweep.members()
        ]
        if not rows:
            return {}
        points = pd.DataFrame(rows)
        if self.across in GAPS and (learned := learned_in_settings(sweep, points)) is not None:
            points["learned"] = learned
        over = _examples(sweep, int(points["n_train"].iloc[0]))
        shown = [name for name in told if name in points and name not in errors]
        measures = pd.DataFrame(
            [{"name": name, **told[name], **over.get(name, {})} for name in shown],
            columns=["name", "label", "unit", "error", "asked", "examples"],
        )
        settings = [*keys, "x"] if self.across not in GAPS else keys
        compared = self._compared({"points": points})
        means = _means(compared[compared["reached"]], settings, list(measures["name"]))
        tables = {"points": points, "means": means, "measures": measures}
        if not points["reached"].all():
            tables["unreached"] = points.loc[~points["reached"], [*keys, "seed", TRAIN_LOSS, "epochs", "run"]]
        return tables

    def _point(self, member: Member, columns: Sequence[str]) -> dict[str, Any]:
        """A member's row behind its swept keys, with the `columns` of measures."""
        metrics, run = member.metrics, member.run
        row: dict[str, Any] = {"seed": member.seed, "x": None}
        row |= {name: metrics[name] for name in METRICS if name in metrics}
        row[LOSS_GAP] = metrics[TEST_LOSS] - metrics[TRAIN_LOSS]
        if TEST_ACCURACY in metrics:
            row[ACCURACY_GAP] = metrics[TRAIN_ACCURACY] - metrics[TEST_ACCURACY]
        if self.across in GAPS:
            row["x"] = row.get(self.across)
        else:
            value = run.value(self.across)
            row["x"] = member.origin["n_train"] if value is None else value  # the full batch
        row |= {name: metrics[name] for name in columns if name in metrics}
        stops_at = run.value(_STOPS_AT) if REACHED in metrics else None
        row |= {"stops_at": math.nan if stops_at is None else stops_at, "reached": bool(metrics.get(REACHED, True))}
        row |= {"epochs": run.result["epochs"]}
        return row | {"parameters": run.result["parameters"], "run": run.path.name} | member.origin

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """Loss and accuracy with sensitivity, and sharpness, against the setting; or one scatter against the gap."""
        from hw1.plots.flatness_sensitivity import draw_gap, draw_measures, draw_quality

        points = self._compared(tables)
        groups = list(self._groups(points, keys))
        names = called(groups) if len(groups) > 1 else [""]
        named = [(name, part) for name, (_, part) in zip(names, groups, strict=True)]
        measures = {row.name: (row.label, row.unit) for row in tables["measures"].itertuples(index=False)}
        if self.across in GAPS:
            over = _over(tables["measures"], measures)
            found = self.headlines(tables, keys)
            rhos = {name: rho(found, self._rho(name)) for name in measures}
            return {"gap": draw_gap(named, self.across, measures, over, rhos)} if measures else {}
        sensitivity = {name: label for name, (label, _) in measures.items() if name.startswith(_SENSITIVITY)}
        right = {name: label for name, label in sensitivity.items() if not name.startswith(_OWN_SCALE)}
        figures = {
            quantity: draw_quality(named, quantity, self.across, right)
            for quantity, column in ((LOSS, TEST_LOSS), (ACCURACY, TEST_ACCURACY))
            if column in points
        }
        others = {name: told for name, told in measures.items() if name not in sensitivity}
        if not others:
            return figures
        over = _over(tables["measures"], others)
        return figures | {"sharpness": draw_measures(named, self.across, others, over)}

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """Rank correlations of `across` with every measure, and with test loss, accuracy and gap.

        Of a setting over all runs, with orders exchanged within each seed, and where they stop at one train loss given
        that, which the name says; of a gap, over the means of what trained
        alike but for its seed, where several did. The logarithm of a batch size ranks as the batch size does.
        """
        points, found = self._compared(tables), []
        if "unreached" in tables:
            all_of = tables["points"]
            found.append(share_headline("reached_train_loss", int(all_of["reached"].sum()), len(all_of)))
        names = [name for name in (TEST_ACCURACY, TEST_LOSS, LOSS_GAP) if name in points]
        names = [*([] if self.across in GAPS else names), *tables["measures"]["name"]]
        groups = [({}, points)] if self.across in GAPS else self._groups(points, keys)
        for values, part in groups:
            used = part[part["reached"]]
            for name in names:
                both = used.dropna(subset=["x", name])
                given = list(both[TRAIN_LOSS]) if _at_one_loss(both) and self.across not in GAPS else []
                label = self._rho(name, f"{_words(values)} {GIVEN}".strip() if given else _words(values))
                x, y = list(both["x"]), list(both[name])
                networks = [tuple(row) for row in both[unseeded(keys)].astype(str).to_numpy()]
                if self.across not in GAPS:
                    found.append(correlation_headline(label, x, y, list(both["seed"]), given=given))
                elif len(set(networks)) > 1:
                    found.append(correlation_of_means_headline(label, x, y, networks))
                else:
                    found.append(correlation_headline(label, x, y))
        return found

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """All of them: what a network is that has learned nothing depends on no batch size.

        Against a gap, those of the settings that learn, if these are most.
        """
        if "learned" not in tables["points"]:
            return training
        settings = [part for _, part in alike(tables["points"])]
        idle = [part for part in settings if len(part) >= _SEVERAL and not part["learned"].any()]
        if len(idle) >= len(settings) / 2:
            return training
        return training.drop([row for part in idle for row in part.index])  # the rows of both tables are the same

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """What rises and what falls with the setting, by rank correlations."""
        return flatness_in_words(self.across, tables, keys, numbers)

    def _compared(self, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """The rows of `points` that numbers and figures are of."""
        points = tables["points"]
        return points[points["learned"]] if "learned" in points and points["learned"].any() else points

    def _rho(self, name: str, where: str = "") -> str:
        """The name of the headline that correlates `across` with a column."""
        return " ".join(word for word in ("spearman_rho", name, self.across, where) if word)

    def _groups(self, points: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """(values, rows) of each combination of the swept keys other than the seed and what the x axis shows."""
        return parts(points, [key for key in unseeded(keys) if key != self.across])


def _at_one_loss(points: pd.DataFrame) -> bool:
    """Whether all were stopped at one train loss; a table of an earlier version does not say so."""
    return "stops_at" in points and points["stops_at"].notna().all() and points["stops_at"].nunique() == 1


def _words(values: Mapping[str, Any]) -> str:
    """`model=cnn lr=0.001`: a group's option without its folder."""
    return " ".join(f"{key.rpartition('.')[2]}={str(value).rpartition('/')[2]}" for key, value in values.items())


def _examples(sweep: Sweep, n_train: int) -> dict[str, dict[str, Any]]:
    """{column: the measure as it was asked for, the training examples that it takes}, of measures that take some."""
    found: dict[str, dict[str, Any]] = {}
    for ask in (ask for ask in sweep.asks if "examples" in ask.node):
        measured = next((one for run in sweep.complete().runs if (one := run.measured(ask)) is not None), None)
        for name in measured.columns if measured is not None else ():
            examples = ask.node["examples"]
            examples = n_train if examples is None else min(examples, n_train)
            found[f"{name}{ask.label}"] = {"asked": f"{ask.name}{ask.label}", "examples": examples}
    return found


def _over(table: pd.DataFrame, shown: Collection[str]) -> dict[str, int]:
    """The number of training examples of each measure that a figure shows, as it was asked for."""
    some = table[table["name"].isin(list(shown))].dropna(subset="examples")
    return {row.asked: int(row.examples) for row in some.itertuples(index=False)}


def _means(points: pd.DataFrame, settings: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """One row a setting and quantity."""
    names = [*(name for name in (*METRICS, *GAPS) if name in points), *measures]
    long = points.melt([*settings], names, var_name="quantity").dropna(subset="value")
    values = long.groupby([*settings, "quantity"], sort=False)["value"]
    return values.agg(mean="mean", sd="std", low="min", high="max", n="count").reset_index()
