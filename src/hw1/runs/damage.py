"""What is wrong with a run, finished or not: one line a damage, with what costs least. No torch for sound ones."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hw1.inside import first_link, inside, what_is
from hw1.records import DamagedError, read_record
from hw1.runs.measured import beside
from hw1.runs.run import Run
from hw1.sealed import is_whole
from hw1.tensor_files import refuse_claims
from hw1.training.contents import RESULT, SETTINGS, config_text, difference, is_of, read_result, stored
from hw1.trust.owner import KEPT

_AGAIN = "delete the run's folder and run its command again"
_WRITTEN_AGAIN = f"run the run's command again, which writes it from {RESULT}"
_RESTORED = "run the run's command again, which writes it from its checkpoint"
_CHECKPOINT = Path("checkpoints", "last.ckpt")
_SMALL = 2**16  # bytes; files up to here are hashed where a finished run is passed over, of others the size is compared
_WEIGHTS = (".ckpt", ".safetensors")


def run_damage(folder: Path) -> list[str]:
    """All that is wrong with a run, finished or not."""
    if link := link_in(folder):
        return [link]
    return [*_training_damage(folder), *_measure_damage(folder)]


def training_damage(folder: Path) -> list[str]:
    """All that is wrong with what a run's training wrote."""
    return list(_training_damage(folder))


def passing_damage(folder: Path, result: Mapping[str, Any] | None = None) -> list[str]:
    """What shows of a finished run without reading its weights: small files are hashed, of others the size is compared.

    Args:
        folder: of a complete run.
        result: the content of its result.json, where it is known.
    """
    files = (stored(folder / RESULT) or {} if result is None else result).get("files", {})
    return list(_listed_damage(folder, files, lambda name, size: size <= _SMALL and not name.endswith(_WEIGHTS)))


def _training_damage(folder: Path) -> Iterator[str]:
    try:
        result = read_result(folder) if (folder / RESULT).exists() else {}
    except DamagedError as error:
        yield str(error)
        result = {}
    if result.get("status") != "complete":
        yield from _unfinished_damage(folder)
        return
    if not (folder / "config.yaml").is_file():
        yield f"{folder / 'config.yaml'} is missing; {_WRITTEN_AGAIN}"
    elif problem := _settings_damage(folder):
        yield problem
    if (folder / KEPT).exists():
        try:
            read_record(folder / KEPT)
        except DamagedError as error:
            yield f"{error}, with --keep"
    files = result.get("files", {})
    yield from _listed_damage(folder, files, lambda name, size: True)
    if files:
        written = {folder / name for name in files}
        for file in (file for part in ("snapshots", "checkpoints") for file in sorted((folder / part).rglob("*"))):
            if file.is_file() and file not in written:
                yield f"{file} is no file of this training; remove it"


def _settings_damage(folder: Path) -> str:
    """What is wrong with the settings of a run, "" if nothing is."""
    try:
        Run(folder).settings  # noqa: B018 - read and checked
    except ValueError as error:
        return str(error)
    return ""


def _listed_damage(
    folder: Path, files: Mapping[str, Sequence[Any]], hashed: Callable[[str, int], bool]
) -> Iterator[str]:
    problems = {}
    for name, (size, sha256) in files.items():
        try:
            file = inside(folder, name)
        except DamagedError as error:
            yield str(error)
            continue
        expected = sha256 if hashed(name, size) else None
        if not _is_as_listed(str(file), size, expected) and (problem := difference(file, size, expected)):
            problems[name] = problem
    yield from (f"{problem}; {remedy}" for problem, remedy in _with_remedies(folder, problems))


