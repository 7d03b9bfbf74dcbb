"""Many cases of which the default tests take a seeded sample, and `pytest -m slow` the others."""

import random

import pytest


def sampled(cases, number, seed):
    """The cases as parameters, all but `number` of them slow; another seed draws others."""
    cases = list(cases)
    drawn = set(random.Random(seed).sample(range(len(cases)), number))
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if at in drawn else pytest.mark.slow)
        for at, case in enumerate(cases)
    ]
