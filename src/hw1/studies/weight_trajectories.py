"""Weight trajectories: the paths that the weights of several trainings take, on common principal axes."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import GRADIENT_NORM, SPLITS
from hw1.settings import ConfigError
from hw1.studies.answers import Answer
from hw1.studies.called import with_layers
from hw1.studies.headlines import Headline, labelled, parts, suffix, unseeded
from hw1.studies.needed import keeping, require_weights
from hw1.studies.path_distances import FURTHEST, between, path_distances
from hw1.studies.paths_in_words import WHOLE, paths_in_words
from hw1.words import settings_in_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Member, Run, Snapshots, Sweep
    from hw1.settings import RunSettings

VERSION = 1  # of the measurements, for the cache
_PATHS_VERSION = 2
_FIGURES = ("trajectory_layer", "trajectory_model", "filters")


class WeightTrajectories:
    """Paths of one layer's weight matrix and of all parameters, in the plane of their two leading principal axes.

    The axes are fitted jointly to all snapshots of the runs that differ in the seed alone, every member of a run a path
    of its own; each combination of other swept keys has its own axes. Loss and accuracy at a point are those of the
    whole sets after its epoch.

    Tables: `trajectory_layer` and `trajectory_model` (one row a snapshot: coordinates, displacement since the snapshot
    before it and the interval of epochs between, loss, accuracy), `paths` (one row a path: length between snapshots,
    net displacement, mean distances to the other runs' starts and ends, the latter over the length, and means over
    the other runs of what `path_distances.apart` gives) and, if asked for, `filters` (one row a pixel). A length grows
    with the number of snapshots, the more the noisier the path; nothing is concluded from it.

    Args:
        layer: name of the weight matrix, as in `net.named_parameters()`; null for all parameters only.
        filters: names of convolutions' weights, whose filters are drawn as the first input channel sees them: at the
            end, and at the snapshot of the smallest gradient norm, which is the median norm of the mini-batch gradients
            over the steps of the epoch that the snapshot ends.
    """

    def __init__(self, layer: str | None, filters: Sequence[str]) -> None:
        self.layer = layer
        self.filters = list(filters)

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """The runs keep what the paths are made of, and their networks have the layers.

        Raises:
            ConfigError: no weight snapshots, filters at the smallest gradient norm without gradient norms, or a layer
                that is not there.
        """
        needed = {"weight_snapshots": "WeightSnapshots"} | ({"gradient_norm": "GradientNorm"} if self.filters else {})
        for run in runs:
            if not keeping("snapshots", run) or (self.filters and not keeping("gradient_norms", run)):
                kept = [str(node.get("_target_")).rpartition(".")[2] for node in run.callbacks.values()]
                raise ConfigError(
                    f"callbacks: got {', '.join(kept) or 'none'}, expected {' and '.join(needed.values())} among them: "
                    f"callbacks=[{','.join(needed)}]"
                )
        for run in {str((run.dataset, run.model)): run for run in runs}.values():
            require_weights(run, self.layer, self.filters)

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """The tables; {} where no run is complete.

        Raises:
            ConfigError: weights stood still between two snapshots.
        """
        import pandas as pd

        keys = unseeded(sweep.keys)
        groups: dict[tuple[str, ...], list[Member]] = {}
        for member in sweep.members():
            groups.setdefault(tuple(str(member.cells[key]) for key in keys), []).append(member)
        frames: dict[str, list[pd.DataFrame]] = {}
        for members in groups.values():
            own = [{"seed": member.seed, "run": member.run.slug, **member.origin} for member in members]
            settings = pd.DataFrame([{key: members[0].cells[key] for key in keys} | row for row in own])
            for name, table in self._measured(members, cache):
                of_path = settings.loc[table["member"]].reset_index(drop=True)
                whole = with_layers(of_path.join(table.drop(columns="member")), members[0].run.settings.model)
                frames.setdefault(name, []).append(whole)
        return {name: pd.concat(tables, ignore_index=True) for name, tables in frames.items()}

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """For each combination of swept keys: the layer's paths, those of all parameters, and the filters."""
        from hw1.plots.filters import draw_filters
        from hw1.plots.trajectories import draw_trajectories

        figures = {}
        every = [seed for name in _FIGURES[:2] if name in tables for seed in tables[name]["seed"]]
        for name in (name for name in _FIGURES if name in tables):
            for values, part in parts(tables[name], unseeded(keys)):
                draw = draw_filters if name == "filters" else functools.partial(draw_trajectories, seeds=every)
                figures[f"{name}{suffix(values)}"] = draw(part, settings_in_words(values))
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """What the two axes explain, and how far apart the runs end.

        Against where they started; against where independent directions would have taken them, which in many
        dimensions are at right angles (1: as far); and the cosine of the angle between the displacements themselves.
        """
        found = []
        for name in (name for name in _FIGURES[:2] if name in tables):
            for values, part in parts(tables[name], unseeded(keys)):
                weights = part["weights"].iloc[0]
                label = labelled({"weights": weights, **values})
                explained = float(part["explained_1"].iloc[0] + part["explained_2"].iloc[0])
                n = part["seed"].nunique()  # one fit to all seeds: a number without a spread
                found.append(Headline(f"explained_variance{label}", explained, math.nan, math.nan, n))
                paths = tables["paths"].merge(part[[*values, "weights", "seed"]].drop_duplicates())
                if n > 1:
                    alike, cosine = (list(paths[name]) for name in ("ends_over_independent", "displacement_cosine"))
                    found.append(between(f"end_distance_over_independent{label}", alike, 0, FURTHEST))
                    found.append(between(f"displacement_cosine{label}", cosine, -1, 1))
                    against = list(paths["to_other_ends"] / paths["to_other_starts"])
                    found.append(between(f"end_distance_over_start_distance{label}", against))
        return found

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """All of them: a path that leads nowhere is none."""
        return training

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """Whether different starts end in the same place, against ends that independent directions would give."""
        return paths_in_words(tables, unseeded(keys))

    def _measured(self, members: list[Member], cache: Cache) -> Iterator[tuple[str, pd.DataFrame]]:
        """(name, table) of members that differ in the seed alone; `member` counts through all of them."""
        import pandas as pd

        runs = list(dict.fromkeys(member.run for member in members))

        def table(name: str, of: Any, compute: Callable[[], pd.DataFrame], version: int = VERSION) -> pd.DataFrame:
            return cache.table(name, version, runs, {"of": of}, compute)

        starts = {run: cache.table("start", VERSION, [run], {}, functools.partial(_start, run)) for run in runs}
        quality = [
            _quality(member, starts[member.run].iloc[[member.number]]).assign(member=i)
            for i, member in enumerate(members)
        ]
        for name, weights in zip(_FIGURES[:2], (self.layer, WHOLE), strict=True):
            if weights is not None:
                read = functools.cache(functools.partial(_snapshots, members, weights))  # once for both, if at all
                points = table("trajectory", weights, functools.partial(_points, members, weights, read))
                points["interval"] = points.groupby("member")["epoch"].diff()
                yield name, points.merge(pd.concat(quality), on=["member", "epoch"], how="left")
                yield "paths", table("paths", weights, functools.partial(path_distances, weights, read), _PATHS_VERSION)
        if self.filters:
            yield "filters", table("filters", self.filters, functools.partial(_filters, members, self.filters))


