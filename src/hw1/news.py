"""Which sweep this process is at work on, for who started its command from Python. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

# Is called with the folder of a sweep as soon as it has a record; None where nobody hears it.
hears: Callable[[Path], None] | None = None


def at_work_on(sweep: Path) -> None:
    """Say which sweep a command made, found concluded, or concludes."""
    if hears is not None:
        hears(sweep.absolute())
