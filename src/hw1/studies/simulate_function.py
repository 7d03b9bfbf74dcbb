"""Networks of equal size on one function: which of them fits it, how fast, and how many members die."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import TEST_LOSS, TRAIN_LOSS
from hw1.studies.answers import Answer, number, ranged
from hw1.studies.function_tables import MEASURE, median_predictions, training_curve
from hw1.studies.headlines import Headline, median_headline, share_headline, told_apart, unseeded
from hw1.studies.learned import without
from hw1.studies.learning_curves import SHAPE
from hw1.studies.needed import found_on, require_kind, require_measure
from hw1.words import NETWORK

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hw1.measures.cache import Cache
    from hw1.runs import Measured, Member, Run, Sweep
    from hw1.settings import RunSettings

_IN_DATA = ("dataset", "dataset.function", "dataset.target")  # what the name of a run's data says


class SimulateFunction:
    """Training loss and predictions of several networks on the same functions, over members and seeds.

    A network's name is its layer sizes, `1-190-1`, or, where whole model presets are swept, the preset's. Its
    predictions are drawn for the member with the median final loss (the lower one of two). The training loss is that of
    the whole set: at every step where the batch is full, else after the epochs that were evaluated. Errors and
    predictions are read from the measure `predictions`.

    Tables: `networks` (one row a network and function), `members` (one row a member), `curves` (training loss against
    epochs: median and range over members of each member's mean in bins of epochs), `predictions` (on the test inputs).

    Args:
        reach: the loss that `epochs_to_reach` counts the epochs to.
        bins: of epochs, in `curves`.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(self, reach: float, bins: int) -> None:
        if not 0 < reach < math.inf:
            raise ValueError(f"reach: got {reach}, expected a loss above 0")
        if bins < 10:
            raise ValueError(f"bins: got {bins}, expected at least 10")
        self.reach, self.bins = reach, bins

    def check(self, runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
        """Data without classes, and runs whose predictions are measured.

        Raises:
            ConfigError: a run's data have classes, or its predictions are not.
        """
        require_kind(runs, "values", "whose targets are classes; expected function or mnist_mean")
        require_measure(runs, MEASURE)

    def measure(self, sweep: Sweep, cache: Cache) -> dict[str, pd.DataFrame]:
        """The four tables, of the runs whose predictions are measured; {} where no run is complete.

        Raises:
            ConfigError: there is none among the complete ones.
        """
        import pandas as pd

        keys = unseeded(sweep.keys)
        rows, curves, found = [], [], found_on(sweep, MEASURE)
        names = _names(list(found), keys, sweep)
        for run, members in itertools.groupby(sweep.members(), key=lambda member: member.run):
            if run not in found:
                continue
            curve = training_curve(run)
            for member in members:
                own = {key: member.cells[key] for key in keys} | {"network": names[run]} | member.origin
                rows.append(own | self._row(member, found[run], curve[curve["member"] == member.number]))
            curves.append(self._binned(curve).assign(**own))  # all members at once
        if not rows:
            return {}
        groups = [*keys, "network", "data", "source", "n_train"]
        table = pd.DataFrame(rows)
        loss = pd.concat(curves).groupby([*groups, "epoch"], sort=False)["loss"]
        return {
            "networks": self._networks(table, groups),
            "members": table,
            "curves": loss.agg(median="median", low="min", high="max", n="count").reset_index(),
            "predictions": median_predictions(table, groups, found, sweep),
        }

    def _row(self, member: Member, found: Measured, curve: pd.DataFrame) -> dict[str, Any]:
        """A member's row behind what tells its network and its data."""
        run, measured = member.run, {name: values[member.number] for name, values in found.values.items()}
        reached = curve[curve["loss"] <= self.reach]["epoch"]
        return {
            "run": run.path.name,
            "member": member.number,
            "seed": member.seed,
            TRAIN_LOSS: member.metrics[TRAIN_LOSS],
            TEST_LOSS: member.metrics[TEST_LOSS],
            "parameters": run.result["parameters"],
            "constant": bool(measured["predictions/constant"]),
            "train/max_error": measured["predictions/train_max_error"],
            "test/mae": measured["predictions/test_mae"],
            "epochs_to_reach": int(reached.min()) if len(reached) else math.nan,
            "noise": float(run.value("dataset.noise") or 0),
        }

    def draw(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> dict[str, Figure]:
        """The training loss of all networks, and their predictions; one column a function."""
        from hw1.plots.simulate_function import draw_functions, draw_losses, draw_scatter

        names = _networks_in_words(tables["members"], keys)
        curves, networks, predictions = (
            _with_panel(tables[name], keys).replace({"network": names})
            for name in ("curves", "networks", "predictions")
        )
        figures = {"loss": draw_losses(curves, networks)}
        of_x, of_images = predictions[predictions["x"].notna()], predictions[predictions["x"].isna()]
        if len(of_x):
            figures["predictions"] = draw_functions(of_x)
        if len(of_images):
            figures["predicted_against_true"] = draw_scatter(of_images)
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Headline]:
        """Median final loss and share of constant predictors of each network."""
        found = []
        members = _with_panel(tables["members"], keys)
        for (panel, network), part in members.groupby(["panel", "network"], sort=False):
            name = f"{panel} {network}"
            found.append(median_headline(f"final_loss {name}", list(part[TRAIN_LOSS])))
            found.append(share_headline(f"constant_predictors {name}", int(part["constant"].sum()), len(part)))
        return found

    def must_learn(self, training: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """All that are no constant predictors: dead nets are a finding, and counted."""
        return without(training, tables["members"][tables["members"]["constant"]])

    def answer(self, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]) -> Answer:
        """How well each network fits, which of them fits best, and how many died."""
        members, sentences = _with_panel(tables["members"], keys), []
        for panel, of_panel in members.groupby("panel", sort=False):
            found = {
                network: median_headline(network, list(part[TRAIN_LOSS]))
                for network, part in of_panel.groupby("network", sort=False)
            }
            best, *others = sorted(found, key=lambda name: (math.isnan(found[name].value), found[name].value))
            pairs = math.comb(len(found), 2)  # the best was picked by these data
            sentences.append(
                f"On {panel} {best} has the smallest median train loss: {ranged(found[best], of='network')}."
            )
            for name in others:
                chance = min(1.0, pairs * _same(of_panel, best, name))
                told = "settled" if chance < 0.05 else "undecided"
                sentences.append(
                    f"{name} comes to {ranged(found[name], of='network')}: the difference is {told} "
                    f"(Mann-Whitney, p = {number(chance, 2)}{', all pairs counted' if pairs > 1 else ''})."
                )
            for name, part in of_panel.groupby("network", sort=False):
                if dead := int(part["constant"].sum()):
                    sentences.append(f"{dead} of {len(part)} networks {name} died: they predict a constant.")
        captions = {
            "loss": "The training loss against epochs: the line is the median over members, the band their range.",
            "predictions": "What the member with the median loss predicts, over the function that it was to learn.",
            "predicted": "What the member with the median loss predicts of each test image, against the truth.",
        }
        columns = [*unseeded(keys), "network", "data", "parameters", "loss_median", "loss_low", "loss_high", "n"]
        return Answer(sentences, captions, {"networks": [*columns, "constant"]})

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
            losses = part[TRAIN_LOSS]
            epochs = part["epochs_to_reach"].fillna(math.inf).median()  # never: later than any
            row |= {"parameters": part["parameters"].iloc[0], "n": len(part)}
            row |= {"noise": part["noise"].iloc[0]}
            row |= {"loss_median": losses.median(), "loss_low": losses.min(), "loss_high": losses.max()}
            row |= {name: part[name].median() for name in ("train/max_error", TEST_LOSS, "test/mae")}
            row |= {"reach": self.reach, "reached": int(part["epochs_to_reach"].notna().sum())}
            row |= {"epochs_to_reach": epochs if math.isfinite(epochs) else math.nan}
            rows.append(row | {"constant": int(part["constant"].sum())})
        return pd.DataFrame(rows)


def _same(members: pd.DataFrame, one: str, other: str) -> float:
    """Probability of losses so far apart between two networks that are alike (Mann & Whitney 1947, two-sided)."""
    from scipy.stats import mannwhitneyu

    losses = [members.loc[members["network"] == name, TRAIN_LOSS] for name in (one, other)]
    return float(mannwhitneyu(*losses).pvalue)


def _names(runs: Sequence[Run], keys: Sequence[str], sweep: Sweep) -> dict[Run, str]:
    """What each run's network is called; no two networks have one name."""
    own = [{key: sweep.cell(run, key) for key in keys} for run in runs]
    shapes = [{key: cells[key] for key in cells if key in SHAPE} for cells in own]
    names = [_name(cells, _architecture(run)) for run, cells in zip(runs, own, strict=True)]
    return dict(zip(runs, told_apart(list(zip(names, shapes, strict=True))), strict=True))


def _networks_in_words(members: pd.DataFrame, keys: Sequence[str]) -> dict[str, str]:
    """What a figure calls each network: in words, with its sizes where no presets are swept, and its other settings.

    Example:
        >>> import pandas as pd
        >>> one = {"network": "1-18-24-1, lr=0.1", NETWORK: "two dense layers, 517 weights"}
        >>> _networks_in_words(pd.DataFrame([one]), ["optimizer.lr"])
        {'1-18-24-1, lr=0.1': 'two dense layers, 517 weights: 1-18-24-1, lr=0.1'}
        >>> _networks_in_words(pd.DataFrame([one | {"network": "dense"}]), ["model"])
        {'dense': 'two dense layers, 517 weights'}
    """
    first = members.drop_duplicates("network")
    names = {}
    for network, net in zip(first["network"], first[NETWORK], strict=True):
        alike = (first[NETWORK] == net).sum() > 1
        shown = network if "model" not in keys or alike else network.partition(", ")[2]
        names[network] = f"{net}: {shown}" if shown else net
    return names


def _name(own: Mapping[str, Any], architecture: str) -> str:
    """What a network is called: its preset or layer sizes, and what else of its training is swept."""
    preset = str(own.get("model", architecture)).rpartition("/")[2]
    others = [key for key in own if key not in SHAPE and key.partition(".")[0] != "dataset"]
    return ", ".join([preset, *(f"{key.rpartition('.')[2]}={own[key]}" for key in others)])


def _architecture(run: Run) -> str:
    """A dense net's layer sizes, `1-190-1`; of any other network its class."""
    import torch
    from torch import nn

    from hw1.models import Mlp
    from hw1.training import build

    with torch.random.fork_rng(), torch.device("meta"):
        net = build.single_network(run.judge(), build.datamodule(run.dataset_node()))
    if not isinstance(net, Mlp):
        return type(net).__name__
    linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    return "-".join(str(size) for size in (linear[0].in_features, *(layer.out_features for layer in linear)))


def _with_panel(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The table with a column `panel`: the function's name, and what else of the data is swept."""
    others = [key for key in unseeded(keys) if key.partition(".")[0] == "dataset" and key not in _IN_DATA]
    panel = table["data"].str.cat([key.rpartition(".")[2] + "=" + table[key].astype(str) for key in others], sep=", ")
    return table.assign(panel=panel)
