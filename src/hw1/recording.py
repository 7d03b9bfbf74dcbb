"""A run of somebody else's training loop, written as hw1 writes its own, so that it is listed and reported.

Example::

    with hw1.record("mine", {"optimizer": {"lr": 0.1}, "seed": 1}) as run:
        for epoch in range(10):
            ...
            run.log(step, {"train/loss": loss, "test/accuracy": accuracy}, epoch=epoch + 1)
        run.snapshot(net, 10)

In one file, as a recording is one thing to its loop.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.files import new_folder, remove_parts
from hw1.inside import inside, refuse_linked_parts, refuse_links
from hw1.lease import HeldError, hold
from hw1.records import FORMAT, make_key, read_record, rewrite_record, write_record
from hw1.runs import find_run, is_complete, slug_of
from hw1.runs.weights import snapshot_files
from hw1.settings import ConfigError, RunSettings
from hw1.terminal import say
from hw1.training.contents import RESULT, begin, end, stored

if TYPE_CHECKING:
    from torch import nn

_GROUPS = ("model", "dataset", "optimizer")  # what is no mapping there is its name
_GIVEN = ("seed", "init", "scheduler", "trainer", *_GROUPS)  # of hw1's own settings, those that a loop may have
_NO_METRICS = ("epoch", "step", "member")
_EVERY = 2.0  # seconds between two writings of metrics.csv, at least


def network(**settings: Any) -> None:
    """Stands for the network of a recorded run whose settings do not say how it is built.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "model: got a recorded run, whose network is known to its own loop alone; expected record(..., settings) with "
        "model={'_target_': ..., ...} and dataset={'_target_': ..., ...} as in a config.yaml of hw1"
    )


def record(
    name: str,
    settings: Mapping[str, Any],
    *,
    output: str | os.PathLike[str] = "multirun",
    first_step: int = 0,
    rerun: bool = False,
) -> Recording:
    """A run of a loop that is not hw1's, to be used as `with hw1.record(name, settings) as run`.

    It stands in `<output>/<name>/runs/`, in a sweep with the others that were recorded under this name: `python -m hw1
    report <output>/<name>` draws them. It is complete when the block ends without an error, failed after one, and
    unfinished where it was interrupted or killed.

    Args:
        name: of the experiment, hence the folder.
        settings: plain values and nested mappings: what tells runs apart. `model` and `dataset` with hw1's `_target_`s
            let measures and studies work on the snapshots; any other value is a name.
        output: where results stand.
        first_step: of a loop that goes on from a checkpoint of its own: what was logged at this step and later is
            dropped, the rest and the snapshots stay. 0 begins anew.
        rerun: whether a complete run of these settings makes way, to `<name>/replaced`.

    Raises:
        ConfigError: a setting that cannot be kept, or the run is complete.
    """
    return Recording(name, settings, Path(output).absolute(), first_step, rerun)


