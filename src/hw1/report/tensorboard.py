"""TensorBoard on the runs of some sweeps alone. No torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hw1.runs import Run, Sweep
from hw1.runs.standing import named_runs
from hw1.training.hyperparameters import hyperparameters

_FIGURES, _COLUMNS = "figures", "columns of hparams"  # what stands beside the runs


def show(paths: Sequence[str], flags: Sequence[str] = ()) -> int:
    """Run TensorBoard on the runs of these sweeps until it is interrupted; returns its exit code.

    Args:
        paths: of sweeps, see `Sweep.read`.
        flags: TensorBoard's own, as `--port=6007`.
    """
    with tempfile.TemporaryDirectory(prefix="hw1-tensorboard-") as folder:
        gather([Sweep.read(path) for path in paths], Path(folder))
        try:
            return subprocess.call([sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", *flags])
        except KeyboardInterrupt:  # it has had the same signal
            return 130


def gather(sweeps: Sequence[Sweep], folder: Path) -> None:
    """Links to the runs of sweeps, and to their figures: a `--logdir` that shows nothing else.

    Runs stand under their own names, below `<experiment> <time>` of their sweep where there are several. Runs that have
    not begun appear when they do. Beside them stands which columns the tab "HParams" has: the settings, those first
    that differ, and the metrics of the results, instead of all that was logged in steps.

    Args:
        sweeps: what is shown.
        folder: where the links go; empty.

    Raises:
        ValueError: this system makes no links.
    """
    for sweep in sweeps:
        path = sweep.path.absolute()  # by its folders: what a record says may lead out of `folder`
        into = folder / f"{path.parent.parent.name} {path.name}" if len(sweeps) > 1 else folder
        into.mkdir(parents=True, exist_ok=True)
        runs = path.parent.parent / "runs"
        targets = {name: runs / name for name, _ in named_runs(sweep.record)}
        for name, target in {**targets, _FIGURES: path}.items():
            try:
                (into / name).symlink_to(target, target_is_directory=True)
            except OSError as error:
                raise ValueError(
                    f"{into / name}: got no link ({error}), expected one: on Windows, switch the developer mode on, "
                    f"or run tensorboard --logdir {runs.parent}"
                ) from error
    _write_columns([run for sweep in sweeps for run in sweep.complete().runs], folder / _COLUMNS)


def _write_columns(runs: Sequence[Run], folder: Path) -> None:
    """The record from which TensorBoard's HParams takes its columns; none if no run is complete."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    rows = [hyperparameters(run.settings.plain, run.result["dataset"]["train"]) for run in runs]
    metrics = dict.fromkeys(name for run in runs for name in sorted(run.result["metrics"]))
    if not rows:
        return
    settings = [
        _column(name, [row[name] for row in rows if name in row])
        for name in dict.fromkeys(n for row in rows for n in row)
    ]
    shown = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in metrics]
    data = plugin_data_pb2.HParamsPluginData(experiment=api_pb2.Experiment(hparam_infos=settings, metric_infos=shown))
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=metadata.create_summary_metadata(data))
    writer = EventFileWriter(str(folder))
    writer.add_event(Event(summary=Summary(value=[value])))
    writer.close()


def _column(name: str, values: Sequence[int | float | str | bool]) -> Any:
    """What TensorBoard wants to know of a setting: its type, what it can be, and whether it differs."""
    from google.protobuf.struct_pb2 import ListValue, Value
    from tensorboard.plugins.hparams import api_pb2

    differs = len(set(values)) > 1
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        interval = api_pb2.Interval(min_value=min(numbers), max_value=max(numbers))
        kind = api_pb2.DATA_TYPE_FLOAT64
        return api_pb2.HParamInfo(name=name, type=kind, domain_interval=interval, differs=differs)
    words = sorted({str(value).lower() if isinstance(value, bool) else str(value) for value in values})
    domain = ListValue(values=[Value(string_value=word) for word in words])
    return api_pb2.HParamInfo(name=name, type=api_pb2.DATA_TYPE_STRING, domain_discrete=domain, differs=differs)
