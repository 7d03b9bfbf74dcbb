import math
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hw1.measures.cache import Cache

MEASURED = {"name": "interpolation", "version": 1, "settings": {"alphas": [0.0, 1.0], "member": 0}}


def made(key="a", weights="1", data="d"):
    """What the cache asks of a run."""
    return SimpleNamespace(key=key, weights_digest=lambda: weights, result={"dataset": {"sha256": data}})


RUNS = [made("a"), made("b")]


def counted(table):
    calls = []

    def compute():
        calls.append(1)
        return table

    return compute, calls


def test_nothing_is_measured_twice(tmp_path):
    table = pd.DataFrame({"alpha": [-1.0, 0.0], "split": ["train", "test"], "loss": [0.1 + 0.2, 1 / 3]})
    compute, calls = counted(table)
    first = Cache(tmp_path / "measurements").table(**MEASURED, runs=RUNS, compute=compute)
    turned = MEASURED | {"settings": dict(reversed(MEASURED["settings"].items()))}
    again = Cache(tmp_path / "measurements").table(**turned, runs=RUNS, compute=compute)
    assert len(calls) == 1
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert len(os.listdir(tmp_path / "measurements")) == 1


def test_floats_come_back_to_the_bit(tmp_path):
    generator = np.random.default_rng(0)
    values = np.concatenate(
        [generator.normal(size=200), 10.0 ** generator.uniform(-300, 300, 200), [5e-324, np.inf, np.nan]]
    )
    compute, _ = counted(pd.DataFrame({"loss": values}))
    Cache(tmp_path).table(**MEASURED, runs=RUNS, compute=compute)
    back = Cache(tmp_path).table(**MEASURED, runs=RUNS, compute=compute)
    assert (back["loss"].to_numpy().view(np.int64) == values.view(np.int64))[:-1].all() and math.isnan(
        back["loss"].iloc[-1]
    )


@pytest.mark.parametrize(
    "other",
    [
        {"runs": [made("b"), made("a")]},
        {"runs": [made("a"), made("b", weights="2")]},
        {"runs": [made("a"), made("b", data="other")]},
        {"settings": {"alphas": [0.0, 0.5, 1.0], "member": 0}},
        {"settings": {"member": 0}},
        {"name": "paths"},
        {"version": 2},
    ],
)
def test_anything_else_is_measured_again(other, tmp_path):
    compute, calls = counted(pd.DataFrame({"loss": [1.0]}))
    cache = Cache(tmp_path)
    cache.table(**MEASURED, runs=RUNS, compute=compute)
    cache.table(**MEASURED | {"runs": RUNS, "compute": compute} | other)
    assert len(calls) == 2


def test_another_format_is_measured_again(tmp_path, monkeypatch):
    compute, calls = counted(pd.DataFrame({"loss": [1.0]}))
    Cache(tmp_path).table(**MEASURED, runs=RUNS, compute=compute)
    monkeypatch.setattr("hw1.measures.cache.FORMAT", 10**6)
    Cache(tmp_path).table(**MEASURED, runs=RUNS, compute=compute)
    assert len(calls) == 2


def test_a_measurement_that_fails_is_not_kept(tmp_path):
    def broken():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).table(**MEASURED, runs=RUNS, compute=broken)
    compute, calls = counted(pd.DataFrame({"loss": [1.0]}))
    Cache(tmp_path).table(**MEASURED, runs=RUNS, compute=compute)
    assert len(calls) == 1