class Recording:
    """See `record`.

    Attributes:
        path: the folder of the run.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], output: Path, first_step: int, rerun: bool) -> None:
        if not name or Path(name).name != name or name.startswith("."):
            raise ConfigError(f"name: got {name!r}, expected letters, digits, '_' and '-': it names a folder")
        plain, self._words = _plain(name, settings, output)
        self._settings = RunSettings.check(plain)
        self._base, self._first, self._rerun = output / name, first_step, rerun
        known = find_run(self._base / "runs", self._settings.key)
        self.path = known or self._base / "runs" / f"{slug_of(self._words)}-{self._settings.key}"
        self._parameters = 0
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Recording:
        """Make the folder, with its settings, and hold it.

        Raises:
            ConfigError: the run is complete, or another process records it.
        """
        from hw1.training.metrics_csv import MetricsCsv, last_values  # imports Lightning

        if problem := make_key():
            print(f"results are not signed: {problem}", file=sys.stderr)
        self._base.mkdir(parents=True, exist_ok=True)
        refuse_linked_parts(self._base)
        refuse_links(self.path)
        with self._held:
            with hold(self._base):
                if is_complete(self.path):
                    self._make_way()
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock(self.path, f"{self.path}: another process records this run; give it another setting")
            if not self._first:
                for left in (self.path / "metrics.csv", self.path / "settings.json"):
                    left.unlink(missing_ok=True)
                shutil.rmtree(self.path / "snapshots", ignore_errors=True)
            (self.path / RESULT).unlink(missing_ok=True)  # of a failed attempt
            remove_parts(self.path)
            self._begun = begin(self.path, self._settings, self._words, {}, resumed=self._first > 0)
            self._csv = MetricsCsv(self.path, self._first)
            self._last, self._epoch = last_values(self.path)
            self._started = self._written = time.monotonic()
            self._sweep = self._enlist()
            with contextlib.suppress(ConfigError):  # another process is at work on the same sweep
                self._lock(self._sweep, "")
            self._held = self._held.pop_all()
        return self

    def log(self, step: int, metrics: Mapping[str, Any], epoch: float | None = None) -> None:
        """Write metrics of a step; the last value of each is the run's final one.

        Args:
            step: number of optimizer steps behind it.
            metrics: numbers by name. `train/loss`, `test/loss`, `train/accuracy` and `test/accuracy`, of whole sets,
                are those that learning curves show; `train_step/...` are values of single steps.
            epoch: completed epochs, with values of whole sets.

        Raises:
            ValueError: a value is no number, or a name is taken.
        """
        numbers = {}
        for name, value in metrics.items():
            if name in _NO_METRICS:
                raise ValueError(f"metrics.{name}: got the name of a column, expected log(step, {{...}}, epoch=...)")
            try:
                numbers[name] = float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"metrics.{name}: got {value!r}, expected a number") from error
        if time.monotonic() - self._written > _EVERY:  # what is written is whole: a step may be logged in parts
            self._csv.write()
            self._written = time.monotonic()
        at = {} if epoch is None else {"epoch": math.ceil(epoch) - 1}  # counted from 0 there
        self._csv.log_metrics({**at, **numbers}, step=int(step))
        self._last |= {name: value for name, value in numbers.items() if not name.startswith("train_step/")}
        self._epoch = max(self._epoch, math.ceil(epoch or 0))

    def snapshot(self, net: nn.Module, epoch: int) -> Path:
        """Keep a network's weights after so many completed epochs, 0 for the initialisation; returns the file.

        The last one is what measures and studies take for the run's weights.
        """
        from hw1.training.snapshots import save_snapshot

        self._parameters = sum(parameter.numel() for parameter in net.parameters())
        return save_snapshot(net, self.path, int(epoch))

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Write result.json, last: complete, or failed with the error; nothing where the loop was interrupted."""
        with self._held:
            self._csv.write()
            if error is None or isinstance(error, Exception):
                end(self.path, self._result(error))
            self._enlist()

    def _result(self, error: Exception | None) -> dict[str, Any]:
        from hw1.training.made_with import commit, versions

        kept = snapshot_files(self.path)
        result = {
            **{key: self._begun[key] for key in ("format", "key", "name", "overrides", "settings", "code")},
            "status": "complete" if error is None else "failed",
            "seed": self._settings.seed,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "git": commit(),
        }
        if error is not None:
            lines = "".join(traceback.format_exception(error))
            return result | {"error": f"{type(error).__name__}: {' '.join(str(error).split())}", "traceback": lines}
        data = self._settings.dataset
        return result | {
            "parameters": self._parameters,
            "replicas": 1,
            "metrics": self._last,
            "epochs": max(kept, default=self._epoch),
            "seconds": round(time.monotonic() - self._started, 3),
            "dataset": {
                "name": str(data.get("name") or str(data["_target_"]).rpartition(".")[2]),
                "source": "recorded",
                **{split: int(data.get(split) or 0) for split in ("train", "test")},
                "sha256": None,
            },
            "constant": {},
        }

    def _make_way(self) -> None:
        if not self._rerun:
            raise ConfigError(
                f"{self.path} is complete; record other settings (seed=...), or again with record(..., rerun=True)"
            )
        from hw1.runs import Run
        from hw1.runs.changed import set_aside

        say(set_aside([Run(self.path)], self._base), file=sys.stderr)

    def _lock(self, folder: Path, problem: str) -> None:
        try:
            self._held.enter_context(hold(folder, 0))
        except HeldError:
            raise ConfigError(problem) from None

    def _enlist(self) -> Path:
        """Name the run in the latest sweep of recorded ones, or in a new one; returns its folder."""
        with hold(self._base):
            folder, record = self._latest()
            own = {"key": self._settings.key, "folder": self.path.name, "overrides": self._words}
            runs = [entry for entry in record["runs"] if entry["folder"] != self.path.name] + [own]
            there = {entry["folder"]: inside(self._base / "runs", entry["folder"]) for entry in runs}
            results = {name: stored(path / RESULT) for name, path in there.items()}
            failed = {name: str(one["error"]) for name, one in results.items() if one and one["status"] == "failed"}
            waiting = any(one is None for one in results.values())
            record |= {
                "runs": runs,
                "swept": _swept([entry["overrides"] for entry in runs]),
                "status": "running" if waiting else "failed" if failed else "complete",
                "failed": failed,
                "digest": None,
            }
            rewrite = rewrite_record if (folder / "sweep.json").exists() else write_record
            rewrite(folder / "sweep.json", record)
        return folder

    def _latest(self) -> tuple[Path, dict[str, Any]]:
        for file in sorted(self._base.glob("sweeps/*/sweep.json"), reverse=True):
            with contextlib.suppress(ValueError):  # a damaged one is left alone
                if (found := read_record(file)).get("recorded"):
                    return file.parent, found
        about = {"title": "", "question": "", "expect": "", "quick": ""}
        made = {"format": FORMAT, "name": self._settings.name, "command": sys.argv, "started": time.time()}
        made |= {"budget": "full", "about": about, "study": None, "measures": [], "runs": [], "recorded": True}
        return new_folder(self._base / "sweeps"), made | {"answer": [], "headlines": [], "numbers": [], "files": {}}


