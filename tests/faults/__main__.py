"""`python -m tests.faults --faults 500 --seed 0`: injects faults, counts what came of them. Exit code 1 if one hurt."""

import argparse
import collections
import csv
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from .kinds import KINDS
from .preload import compiled, compiler
from .scenarios import SCENARIOS, STARTS


def main(words=None):
    """The exit code: 1 if something was lost or silently wrong."""
    asked = _parser().parse_args(words)
    if compiler() is None:
        print("skipped: there is no C compiler (cc), which makes the library that lets writes fail")
        return 0
    if "faults.so" not in os.environ.get("LD_PRELOAD", ""):
        return _again(sys.argv[1:] if words is None else words)
    from .campaign import LOST, SILENT, VERDICTS, Campaign

    numbers = asked.only or itertools.count(asked.first)
    most = len(asked.only or range(asked.faults))
    if asked.folder:
        Path(asked.folder).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=asked.folder))  # a TemporaryDirectory would be removed by what is forked
    try:
        campaign = Campaign(folder, asked.seed, asked.scenarios, asked.starts, asked.kinds)
        outcomes = []
        for fault in itertools.islice(filter(None, map(campaign.draw, numbers)), most):
            outcome = campaign.meet(fault)
            outcomes.append(outcome)
            if asked.table:
                _note(asked.table, asked.seed, outcome)
            if outcome.verdict in (LOST, SILENT) or "traceback" in outcome.notes or asked.loud:
                print(_line(asked.seed, outcome), flush=True)
        met = [campaign.sabotaged(number) for number in range(asked.sabotaged)]
        for outcome in met if asked.loud else ():
            print(f"with a broken writer: {outcome}")
        caught = [outcome.verdict for outcome in met]
    finally:
        shutil.rmtree(folder)
    print(table(outcomes, VERDICTS))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(one.ru_utime + one.ru_stime for one in used)
    bad = [one for one in outcomes if one.verdict in (LOST, SILENT)]
    print(f"{len(outcomes)} faults, seed {asked.seed}: {len(bad)} lost or silent; {seconds / 60:.1f} minutes of CPU")
    hurt = sum(verdict in (LOST, SILENT) for verdict in caught)
    print(f"with a writer that writes in place, of {len(caught)} faults {hurt} are noticed; expected some")
    return int(bool(bad) or not hurt)


def table(outcomes, verdicts):
    """Kinds of fault, with the number of kinds of file that met it, and what became of them."""
    rows = [["fault", "kinds of file", *verdicts, "temporaries left", "tracebacks"]]
    for kind in KINDS:
        of = [one for one in outcomes if one.fault.kind == kind and "nothing met it" not in one.notes]
        if of:
            rows.append([kind, len({one.fault.file for one in of}), *_counts(of, verdicts)])
    met = [one for one in outcomes if "nothing met it" not in one.notes]
    rows.append([f"{len(met)} in all", len({one.fault.file for one in met}), *_counts(met, verdicts)])
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(str(cell).ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _counts(outcomes, verdicts):
    counted = collections.Counter(one.verdict for one in outcomes)
    left = sum(bool(one.left) for one in outcomes)
    return [*(counted[name] for name in verdicts), left, sum("traceback" in one.notes for one in outcomes)]


def _line(seed, one):
    fault = one.fault
    what = f"{one.verdict}: seed {seed}, number {fault.number}, {fault.scenario} from {fault.start}: {fault.kind}"
    about = [f"{name} {value}" for name, value in (("at", fault.at), ("keep", fault.keep)) if value]
    more = [*about, *(f"differs: {name}" for name in one.differs[:4]), *(f"said: {line}" for line in one.said[-3:])]
    return "; ".join([f"{what}, {one.path or fault.file}", *more, *(f"left: {name}" for name in one.left), *one.notes])


def _note(file, seed, one):
    new = not file.exists()
    with file.open("a", newline="") as opened:
        writer = csv.writer(opened)
        if new:
            writer.writerow(["seed", "number", "kind", "file", "scenario", "start", "path", "verdict", "notes", "line"])
        fault = one.fault
        cells = [seed, fault.number, fault.kind, fault.file, fault.scenario, fault.start, one.path, one.verdict]
        writer.writerow([*cells, " ".join([*one.notes, *(["left"] if one.left else [])]), _line(seed, one)])


def _again(words):
    """The same in a process that has the library loaded."""
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(folder)
        environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "XDG_CONFIG_HOME": folder}
        root = Path(__file__).parents[2]
        paths = [str(root / "src"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {"PYTHONPATH": os.pathsep.join(paths), "HW1_CACHE": f"{folder}/cache"}
        environment.pop("HYDRA_FULL_ERROR", None)
        return subprocess.run([sys.executable, "-m", "tests.faults", *words], env=environment, check=False).returncode


def _parser():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    several = {"nargs": "+"}
    parser.add_argument("--faults", type=int, default=500, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, **several, help="numbers of faults, to see them again")
    parser.add_argument("--scenarios", default=tuple(SCENARIOS), choices=SCENARIOS, **several)
    parser.add_argument("--starts", default=tuple(STARTS), choices=STARTS, **several)
    parser.add_argument("--kinds", default=KINDS, choices=KINDS, metavar="KIND", **several)
    parser.add_argument("--table", type=Path, help="a CSV that gets one row a fault")
    parser.add_argument("--folder", type=Path, help="where it works; a temporary one by default")
    parser.add_argument("--sabotaged", type=int, default=4, help="how many more meet a writer that is broken")
    parser.add_argument("--loud", action="store_true", help="print a line for every fault")
    return parser


if __name__ == "__main__":
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
        code = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without what nanobind has to say at an interpreter's end
