"""The parts of what a sweep's study measures, computed by any process before the study asks for them. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from hw1.measures.cache import Cache
from hw1.runs import Sweep
from hw1.stages import stage, through
from hw1.studies.protocol import Part, of_sweep


def lacking_parts(folder: Path) -> Sequence[Part]:
    """Those that a sweep's study lacks; [] of a sweep without a study, or of one that has none.

    Args:
        folder: of the sweep, whose runs have ended.

    Raises:
        TrustError: its study is somebody else's code.
    """
    sweep = Sweep.read(folder)
    study = of_sweep(sweep) if sweep.record.get("study") else None
    if (pieces := getattr(study, "pieces", None)) is None:
        return []
    found: Sequence[Part] = pieces(sweep, Cache(sweep.path.parent.parent / "measurements"))
    return found


def keep_parts(folder: Path, labels: Collection[str]) -> None:
    """Compute some of them, each into its file.

    Args:
        folder: of the sweep.
        labels: of the parts; those that are there by now are passed over.

    Raises:
        LostError: another process took a part over while this one was silent.
    """
    parts = [part for part in lacking_parts(folder) if part.label in labels]
    with stage(f"{folder.name}: parts of its study"):
        for part in through(parts, len(parts)):
            part.keep()
