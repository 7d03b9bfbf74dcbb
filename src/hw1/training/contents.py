"""What a run's folder promises: its settings since it began, and, once it has ended, the hash of every file. No torch.

Written in this order: config.yaml and .hydra/ for people, settings.json; then what training writes; result.json last.
"""

from __future__ import annotations

import datetime
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hw1 import lease
from hw1.files import file_digest, file_sums, lasting, sync_file, sync_folder, write_text
from hw1.inside import inside
from hw1.records import FORMAT, DamagedError, Seal, is_own, read_record, read_sealed, rewrite_record, write_record
from hw1.settings import RunSettings
from hw1.settings.code import code_of

_KEY = re.compile(r"[0-9a-f]{10}")
SETTINGS, RESULT = "settings.json", "result.json"
PROGRESS = "progress.json"  # while it trains
STOPPED = "preempted.json"  # where its job was stopped, see `requeues`


def begin(
    folder: Path, settings: RunSettings, overrides: Sequence[str], beside: Mapping[str, str], resumed: bool
) -> dict[str, Any]:
    """Write what stands in a run's folder before it trains; returns the content of its settings.json.

    Args:
        folder: of the run.
        settings: of the run.
        overrides: the words of the command that made it.
        beside: further files, {path in the folder: text}.
        resumed: whether it goes on from a checkpoint: then the code is that of the beginning, and the settings are
            signed only if those of the beginning were.

    Raises:
        DamagedError: it goes on, and nobody knows with which code and data it began.
    """
    file = folder / SETTINGS
    before = begun(folder) if resumed else None
    if resumed and before is None and file.exists():
        raise DamagedError(
            f"{file} is damaged or of another run, and its run's checkpoint has no copy of it: with which code and "
            "data it began is not known; delete it and run the command again, which goes on with today's"
        )
    for name, text in {"config.yaml": config_text(settings.stored), **beside}.items():
        write_text(folder / name, text)
    record = {
        "format": FORMAT,
        "key": settings.key,
        "name": settings.name,
        "overrides": list(overrides),
        "time": now(),
        "settings": dict(settings.stored),
        "code": code_of(settings.plain),
    }
    if resumed:
        before = before or {}  # of an earlier version
        kept = {"code": before.get("code"), "time": before.get("time", record["time"]), "data": before.get("data")}
        rewrite_record(file, {**record, **kept})
    else:
        write_record(file, record)
    return read_record(file)


def now() -> str:
    """The present, as records hold it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def begun(folder: Path) -> dict[str, Any] | None:
    """The settings.json of a run; None where there is none, or it is damaged or another run's."""
    record = stored(folder / SETTINGS)
    return record if record is not None and is_beginning(record, folder) else None


def is_beginning(record: Mapping[str, Any], folder: Path) -> bool:
    """Whether a record is what a settings.json of this run holds."""
    return isinstance(record.get("key"), str) and "settings" in record and is_of(record, folder)


def is_of(record: Mapping[str, Any], folder: Path) -> bool:
    """Whether a record is of the run whose folder this is: its key, or an earlier one, ends the folder's name."""
    if not isinstance(key := record.get("key"), str) or record.get("format", 1) < FORMAT:  # of an earlier version
        return True
    named = folder.name.rpartition("-")[2]
    return not _KEY.fullmatch(named) or named in (key, *record.get("formerly", []))


def read_result(folder: Path) -> dict[str, Any]:
    """The result.json of a run.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not what was written, or of another run.
    """
    return read_sealed_result(folder)[0]


def read_sealed_result(folder: Path) -> tuple[dict[str, Any], Seal]:
    """As `read_result`, and whose it is, see `hw1.records.Seal`."""
    result, seal = read_sealed(folder / RESULT)
    if not is_of(result, folder):
        raise DamagedError(f"{folder / RESULT} is of another run, {result['key']}; delete it and run the command again")
    return result, seal


def known_result(folder: Path) -> dict[str, Any] | None:
    """As `read_result`; None where there is none, or it is damaged."""
    try:
        return read_result(folder)
    except (FileNotFoundError, NotADirectoryError, DamagedError):
        return None


def restore_settings(folder: Path, text: object) -> bool:
    """Write a settings.json that is gone or damaged as it was, with its signature; returns whether it is whole now.

    Args:
        folder: of the run.
        text: that the file had when its run's last checkpoint was written; else nothing is restored.
    """
    if not isinstance(text, str):
        return False
    try:
        with lasting(folder / SETTINGS) as temporary:
            temporary.write_text(text, encoding="utf-8")
            if not is_beginning(read_record(temporary), folder):
                raise DamagedError("it is of another run")
    except DamagedError:
        return False
    return True


