"""Flatness by interpolation: the loss on the line between a small-batch and a large-batch solution."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.machine import cores, room
from hw1.measures.needs import values_need
from hw1.metrics import ACCURACY, LEARNING_RATE, LOSS, OTHER_LOSS, QUANTITIES, unit
from hw1.settings import ConfigError
from hw1.studies.answers import Answer
from hw1.studies.barriers_in_words import barriers_in_words
from hw1.studies.between import NotYetError, Part, computed, not_yet, parts_of
from hw1.studies.headlines import Headline, headline, labelled, parts, suffix
from hw1.studies.needed import columns_found
from hw1.words import NETWORK, estimate_in_words, settings_in_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Cell, Member, Sweep
    from hw1.settings import RunSettings

VERSION = 1  # of the measurement, for the cache
_PICKED_BY_SEED = ("train_size", "corruption", "val_fraction", "noise")
_TOGETHER = 4  # pairs of ends in one figure: more could not be told apart


class FlatnessInterp:
    """Loss and accuracy of theta(alpha) = (1 - alpha) theta_1 + alpha theta_2 on the whole train and test sets.

    Of the runs that differ in `pair_by` alone, the one with its smallest value is theta_1 and each other is theta_2.
    Following Goodfellow et al. 2015; as a picture of flatness, Keskar et al. 2017, figure 3.

    Of runs with several members, member r of the one is paired with member r of the other.

    Tables: `interpolation` (alpha, split, loss, accuracy, the swept keys; one row a point) and `barriers` (one row a
    pair and split: barrier in nats over the chord between the ends, the ends themselves, and what measures found of
    both, as `sharpness/trace_at_1`).

    Args:
        pair_by: dotted key of the setting that tells the two networks of a pair apart.
        start: first alpha, at most 0.
        stop: last alpha, at least 1.
        points: number of alphas, evenly spaced, 0 and 1 among them.

    Raises:
        ValueError: the grid of alphas misses 0 or 1, so that the trained networks themselves would not be drawn, or has
            nothing between them.
    """

    def __init__(self, pair_by: str, start: float, stop: float, points: int) -> None:
        if points < 2 or not start < stop:
            raise ValueError(f"points: got {points} from {start} to {stop}, expected at least 2 in rising order")
        step = (stop - start) / (points - 1)
        self.alphas = [round(start + i * step, 12) for i in range(points)]
        if not {0.0, 1.0} <= set(self.alphas):
            raise ValueError(
                f"points: got {points} alphas from {start} to {stop}, which miss 0 or 1, the trained networks; "
                "expected a grid with both, as 31 from -1 to 2"
            )
        if not any(0 < alpha < 1 for alpha in self.alphas):
            raise ValueError(
                f"points: got {points} alphas from {start} to {stop}, expected some between 0 and 1 as well"
            )
        self.pair_by = pair_by

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Two values of `pair_by` at least, of networks of one shape on the same data.

        Raises:
            ConfigError: there is nothing to interpolate between.
        """
        group = self.pair_by.partition(".")[0]
        of_data = group == "dataset" and self.pair_by not in ("dataset.batch_size", "dataset.workers")
        if self.pair_by == "seed":  # which also picks the examples, wherever it is not all of them
            of_data = any(run.dataset.get(key) for run in runs for key in _PICKED_BY_SEED)
        if of_data or (group == "model" and self.pair_by not in ("model.activation", "model.dropout")):
            differ = "data" if of_data else "architectures"
            raise ConfigError(
                f"study.pair_by: got {self.pair_by}, which gives the two networks of a pair different {differ}; "
                "expected a setting of their training, as dataset.batch_size, optimizer.lr or init"
            )
        missing = object()
        if any(run.value(self.pair_by, missing) is missing for run in runs):
            raise ConfigError(f"study.pair_by: got {self.pair_by}, which is no setting of these runs")
        values = {str(run.value(self.pair_by)) for run in runs}
        if len(values) < 2:
            raise ConfigError(
                f"{self.pair_by}: got {', '.join(values)}, expected two values or more, as {self.pair_by}=64,1024: "
                "this experiment interpolates between runs that differ in it (study.pair_by)"
            )

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """Tables `interpolation` and `barriers`; {} where no pair is complete."""
        import pandas as pd

        keys, found = self._keys(sweep.keys), columns_found(sweep)
        pairs: list[tuple[Member, Member]] = []
        ends: list[dict[str, Any]] = []
        for first, second in self._pairs(sweep):
            labels = {key: _cell(sweep, first, key) for key in keys}
            labels |= {"theta_1": _cell(sweep, first, self.pair_by), "theta_2": _cell(sweep, second, self.pair_by)}
            labels |= {"data": first.origin["data"], "source": first.origin["source"]}
            if any(labels.items() <= earlier.items() for earlier in ends):  # seed 1 is also member 1 of seed 0
                continue
            pairs.append((first, second))
            ends.append({**labels, **_measured(first, found, "at_0"), **_measured(second, found, "at_1")})
        if not pairs:
            return {}
        columns, of_net = [*keys, "theta_1", "theta_2", "data", "source"], ("n_train", NETWORK, OTHER_LOSS)
        frames = [
            table.assign(
                **{name: end[name] for name in columns},
                **{name: value for name, value in first.origin.items() if name in of_net},
            )
            for table, end, (first, _) in zip(self._tables(pairs, cache), ends, pairs, strict=True)
        ]
        interpolation = pd.concat(frames, ignore_index=True)
        barriers = self._barriers(interpolation, keys).merge(pd.DataFrame(ends), how="left", on=columns)
        return {"interpolation": interpolation, "barriers": barriers}

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """One figure for every combination of swept keys, one column a learning rate; of many pairs, one each."""
        from hw1.plots.interpolation import draw_interpolation

        table = tables["interpolation"]
        alone = ["theta_2"] if table["theta_2"].nunique() > _TOGETHER else []
        own = [key for key in self._keys(keys) if key != "seed"]
        columns = sorted((key for key in own if key != "init"), key=lambda key: key != LEARNING_RATE)
        across = next(iter(columns), None)
        figures = {}
        for values, part in parts(table, [*(key for key in own if key != across), *alone]):
            varied = {key: value for key, value in values.items() if table[key].nunique() > 1}
            heights = self._heights(tables["barriers"], values, across, unit(LOSS, ACCURACY in table, table))
            title = settings_in_words({key: value for key, value in values.items() if key not in alone})
            figure = draw_interpolation(part, across, self.pair_by, title, heights)
            figures[f"interpolation{suffix(varied)}"] = figure
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """The test-loss barrier, in nats, of each pair over its seeds."""
        table = tables["barriers"]
        table = table[table["split"] == "test"]
        own = [key for key in self._keys(keys) if key != "seed"]
        found = []
        for values, part in parts(table, [*own, "theta_1", "theta_2"]):
            ends = f"{self.pair_by}={values.pop('theta_1')}-{values.pop('theta_2')}"
            found.append(headline(f"barrier{labelled(values)} {ends}", list(part["barrier"]), least=0))
        return found

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """All of them: a barrier between networks at chance says nothing."""
        return training

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """Whether a barrier stands between the two, and which of them is the sharper."""
        return barriers_in_words(tables, [key for key in self._keys(keys) if key != "seed"], self.pair_by)

    def _heights(
        self, barriers: pd.DataFrame, values: Mapping[str, Any], across: str | None, of: str
    ) -> dict[tuple[Any, ...], str]:
        """The test-loss barrier of each pair of a figure in words, with its interval over seeds."""
        own = barriers[(barriers["split"] == "test") & (barriers[list(values)] == list(values.values())).all(axis=1)]
        found = {}
        for ends, part in parts(own, [*([across] if across else []), "theta_1", "theta_2"]):
            mean = headline("", list(part["barrier"]))
            found[tuple(ends.values())] = estimate_in_words(mean.value, mean.low, mean.high, mean.n, of)
        return found

    def _keys(self, swept: Sequence[str]) -> list[str]:
        """The columns that tell pairs of one setting of `pair_by` apart: seed, swept keys and init."""
        return ["seed", *(key for key in dict.fromkeys([*swept, "init"]) if key not in ("seed", self.pair_by))]

    def _pairs(self, sweep: Sweep) -> list[tuple[Member, Member]]:
        """(theta_1, theta_2) of every pair."""
        keys = [key for key in self._keys(sweep.keys) if key != self.pair_by]
        groups: dict[tuple[str, ...], list[list[Member]]] = {}
        for run, members in itertools.groupby(sweep.members(), key=lambda member: member.run):
            groups.setdefault(tuple(str(sweep.cell(run, key)) for key in keys), []).append(list(members))

        def order(members: Sequence[Member]) -> tuple[int, float, str]:
            return _order(members[0].run.value(self.pair_by))

        pairs: list[tuple[Member, Member]] = []
        smallest = min((_order(run.value(self.pair_by)) for run in sweep.runs), default=None)
        for runs in groups.values():
            first, *others = sorted(runs, key=order)
            if order(first) != smallest:  # theta_1 failed: its partners stay unpaired
                continue
            for other in others:
                pairs += zip(first, other, strict=False)
        return pairs

    def pieces(self, sweep: Sweep, cache: Cache) -> list[Part]:
        """What is yet to be computed, in pieces that any process may; [] where it is little."""
        pairs: dict[int, tuple[Member, Member]] = {}
        for number, (first, second) in enumerate(self._pairs(sweep)):
            with contextlib.suppress(NotYetError):
                self._table(first, second, cache, not_yet)
                continue
            pairs[number] = first, second
        parts = [part for part in self._parts(pairs, cache) if part.pieces and part.pieces.lacking([part.name])]
        return list({(part.pieces, part.name): part for part in parts}.values())

    def _parts(self, pairs: Mapping[int, tuple[Member, Member]], cache: Cache) -> list[Part]:
        """What is computed in one go between the two of each pair."""
        kept = {
            number: cache.pieces("interpolation", VERSION, [first.run, second.run], self._settings(first))
            for number, (first, second) in pairs.items()
        }
        return parts_of(pairs, self.alphas, kept)

    def _settings(self, first: Member) -> dict[str, Any]:
        return {"alphas": self.alphas, "member": first.number}

    def _table(self, first: Member, second: Member, cache: Cache, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The points between two, computed if they are not in the cache."""
        return cache.table("interpolation", VERSION, [first.run, second.run], self._settings(first), compute)

    def _tables(self, pairs: Sequence[tuple[Member, Member]], cache: Cache) -> list[pd.DataFrame]:
        """The points between the two of each pair; what was not measured before is, on every core where it is much."""
        import pandas as pd

        def table(number: int, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
            return self._table(*pairs[number], cache, compute)

        tables: dict[int, pd.DataFrame] = {}
        for number in range(len(pairs)):
            with contextlib.suppress(NotYetError):  # it is computed below
                tables[number] = table(number, not_yet)
        lacking = [number for number in range(len(pairs)) if number not in tables]
        parts = self._parts({number: pairs[number] for number in lacking}, cache)
        parameters = max((int(pairs[number][0].run.result["parameters"]) for number in lacking), default=0)
        workers = room(cores(), values_need(parameters)) if any(part.pieces for part in parts) else 1
        done: dict[int, pd.DataFrame] = {}
        left = {number: [i for i, part in enumerate(parts) if part.pair == number] for number in lacking}
        with contextlib.closing(computed(parts, workers)) as found:
            for i, values in found:
                done[i], number = values, parts[i].pair
                if all(j in done for j in left[number]):  # kept at once: an interrupted command goes on behind it
                    whole = pd.concat([done.pop(j) for j in left.pop(number)], ignore_index=True)
                    tables[number] = table(number, functools.partial(pd.DataFrame, whole))
                    if (pieces := parts[i].pieces) is not None:
                        pieces.remove()
        return [tables[number] for number in range(len(pairs))]

    def _barriers(self, table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
        import pandas as pd

        from hw1.landscape.paths import barrier

        rows = []
        for values, part in parts(table, [*keys, "theta_1", "theta_2", "split", "data", "source"]):
            curve = part.set_index("alpha")
            row = values | {"barrier": barrier(list(curve.index), list(curve["loss"]))}
            for column in (name for name in QUANTITIES if name in curve):
                row |= {f"{column}_at_0": curve[column][0.0], f"{column}_at_1": curve[column][1.0]}
            rows.append(row | {name: part[name].iloc[0] for name in (OTHER_LOSS,) if name in part})
        return pd.DataFrame(rows)


def _cell(sweep: Sweep, member: Member, key: str) -> Cell:
    """A setting as it stands in a table; a member has its own seed."""
    return member.seed if key == "seed" else sweep.cell(member.run, key)


def _measured(member: Member, columns: Sequence[str], end: str) -> dict[str, float]:
    """What measures found of a pair's end."""
    return {f"{name}_{end}": member.metrics[name] for name in columns if name in member.metrics}


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then null (the full batch, the whole set), then everything else by name."""
    if isinstance(value, int | float):
        return (0, value, "")
    return (1, 0, "") if value is None else (2, 0, str(value))
