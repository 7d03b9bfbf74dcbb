"""What a run's folder promises: its settings since it began, and, once it has ended, the hash of every file. No torch.

Written in this order: config.yaml and .hydra/ for people, settings.json; then what training writes; result.json last.
"""

from __future__ import annotations

import datetime
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hw1 import lease
from hw1.files import file_digest, file_sums, write_text
from hw1.inside import inside
from hw1.records import FORMAT, DamagedError, is_own, read_record, rewrite_record, write_record
from hw1.settings import RunSettings
from hw1.settings.code import code_of

SETTINGS, RESULT = "settings.json", "result.json"
PROGRESS = "progress.json"  # while it trains


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
    """
    for name, text in {"config.yaml": config_text(settings.stored), **beside}.items():
        write_text(folder / name, text)
    record = {
        "format": FORMAT,
        "key": settings.key,
        "name": settings.name,
        "overrides": list(overrides),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": dict(settings.stored),
        "code": code_of(settings.plain),
    }
    file = folder / SETTINGS
    if resumed:
        before = stored(file) or {}
        kept = {"code": before.get("code"), "time": before.get("time", record["time"]), "data": before.get("data")}
        rewrite_record(file, {**record, **kept})
    else:
        write_record(file, record)
    return read_record(file)


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
        aside = name in (RESULT, PROGRESS, "run.log", lease.LOCK)
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
