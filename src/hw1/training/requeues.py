"""A run whose job is stopped and started again, and comes no further: it fails, with a reason. No torch.

`<run>/preempted.json` says where the run stood when its job was last stopped, and how often it has been stopped there.
Only where an engine starts jobs again is it written, under the run's lease; it goes when the run goes on to its end.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from hw1.preemption import is_requeued
from hw1.records import FORMAT, write_record
from hw1.training.contents import STOPPED, stored

STOPS = 3  # at one place: the first, and two that came of starting the job again


def measured_so_far(folder: Path) -> dict[str, int]:
    """Where a complete run stands in its measures: what has been written of them, by whatever pieces."""
    files = [file.stat().st_size for file in (folder / "measures").rglob("*") if file.is_file()]
    return {"files": len(files), "bytes": sum(files)}


def no_progress(folder: Path, place: dict[str, int]) -> str:
    """Note that a run was stopped at a place; why it is to fail where it comes no further, else "".

    Args:
        folder: of the run, which this process holds.
        place: where it stands: the `step` of its training, or what `measured_so_far` says.
    """
    if not is_requeued():
        return ""
    file = folder / STOPPED
    before: dict[str, Any] = stored(file) or {}
    stops = int(before["stops"]) + 1 if before.get("place") == place else 1
    if stops < STOPS:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_record(file, {"format": FORMAT, "time": now, "place": place, "stops": stops})
        return ""
    file.unlink()
    where = f"step {place['step']}" if "step" in place else "its measures"
    return (
        f"stopped {stops} times at {where} without coming further, expected some progress each time its job is "
        "started: give jobs more time (hydra.launcher.timeout_min, signal_delay_s), or write checkpoints more often "
        "(trainer.checkpoint_seconds)"
    )


def forget(folder: Path) -> None:
    """The run has come to its end."""
    (folder / STOPPED).unlink(missing_ok=True)
