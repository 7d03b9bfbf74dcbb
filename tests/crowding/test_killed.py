"""Many runs under the parallel launcher, whose command and workers are killed again and again: each ends once."""

import itertools
import os
import random
import signal
import time
from collections import Counter

import pytest
from crowds import BASIC, PARALLEL, STEPS, cpu_seconds, ends, logged, weights

from hw1.runs import Sweep

AN_EPOCH = STEPS // 3


def visits(lines):
    """{run: [[process, its steps], ...]} as they follow each other in the log."""
    found = {}
    for process, run, step, _ in lines:
        turns = found.setdefault(run, [])
        if not turns or turns[-1][0] != process or step == "0" or int(step) <= turns[-1][1][-1]:
            turns.append([process, [int(step)]])
        else:
            turns[-1][1].append(int(step))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "kills"), [(12, 4), (200, 20)])
def test_killed_again_and_again(runs, kills, crowd, tmp_path, figure):
    """Half of the kills hit a worker, half the command, at random moments."""
    chance, begun, killed = random.Random(runs), cpu_seconds(), Counter()
    seeds = f"seed=range({runs})"
    lines, process = [], None
    while sum(killed.values()) < kills:
        if process is None or process.poll() is not None:
            process = crowd(seeds, PARALLEL)
        more = len(lines) + chance.randint(AN_EPOCH, 2 * STEPS)
        while process.poll() is None and len(lines) < more:
            time.sleep(0.005)
            lines = logged(tmp_path) if (tmp_path / "log").exists() else []
        if process.poll() is not None:
            assert not lines or len({run for _, run, *_ in lines}) < runs, "ended before all kills"
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
        process.communicate(timeout=7200)
    ends(crowd(seeds, PARALLEL))
    sweep = Sweep.read(tmp_path / "out" / "default")
    assert len(sweep.runs) == runs and all(run.status == "complete" for run in sweep.runs)
    lines = logged(tmp_path)
    turns = visits(lines)
    assert len(turns) == runs and {state for *_, state in lines} == {"open"}, "trained on after its end"
    again = 0
    for run, visited in turns.items():
        for (_, before), (_, after) in itertools.pairwise(visited):
            # It goes on from the last checkpoint, of an epoch's end: nothing more than the epoch is made again.
            assert after[0] >= before[-1] - before[-1] % AN_EPOCH - AN_EPOCH, (run, before, after)
            again += max(0, before[-1] - after[0])
        made = [step for _, steps in visited for step in steps]
        assert set(made) == set(range(STEPS + 1))
    assert again <= kills * 2 * 2 * AN_EPOCH
    some = random.Random(0).sample(range(runs), 5)
    ends(crowd(f"seed={','.join(map(str, some))}", BASIC, output="alone"))
    undisturbed, here = weights(tmp_path / "alone"), weights(tmp_path / "out")
    assert undisturbed == {key: here[key] for key in undisturbed}
    minutes = (cpu_seconds() - begun) / 60
    figure(
        f"{runs} runs, {killed['command']} commands and {killed['worker']} workers killed: 0 lost, 0 trained twice, "
        f"{again} of {runs * STEPS} steps made again, 5 of 5 compared bit-equal; {minutes:.1f} CPU min"
    )
