"""The table of slips: a sample in the default tests, all of it as slow; `python -m tests.slips` prints the figures."""

import random

import pytest

from .meeting import made, meet
from .table import SLIPS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return made(tmp_path_factory.mktemp("slips"))


def wrong(slips, place):
    """{what was typed: what was wrong with the answer, and the answer}."""
    met = {slip: meet(slip, place) for slip in slips}
    return {slip.typed: (faults, one.lines[:4]) for slip, one in met.items() if (faults := one.faults(slip))}


def test_a_sample_of_slips_is_answered_in_a_line(place):
    groups = {slip.group for slip in SLIPS}
    drawn = random.Random(3)
    assert (
        wrong([drawn.choice([slip for slip in SLIPS if slip.group == group]) for group in sorted(groups)], place) == {}
    )


@pytest.mark.slow  # five minutes of CPU
def test_every_slip_is_answered_in_a_line(place):
    assert len(SLIPS) >= 80 and len({(slip.group, slip.typed) for slip in SLIPS}) == len(SLIPS)
    assert wrong(SLIPS, place) == {}
