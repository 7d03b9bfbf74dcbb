"""Removing what was agreed to, and what may still be removed when it comes to it. No torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hw1.files import file_sums
from hw1.lease import HeldError, hold
from hw1.records import read_record, rewrite_record
from hw1.settings import ConfigError
from hw1.training.contents import RESULT

_PATIENCE = 5.0  # seconds, for a command that makes folders


@dataclass(frozen=True)
class Removal:
    """Something to remove.

    Attributes:
        folder: of a run or a sweep.
        files: of it; () for the whole folder.
        size: bytes.
        why: in words.
    """

    folder: Path
    files: tuple[Path, ...]
    size: int
    why: str


@dataclass
class Plan:
    """What would be removed, and what would be left and why."""

    removals: list[Removal] = field(default_factory=list)
    left: dict[str, None] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that it would free."""
        return sum(removal.size for removal in self.removals)

    def leave(self, line: str) -> None:
        """Say once what is left."""
        self.left[line] = None


def carry_out(agreed: Plan, again: Callable[[], Plan]) -> tuple[int, list[str]]:
    """Remove what was agreed to and may still be removed; (bytes freed, what was left and why).

    Args:
        agreed: what the user saw.
        again: makes the plan anew: since it was shown, a command may have begun.

    Raises:
        ConfigError: a command is just making folders.
    """
    freed, left = 0, list[str]()
    bases = dict.fromkeys(removal.folder.parent.parent for removal in agreed.removals)
    for base in bases:
        try:
            lease = hold(base, _PATIENCE)
        except HeldError:
            raise ConfigError(f"{base}: a command is making folders there; try again when it has") from None
        with lease:
            still = {removal.folder: removal for removal in again().removals}
            for removal in agreed.removals:
                if removal.folder.parent.parent != base:
                    continue
                now = still.get(removal.folder)
                if now is None or bool(now.files) != bool(removal.files):
                    left.append(f"{removal.folder}: is needed by now: left")
                elif _removed(removal, set(now.files)):
                    freed += removal.size
                else:
                    left.append(f"{removal.folder}: a process is at work on it: left")
    return freed, left


def _removed(removal: Removal, still: set[Path]) -> bool:
    """Remove it under its own lease; False if a process holds that."""
    folder = removal.folder
    try:
        lease = hold(folder, 0)
    except HeldError:
        return False
    with lease:
        if removal.files:
            _forget(folder, [file for file in removal.files if file in still])
            return True
        # In one step, so that nothing is ever half there under its name.
        aside = folder.parent.parent / f".removed-{folder.name}"
        if aside.exists():  # of a cleaning that was killed
            shutil.rmtree(aside)
        folder.rename(aside)
    shutil.rmtree(aside)
    return True


def _forget(folder: Path, files: Sequence[Path]) -> None:
    """Remove files of a complete run; its result first says that they are gone, and what they were."""
    result = read_record(folder / RESULT)
    listed = dict(result.get("files", {}))
    removed = dict(result.get("removed", {}))
    for file in files:
        name = file.relative_to(folder).as_posix()
        known = listed.pop(name, None) or removed.get(name)
        removed[name] = known or file_sums(file)
    with_files = {"files": listed} if "files" in result else {}
    rewrite_record(folder / RESULT, {**result, **with_files, "removed": removed})
    for file in files:
        file.unlink(missing_ok=True)