def _snapshots(members: Sequence[Member], weights: str) -> list[Snapshots]:
    """The snapshots of every member."""
    found = []
    for run, own in itertools.groupby(members, key=lambda member: member.run):
        every = run.snapshots(None if weights == WHOLE else weights)
        values = every.values.unbind(1) if run.count > 1 else [every.values]
        found += [dataclasses.replace(every, values=values[member.number]) for member in own]
    return found


def _points(members: Sequence[Member], weights: str, read: Callable[[], list[Snapshots]]) -> pd.DataFrame:
    """One row a snapshot.

    Raises:
        ConfigError: weights stood still between two snapshots.
    """
    import pandas as pd
    import torch

    from hw1.landscape import displacements, fit_pca

    paths = [snapshots.values.flatten(1) for snapshots in read()]  # R of [T, P]
    steps = [displacements(path).tolist() for path in paths]
    _refuse_still(members, weights, read(), steps)
    pca = fit_pca(torch.cat(paths), 2)
    frames = []
    for member, (snapshots, path) in enumerate(zip(read(), paths, strict=True)):
        points = pd.DataFrame(pca.project(path).numpy(), columns=["pc1", "pc2"])
        points.insert(0, "epoch", snapshots.epochs)
        points["displacement"] = [math.nan, *steps[member]]
        frames.append(points.assign(member=member))
    fit = {f"explained_{i}": value for i, value in enumerate(pca.explained.tolist(), 1)}
    return pd.concat(frames, ignore_index=True).assign(weights=weights, parameters=paths[0].shape[1], **fit)


