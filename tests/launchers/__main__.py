"""`python -m tests.launchers`: the matrix; `kill`: lost and twice trained runs. Exit code 1 if something is not so."""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path


def main(words=None):
    """The exit code."""
    from .commands import LAUNCHERS
    from .matrix import CASES

    parser = argparse.ArgumentParser(prog="python -m tests.launchers", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where it works; a temporary one by default")
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    commands = parser.add_subparsers(dest="command")
    kill = commands.add_parser("kill", help="kill the command and its workers again and again")
    kill.add_argument("--launcher", choices=LAUNCHERS, required=True)
    kill.add_argument("--runs", type=int, default=40)
    kill.add_argument("--kills", type=int, default=5)
    kill.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    with temporary(asked.folder) as folder:
        return _kill(asked, folder) if asked.command == "kill" else _matrix(asked, folder)


def _matrix(asked, folder):
    from warm import cpu_seconds

    from .commands import missing
    from .matrix import CASES, Matrix

    reference, bad = Matrix("basic", folder / "basic"), 0
    try:
        print(f"{'launcher':<15} {'case':<21} {'':<6} seen")
        for launcher in asked.launchers:
            if reason := missing(launcher):
                print(f"{launcher:<15} {'all':<21} {'-':<6} {reason}")
                continue
            matrix = reference if launcher == "basic" else Matrix(launcher, folder / launcher, reference)
            for case in asked.cases:
                begun = time.monotonic()
                try:
                    seen, ok = CASES[case](matrix), "ok"
                except AssertionError as error:
                    seen, ok, bad = str(error), "NOT SO", bad + 1
                ok = "-" if seen.startswith("-") else ok
                seconds = time.monotonic() - begun
                print(f"{launcher:<15} {case:<21} {ok:<6} {seen.removeprefix('-: ')} ({seconds:.0f} s)", flush=True)
            matrix.bench.end()
    finally:
        reference.bench.end()
    print(f"{bad} not so; {cpu_seconds():.0f} CPU s, without those of killed commands")
    return int(bad > 0)


def _kill(asked, folder):
    from warm import cpu_seconds

    from .commands import STEPS, missing
    from .killing import kill

    if reason := missing(asked.launcher):
        print(f"skipped: {reason}")
        return 0
    begun = time.monotonic()
    found = kill(asked.launcher, asked.runs, asked.kills, asked.seed, folder)
    killed = " and ".join(f"{number} {kind}s" for kind, number in found.killed.items())
    print(
        f"{asked.launcher}: {asked.runs} runs, {killed} killed, seed {asked.seed}: {len(found.lost)} lost, "
        f"{len(found.twice)} trained twice, {found.again} of {asked.runs * STEPS} steps made again, "
        f"{found.compared - len(found.unequal)} of {found.compared} compared bit-equal; "
        f"{(time.monotonic() - begun) / 60:.1f} min, {cpu_seconds() / 60:.1f} CPU min without those of killed commands"
    )
    for what in ("lost", "twice", "unequal"):
        for key in getattr(found, what):
            print(f"{what}: {key}")
    return int(bool(found.lost or found.twice or found.unequal))


@contextlib.contextmanager
def temporary(folder):
    """A new folder, which goes in the end."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="launchers-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
