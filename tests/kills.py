"""A command and its workers, killed by turns at drawn moments, and what the log of their steps says of it.

A line of that log is [process, run, step, state].
"""

import itertools
import os
import signal
import time
from collections import Counter


def kill_by_turns(start, log, kills, chance, epoch, steps):
    """Give a command again and again until so many kills have hit it and a worker: {"command" or "worker": how many}.

    Args:
        start: () -> the running process.
        log: () -> the lines so far.
        kills: how many.
        chance: of the moments.
        epoch, steps: steps of an epoch, and of a run: from one kill to the next an epoch is made, and two runs at most.
    """
    lines, process, before, killed = [], None, 0, Counter()
    while sum(killed.values()) < kills:
        if process is None or process.poll() is not None:
            before, process = len(log()), start()
        more = len(lines) + chance.randint(epoch, 2 * steps)
        while process.poll() is None and len(lines) < more:
            time.sleep(0.01)
            lines = log()
        if process.poll() is not None:
            said = process.communicate()
            assert len(log()) > before, f"{sum(killed.values())} of {kills} kills, and it ended without a step: {said}"
            continue
        kind = ("command", "worker")[sum(killed.values()) % 2]
        try:
            os.kill(process.pid if kind == "command" else int(lines[-1][0]), signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed[kind] += 1
        if kind == "command":
            process.communicate()
    if process.poll() is None:
        process.communicate(timeout=7200)
    return dict(killed)


def visits(lines):
    """{run: [[process, [its steps]], ...]} as they follow each other in the log."""
    found = {}
    for process, run, step, _ in lines:
        turns = found.setdefault(run, [])
        if not turns or turns[-1][0] != process or int(step) <= turns[-1][1][-1]:
            turns.append([process, [int(step)]])
        else:
            turns[-1][1].append(int(step))
    return found


def made_again(turns, epoch):
    """(steps that were made again, runs that made more than the epoch since their last checkpoint again).

    A run goes on from an epoch's end; one may have been reached whose checkpoint was being written.
    """
    again, too_much = 0, set()
    for run, visited in turns.items():
        for (_, before), (_, after) in itertools.pairwise(visited):
            again += max(0, before[-1] - after[0])
            if after[0] < before[-1] - before[-1] % epoch - epoch:
                too_much.add(run)
    return again, too_much
