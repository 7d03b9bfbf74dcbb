"""What a command writes again of a damaged run, which costs no training: its settings, from what else holds them.

No torch, unless a run that has not ended lacks its settings: its checkpoint has a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw1.lease import HeldError, hold
from hw1.sealed import is_whole
from hw1.stored_json import from_json
from hw1.training.contents import (
    RESULT,
    SETTINGS,
    begun,
    difference,
    is_beginning,
    known_result,
    restore_settings,
    write_again,
)

_CHECKPOINT = Path("checkpoints", "last.ckpt")


def mend_finished(folder: Path, result: Mapping[str, Any]) -> str:
    """Write the settings of a finished run again where they are not what it wrote; returns what to say, "" for nothing.

    Args:
        folder: of a complete run that nobody is at work on.
        result: the content of its result.json.
    """
    files = result.get("files") or {}
    if "settings" not in result or SETTINGS not in files:  # of an earlier version
        return ""
    damaged = [name for name in ("config.yaml", SETTINGS) if difference(folder / name, *files[name])]
    try:
        with hold(folder, 0):
            if not damaged or known_result(folder) != result:  # somebody has just been at it
                return ""
            write_again(folder, result)
    except HeldError:
        return ""
    return f"{folder}: {' and '.join(damaged)} {_was(damaged)} damaged, and written again from its {RESULT}"


def mend_unfinished(folder: Path) -> str:
    """Restore the settings.json of a run that goes on, with its signature; returns what to say, "" for nothing.

    Where its checkpoint has no copy, it is left as it is: the run refuses to go on.
    """
    checkpoint = folder / _CHECKPOINT
    if not checkpoint.is_file() or begun(folder) is not None or not is_whole(checkpoint):
        return ""
    try:
        with hold(folder, 0):
            if begun(folder) is not None or not restore_settings(folder, _text(checkpoint)):
                return ""
    except HeldError:
        return ""
    return f"{folder}: {SETTINGS} was damaged, and written again from its {_CHECKPOINT.as_posix()}"


def copied(folder: Path) -> dict[str, Any]:
    """The settings.json of a run that has not ended, as its checkpoint has it; {} where that has none."""
    checkpoint = folder / _CHECKPOINT
    if not checkpoint.is_file() or not is_whole(checkpoint):
        return {}
    try:
        record = from_json(_text(checkpoint))
    except (ValueError, TypeError):
        return {}
    return record if isinstance(record, dict) and is_beginning(record, folder) else {}


def _text(checkpoint: Path) -> Any:
    from hw1.training.checkpoint import TEXT, recorded_in

    return recorded_in(checkpoint).get(TEXT)


def _was(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"
