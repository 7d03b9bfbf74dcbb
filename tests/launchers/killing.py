"""Many runs under a launcher, whose command and workers are killed again and again: each ends once."""

import itertools
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass

from .commands import EPOCH, STEPS, Bench, ends, visits


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
    chance, killed, bench = random.Random(seed), Counter(), Bench(launcher, folder)
    words, lines, process = f"seed=range({runs})", [], None
    try:
        while sum(killed.values()) < kills:
            if process is None or process.poll() is not None:
                process = bench.start("killed", words)
            more = len(lines) + chance.randint(EPOCH, 2 * STEPS)
            while process.poll() is None and len(lines) < more:
                time.sleep(0.01)
                lines = bench.lines("killed")
            if process.poll() is not None:
                process.communicate()
                assert len(bench.runs("killed")) < runs, "all ended before all kills: more runs, or fewer kills"
                continue
            kind = ("command", "worker")[sum(killed.values()) % 2]
            pid = process.pid if kind == "command" else int(lines[-1][0])
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed[kind] += 1
            if kind == "command":
                process.communicate()
        if process.poll() is None:
            process.communicate(7200)
        ends(bench.start("killed", words), seconds=7200)
        some = sorted(random.Random(0).sample(range(runs), min(5, runs)))
        alone = Bench("basic", folder)
        ends(alone.start("alone", f"seed={','.join(map(str, some))}"))
        return counted(bench, alone, killed)
    finally:
        bench.end()


def counted(bench, alone, killed):
    """What the log and the results say."""
    lines = bench.lines("killed")
    turns, done = visits(lines), {run.key for run in bench.runs("killed") if run.status == "complete"}
    lost = [run for run in turns if run not in done]
    lost += [run for run in done if {s for _, steps in turns[run] for s in steps} != set(range(STEPS + 1))]
    twice, again = {run for _, run, _, state in lines if state == "ended"}, 0
    for run, visited in turns.items():
        for (_, before), (_, after) in itertools.pairwise(visited):
            again += max(0, before[-1] - after[0])
            # It goes on from an epoch's end; one may have been reached whose checkpoint was being written.
            if after[0] < before[-1] - before[-1] % EPOCH - EPOCH:
                twice.add(run)
    right, found = alone.hashes("alone"), bench.hashes("killed")
    unequal = [key for key in right if found.get(key) != right[key]]
    return Counted(dict(killed), lost, sorted(twice), again, unequal, len(right))
