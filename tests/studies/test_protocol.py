import math
import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hw1.studies.protocol import Measurements, headline, make
from hw1.training.identity import ConfigError


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
    assert str(found) == "barrier = 1.25 [nan, nan], n = 1"


def test_equal_values_have_an_interval_of_no_length_and_nan_stays_nan():
    assert str(headline("x", [2.0, 2.0])) == "x = 2 [2, 2], n = 2"
    assert math.isnan(headline("x", [1.0, math.nan, 2.0]).value)


def counted(table):
    calls = []

    def compute():
        calls.append(1)
        return table

    return compute, calls


def test_nothing_is_measured_twice(tmp_path):
    table = pd.DataFrame({"alpha": [-1.0, 0.0], "split": ["train", "test"], "loss": [0.1 + 0.2, 1 / 3]})
    compute, calls = counted(table)
    identity = {"runs": ["a", "b"], "alphas": [-1.0, 0.0]}
    first = Measurements(tmp_path / "measurements").table(identity, compute)
    again = Measurements(tmp_path / "measurements").table(dict(reversed(identity.items())), compute)
    assert len(calls) == 1
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert len(os.listdir(tmp_path / "measurements")) == 1


def test_floats_come_back_to_the_bit(tmp_path):
    generator = np.random.default_rng(0)
    values = np.concatenate(
        [generator.normal(size=200), 10.0 ** generator.uniform(-300, 300, 200), [5e-324, np.inf, np.nan]]
    )
    compute, _ = counted(pd.DataFrame({"loss": values}))
    Measurements(tmp_path).table({"a": 1}, compute)
    back = Measurements(tmp_path).table({"a": 1}, compute)
    assert (back["loss"].to_numpy().view(np.int64) == values.view(np.int64))[:-1].all() and math.isnan(
        back["loss"].iloc[-1]
    )


@pytest.mark.parametrize(
    "other",
    [
        {"runs": ["b", "a"], "weights": ["1"], "alphas": [0.0, 1.0]},
        {"runs": ["a", "b"], "weights": ["2"], "alphas": [0.0, 1.0]},
        {"runs": ["a", "b"], "weights": ["1"], "alphas": [0.0, 0.5, 1.0]},
        {"runs": ["a", "b"], "weights": ["1"]},
    ],
)
def test_another_identity_is_measured_again(other, tmp_path):
    compute, calls = counted(pd.DataFrame({"loss": [1.0]}))
    measurements = Measurements(tmp_path)
    measurements.table({"runs": ["a", "b"], "weights": ["1"], "alphas": [0.0, 1.0]}, compute)
    measurements.table(other, compute)
    assert len(calls) == 2


def test_another_format_is_measured_again(tmp_path, monkeypatch):
    compute, calls = counted(pd.DataFrame({"loss": [1.0]}))
    Measurements(tmp_path).table({"a": 1}, compute)
    monkeypatch.setattr("hw1.studies.protocol.MEASUREMENT_FORMAT", 10**6)
    Measurements(tmp_path).table({"a": 1}, compute)
    assert len(calls) == 2


def test_a_measurement_that_fails_is_not_kept(tmp_path):
    def broken():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Measurements(tmp_path).table({"a": 1}, broken)
    compute, calls = counted(pd.DataFrame({"loss": [1.0]}))
    Measurements(tmp_path).table({"a": 1}, compute)
    assert len(calls) == 1


def test_make_names_the_key():
    with pytest.raises(ConfigError, match=r"^study\.points: got 20 alphas from -1\.0 to 2\.0, which miss 0 or 1"):
        make({"_target_": "hw1.studies.FlatnessInterp", "pair_by": "a", "start": -1.0, "stop": 2.0, "points": 20})
    with pytest.raises(ConfigError, match=r"^study\.pairby: no such setting"):
        make({"_target_": "hw1.studies.FlatnessInterp", "pairby": "a"})
