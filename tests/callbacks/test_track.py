import logging
import math
from typing import ClassVar

import pytest
import torch

from hw1.callbacks import Track
from hw1.data import Function
from hw1.measures import Column, Finding, Measure, MinimalRatio, Sharpness
from hw1.models import Mlp, side_by_side
from hw1.settings import ConfigError, RunSettings
from hw1.training import build
from hw1.training.fit import fit
from made_runs import run_settings
from sampled import sampled
from tiny_fit import Lines, tiny_fit

SHARPNESS = {"_target_": "hw1.measures.Sharpness", "examples": 40, "rho": 0.004, "trace_products": 6, "seed": None}
RATIO = {
    "exact_up_to": 500, "probes": 3, "steps": 5, "samples": 5, "radius": 1e-3, "search_iterations": 0,
    "search_method": "levenberg_marquardt", "seed": None,
}  # fmt: skip


def function():
    return Function("sinc_5pi", [-1, 1], points=40, noise=0.1, noise_seed=0, test_points=10)


class Seen(Measure):
    """What it is given; it fails where it is told to, and refuses networks of 11 parameters."""

    version = 1
    columns: ClassVar = {"seen/epoch": Column("epoch"), "seen/never": Column("a column that does not apply")}

    def __init__(self, fails_at: int = -1) -> None:
        self.moments, self._fails_at = [], fails_at

    def check(self, settings, parameters):
        if parameters == 11:
            raise ValueError("fails_at: got 11 parameters, expected others")

    def take(self, subject, memory):
        self.moments.append((subject.end.epoch, subject.end.phase))
        if len(self.moments) - 1 == self._fails_at:
            raise ZeroDivisionError("there is\nnothing")
        return Finding({"seen/epoch": [float(subject.end.epoch)] * len(subject.end.nets)})


def tracked(measures, *, steps=None, epochs=None, members=1, fit_epochs=1, **trainer):
    """What is logged, of a training of three steps an epoch."""
    lines = Lines()
    lines.takes_members = True
    nets = [Mlp((1,), 1, hidden=[3]) for _ in range(members)]
    made = [Track(own, steps, epochs, seed=0) for own in measures]
    net = side_by_side(nets) if members > 1 else nets[0]
    tiny_fit(net, function(), trainer.pop("folder"), made, logger=lines, epochs=fit_epochs, **trainer)
    return lines


@pytest.mark.parametrize(("after", "searching"), [(0, [True] * 6), (1, [False] * 3 + [True] * 3)])
def test_the_phase_within_an_epoch_is_that_of_its_steps(after, searching, tmp_path):
    measure = Seen()
    task = {"objective": "squared_gradient_norm", "objective_after": after}
    lines = tracked([{"seen": measure}], steps=1, fit_epochs=2, task=task, folder=tmp_path)
    assert list(lines.of("seen/epoch")) == list(range(6))
    names = ["gradient_norm" if one else "training" for one in searching]
    assert measure.moments == list(zip([0] * 3 + [1] * 3, names, strict=True))


@pytest.mark.parametrize(("after", "phases"), [(0, ["gradient_norm"] * 2), (1, ["training", "gradient_norm"])])
def test_the_phase_where_an_epoch_ends_is_that_of_the_epoch(after, phases, tmp_path):
    measure = Seen()
    task = {"objective": "squared_gradient_norm", "objective_after": after}
    tracked([{"seen": measure}], epochs=1, fit_epochs=2, task=task, folder=tmp_path)
    assert measure.moments == list(zip([1, 2], phases, strict=True))


@pytest.mark.parametrize("members", [1, 2])
def test_a_measure_that_fails_does_not_end_the_run(members, tmp_path, caplog):
    seen, well = Seen(fails_at=1), Seen()
    well.columns = {"well": Column("")}
    well.take = lambda subject, memory: Finding({"well": [1.0] * members})
    with caplog.at_level(logging.WARNING, "hw1.callbacks.track"):
        lines = tracked([{"seen": seen, "well": well}], steps=1, members=members, folder=tmp_path)
    of = lines.of("seen/epoch")
    assert list(of) == [0, 1, 2] and [len(values) for values in of.values()] == [members] * 3
    assert [math.isnan(values[0]) for values in of.values()] == [False, True, False]
    assert not lines.of("seen/never")  # it had not applied before
    assert len(lines.of("well")) == 3
    (record,) = caplog.records
    assert record.getMessage() == "seen could not be measured after step 2: there is nothing; NaN stands there"