def write_again(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the config.yaml and settings.json of a finished run again from its result.json, which holds the same.

    The settings are signed only if the result is. Where their bytes are others, as the time of an interrupted run's
    beginning is not known, the result lists those.
    """
    names = ("format", "key", "name", "overrides", "time", "settings", "code")
    record = {name: result[name] for name in names if name in result}
    if (data := result["dataset"].get("sha256")) is not None:
        record["data"] = data
    write_text(folder / "config.yaml", config_text(result["settings"]))
    if is_own(folder / RESULT):
        write_record(folder / SETTINGS, record)
    else:
        (folder / SETTINGS).unlink(missing_ok=True)
        rewrite_record(folder / SETTINGS, record)
    now = {name: file_sums(folder / name) for name in ("config.yaml", SETTINGS)}
    if any(result["files"].get(name) != found for name, found in now.items()):
        rewrite_record(folder / RESULT, {**result, "files": {**result["files"], **now}})


def note_data(folder: Path, identity: str) -> None:
    """Note in a run's settings.json which data it trains on, or compare them with those that it has trained on.

    Raises:
        DamagedError: they are others.
    """
    record = read_record(folder / SETTINGS)
    before = record.get("data")
    if before not in (None, identity):
        raise DamagedError(
            f"dataset: {folder.name} has trained on other data than today's so far: restore them, or add --rerun to "
            "train it again"
        )
    if before is None:
        rewrite_record(folder / SETTINGS, {**record, "data": identity})


def end(folder: Path, result: Mapping[str, Any]) -> None:
    """Write result.json, signed if the run's settings are; a complete one lists every file of the training."""
    files = contents(folder) if result["status"] == "complete" else {}
    for name in files:  # what it vouches for outlasts it
        sync_file(folder / name)
    for name in {str(Path(name).parent) for name in files}:
        sync_folder(folder / name)
    record = {**result, "files": files}
    if is_own(folder / SETTINGS):
        write_record(folder / RESULT, record)
    else:
        lease.require(folder)
        (folder / RESULT).unlink(missing_ok=True)
        rewrite_record(folder / RESULT, record)


def contents(folder: Path) -> dict[str, list[Any]]:
    """[bytes, SHA-256] of every file of the training by its path in the run's folder.

    Left out is what goes on growing or comes later: run.log, the files of TensorBoard and Weights & Biases, measures
    and the lease.
    """
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        aside = name in (RESULT, PROGRESS, STOPPED, "run.log", lease.LOCK)
        aside = aside or name.startswith(("measures/", "wandb/", lease.LEASE))
        aside = aside or "tfevents" in file.name
        aside = aside or any(part.endswith(".part") for part in file.relative_to(folder).parts)
        if file.is_file() and not aside:
            found[name] = file_sums(file)
    return found


def snapshot_sums(folder: Path) -> dict[str, list[Any]]:
    """[bytes, SHA-256] of the snapshots that a run has taken so far."""
    files = sorted((folder / "snapshots").glob("*.safetensors"))
    return {file.relative_to(folder).as_posix(): file_sums(file) for file in files}


def stored(file: Path) -> dict[str, Any] | None:
    """A record of a run; None where there is none, or it is damaged."""
    try:
        return read_record(file)
    except (FileNotFoundError, NotADirectoryError, DamagedError):
        return None


def config_text(plain: Mapping[str, Any]) -> str:
    """The text of config.yaml."""
    return yaml.safe_dump(dict(plain), sort_keys=False)


def require(folder: Path, sums: Mapping[str, Sequence[Any]]) -> None:
    """Compare files of a run with what was recorded of them.

    Raises:
        DamagedError: one is missing or differs.
    """
    for name, (size, sha256) in sums.items():
        if problem := difference(inside(folder, name), size, sha256):
            raise DamagedError(f"{problem}; delete the run's folder and run its command again")


def difference(file: Path, size: int, sha256: str | None = None) -> str:
    """What is wrong with a file, "" if nothing is; the content is hashed only if `sha256` is given."""
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"{file} is missing"
    if not stat.S_ISREG(status.st_mode):
        return f"{file} is missing"
    if status.st_size != size:
        return f"{file} is damaged: it has {status.st_size} bytes, {size} were written"
    if sha256 is not None and file_digest(file) != sha256:
        return f"{file} is damaged: its content is not what was written"
    return ""