def _refuse_still(
    members: Sequence[Member], weights: str, snapshots: Sequence[Snapshots], steps: Sequence[Sequence[float]]
) -> None:
    what = "all parameters" if weights == WHOLE else weights
    still = []
    moving = []
    for member, path, lengths in zip(members, snapshots, steps, strict=True):
        if 0 in lengths:
            first, second = path.epochs[lengths.index(0) :][:2]
            of = f"{member.run.path.name} (member {member.number})" if member.run.count > 1 else member.run.path.name
            still.append(f"{of}: {what} did not move between epoch {first} and epoch {second}")
        else:
            moving.append(str(member.seed))
    if still:
        raise ConfigError(
            f"{'; '.join(still)}; expected displacements above 0: is the learning rate 0, are units dead, or does the "
            f"loss not depend on these weights? The others: seed={','.join(moving) or 'none'}"
        )


def _start(run: Run) -> pd.DataFrame:
    """Loss and accuracy of the whole sets at each member's initialisation, which no history has."""
    import pandas as pd
    import torch

    from hw1.risk.empirical import EmpiricalRisk
    from hw1.vectors import ParamSpace

    data, snapshots = run.datamodule(), run.snapshots()
    net, thetas = run.nets(snapshots.epochs[0])[0], snapshots.values[0].reshape(run.count, -1)
    columns: dict[str, list[float]] = {}
    for split in SPLITS:
        risk = EmpiricalRisk(
            net, data.loss, data.batches(split), ParamSpace.of(net), kind=data.kind, chunk_size=data.eval_batch_size,
            statistics_inputs=data.inputs(SPLITS[0]),
        )  # fmt: skip
        values = torch.stack([risk.metrics(theta) for theta in thetas])  # [R, 2]; [R, 1] without classes
        columns |= {f"{split}/{name}": column for name, column in zip(risk.columns, values.T.tolist(), strict=True)}
    return pd.DataFrame(columns)


def _quality(member: Member, start: pd.DataFrame) -> pd.DataFrame:
    """Loss and accuracy of the whole sets by completed epochs, the initialisation's among them."""
    import pandas as pd

    history = member.history().dropna(subset="epoch").filter(["epoch", *start])
    history["epoch"] = history["epoch"].astype(int) + 1
    return pd.concat([start.assign(epoch=0), history], ignore_index=True)


def _filters(members: Sequence[Member], layers: Sequence[str]) -> pd.DataFrame:
    """One row a pixel of every filter, at the smallest gradient norm and at the end."""
    import numpy as np
    import pandas as pd

    frames = []
    kernels_of = {layer: _snapshots(members, layer) for layer in layers}
    for path, member in enumerate(members):
        history = member.history()
        norms = history[GRADIENT_NORM].groupby(history["epoch"].bfill() + 1).median()  # by completed epochs
        for layer in layers:
            snapshots = kernels_of[layer][path]
            smallest = min((epoch for epoch in snapshots.epochs if epoch in norms), key=norms.get)
            for moment, epoch in (("smallest gradient norm", smallest), ("end", snapshots.epochs[-1])):
                kernels = snapshots.values[snapshots.epochs.index(epoch), :, 0].numpy()  # [O, h, w]
                pixels = dict(zip(("filter", "row", "column"), map(np.ravel, np.indices(kernels.shape)), strict=True))
                table = pd.DataFrame({**pixels, "value": kernels.ravel(), "member": path, "layer": layer})
                frames.append(table.assign(moment=moment, epoch=epoch, gradient_norm=norms[epoch]))
    return pd.concat(frames, ignore_index=True)