def test_it_warns_once_a_measure(tmp_path, caplog):
    class Never(Seen):
        """It always fails."""

        def take(self, subject, memory):
            raise ValueError("no")

    with caplog.at_level(logging.WARNING, "hw1.callbacks.track"):
        lines = tracked([{"one": Never(), "two": Never()}], steps=1, folder=tmp_path)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["one", "two"]
    assert all(math.isnan(value) for (value,) in lines.of("seen/never").values()) and len(lines.of("seen/never")) == 3


def test_two_of_them_stand_in_one_checkpoint(tmp_path):
    one, two = {"sharpness": Sharpness(None, 0.004, 6, None)}, {"minimal_ratio": MinimalRatio(**RATIO)}
    lines = tracked([one, two], epochs=1, folder=tmp_path)
    assert lines.of("sharpness/trace") and lines.of("minimal_ratio/zero")
    assert len({Track(one, 1, None, 0).state_key, Track(two, 1, None, 0).state_key, Track(one, 2, None, 0).state_key,
                Track(one, None, 1, 0).state_key}) == 4  # fmt: skip


def test_a_search_while_training_is_refused_by_its_key():
    node = {"_target_": "hw1.callbacks.Track", "every_n_steps": None, "every_n_epochs": 1, "seed": 0}
    ratio = {"_target_": "hw1.measures.MinimalRatio", **RATIO, "search_iterations": 3}
    settings = run_settings(callbacks={"track": {**node, "measure": {"minimal_ratio": ratio}}})
    message = r"^callbacks\.track\.measure\.minimal_ratio\.search_iterations: got 3, expected 0 while training$"
    with pytest.raises(ConfigError, match=message):
        build.callbacks(RunSettings.check(settings))


def test_a_run_that_a_measure_refuses_is_refused_before_it_trains(tmp_path):
    node = {"_target_": "hw1.callbacks.Track", "every_n_steps": None, "every_n_epochs": 1, "seed": 0}
    node["measure"] = {"seen": {"_target_": f"{__name__}.Seen"}}
    target = {"_target_": f"{__name__}.Small", "hidden": 1}
    with pytest.raises(ConfigError, match=r"^callbacks\.mine\.measure\.seen\.fails_at: got 11 parameters, expected"):
        build.validate(RunSettings.check(run_settings(callbacks={"mine": node}, model=target)), tmp_path)
    build.validate(RunSettings.check(run_settings(callbacks={"mine": node})), tmp_path)


class Small(torch.nn.Module):
    """A network of 11 parameters."""

    def __init__(self, in_shape, out_features, hidden):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(11))
        self.out_features = out_features

    def forward(self, x):
        return x.flatten(1)[:, : self.out_features] + self.weight.sum()


@pytest.mark.parametrize(("stop_at", "members"), sampled([(7, 1), (8, 2), (11, 1)], 1, seed=1))
def test_a_run_that_is_resumed_logs_the_same(stop_at, members, tmp_path, monkeypatch):
    """Four steps an epoch of two batches each, measured at every second, and a kill within an epoch."""
    track = {"_target_": "hw1.callbacks.Track", "every_n_steps": 2, "every_n_epochs": None, "seed": 0}
    settings = run_settings(
        callbacks={
            "track": {**track, "measure": {"sharpness": SHARPNESS}},
            "late": {**track, "every_n_steps": None, "every_n_epochs": 1,
                     "measure": {"minimal_ratio": {"_target_": "hw1.measures.MinimalRatio", **RATIO}}},
        },
        replicas=members,
    )  # fmt: skip
    more = {"accumulate_grad_batches": 2, "limit_train_batches": 8, "checkpoint_seconds": 0, "progress": False}
    settings["trainer"] |= more
    checked = RunSettings.check(settings)
    whole, cut = (tmp_path / name / f"run-{checked.key}" for name in ("whole", "cut"))
    assert fit(checked, whole)["status"] == "complete"
    own = Track.on_train_batch_end

    def interrupted(self, trainer, *rest):
        own(self, trainer, *rest)
        if trainer.global_step == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Track, "on_train_batch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(checked, cut)
    monkeypatch.setattr(Track, "on_train_batch_end", own)
    assert (cut / "checkpoints" / "last.ckpt").exists() and not (cut / "result.json").exists()
    assert fit(checked, cut)["status"] == "complete"
    text = (whole / "metrics.csv").read_text()
    assert (cut / "metrics.csv").read_text() == text
    header, *rows = [line.split(",") for line in text.splitlines()]
    measured = [row[header.index("step")] for row in rows if row[header.index("sharpness/trace")]]
    assert measured == [str(step) for step in range(1, 12, 2) for _ in range(members)]
