"""Many runs under the parallel launcher, whose command and workers are killed again and again: each ends once."""

import random

import pytest
from crowds import BASIC, PARALLEL, STEPS, ends, logged, weights

from hw1.runs import Sweep
from kills import kill_by_turns, made_again, visits
from warm import cpu_seconds

AN_EPOCH = STEPS // 3


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "kills"), [(12, 4), (200, 20)])
def test_killed_again_and_again(runs, kills, crowd, tmp_path, figure):
    """Half of the kills hit a worker, half the command, at random moments."""
    begun, seeds = cpu_seconds(), f"seed=range({runs})"

    def log():
        return logged(tmp_path) if (tmp_path / "log").exists() else []

    killed = kill_by_turns(lambda: crowd(seeds, PARALLEL), log, kills, random.Random(runs), AN_EPOCH, STEPS)
    ends(crowd(seeds, PARALLEL))
    sweep = Sweep.read(tmp_path / "out" / "default")
    assert len(sweep.runs) == runs and all(run.status == "complete" for run in sweep.runs)
    lines = logged(tmp_path)
    turns = visits(lines)
    assert len(turns) == runs and {state for *_, state in lines} == {"open"}, "trained on after its end"
    again, too_much = made_again(turns, AN_EPOCH)
    assert not too_much
    for visited in turns.values():
        assert {step for _, steps in visited for step in steps} == set(range(STEPS + 1))
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
