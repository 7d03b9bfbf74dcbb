"""What the page of a sweep shows where no study asks anything: how its runs learned, and what its keys did.

Of a search, how it went: what each trial came to, the best so far, and the value against what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import QUANTITIES, is_of_test_set, label
from hw1.studies.answers import Answer, number
from hw1.studies.headlines import Headline, unseeded
from hw1.studies.learning_curves import SERIES, learning_curves
from hw1.words import count, settings_in_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Sweep
    from hw1.settings import RunSettings

SETS = ("train", "val", "test")
CURVES, TRIALS, ENDS = "learning_curves", "trials", "ends"
_MOST_SERIES = 12  # in one figure of learning curves: more cannot be told apart


class Overview:
    """Learning curves, the swept keys against the final metrics, and the trials of a search."""

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Every sweep can be shown."""

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables by name; see `Study`.

        `learning_curves` of at most 12 settings, those of a search without the test set; `ends`, one row a member: the
        swept keys but the seed, seed, metrics of whole sets, data, source, n_train, network_in_words; `trials` of a
        search: see `trials_of`.
        """
        import pandas as pd

        tables: dict[str, pd.DataFrame] = {}
        members = list(sweep.members())
        names = [f"{split}/{quantity}" for quantity in QUANTITIES for split in SETS]
        rows = [
            {
                **{key: member.cells[key] for key in unseeded(sweep.keys)},
                "seed": member.seed,
                **{name: member.metrics[name] for name in names if name in member.metrics},
                **member.origin,
            }
            for member in members
        ]
        if rows and any(name in row for row in rows for name in names):
            tables[ENDS] = pd.DataFrame(rows)
            settings = {tuple(str(member.cells[key]) for key in unseeded(sweep.keys)) for member in members}
            if len(settings) <= _MOST_SERIES:
                if sweep.record.get("search"):  # what is looked at beside its figure has a say in what is chosen
                    names = [name for name in names if not is_of_test_set(name)]
                tables[CURVES] = learning_curves(sweep, names)
        if search := sweep.record.get("search"):
            tables[TRIALS] = trials_of(search)
        return tables

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """Figures by name; see `Study`."""
        from hw1.plots.final_metrics import draw_final_metrics
        from hw1.plots.learning_curves import draw_learning_curves
        from hw1.plots.search import draw_search

        figures: dict[str, Figure] = {}
        classes = ENDS in tables and "train/accuracy" in tables[ENDS]
        if TRIALS in tables and tables[TRIALS]["value"].notna().any():
            figures["search"] = draw_search(tables[TRIALS], _space(tables[TRIALS]))
        if CURVES in tables and _have_learned(curves := tables[CURVES]):
            shown = [quantity for quantity in QUANTITIES if (curves["quantity"] == quantity).any()]
            figures[CURVES] = draw_learning_curves(curves, shown, "", classes)
        own = unseeded(keys)
        if ENDS in tables and own and TRIALS not in tables:
            figures["final_metrics"] = draw_final_metrics(tables[ENDS], own, SETS, classes)
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """None: nothing was asked."""
        return []

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """How a search went; of any other sweep, how to read the figures."""
        captions = {
            CURVES: "Losses and accuracies of whole sets, in evaluation mode, against epochs.",
            "final_metrics": "What the runs came to against "
            + (
                f"the {label(own[0])}."
                if len(own := unseeded(keys)) == 1
                else "each swept key; the other keys vary from point to point."
            ),
            "search": "What each trial came to, the best so far, and the value against each setting that was tried.",
        }
        if TRIALS not in tables:
            return Answer(captions=captions)
        captions[CURVES] += " The test set is left out: trials are chosen by the others."
        trials = tables[TRIALS]
        good = trials.dropna(subset="value")
        metric = label(str(trials["metric"].iloc[0]))
        if good.empty:
            return Answer(captions=captions, too_short=f"None of {count(len(trials), 'trial')} has a {metric}.")
        lowest = trials["direction"].iloc[0] == "minimize"
        best = good.loc[good["value"].idxmin() if lowest else good["value"].idxmax()]
        setting = settings_in_words({key: best[key] for key in _space(trials)})
        failed = len(trials) - len(good)
        sentences = [
            f"Of {count(len(trials), 'trial')}, number {best['trial']} has the {'lowest' if lowest else 'highest'} "
            f"{metric}, {number(best['value'])}, at {setting}.",
            *([f"{count(failed, 'trial')} failed."] if failed else []),
            "It is the best of what was tried, hence better than the same settings will be on other data: take its "
            "test metrics for that.",
        ]
        return Answer(sentences, captions, {TRIALS: ["trial", "value", "best", *_space(trials)]})


def _have_learned(curves: pd.DataFrame) -> bool:
    """Whether some network was evaluated more than once, unlike weights that were trained elsewhere."""
    return bool((curves.groupby([SERIES, "seed", "split", "quantity"]).size() > 1).any())


def trials_of(search: Mapping[str, Any]) -> pd.DataFrame:
    """One row a trial, in the order in which they were asked.

    Columns: trial, value (of the metric; NaN of one that failed), best (so far), what was tried by key, metric,
    direction, runs (folders).

    Args:
        search: what the record of a sweep says of it.
    """
    import pandas as pd

    rows = []
    for number_, trial in enumerate(search["tried"]):
        tried = dict(word.lstrip("+").partition("=")[::2] for word in trial["words"])
        fixed = {"metric": search["metric"], "direction": search["direction"], "runs": " ".join(trial["runs"])}
        rows.append({"trial": number_, "value": trial["value"], "best": None, **tried, **fixed})
    table = pd.DataFrame(rows)
    table["value"] = table["value"].astype(float)
    filled = table["value"].ffill() if search["direction"] == "minimize" else -table["value"].ffill()
    table["best"] = filled.cummin() if search["direction"] == "minimize" else -filled.cummin()
    for key in _space(table):
        with_numbers = pd.to_numeric(table[key], errors="coerce")
        if with_numbers.notna().all():
            table[key] = with_numbers
    return table


def _space(trials: pd.DataFrame) -> list[str]:
    own = ("trial", "value", "best", "metric", "direction", "runs", "budget")
    return [str(key) for key in trials.columns if key not in own]
