"""`python -m hw1 rekey`: brings what an earlier version wrote to today's keys and format; trains and measures nothing.

Until measures were read off finished runs, they were callbacks, and part of a run's key. Such a run gets the key that
it has without them, and what they had found becomes measurements. Every step can be repeated: a killed command goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hw1.files import write_text
from hw1.lease import HeldError, hold
from hw1.measures.cache import Cache, stem_of
from hw1.measures.take import asks_of, measure_of, measurement_key
from hw1.records import FORMAT, read_record, rewrite_record
from hw1.report.conclude import conclude
from hw1.runs import Ask, Measured, Run, find_run, is_complete, read_measured
from hw1.runs.measured import write_measured
from hw1.runs.standing import named_runs
from hw1.runs.weights import snapshot_files
from hw1.settings import ConfigError, RunSettings
from hw1.stored_csv import read_csv
from hw1.studies.protocol import of_today
from hw1.training.contents import RESULT, config_text, contents
from hw1.trust import judge_measures, reading, why_not_hers

_MEASURES = {
    "hw1.callbacks.Sharpness": "hw1.measures.Sharpness",
    "hw1.callbacks.Sensitivity": "hw1.measures.Sensitivity",
    "hw1.callbacks.MinimalRatio": "hw1.measures.MinimalRatio",
}
_NAMES = ("sharpness", "sensitivity", "minimal_ratio")  # what those callbacks were called in a command
_TABLE, _POINTS = "minimal_ratio.csv", "critical_points.safetensors"
_COLUMNS = {"flatness": "gradient_flatness"}  # of that table, renamed since


def rekey(base: Path) -> list[str]:
    """Rename the runs of an experiment to today's keys, and rewrite its sweeps; returns what to say, a line each.

    Only weights that are identical are merged into one folder. What carried no valid signature is not signed.

    Args:
        base: `multirun/<name>`.

    Raises:
        ConfigError: there are no runs, or a command is at work on one.
    """
    folders = sorted(folder for folder in (base / "runs").glob("*/") if (folder / "config.yaml").is_file())
    if not folders:
        raise ConfigError(f"{base}: got a folder without runs, expected that of an experiment, as multirun/NAME")
    lines: list[str] = []
    renamed = 0
    with hold(base):  # no command allots runs meanwhile
        for folder in folders:
            try:
                lease = hold(folder, 0)
            except HeldError:
                raise ConfigError(f"{folder}: a command is at work on this run; try again when it has ended") from None
            with lease:
                renamed += _run(folder, lines)
    formerly = {
        key: folder for folder in sorted((base / "runs").glob("*/")) for key in Run(folder).result.get("formerly", [])
    }
    concluded = 0
    for file in sorted(base.glob("sweeps/*/sweep.json")):
        if _sweep(file, formerly, lines):
            concluded += 1
    said = f"{base}: {renamed} of {len(folders)} runs have a new key, {concluded} sweeps were rewritten"
    return [*lines, said]


def _run(folder: Path, lines: list[str]) -> bool:
    """Bring one run to today's form; returns whether its key is another."""
    run = Run(folder)
    if not is_complete(folder):
        return False  # begun anew by the next command
    if run.result.get("format", 1) >= FORMAT:  # of today, or a killed command had only to rename it
        return run.result["key"] != run.key and _move(folder, run.result["key"], lines)
    plain: Any = OmegaConf.to_container(run.config, resolve=True)
    try:
        today, asks = _today(plain)
    except ConfigError as error:
        lines.append(f"{folder} is left as it is: {error}")
        return False
    if why := why_not_hers(folder / RESULT, plain, None):  # below, they are asked for their columns
        judge_measures(today["measures"], reading().trusted, why)
    settings = RunSettings.check(today)
    metrics = dict(run.result["metrics"])
    run = Run(folder, settings)
    for ask in asks:
        own = {name: metrics[name] for name in measure_of(ask).columns if name in metrics}
        if own and read_measured(ask.file(folder)) is None:
            try:
                _measurement(run, ask, own)
            except ConfigError as error:  # of weights along the way, which a callback did not keep
                lines.append(f"{folder}: measures.{ask.name} stays among its metrics: {error}")
                continue
        metrics = {name: value for name, value in metrics.items() if name not in own}
    write_text(folder / "config.yaml", config_text(today))
    result = {**run.result, "format": FORMAT, "key": settings.key, "settings": today, "metrics": metrics, "code": None}
    result["overrides"] = _words(result.get("overrides", []), [result])
    if settings.key != run.key:
        result["formerly"] = [*result.get("formerly", []), run.key]
    rewrite_record(folder / RESULT, {**result, "files": contents(folder)})
    return settings.key != run.key and _move(folder, settings.key, lines)


