"""Networks of equal size on one function: which of them fits it, how fast, and how many members die (section 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.studies.learning_curves import SHAPE
from hw1.studies.protocol import Headline, Measurements, median_headline, share_headline
from hw1.training.identity import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.runs import Run, Sweep

LOSS = "train/loss"
_IN_DATA = ("dataset", "dataset.function", "dataset.target")


class SimulateFunction:
    """Training loss and predictions of several networks on the same functions, over members and seeds.

    A network's name is its layer sizes, `1-190-1`, or, where whole model presets are swept, the preset's. Its
    predictions are drawn for the member with the median final loss (the lower one of two). The training loss is that of
    the whole set: at every step where the batch is full, else after the epochs that were evaluated.

    Tables: `networks` (one row a network and function), `members` (one row a member), `curves` (training loss against
    epochs: median and range over members of each member's mean in bins of epochs), `predictions` (on the test inputs).

    Args:
        reach: the loss that `epochs_to_reach` counts the epochs to.
        bins: of epochs, in `curves`.
        reported: final losses that a report gives, {function: {network: loss}}, to compare with at full budget.
        swapped: {function: [network, network]} whose labels the report's plot swaps.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        reach: float,
        bins: int,
        reported: Mapping[str, Mapping[str, float]],
        swapped: Mapping[str, Sequence[str]],
    ) -> None:
        if not 0 < reach < math.inf:
            raise ValueError(f"reach: got {reach}, expected a loss above 0")
        if bins < 10:
            raise ValueError(f"bins: got {bins}, expected at least 10")
        if any(len(set(pair)) != 2 for pair in swapped.values()):
            raise ValueError(f"swapped: got {dict(swapped)}, expected two networks a function")
        self.reach, self.bins = reach, bins
        self.reported, self.swapped = reported, swapped

    def check(self, runs: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> None:
        """Data without classes.

        Raises:
            ConfigError: a run's have classes.
        """
        from hw1.training import build

        for run in {str(run["dataset"]): run for run in runs}.values():
            data = build.datamodule(run)
            if data.has_classes:
                raise ConfigError(
                    f"dataset: got {data.name}, whose targets are classes; expected function or mnist_mean"
                )

    def measure(self, sweep: Sweep, measurements: Measurements) -> dict[str, pd.DataFrame]:
        """The four tables; {} where no run is complete."""
        import pandas as pd

        keys = [key for key in sweep.swept if key != "seed"]
        members, curves = [], []
        runs = {run.path.name: run for run in sweep.complete().runs}
        for run in runs.values():
            identity = {"measurement": "fit", "run": run.key, "weights": run.weights_digest()}
            fits = measurements.table(identity, lambda run=run: _fits(run))
            dataset = run.result["dataset"]
            own = {key: sweep.cell(run, key) for key in keys}
            own["network"] = _name(own, fits["architecture"].iloc[0])
            own |= {"data": dataset["name"], "source": dataset["source"], "n_train": dataset["train"]}
            curve = _curve(run)
            curves.append(self._binned(curve).assign(**own))
            fits["epochs_to_reach"] = fits["member"].map(
                curve[curve["loss"] <= self.reach].groupby("member")["epoch"].min()
            )
            fits["constant"] = fits["constant"].astype(bool)
            fits["noise"] = float(run.value("dataset.noise") or 0)
            members.append(_ends(run).merge(fits, on="member").assign(**own))
        if not runs:
            return {}
        groups = [*keys, "network", "data", "source", "n_train"]
        table = pd.concat(members, ignore_index=True)
        whole = sweep.record.get("budget", "full") == "full"
        known = [
            self._reported(*names) if whole else math.nan for names in zip(table["data"], table["network"], strict=True)
        ]
        table["reported"] = known
        table = table[[*groups, *(name for name in table if name not in (*groups, "architecture"))]]
        loss = pd.concat(curves).groupby([*groups, "epoch"], sort=False)["loss"]
        return {
            "networks": self._networks(table, groups),
            "members": table,
            "curves": loss.agg(median="median", low="min", high="max", n="count").reset_index(),
            "predictions": _predictions(table, groups, runs, measurements),
        }

    def draw(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
        """The training loss of all networks, and their predictions; one column a function."""
        from hw1.plots.simulate_function import draw_functions, draw_losses, draw_scatter

        curves, networks, predictions = (_with_panel(tables[name]) for name in ("curves", "networks", "predictions"))
        figures = {"loss": draw_losses(curves, networks)}
        of_x, of_images = predictions[predictions["x"].notna()], predictions[predictions["x"].isna()]
        if len(of_x):
            figures["predictions"] = draw_functions(of_x)
        if len(of_images):
            figures["predicted_against_true"] = draw_scatter(of_images)
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame]) -> list[Headline]:
        """Median final loss and share of constant predictors of each network; share of members below the report's."""
        found = []
        members = _with_panel(tables["members"])
        for (panel, network), part in members.groupby(["panel", "network"], sort=False):
            swapped = self._labelled(part["data"].iloc[0], network)
            name = f"{panel} {network}" + (f" ({swapped})" if swapped else "")
            losses = list(part[LOSS])
            found.append(median_headline(f"final_loss {name}", losses))
            reported = part["reported"].iloc[0]
            if not math.isnan(reported):
                below = sum(loss <= reported for loss in losses)
                found.append(share_headline(f"at_or_below_reported_{reported:g} {name}", below, len(losses)))
            found.append(share_headline(f"constant_predictors {name}", int(part["constant"].sum()), len(part)))
        return found

    def _binned(self, curve: pd.DataFrame) -> pd.DataFrame:
        """Columns member, epoch (the mean one in a bin), loss (the mean in it)."""
        width = -(-(int(curve["epoch"].max()) + 1) // self.bins)
        means = curve.groupby(["member", curve["epoch"].rename("bin") // width], sort=False)[["epoch", "loss"]].mean()
        return means.reset_index().drop(columns="bin")

    def _networks(self, members: pd.DataFrame, groups: list[str]) -> pd.DataFrame:
        import pandas as pd

        rows = []
        for values, part in members.groupby(groups, sort=False):
            row = dict(zip(groups, values, strict=True))
            losses, reported = part[LOSS], part["reported"].iloc[0]
            epochs = part["epochs_to_reach"].fillna(math.inf).median()  # never: later than any
            row |= {"parameters": part["parameters"].iloc[0], "n": len(part)}
            row |= {"noise": part["noise"].iloc[0]}
            row |= {"loss_median": losses.median(), "loss_low": losses.min(), "loss_high": losses.max()}
            row |= {name: part[name].median() for name in ("train/max_error", "test/loss", "test/mae")}
            row |= {"reach": self.reach, "reached": int(part["epochs_to_reach"].notna().sum())}
            row |= {"epochs_to_reach": epochs if math.isfinite(epochs) else math.nan}
            row |= {"constant": int(part["constant"].sum()), "reported": reported}
            row |= {"median_over_reported": row["loss_median"] / reported}
            row |= {"reported_quantile": math.nan if math.isnan(reported) else (losses <= reported).mean()}
            rows.append(row | {"note": self._labelled(row["data"], row["network"])})
        return pd.DataFrame(rows)

    def _reported(self, data: str, network: str) -> float:
        return float(self.reported.get(data, {}).get(network, math.nan))

    def _labelled(self, data: str, network: str) -> str:
        pair = self.swapped.get(data, ())
        other = [name for name in pair if name != network]
        return f"labelled {other[0]} in the report's plot" if network in pair else ""


def _name(own: Mapping[str, Any], architecture: str) -> str:
    """What a network is called: its preset or layer sizes, and what else of its training is swept."""
    preset = str(own.get("model", architecture)).rpartition("/")[2]
    others = [key for key in own if key not in SHAPE and key.partition(".")[0] != "dataset"]
    return ", ".join([preset, *(f"{key.rpartition('.')[2]}={own[key]}" for key in others)])


def _with_panel(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `panel`: the function's name, and what else of the data is swept."""
    swept = table.columns[: list(table.columns).index("network")]
    keys = [key for key in swept if key.partition(".")[0] == "dataset" and key not in _IN_DATA]
    panel = table["data"].str.cat([key.rpartition(".")[2] + "=" + table[key].astype(str) for key in keys], sep=", ")
    return table.assign(panel=panel)


def _curve(run: Run) -> pd.DataFrame:
    """Columns member, epoch (completed ones), loss: the training loss of the whole set."""
    import pandas as pd

    history = run.history()
    if "member" not in history:
        history = history.assign(member=0)
    batch = run.value("dataset.batch_size")
    whole = batch is None or batch >= run.result["dataset"]["train"]
    if whole and not run.settings["model"].get("dropout"):  # the loss of step s is that after s epochs
        curve = history[["member", "step", "train_step/loss"]].set_axis(["member", "epoch", "loss"], axis=1)
    else:  # a history without evaluations has no such columns
        curve = history.reindex(columns=["member", "epoch", LOSS]).set_axis(["member", "epoch", "loss"], axis=1)
        curve["epoch"] += 1
    end = _ends(run)[["member", LOSS]].set_axis(["member", "loss"], axis=1).assign(epoch=run.result["epochs"])
    curve = pd.concat([curve.dropna(), end], ignore_index=True).drop_duplicates(["member", "epoch"])
    return curve.astype({"epoch": int})


def _ends(run: Run) -> pd.DataFrame:
    """One row a member: its seed and final losses."""
    import pandas as pd

    metrics = {name: run.result["metrics"][name] for name in (LOSS, "test/loss")}
    table = pd.DataFrame({"member": range(run.members), **metrics})
    table.insert(0, "run", run.path.name)
    table.insert(2, "seed", run.value("seed") + table["member"])
    return table.assign(parameters=run.result["parameters"])


def _fits(run: Run) -> pd.DataFrame:
    """One row a member: its errors, and whether its predictions on the training inputs are all the same."""
    import pandas as pd
    from torch import nn

    from hw1.curvature import constant_predictor
    from hw1.models import Mlp

    data = run.datamodule()
    rows = []
    for member, net in enumerate(run.nets()):
        linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        sizes = "-".join(str(size) for size in (linear[0].in_features, *(layer.out_features for layer in linear)))
        train, test = (_outputs(net, x) for x, _ in (data.train_tensors, data.test_tensors))
        rows.append(
            {
                "member": member,
                "architecture": sizes if isinstance(net, Mlp) else type(net).__name__,
                "constant": int(constant_predictor(train[None])[0]),
                "train/max_error": float((train - data.train_tensors[1]).abs().max()),
                "test/mae": float((test - data.test_tensors[1]).abs().mean()),
            }
        )
    return pd.DataFrame(rows)


def _outputs(net: Any, x: Any) -> Any:
    """Outputs [N, C] in float64, where a dead network gives one number."""
    import torch

    with torch.no_grad():
        return torch.cat([net.double()(some.double()) for some in x.split(250)])


def _predictions(
    members: pd.DataFrame, groups: list[str], runs: Mapping[str, Run], measurements: Measurements
) -> pd.DataFrame:
    """The median member's predictions on the test inputs: columns x (NaN for images), true, predicted."""
    import pandas as pd

    frames = []
    for values, part in members.groupby(groups, sort=False):
        middle = part.sort_values(LOSS, kind="stable").iloc[(len(part) - 1) // 2]
        run, member = runs[middle["run"]], int(middle["member"])
        identity = {"measurement": "predictions", "run": run.key, "weights": run.weights_digest(), "member": member}
        table = measurements.table(identity, lambda run=run, member=member: _predicted(run, member))
        own = dict(zip(groups, values, strict=True))
        own |= {"n": len(part), "seed": middle["seed"], "loss": middle[LOSS], "noise": middle["noise"]}
        frames.append(table.assign(**own)[[*own, *table]])
    return pd.concat(frames, ignore_index=True)


def _predicted(run: Run, member: int) -> pd.DataFrame:
    import pandas as pd

    x, y = run.datamodule().test_tensors
    columns = {"true": y, "predicted": _outputs(run.net(member), x), **({"x": x} if x.shape[1:] == (1,) else {})}
    table = pd.DataFrame({name: values[:, 0].double().numpy() for name, values in columns.items()})
    return table.reindex(columns=["x", "true", "predicted"])
