import math

import pytest
import scipy.stats
import torch

from hw1.curvature import Estimate, Share


def test_two_numbers_are_an_estimate():
    estimate = Estimate(2.0, 0.5)
    assert (estimate.value, estimate.standard_error, estimate.resolution, estimate.error) == (2.0, 0.5, 0.0, 0.5)
    assert repr(estimate) == "Estimate(value=2.0, standard_error=0.5)"


def test_the_interval_is_students():
    samples = torch.tensor([1.0, 2.0, 4.0, 9.0, 5.5]).double()
    expected = scipy.stats.ttest_1samp(samples.numpy(), 0).confidence_interval(0.9)
    assert Estimate.of(samples).interval(0.9) == pytest.approx((expected.low, expected.high))
    assert Estimate(1.0, 2.0, resolution=0.5).interval() == pytest.approx((1 - 4.41993, 1 + 4.41993), abs=1e-5)


@pytest.mark.parametrize("hits,draws", [(0, 20), (20, 20), (3, 20), (1, 2), (700, 1000)])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(hits, draws):
    expected = scipy.stats.binomtest(hits, draws).proportion_ci(0.95, method="exact")
    share = Share(hits / draws, draws)
    assert share.interval() == pytest.approx((expected.low, expected.high), abs=1e-12)
    low, high = Share(hits / draws, draws, resolution=0.1).interval()
    assert low == pytest.approx(max(0, expected.low - 0.1)) and high == pytest.approx(min(1, expected.high + 0.1))
    assert 0 < share.standard_error < 0.4 and share.error == share.standard_error


@pytest.mark.parametrize("truth", [1e-4, 0.003, 0.02, 0.3, 0.97])
@pytest.mark.parametrize("draws", [1, 5, 30])
def test_intervals_of_shares_hold_at_every_share(truth, draws):
    held = 0.0
    for hits in range(draws + 1):
        low, high = Share(hits / draws, draws).interval()
        held += scipy.stats.binom.pmf(hits, draws, truth) * (low <= truth <= high)
    assert held >= 0.95


@pytest.mark.parametrize("value", [1 - 1e-15, 1.0])
def test_a_share_that_rounding_keeps_from_one_is_one(value):
    assert Share(value, 750).interval()[1] == 1.0
    assert Share(1 - value, 750).interval()[0] == 0.0


def test_a_share_that_is_none_has_no_interval():
    assert all(math.isnan(end) for end in Share(math.nan, 10).interval())


def test_a_level_is_a_probability():
    for one in (Estimate(1.0, 1.0), Share(0.5, 10)):
        for level in (0, 1, 95):
            with pytest.raises(
                ValueError, match=rf"^level: got {level}, expected a probability between 0 and 1: give 0\.95, say$"
            ):
                one.interval(level)
