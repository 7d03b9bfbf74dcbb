"""Many runs under a launcher, whose command and workers are killed again and again: each ends once."""

import random
from dataclasses import dataclass

from kills import kill_by_turns, made_again, visits

from .commands import EPOCH, STEPS, Bench, ends


@dataclass(frozen=True)
class Counted:
    """What came of it.

    Attributes:
        killed: {"command" or "worker": how many}.
        lost: runs that did not end, or lack a step.
        twice: runs that trained on after their end, or made more than the epoch since the last checkpoint again.
        again: steps that were made again.
        unequal: of the runs that were compared with undisturbed ones, those of other weights.
        compared: how many.
    """

    killed: dict
    lost: list
    twice: list
    again: int
    unequal: list
    compared: int


def kill(launcher, runs, kills, seed, folder):
    """Give the same words until all has ended; kills hit the command and a worker by turns, at drawn moments."""
    bench, words = Bench(launcher, folder), f"seed=range({runs})"
    try:
        killed = kill_by_turns(
            lambda: bench.start("killed", words),
            lambda: bench.lines("killed"),
            kills,
            random.Random(seed),
            EPOCH,
            STEPS,
        )
        ends(bench.start("killed", words), seconds=7200)
        some = sorted(random.Random(0).sample(range(runs), min(5, runs)))
        alone = Bench("basic", folder)
        ends(alone.start("alone", f"seed={','.join(map(str, some))}"))
        return counted(bench, alone, killed, runs)
    finally:
        bench.end()


def counted(bench, alone, killed, runs):
    """What the log and the results say."""
    lines = bench.lines("killed")
    turns, done = visits(lines), {run.key for run in bench.runs("killed") if run.status == "complete"}
    lost = [run for run in turns if run not in done]
    lost += [run for run in done if {s for _, steps in turns[run] for s in steps} != set(range(STEPS + 1))]
    lost += ["never begun"] * (runs - len(turns))
    again, twice = made_again(turns, EPOCH)
    twice |= {run for _, run, _, state in lines if state == "ended"}
    right, found = alone.hashes("alone"), bench.hashes("killed")
    unequal = [key for key in right if found.get(key) != right[key]]
    return Counted(killed, lost, sorted(twice), again, unequal, len(right))