def _today(plain: Mapping[str, Any]) -> tuple[dict[str, Any], list[Ask]]:
    """The settings of a run as they would be written now, and the measures among its callbacks of then.

    Raises:
        ConfigError: the run measured while it trained, which is still part of a key.
    """
    callbacks = dict(plain.get("callbacks") or {})
    measures = dict(plain.get("measures") or {})
    for name, node in list(callbacks.items()):
        target = node.get("_target_") if isinstance(node, Mapping) else None
        if target not in _MEASURES:
            continue
        settings = {key: value for key, value in callbacks.pop(name).items() if key != "_target_"}
        if settings.pop("every_n_epochs", None) is not None:
            raise ConfigError(f"callbacks.{name}.every_n_epochs: measured while it trained; train it again")
        if "seed" in settings and settings["seed"] == plain["seed"]:
            settings["seed"] = None  # the run's
        measures[name] = {"_target_": _MEASURES[target], **settings}
    today = {**plain, "callbacks": callbacks, "measures": measures, "measured_sweep": None}
    return today, asks_of(measures)


def _measurement(run: Run, ask: Ask, values: Mapping[str, Any]) -> None:
    """Write what a callback had found as a measurement."""
    columns = measure_of(ask).columns
    lists = {name: value if isinstance(value, list) else [value] * run.count for name, value in values.items()}
    rows: list[dict[str, Any]] = []
    files = {}
    if ask.name == "minimal_ratio":
        table = read_csv(run.path / _TABLE).rename(columns=_COLUMNS)
        rows = [
            {str(name): value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
            for row in json.loads(table.to_json(orient="records", double_precision=15))
        ]
        if (run.path / _POINTS).is_file():
            files[_POINTS] = (run.path / _POINTS).read_bytes()
    told = {name: vars(columns[name]) for name in lists}
    measured = Measured(ask.name, measurement_key(run, ask), told, lists, rows)
    write_measured(ask.file(run.path), measured, files, own=False)


def _move(folder: Path, key: str, lines: list[str]) -> bool:
    """Give a run its new name; where one of this key stands already, with the same weights, they become one.

    Returns:
        Whether its folder is another now.
    """
    there = find_run(folder.parent, key)
    if there is None:
        folder.rename(folder.with_name(f"{Run(folder).slug}-{key}"))
        return True
    if not _same_weights(Run(folder), Run(there)):
        lines.append(f"{folder} is left beside {there.name}: its weights are others; delete one of the two")
        return False
    for file in sorted((folder / "measures").glob("*")):
        if not (there / "measures" / file.name).exists():
            (there / "measures").mkdir(exist_ok=True)
            file.rename(there / "measures" / file.name)
    result = read_record(there / RESULT)
    known = dict.fromkeys([*result.get("formerly", []), *read_record(folder / RESULT)["formerly"]])
    rewrite_record(there / RESULT, {**result, "formerly": list(known)})
    lines.append(f"{folder} had the weights of {there.name}: they are one now")
    merged = folder.parent.parent / f".merged-{folder.name}"  # a killed removal leaves no half of a run among runs
    folder.rename(merged)
    shutil.rmtree(merged)
    return True


def _same_weights(one: Run, two: Run) -> bool:
    """Whether two complete runs came to the same weights, to the bit, and kept the same along the way."""
    if not is_complete(two.path) or set(snapshot_files(one.path)) != set(snapshot_files(two.path)):
        return False
    kept = [(file, snapshot_files(two.path)[epoch]) for epoch, file in snapshot_files(one.path).items()]
    return all(a.read_bytes() == b.read_bytes() for a, b in kept) and one.theta().equal(two.theta())


def _sweep(file: Path, formerly: Mapping[str, Path], lines: list[str]) -> bool:
    """Rewrite a sweep's record with today's keys, and draw it anew; returns whether it had to be."""
    record = read_record(file)
    # Without `caches`, of an earlier version, or a killed command had only to draw it.
    stale = "caches" not in record or any(entry["key"] in formerly for entry in record["runs"])
    if not stale or record.get("status") not in ("complete", "failed"):
        return False
    entries = []
    for entry in record["runs"]:
        if (now := formerly.get(entry["key"])) is not None:
            entry = {**entry, "key": Run(now).key, "folder": now.name}
        entries.append(entry)
    folders = [file.parent.parent.parent / "runs" / name for name, _ in named_runs({"runs": entries})]
    runs = [Run(folder) for folder in folders if is_complete(folder)]
    measures = asks_of(runs[0].settings.measures) if runs else []
    if any(run.settings.measures != runs[0].settings.measures for run in runs):
        lines.append(f"{file.parent}: its runs differ in their measures; none is kept for the sweep")
        measures = []
    results = [run.result for run in runs]
    record |= {
        "format": FORMAT,
        "study": of_today(record["study"]) if record["study"] else record["study"],
        "measures": [ask.record() for ask in measures],
        "command": _words(record["command"], results),
        "runs": [{**entry, "overrides": _words(entry["overrides"], results)} for entry in entries],
    }
    if len(threads := {run.settings.threads for run in runs}) > 1:
        lines.append(f"{file.parent}: its runs have {sorted(threads)} threads: no one command of today finds them all")
    rewrite_record(file, {name: value for name, value in record.items() if name != "caches"})
    keys = {Run(path).key: key for key, path in formerly.items()}
    conclude(file.parent, Cache(file.parent.parent.parent / "measurements", _Formerly(keys)))
    return True


class _Formerly:
    """Under which names earlier versions kept a study's table.

    Args:
        keys: earlier keys of runs by their present ones.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = keys

    def __call__(
        self, name: str, version: int, on: Sequence[Sequence[str]], settings: Mapping[str, Any]
    ) -> Iterable[str]:
        before = [[self._keys.get(key, key), *rest] for key, *rest in on]
        yield stem_of(name, version, before, settings)
        if name == "interpolation":
            keys, weights, data = (list(part) for part in zip(*before, strict=True))
            identity = {"measurement": name, "runs": keys, "weights": weights, "data": data[0], "format": 1}
            alone = {**identity, "alphas": settings["alphas"]}
            for known in (alone, {**alone, "member": settings["member"]}):
                yield hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _words(words: Iterable[str], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The words of a command as they would be typed now, for the same runs.

    Args:
        words: as they were typed.
        results: of its runs: where all had two threads, the default of then, the command says so.

    Example:
        >>> _words(["callbacks=[default,sharpness]", "callbacks.sharpness.examples=9"], [])
        ['measures=[sharpness]', 'measures.sharpness.examples=9']
    """
    now, asked = [], []
    for word in words:
        key, _, value = word.partition("=")
        if key == "callbacks":
            listed = [part for part in re.split(r"[\[\],\s]+", value) if part]
            asked += [name for name in listed if name in _NAMES]
            rest = [name for name in listed if name not in _NAMES]
            if rest != ["default"] or not asked:
                now.append(word if len(rest) == len(listed) else f"callbacks=[{','.join(rest)}]")
            continue
        now.append(re.sub(rf"^([+~]*)callbacks\.({'|'.join(_NAMES)})\.", r"\1measures.\2.", word))
    if asked:
        now.insert(0, f"measures=[{','.join(asked)}]")
    threads = {result["settings"]["trainer"]["threads"] for result in results if "settings" in result}
    if len(threads) == 1 and threads != {1} and not any(word.startswith("trainer.threads=") for word in now):
        now.append(f"trainer.threads={threads.pop()}")
    return now
