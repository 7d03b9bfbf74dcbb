"""Reading and finding runs, their members, and sweeps. Importing it is cheap: torch and pandas load on first use.

Example::

    sweep = Sweep.read("multirun/flatness_interp")
    for member in sweep.members():
        print(member.cells, member.seed, member.metrics["test/accuracy"], member.theta().norm())
"""

from hw1.runs.folders import complete_result, ended, find_run, is_complete, runs_by_key, slug_of
from hw1.runs.measured import Ask, Measured, asks_in, read_measured
from hw1.runs.member import Member
from hw1.runs.run import Run
from hw1.runs.sweep import Cell, Sweep
from hw1.runs.weights import Snapshots

__all__ = [
    "Ask",
    "Cell",
    "Measured",
    "Member",
    "Run",
    "Snapshots",
    "Sweep",
    "asks_in",
    "complete_result",
    "ended",
    "find_run",
    "is_complete",
    "read_measured",
    "runs_by_key",
    "slug_of",
]
