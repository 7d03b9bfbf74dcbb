"""Flatness by interpolation: the loss on the line between a small-batch and a large-batch solution (section 8)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.studies.protocol import Headline, Measurements, headline, labelled, parts, suffix, titled
from hw1.training.identity import ConfigError, select

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from hw1.runs import Run, Sweep

SPLITS = ("train", "test")
_PICKED_BY_SEED = ("train_size", "corruption", "val_fraction", "noise")


class FlatnessInterp:
    """Loss and accuracy of theta(alpha) = (1 - alpha) theta_1 + alpha theta_2 on the whole train and test sets.

    Of the runs that differ in `pair_by` alone, the one with its smallest value is theta_1 and each other is theta_2.
    Following Goodfellow et al. 2015; as a picture of flatness, Keskar et al. 2017, figure 3.

    Of runs with several members, member r of the one is paired with member r of the other.

    Tables: `interpolation` (alpha, split, loss, accuracy, the swept keys; one row a point) and `barriers` (one row a
    pair and split: barrier in nats over the chord between the ends, the ends themselves, and the sensitivity and
    sharpness of both where callbacks measured them, as `sharpness/trace_at_1`).

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

    def check(self, runs: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> None:
        """Two values of `pair_by` at least, of networks of one shape on the same data.

        Raises:
            ConfigError: there is nothing to interpolate between.
        """
        group = self.pair_by.partition(".")[0]
        of_data = group == "dataset" and self.pair_by not in ("dataset.batch_size", "dataset.workers")
        if self.pair_by == "seed":  # which also picks the examples, wherever it is not all of them
            of_data = any(run["dataset"].get(key) for run in runs for key in _PICKED_BY_SEED)
        if of_data or (group == "model" and self.pair_by not in ("model.activation", "model.dropout")):
            differ = "data" if of_data else "architectures"
            raise ConfigError(
                f"study.pair_by: got {self.pair_by}, which gives the two networks of a pair different {differ}; "
                "expected a setting of their training, as dataset.batch_size, optimizer.lr or init"
            )
        missing = object()
        if any(select(run, self.pair_by, missing) is missing for run in runs):
            raise ConfigError(f"study.pair_by: got {self.pair_by}, which is no setting of these runs")
        values = {str(select(run, self.pair_by)) for run in runs}
        if len(values) < 2:
            raise ConfigError(
                f"{self.pair_by}: got {', '.join(values)}, expected two values or more, as {self.pair_by}=64,1024: "
                "this experiment interpolates between runs that differ in it (study.pair_by)"
            )

    def measure(self, sweep: Sweep, measurements: Measurements) -> dict[str, pd.DataFrame]:
        """Tables `interpolation` and `barriers`; {} where no pair is complete."""
        import pandas as pd

        frames: list[pd.DataFrame] = []
        ends: list[dict[str, Any]] = []
        nets = functools.lru_cache(maxsize=2)(lambda run: run.nets())  # read once for all members of a pair of runs
        for keys, first, second, member in self._pairs(sweep):
            dataset = first.result["dataset"]
            labels = {
                "seed": _cell(sweep, first, "seed", member),
                **{key: value for key, value in keys.items() if key != "seed"},
                "theta_1": _cell(sweep, first, self.pair_by, member),
                "theta_2": _cell(sweep, second, self.pair_by, member),
                "data": dataset["name"],
                "source": dataset["source"],
            }
            if any(labels.items() <= earlier.items() for earlier in ends):  # seed 1 is also member 1 of seed 0
                continue
            identity = {
                "measurement": "interpolation",
                "runs": [first.key, second.key],
                "weights": [first.weights_digest(), second.weights_digest()],
                "data": first.result["dataset"]["sha256"],
                "alphas": self.alphas,
                **({"member": member} if first.members > 1 else {}),
            }
            table = measurements.table(
                identity, lambda one=first, two=second, r=member: self._interpolate(one, nets(one)[r], nets(two)[r])
            )
            frames.append(table.assign(**labels, n_train=dataset["train"]))
            ends.append({**labels, **_measured(first, member, "at_0"), **_measured(second, member, "at_1")})
        if not frames:
            return {}
        interpolation = pd.concat(frames, ignore_index=True)
        barriers = self._barriers(interpolation)
        return {"interpolation": interpolation, "barriers": barriers.merge(pd.DataFrame(ends), how="left")}

    def draw(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
        """One figure for every combination of swept keys, one column a learning rate."""
        from hw1.plots.interpolation import draw_interpolation

        table = tables["interpolation"]
        keys = self._group_keys(table)
        across = next((key for key in ["optimizer.lr", *keys] if key in keys and key not in ("seed", "init")), None)
        others = [key for key in keys if key not in ("seed", across)]
        figures = {}
        for values, part in parts(table, others):
            varied = {key: value for key, value in values.items() if table[key].nunique() > 1}
            figure = draw_interpolation(part, across, self.pair_by, titled(values))
            figures[f"interpolation{suffix(varied)}"] = figure
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame]) -> list[Headline]:
        """The test-loss barrier, in nats, of each pair over its seeds."""
        table = tables["barriers"]
        table = table[table["split"] == "test"]
        keys = [key for key in self._group_keys(table) if key != "seed"]
        found = []
        for values, part in parts(table, [*keys, "theta_1", "theta_2"]):
            ends = f"{self.pair_by}={values.pop('theta_1')}-{values.pop('theta_2')}"
            found.append(headline(f"barrier{labelled(values)} {ends}", list(part["barrier"])))
        return found

    def _name(self, sweep: Sweep, run: Run, member: int) -> int | float | str:
        """What tells a network of a pair from the other."""
        return run.value("seed") + member if self.pair_by == "seed" else sweep.cell(run, self.pair_by)

    def _pairs(self, sweep: Sweep) -> list[tuple[dict[str, Any], Run, Run, int]]:
        """(values of the swept keys, theta_1's run, theta_2's run, member) of every pair."""
        keys = [key for key in dict.fromkeys([*sweep.swept, "seed", "init"]) if key != self.pair_by]
        groups: dict[tuple[str, ...], list[Run]] = {}
        for run in sweep.complete().runs:
            groups.setdefault(tuple(str(sweep.cell(run, key)) for key in keys), []).append(run)
        pairs = []
        smallest = min((_order(run.value(self.pair_by)) for run in sweep.runs), default=None)
        for runs in groups.values():
            first, *others = sorted(runs, key=lambda run: _order(run.value(self.pair_by)))
            if _order(first.value(self.pair_by)) != smallest:  # theta_1 failed: its partners stay unpaired
                continue
            values = {key: sweep.cell(first, key) for key in keys}
            for other in others:
                pairs += [(values, first, other, member) for member in range(min(first.members, other.members))]
        return pairs

    def _interpolate(self, run: Run, one: nn.Module, two: nn.Module) -> pd.DataFrame:
        import pandas as pd

        from hw1.landscape import WholeSet, evaluate, segment

        data = run.datamodule()
        frames = []
        for split, (x, y) in zip(SPLITS, (data.train_tensors, data.test_tensors), strict=True):
            inputs = data.train_tensors[0]
            risk = WholeSet(one, data.loss, x, y, batch_size=data.eval_batch_size, statistics_inputs=inputs)
            values = evaluate(risk, segment(one, two, self.alphas))  # [K, 2]; [K, 1] without classes
            columns = dict(zip(risk.columns, values.T.tolist(), strict=True))
            frames.append(pd.DataFrame({"alpha": self.alphas, "split": split, **columns}))
        return pd.concat(frames, ignore_index=True)

    def _barriers(self, table: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        from hw1.landscape.paths import barrier

        keys = [*self._group_keys(table), "theta_1", "theta_2", "split", "data", "source"]
        rows = []
        for values, part in table.groupby(keys, sort=False):
            curve = part.set_index("alpha")
            row = dict(zip(keys, values, strict=True))
            row["barrier"] = barrier(list(curve.index), list(curve["loss"]))
            for column in (name for name in ("loss", "accuracy") if name in curve):
                row |= {f"{column}_at_0": curve[column][0.0], f"{column}_at_1": curve[column][1.0]}
            rows.append(row)
        return pd.DataFrame(rows)

    def _group_keys(self, table: pd.DataFrame) -> list[str]:
        """The swept keys among a table's columns, seed and init included."""
        own = ("alpha", "split", "loss", "accuracy", "theta_1", "theta_2", "data", "source", "n_train", "barrier")
        return [name for name in table if name not in own and "_at_" not in name]


def _cell(sweep: Sweep, run: Run, key: str, member: int) -> int | float | str:
    """A setting as it stands in a table; a member has its own seed."""
    return int(run.value("seed")) + member if key == "seed" else sweep.cell(run, key)


def _measured(run: Run, member: int, end: str) -> dict[str, float]:
    """Sensitivity and sharpness of a pair's end, if callbacks measured them."""
    kinds = ("sensitivity/", "sharpness/")
    return {f"{name}_{end}": value for name, value in run.metrics(member).items() if name.startswith(kinds)}


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then null (the full batch, the whole set), then everything else by name."""
    if isinstance(value, int | float):
        return (0, value, "")
    return (1, 0, "") if value is None else (2, 0, str(value))