def _plain(name: str, settings: Mapping[str, Any], output: Path) -> tuple[dict[str, Any], list[str]]:
    """(the settings of the run as every reader of runs expects them, those that were given as words)."""
    from hw1.settings.run_settings import TOP

    if not isinstance(settings, Mapping):
        raise ConfigError(f"settings: got a {type(settings).__name__}, expected values by name, as vars(arguments)")
    try:
        given = json.loads(json.dumps(dict(settings)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings: {error}; expected numbers, text, lists and mappings") from error
    if taken := [key for key in given if key in TOP and key not in _GIVEN]:
        raise ConfigError(f"settings.{taken[0]}: got a setting of hw1's own commands, expected another name for it")
    unbuilt = {"_target_": f"{__name__}.network"}
    trainer = {"max_epochs": 1, "threads": 1, "checkpoint_seconds": 0, "progress": False}
    plain: dict[str, Any] = {"name": name, "output": str(output), "seed": 0, "init": "independent", "scheduler": None}
    plain |= {"study": None, "sweep": None, "trainer": trainer, "callbacks": {}, "measures": {}, "logger": {}}
    plain |= {"model": unbuilt, "dataset": unbuilt, "optimizer": {}}
    for key, value in given.items():
        if key in (*_GROUPS, "trainer"):
            plain[key] = plain[key] | (value if isinstance(value, dict) else {"name": value})
        else:
            plain[key] = value
    return plain, [f"{key}={value}" for key, value in _flat(given)]


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "null" if value is None else value


def _swept(runs: Sequence[Sequence[str]]) -> list[str]:
    """The keys in which runs differ, by their words."""
    cells = [dict(word.partition("=")[::2] for word in words) for words in runs]
    keys = dict.fromkeys(key for run in cells for key in run)
    return [key for key in keys if len({run.get(key) for run in cells}) > 1]
