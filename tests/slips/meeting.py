"""Meets slips: each in a process forked from one that has imported torch, with its CPU time."""

import json
import os
import re
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from warm import _FORKSERVER, run_program

from .made import made

MAIN = Path(__file__).parents[2] / "src" / "hw1" / "__main__.py"

# How a line says what to do; (got lr=-1) are the settings of which a library says what is wrong with them.
REMEDY = re.compile(
    r"expected|did you mean|see .*--help|--help says|delete (it|the)|correct it|remove one|needs it|give another|"
    r"put the file there|"
    r"must be either|put one|give one|remove \+ prefix|"
    r"\(got |says which|which failed|choose from|no such setting of"
)


@dataclass(frozen=True)
class Met:
    """What came of a slip: exit code, lines on stderr beside what it says it begins with, CPU seconds, new runs."""

    code: int
    lines: list[str]
    out: str
    seconds: float
    trained: int

    def faults(self, slip):
        """What is wrong with the answer to a slip, in words; [] for nothing."""
        said = "\n".join(self.lines)
        found = [f"exit code {self.code}"] if self.code != 1 else []
        found += [f"{len(self.lines)} lines"] if len(self.lines) != 1 else []
        found += [] if any(key in said for key in slip.keys) else ["no key"]
        found += [] if REMEDY.search(said) else ["no remedy"]
        found += ["a traceback"] if "Traceback" in said + self.out else []
        found += [f"{self.seconds:.1f} s"] if self.seconds > 5 else []
        return found + (["something was trained"] if self.trained else [])


def _measured(file, *asked):
    """Become the command, and leave its CPU seconds in a file."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    before = spent.ru_utime + spent.ru_stime
    sys.argv[0] = "hw1"
    try:
        run_program(*asked)
    finally:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        Path(file).write_text(json.dumps(sum(one.ru_utime + one.ru_stime for one in used) - before))


def meet(slip, place):
    """What came of a slip in a folder that `made` filled."""
    names = [tempfile.mkstemp(dir=place)[1] for _ in range(3)]
    here = place / slip.at
    env = {name: value for name, value in os.environ.items() if name not in ("HYDRA_FULL_ERROR", "HW1_PROJECT")}
    env |= {"LOKY_MAX_CPU_COUNT": "1", "XDG_CONFIG_HOME": str(place / "config")}
    before = set(here.rglob("result.json"))
    process = _FORKSERVER.Process(target=_measured, args=(names[2], MAIN, slip.words, here, env, names[:2]))
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
        process.join()
    out, err, spent = (Path(name).read_text(errors="replace") for name in names)
    for name in names:
        os.unlink(name)
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith(("planning", "measuring: "))]
    trained = set(here.rglob("result.json")) - before
    shutil.rmtree(here / "multirun" / "slip", ignore_errors=True)  # the next one finds nothing complete
    return Met(process.exitcode, lines, out, float(spent or "nan"), len(trained))


__all__ = ["Met", "made", "meet"]
