"""The arithmetic of an estimate, and its structure on a small run; never its seconds."""

import pytest

from hw1.settings import RunSettings
from hw1.training.cost import bytes_of, cost_group, cost_of, seconds_of
from made_runs import run_settings


def settings(**changes):
    return RunSettings.check(run_settings(**changes))


def test_seconds_are_a_sum_of_parts():
    assert seconds_of(3, 5, 2, step=1.0, epoch=10.0, evaluation=100.0) == 3 * (5 + 10) + 200


def test_bytes():
    adam = {"weights": 1000, "state": 2000}
    assert bytes_of(**adam, epochs=10, every=None, snapshots=True, log=0) == 2 * 1000 + 3000
    assert bytes_of(**adam, epochs=9, every=3, snapshots=True, log=0) == 4 * 1000 + 3000
    assert bytes_of(**adam, epochs=10, every=3, snapshots=False, log=7.6) == 3008


def test_runs_that_differ_in_seed_or_rate_cost_the_same():
    one, two = (cost_group(settings(seed=seed, lr=lr)) for seed, lr in ((0, 1e-3), (4, 1e-1)))
    others = [cost_group(settings(batch_size=32)), cost_group(settings(hidden=(5,)))]
    assert one == two and len({one, *others}) == 3


@pytest.mark.parametrize("name", ["weight_snapshots", "mine"])
def test_the_disk_of_a_small_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snapshots = {name: {"_target_": "hw1.callbacks.WeightSnapshots", "every_n_epochs": 1}}
    found = cost_of(settings(hidden=(50,), callbacks=snapshots))
    weights = 4 * (65 * 50 + 51 * 10)
    state = 2 * weights + 4 * 4  # Adam's two moments, and a step counter for each of four tensors
    steps = 3 * 23  # 1,437 digits in batches of 64
    log = found.size - (4 * weights + weights + state)
    assert 10 * steps < log < 200 * steps  # bytes a row of metrics.csv
    assert found.seconds > 0 and not list(tmp_path.iterdir())


def test_a_run_that_is_evaluated_within_an_epoch_is_estimated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = run_settings(hidden=(5,))
    plain["trainer"]["val_check_interval"] = 15  # more batches than are timed
    assert cost_of(RunSettings.check(plain)).seconds > 0


def test_limits_of_an_epoch_are_part_of_the_estimate(monkeypatch):
    seen = []
    monkeypatch.setattr("hw1.training.cost._TIMED_SECONDS", 0.01)
    monkeypatch.setattr("hw1.training.cost.seconds_of", lambda epochs, *of, **by: float(not seen.append(of[:2])))
    small = settings(hidden=(5,))
    for trainer in ({}, {"limit_train_batches": 0.5}, {"overfit_batches": 2}):
        node = {**small.value("trainer"), "limit_val_batches": 0, **trainer}
        cost_of(RunSettings.check({**small.plain, "trainer": node}))
    # 1,437 digits in batches of 64; one evaluation, at the end.
    assert seen == [(23, 1), (11, 1), (2, 1)]
