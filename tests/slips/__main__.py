"""`python -m tests.slips`: meets every slip, prints what was wrong and the figures. Exit code 1 if anything was."""

import argparse
import collections
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds what tests share

from .meeting import made, meet
from .table import SLIPS


def main(words=None):
    """The exit code."""
    asked = _parser().parse_args(words)
    place = made(Path(tempfile.mkdtemp(dir=asked.folder)))
    seen = []
    try:
        for slip in SLIPS:
            if asked.only and not any(piece in f"{slip.group}: {slip.typed}" for piece in asked.only):
                continue
            met = meet(slip, place)
            faults = met.faults(slip)
            seen.append((slip, met, faults))
            if faults or asked.loud:
                said = "\n    ".join([*met.lines[:6], *(met.out.splitlines()[:3] if met.code != 1 else [])])
                print(
                    f"{slip.typed}: {'; '.join(faults) or 'as it should'} [{met.seconds:.1f}]\n    {said}", flush=True
                )
    finally:
        shutil.rmtree(place)
    print(table(seen))
    return int(any(faults for *_, faults in seen))


def table(seen):
    """Groups of slips: how many, how many were answered as they should be, median and longest CPU seconds."""
    groups = collections.defaultdict(list)
    for slip, met, faults in seen:
        groups[slip.group].append((met.seconds, not faults))
    lines = ["| slips of | number | one line, code 1 | CPU s, median | most |", "|---|---|---|---|---|"]
    for name, rows in [*groups.items(), ("all", [row for of in groups.values() for row in of])]:
        spent = sorted(seconds for seconds, _ in rows)
        good = sum(fine for _, fine in rows)
        lines.append(f"| {name} | {len(rows)} | {good} | {spent[len(spent) // 2]:.1f} | {spent[-1]:.1f} |")
    return "\n".join(lines)


def _parser():
    parser = argparse.ArgumentParser(prog="python -m tests.slips", description=__doc__)
    parser.add_argument("--folder", help="for what is made; default: the system's temporary one")
    parser.add_argument("--only", nargs="+", help="slips whose group or words hold one of these")
    parser.add_argument("--loud", action="store_true", help="print every answer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
