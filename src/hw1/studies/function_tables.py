"""What a training on a function leaves in tables: its loss over epochs, and what its median member predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hw1.metrics import STEP_LOSS, TRAIN_LOSS
from hw1.runs.measured import beside
from hw1.runs.weights import readable
from hw1.settings import ConfigError
from hw1.settings.run_settings import LAST

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs import Measured, Run, Sweep

MEASURE = "predictions"


def training_curve(run: Run) -> pd.DataFrame:
    """Columns member, epoch (completed ones), loss: the training loss of the whole set."""
    import pandas as pd

    history = run.history()
    if "member" not in history:
        history = history.assign(member=0)
    batch = run.value("dataset.batch_size")
    whole = batch is None or batch >= run.result["dataset"]["train"]
    if whole and not run.settings.model.get("dropout"):  # the loss of step s is that after s epochs
        curve = history[["member", "step", STEP_LOSS]].set_axis(["member", "epoch", "loss"], axis=1)
    else:  # a history without evaluations has no such columns
        curve = history.reindex(columns=["member", "epoch", TRAIN_LOSS]).set_axis(["member", "epoch", "loss"], axis=1)
        curve["epoch"] += 1
    last = [run.metrics(member)[TRAIN_LOSS] for member in range(run.count)]
    end = pd.DataFrame({"member": range(run.count), "loss": last, "epoch": run.result["epochs"]})
    if run.settings.weights != LAST:  # the end is of other weights than the evaluation at its epoch
        curve = curve[curve["epoch"] < run.result["epochs"]]
    curve = pd.concat([curve.dropna(), end], ignore_index=True).drop_duplicates(["member", "epoch"])
    return curve.astype({"epoch": int})


def median_predictions(
    members: pd.DataFrame, groups: list[str], found: Mapping[Run, Measured], sweep: Sweep
) -> pd.DataFrame:
    """The median member's predictions on the test inputs: columns x (NaN for images), true, predicted."""
    import pandas as pd

    frames, runs = [], {run.path.name: run for run in found}
    for values, part in members.groupby(groups, sort=False):
        middle = part.sort_values(TRAIN_LOSS, kind="stable").iloc[(len(part) - 1) // 2]
        run = runs[middle["run"]]
        table = _predicted(sweep, run, found[run], int(middle["member"]))
        own = dict(zip(groups, values, strict=True))
        own |= {"n": len(part), "seed": middle["seed"], "loss": middle[TRAIN_LOSS], "noise": middle["noise"]}
        frames.append(table.assign(**own)[[*own, *table]])
    return pd.concat(frames, ignore_index=True)


def _predicted(sweep: Sweep, run: Run, measured: Measured, member: int) -> pd.DataFrame:
    """A member's predictions, from the file beside the measurement.

    Raises:
        ConfigError: the file is not there: the data have no single numbers as targets.
    """
    import pandas as pd
    from safetensors.numpy import load_file

    ask = next(ask for ask in sweep.asks if ask.name == MEASURE)
    if "test.safetensors" not in measured.files:
        raise ConfigError(f"measures: got no predictions on the test inputs of {run.path}, expected single numbers")
    file = beside(ask.file(run.path), "test.safetensors")
    with readable(file):
        tensors = load_file(file)
    columns = {"true": tensors["true"], "predicted": tensors["predicted"][member]}
    columns |= {"x": tensors["x"]} if "x" in tensors else {}
    table = pd.DataFrame({name: values.astype("float64") for name, values in columns.items()})
    return table.reindex(columns=["x", "true", "predicted"])
