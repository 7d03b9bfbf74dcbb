"""What happens where the gradient is almost zero: the Hessian's minimal ratio against the loss (section 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.studies.protocol import (
    Headline,
    Measurements,
    correlation_headline,
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

    from hw1.runs import Sweep

TABLE = "minimal_ratio.csv"  # of the callback
LEAST = 10  # converged, non-constant points below which no correlation is reported


class MinRatio:
    """Minimal ratio against loss, after training and after the gradient has been driven to zero.

    Reads what the callback `MinimalRatio` measured. Two estimators, never merged: the share of positive eigenvalues and
    the share of sampled neighbours with a higher loss. Numbers are over converged, non-constant points alone (|g| <
    1e-6; predictions that depend on the input); all points are drawn, by the reason why their search stopped. Intervals
    treat points as independent, which they are only roughly: searches from many starts end at the same saddle.

    Tables: `points` (one row a member and phase) and `reasons` (number of points by phase, reason and constant).
    """

    def check(self, runs: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> None:
        """Runs that measure the minimal ratio.

        Raises:
            ConfigError: one does not.
        """
        if any("minimal_ratio" not in (run["callbacks"] or {}) for run in runs):
            raise ConfigError("callbacks: got none that measures it, expected callbacks=[default,minimal_ratio]")

    def measure(self, sweep: Sweep, measurements: Measurements) -> dict[str, pd.DataFrame]:
        """Tables `points` and `reasons`; {} where no run is complete."""
        import pandas as pd

        keys = [key for key in sweep.swept if key != "seed"]
        frames = []
        for run in sweep.complete().runs:
            file = run.path / TABLE
            if not file.is_file():
                raise ConfigError(f"{file} is missing; delete the run's folder and run the command again")
            dataset = run.result["dataset"]
            own = {"run": run.path.name, **{key: sweep.cell(run, key) for key in keys}}
            own |= {"data": dataset["name"], "source": dataset["source"], "n_train": dataset["train"]}
            points = pd.read_csv(file)
            frames.append(points.assign(seed=run.value("seed") + points["member"], **own))
        if not frames:
            return {}
        points = pd.concat(frames, ignore_index=True)
        points["parameters"] = points["run"].map({run.path.name: run.result["parameters"] for run in sweep.runs})
        points["counted"] = (points["reason"] == "converged") & ~points["constant"]
        groups = [*keys, "phase", "epoch", "reason", "constant"]
        reasons = points.groupby(groups, sort=False).size().rename("points").reset_index()
        return {"points": points, "reasons": reasons}

    def draw(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
        """One figure for each combination of swept keys: a column a phase, a row an estimator."""
        from hw1.plots.minimal_ratio import draw_minimal_ratio

        figures = {}
        for keys, part in _parts(tables["points"]):
            notes = {}
            for phase, points in _last(part).groupby("phase", sort=False):
                if len(used := points[points["counted"]]) >= LEAST:
                    rho = _correlation("", used, "positive")
                    notes[phase] = rf"$\rho$(loss, positive) = {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}]"
            title = titled(keys)
            figures[f"minimal_ratio{suffix(keys)}"] = draw_minimal_ratio(_last(part), title, notes)
        return figures

    def headlines(self, tables: Mapping[str, pd.DataFrame]) -> list[Headline]:
        """Share of converged and of constant points, median ratio and index, and their correlations with the loss."""
        found = []
        for keys, part in _parts(tables["points"]):
            for phase, points in _last(part).groupby("phase", sort=False):
                name = labelled({"phase": phase, **keys}).strip()
                n, used = len(points), points[points["counted"]]
                found.append(share_headline(f"converged {name}", int((points["reason"] == "converged").sum()), n))
                found.append(share_headline(f"constant_predictors {name}", int(points["constant"].sum()), n))
                if len(used) >= LEAST:
                    for share in ("positive", "negative"):
                        found.append(median_headline(f"{share}_share {name}", list(used[share])))
                        found.append(_correlation(f"spearman_rho_{share} {name}", used, share))
        return found


def _correlation(name: str, used: pd.DataFrame, share: str) -> Headline:
    """Spearman's rho of the loss with a share, over points that count."""
    return correlation_headline(name, list(used["loss"]), list(used[share]))


def _last(points: pd.DataFrame) -> pd.DataFrame:
    """The last measurement of each phase."""
    last = points.groupby(["run", "phase"])["epoch"].transform("max")
    return points[points["epoch"] == last]


def _parts(points: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(values, rows) of each combination of swept keys, which stand between `run` and `data`."""
    return parts(points, list(points.columns[points.columns.get_loc("run") + 1 : points.columns.get_loc("data")]))
