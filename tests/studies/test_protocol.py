import math

import numpy as np
import pytest
from scipy import stats

from hw1.settings import ConfigError
from hw1.studies import ActualTask, GradientNormCurves, SimulateFunction
from hw1.studies.headlines import headline
from hw1.studies.protocol import make


@pytest.mark.parametrize("n", [2, 3, 5, 10, 100])
def test_the_interval_of_a_mean_is_students(n):
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    found = headline("barrier", values.tolist())
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found.name, found.n) == ("barrier", n)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high), rel=1e-12)


def test_one_value_has_no_interval():
    found = headline("barrier", [1.25])
    assert (found.value, found.n) == (1.25, 1) and math.isnan(found.low) and math.isnan(found.high)
    assert str(found) == "barrier = 1.25 (no interval), n = 1"


def test_equal_values_have_no_interval_and_nan_stays_nan():
    assert str(headline("x", [2.0, 2.0])) == "x = 2 (no interval), n = 2"
    assert math.isnan(headline("x", [1.0, math.nan, 2.0]).value)
    assert math.isnan(headline("x", [1.1, 1.1 + 2e-16, 1.1]).low)  # equal but for rounding


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        ({"_target_": "hw1.studies.GradientNorm", "bins": 150}, GradientNormCurves),
        ({"_target_": "hw1.studies.ActualTask", "reported": {"mnist": {"571": 97.0}}}, ActualTask),
        (
            {
                "_target_": "hw1.studies.SimulateFunction",
                **{"reach": 1e-4, "bins": 200, "reported": {"sin_2": {"1-6-1": 1e-3}}, "swapped": {"sin_2": ["1-6-1"]}},
            },
            SimulateFunction,
        ),
    ],
)
def test_a_study_of_an_earlier_version_is_translated(node, kind):
    assert isinstance(make(node), kind)
    with pytest.raises(ConfigError, match=r"^study\.reportet: no such setting"):
        make(node | {"reportet": 1})


def test_make_names_the_key():
    with pytest.raises(ConfigError, match=r"^study\.points: got 20 alphas from -1\.0 to 2\.0, which miss 0 or 1"):
        make({"_target_": "hw1.studies.FlatnessInterp", "pair_by": "a", "start": -1.0, "stop": 2.0, "points": 20})
    with pytest.raises(ConfigError, match=r"^study\.pairby: no such setting"):
        make({"_target_": "hw1.studies.FlatnessInterp", "pairby": "a"})
