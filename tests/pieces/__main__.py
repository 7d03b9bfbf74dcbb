"""`python -m tests.pieces`: measures in pieces under each launcher, killed in the middle, and prints the figures.

Exit code 1 if bits differ from those of one process, or a piece that was whole was computed again.
"""

import argparse
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds what tests share

from .commands import LAUNCHERS, OPTIONAL, QUIET, segment, spectrum, trained

_NEEDS = {"submitit_local": "submitit", "ray": "ray"}


def main(words=None):
    """The exit code."""
    asked = _parser().parse_args(words)
    place = Path(tempfile.mkdtemp(dir=asked.folder))
    launchers = {**LAUNCHERS, **{name: own for name, own in OPTIONAL.items() if importlib.util.find_spec(_NEEDS[name])}}
    launchers = {name: own for name, own in launchers.items() if not asked.only or any(o in name for o in asked.only)}
    wrong = 0
    try:
        base = trained(place / "one", *QUIET)
        alone = spectrum(base, ("hydra/launcher=basic", "pieces=false"))
        print("| spectrum under | pieces | whole when killed | computed behind that | bits | CPU s |", flush=True)
        print("|---|---|---|---|---|---|")
        print(f"| one process, not killed | 8 | | | {alone.digest} | {alone.seconds:.1f} |", flush=True)
        for name, own in launchers.items():
            met = spectrum(base, own, after=3)
            expected = None if name == "one process" else met.pieces - met.left  # which says nothing of pieces
            good = met.digest == alone.digest and met.again == expected
            wrong += not good
            same = "the same" if met.digest == alone.digest else f"OTHERS: {met.digest}"
            print(
                f"| {name} | 8 | {met.left} | {'-' if met.again is None else met.again} | {same} | {met.seconds:.1f} |",
                flush=True,
            )
        print(f"| a segment of {asked.points} points under | | | computed again | | |", flush=True)
        (place / "whole").mkdir()
        whole = segment(place / "whole", asked.points, ("hydra/launcher=basic",))
        print(f"| one process, not killed | | | | {whole.digest} | {whole.seconds:.1f} |", flush=True)
        for name in [name for name in launchers if name in ("parallel, 2 workers", "joblib, 2 workers")]:
            (place / name[:4]).mkdir()
            met = segment(place / name[:4], asked.points, LAUNCHERS[name], after=10)
            wrong += met.digest != whole.digest or met.again
            same = "the same" if met.digest == whole.digest else f"OTHERS: {met.digest}"
            print(f"| {name} | | {met.left} | {met.again} | {same} | {met.seconds:.1f} |", flush=True)
    finally:
        shutil.rmtree(place)
    return int(wrong > 0)


def _parser():
    parser = argparse.ArgumentParser(prog="python -m tests.pieces", description=__doc__)
    parser.add_argument("--folder", help="for what is made; default: the system's temporary one")
    parser.add_argument("--only", nargs="+", help="launchers whose names hold one of these")
    parser.add_argument("--points", type=int, default=2602, help="of the segment from -1 to 2, 3 n + 1 of them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
