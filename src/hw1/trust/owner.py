"""Whether a run or a sweep is the user's own: her signature, and her code as it was. No torch, nothing is imported.

The code may be another where it lies in a project that she has signed, which is hers as a whole; or where she has said
`--keep` of it since, which is remembered, signed, in the run's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hw1.records import DamagedError, is_own, read_record, write_record
from hw1.seeds import digest
from hw1.settings.code import code_of, source_of
from hw1.trust.projects import in_project, looks_like_a_project
from hw1.typed import program

KEPT = "kept.json"  # in a run's folder: the code that `--keep` or `hw1 trust` took it with
_waiting: list[Mapping[str, Any]] = []  # of `vouch`, whose hashes nobody has asked for yet
_vouched: set[str] = set()
_made: set[Path] = set()  # folders of sweeps


def is_hers(file: Path, settings: Mapping[str, Any], code: Mapping[str, str] | None) -> bool:
    """Whether a record of a run is the user's; see `why_not_hers`."""
    return not why_not_hers(file, settings, code)


def why_not_hers(file: Path, settings: Mapping[str, Any], code: Mapping[str, str] | None) -> str:
    """Why a run is judged as a stranger's, and the remedy; "" where it is the user's own.

    Args:
        file: the record that its settings stand in: result.json, or settings.json.
        settings: as they stand there.
        code: hashes of the user's modules, as they stand there; None where that was not recorded.
    """
    problem = why_not_own_record(file) or _other_code(file.parent, settings, code or {})
    return "" if problem and _is_vouched(settings) else problem


def _other_code(folder: Path, settings: Mapping[str, Any], code: Mapping[str, str]) -> str:
    """Which of the user's modules is not what a run of hers was trained with, and the remedy; "" if all are."""
    now, kept = code_of(settings), _kept(folder)
    for name, found in now.items():
        if found in (code.get(name), kept.get(name)) or in_project(source_of(name)):
            continue
        return (
            f"{name} ({source_of(name)}) is not what {folder} was trained with; restore it, or add --keep to the "
            f"command, or {program()} trust {to_sign(folder)}"
        )
    return ""


def why_not_own_record(file: Path) -> str:
    """Why a record is a stranger's, and the remedy; "" where it carries the user's valid signature."""
    folder = file.parent
    if is_own(file) or folder.resolve() in _made:
        return ""
    return f"{folder} is not signed by you; {program()} trust {to_sign(folder)} if it is yours"


def to_sign(folder: Path) -> Path:
    """What `hw1 trust` is to be given for a run or a sweep: the project around it, else its experiment's folder."""
    here, whole = Path.cwd(), folder.absolute()
    if whole.is_relative_to(here) and looks_like_a_project(here):
        return here
    return folder.parent.parent if folder.parent.name in ("runs", "sweeps") else folder


def vouch(settings: Iterable[Mapping[str, Any]]) -> None:
    """Take settings that a command of the user's has composed for hers, whatever stands in the folder of their run.

    Of a user without a key nothing is signed; what her command trains it can yet measure and draw.
    """
    _waiting.extend(settings)


def vouch_folder(folder: Path) -> None:
    """Take the record of a sweep for hers that a command of the user's has just made, as `vouch`."""
    _made.add(folder.resolve())


def _is_vouched(settings: Mapping[str, Any]) -> bool:
    while _waiting:
        _vouched.add(digest(_waiting.pop()))
    return bool(_vouched) and digest(settings) in _vouched


def signed_code(folder: Path, name: str, code: Mapping[str, str] | None) -> dict[str, set[str]]:
    """Hashes by module that a record of hers holds, and those that she has kept; {} where it is not hers.

    Args:
        folder: of a run, or a sweep.
        name: of the record in it.
        code: as it stands there.
    """
    found: dict[str, set[str]] = {}
    if code and is_own(folder / name):
        for module, one in [*code.items(), *_kept(folder).items()]:
            found.setdefault(module, set()).add(one)
    return found


def keep_code(folder: Path, settings: Mapping[str, Any], key: str) -> None:
    """Remember, signed, that the user takes a run of hers with the code as it is now.

    Args:
        folder: of a run, whose record is hers.
        settings: of the run.
        key: of the run.
    """
    code = code_of(settings) if any(is_own(folder / name) for name in ("result.json", "settings.json")) else {}
    if code and code != _kept(folder):
        write_record(folder / KEPT, {"format": 2, "key": key, "code": code})


def _kept(folder: Path) -> dict[str, str]:
    """What `keep_code` remembered; {} where that is nothing, or is not the user's."""
    file = folder / KEPT
    try:
        if not file.is_file() or not is_own(file):
            return {}
        record = read_record(file)
    except (OSError, DamagedError):
        return {}
    named = folder.name.endswith(f"-{record.get('key')}")  # of this run, not one that was put here
    return dict(record.get("code") or {}) if named else {}
