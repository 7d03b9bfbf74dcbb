"""Loss and gradient norm against iterations (section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.studies.protocol import (
    Headline,
    Measurements,
    labelled,
    median_headline,
    parts,
    share_headline,
    suffix,
    titled,
)
from hw1.training.identity import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.runs import Run, Sweep

LOSS, NORM = "train_step/loss", "gradient_norm"


class GradientNorm:
    """How the gradient's norm goes along with the loss, and which nets end as constant predictors.

    The norm is that of the mini-batch loss over all parameters, before clipping and without weight decay (see the
    callback of that name). Curves are means over bins of iterations that are evenly wide on a logarithmic axis; the
    line is the median over seeds and members, the band their range.

    Tables: `curves` (swept keys, quantity, layer, iteration, median, low, high, n) and `ends` (one row a member: final
    losses, mean norm over the last hundredth of the training, constant predictor or not).

    Args:
        bins: number of bins, at least 10.

    Raises:
        ValueError: too few bins.
    """

    def __init__(self, bins: int) -> None:
        if bins < 10:
            raise ValueError(f"bins: got {bins}, expected at least 10")
        self.bins = bins

    def check(self, runs: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> None:
        """Runs that log gradient norms.

        Raises:
            ConfigError: one does not.
        """
        if any("gradient_norm" not in (run["callbacks"] or {}) for run in runs):
            raise ConfigError(
                "callbacks: got none that logs gradient norms, expected callbacks=[default,gradient_norm]"
            )

    def measure(self, sweep: Sweep, measurements: Measurements) -> dict[str, pd.DataFrame]:
        """Tables `curves` and `ends`; {} where no run is complete."""
        import pandas as pd

        keys = [key for key in sweep.swept if key != "seed"]
        binned, ends = [], []
        for run in sweep.complete().runs:
            dataset = run.result["dataset"]
            own = {key: sweep.cell(run, key) for key in keys}
            own |= {"data": dataset["name"], "source": dataset["source"], "n_train": dataset["train"]}
            binned.append(self._binned(run.history()).assign(**own, run=run.path.name))
            identity = {"measurement": "constant", "run": run.key, "weights": run.weights_digest()}
            constant = measurements.table(identity, lambda run=run: _constant(run))["constant"]
            ends.append(_ends(run).assign(constant=constant.to_numpy(dtype=bool), **own))
        if not binned:
            return {}
        members = pd.concat(binned, ignore_index=True)
        groups = [*keys, "data", "source", "n_train", "quantity", "iteration"]
        values = members.groupby(groups, sort=False)["value"]
        curves = values.agg(median="median", low="min", high="max", n="count").reset_index()
        return {"curves": curves, "ends": pd.concat(ends, ignore_index=True)}

    def _binned(self, history: pd.DataFrame) -> pd.DataFrame:
        """Columns member, quantity, iteration (the bin's geometric middle), value (mean in the bin)."""
        import numpy as np

        if "member" not in history:
            history = history.assign(member=0)
        quantities = [name for name in history if name in (LOSS, NORM) or name.startswith(f"{NORM}/")]
        iteration = history["step"].to_numpy() + 1.0
        edges = np.geomspace(1, iteration.max() + 1, self.bins + 1)
        position = np.searchsorted(edges, iteration, side="right") - 1
        middle = np.sqrt(edges[:-1] * edges[1:])
        long = history[["member", *quantities]].assign(iteration=middle[np.clip(position, 0, self.bins - 1)])
        long = long.melt(["member", "iteration"], var_name="quantity").dropna(subset="value")
        return long.groupby(["member", "quantity", "iteration"], sort=False, as_index=False)["value"].mean()

    def draw(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
        """One figure for every combination of swept keys but one, which gives the columns."""
        from hw1.plots.gradient_norm import draw_gradient_norm

        curves, ends = tables["curves"], tables["ends"]
        keys = _keys(curves)
        across = keys[0] if keys else None
        others = keys[1:]
        figures = {}
        for values, part in parts(curves, others):
            own = ends[(ends[others] == list(values.values())).all(axis=1)]
            figures[f"gradient_norm{suffix(values)}"] = draw_gradient_norm(part, own, across, titled(values))
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame]) -> list[Headline]:
        """Median final loss of each setting, and the share of constant predictors."""
        ends = tables["ends"]
        found = []
        for values, part in parts(ends, _keys(ends)):
            name = labelled(values)
            found.append(median_headline(f"final_loss{name}", list(part["train/loss"])))
            found.append(share_headline(f"constant_predictors{name}", int(part["constant"].sum()), len(part)))
        return found


_OWN = ("data", "source", "n_train", "quantity", "iteration", "median", "low", "high", "n")
_OF_ENDS = ("run", "seed", "train/loss", "test/loss", "train/accuracy", "test/accuracy", NORM, "constant", "parameters")


def _keys(table: pd.DataFrame) -> list[str]:
    """The swept keys among a table's columns."""
    return [name for name in table if name not in (*_OWN, *_OF_ENDS)]


def _ends(run: Run) -> pd.DataFrame:
    import pandas as pd

    history = run.history().dropna(subset=NORM)
    late = history[history["step"] >= 0.99 * history["step"].max()]
    norms = late.groupby(late["member"] if "member" in late else 0 * late["step"])[NORM].mean()
    rows = []
    for member in range(run.members):
        kept = {name: value for name, value in run.metrics(member).items() if name in _OF_ENDS}
        own = {"run": run.path.name, "seed": run.value("seed") + member, "parameters": run.result["parameters"]}
        rows.append({**own, **kept, NORM: norms.get(member)})
    return pd.DataFrame(rows)


def _constant(run: Run) -> pd.DataFrame:
    """One row a member: whether its predictions on the training inputs are all the same."""
    import pandas as pd
    import torch

    from hw1.curvature import constant_predictor

    x = run.datamodule().train_tensors[0]
    found = []
    for net in run.nets():
        with torch.no_grad():
            outputs = torch.cat([net.double()(some.double()) for some in x.split(1000)])
        found.append(bool(constant_predictor(outputs[None])[0]))
    return pd.DataFrame({"constant": [int(value) for value in found]})