def _with_remedies(folder: Path, problems: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with files of a finished run, by name, each with what costs least."""
    end_again = f"delete {folder / RESULT} and run the run's command again"
    heavy = [name for name in problems if not _is_light(name)]
    remedy = _AGAIN
    if heavy and (sound := sound_checkpoint(folder)) is not None:
        if all(name in sound for name in heavy):  # the result is of another training than all the others
            remedy = f"its checkpoint does not say so: {end_again}, which ends it without training"
        elif heavy == ["metrics.csv"]:
            remedy = f"the weights are whole, the history can only be trained again: {_AGAIN}"
    for name, problem in problems.items():
        text = name in ("config.yaml", SETTINGS)
        yield problem, _WRITTEN_AGAIN if text else end_again if _is_light(name) else remedy


def _is_light(name: str) -> bool:
    """Whether a file is text that is written again when a run is finished again, which costs no training."""
    return name in ("config.yaml", SETTINGS) or name.startswith(".hydra/")


def sound_checkpoint(folder: Path) -> set[str] | None:
    """The files that a finished run's last checkpoint, which is whole, says are what was written; None without one."""
    checkpoints = sorted((folder / "checkpoints").glob("*.ckpt"))
    if not (folder / _CHECKPOINT).is_file() or not all(map(is_whole, checkpoints)):
        return None
    from hw1.training.checkpoint import ENDED, recorded_in
    from hw1.training.metrics_csv import require_recorded

    recorded = recorded_in(folder / _CHECKPOINT)
    if recorded.get(ENDED) != folder.name.rpartition("-")[2]:
        return None
    found = {file.relative_to(folder).as_posix() for file in checkpoints}
    for name, sums in recorded.get("snapshots", {}).items():
        if not difference(inside(folder, name), *sums):
            found.add(name)
    try:
        require_recorded(folder / "metrics.csv", recorded["metrics"])
    except (DamagedError, KeyError):
        return found
    return {*found, "metrics.csv"}


def _is_as_listed(path: str, size: int, sha256: str | None) -> bool:
    """Whether a small file, or the size of any, is what was written; `difference` has the last word where it is not.

    It says the same in half the time: a finished sweep of ten thousand runs has ninety thousand files.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        if sha256 is None:
            return True
        if size > _SMALL:
            return False
        with open(path, "rb", buffering=0) as file:
            return hashlib.sha256(file.read()).hexdigest() == sha256
    except (OSError, ValueError, TypeError):
        return False


def _unfinished_damage(folder: Path) -> Iterator[str]:
    checkpoint = folder / _CHECKPOINT
    if not (folder / SETTINGS).exists():
        if checkpoint.is_file() and is_whole(checkpoint):  # earlier versions sealed none
            yield f"{folder / SETTINGS} is missing; {_RESTORED}"
        return
    try:
        begun = read_record(folder / SETTINGS)
        if not is_of(begun, folder):
            raise DamagedError(f"{folder / SETTINGS} is of another run, {begun['key']}; {_RESTORED}")
    except DamagedError as error:
        yield str(error)
    else:
        config = folder / "config.yaml"
        if not config.is_file() or config.read_bytes() != config_text(begun["settings"]).encode():
            yield f"{config} is damaged: it differs from {SETTINGS}; run the run's command again, which writes it"
    if not checkpoint.exists():
        return
    if not is_whole(checkpoint):
        yield f"{checkpoint} is damaged: its content is not what was written; delete it to train from the start"
        return
    for other in sorted(checkpoint.parent.glob("*.ckpt")):
        if is_whole(other) is False:
            yield f"{other} is damaged: its content is not what was written; remove it"
    import torch

    from hw1.training.checkpoint import RECORDED
    from hw1.training.metrics_csv import require_recorded

    try:
        refuse_claims(checkpoint)
        recorded = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get(RECORDED, {})
    except Exception as error:  # whatever a file from elsewhere makes of reading it
        yield f"{checkpoint} cannot be read ({' '.join(str(error).split())[:120]}); delete it to train from the start"
        return
    for name, (size, sha256) in recorded.get("snapshots", {}).items():
        if problem := difference(inside(folder, name), size, sha256):
            yield f"{problem}; {_AGAIN}"
    if "metrics" in recorded:
        try:
            require_recorded(folder / "metrics.csv", recorded["metrics"])
        except DamagedError as error:
            yield str(error)


def _measure_damage(folder: Path) -> Iterator[str]:
    known = set()
    for file in sorted((folder / "measures").glob("*.json")):
        if "." in file.stem:  # no record: it stands beside one, which lists it
            continue
        known.add(file)
        try:
            files = {beside(file, name): listed for name, listed in read_record(file).get("files", {}).items()}
        except DamagedError as error:
            yield str(error)
            continue
        known |= set(files)
        for other, (size, sha256) in files.items():
            if problem := difference(other, size, sha256):
                yield f"{problem}; run the command again, which measures it again"
    for file in sorted((folder / "measures").glob("[!.]*")):
        if file.is_file() and file not in known:
            yield f"{file} is no file of a measurement; remove it"


def link_in(folder: Path) -> str:
    """What is wrong with a folder that holds a link, "" if none does: nothing in it is read."""
    link = first_link(folder)
    return "" if link is None else f"{link}: got {what_is(link)}, expected a file or folder; remove it"
