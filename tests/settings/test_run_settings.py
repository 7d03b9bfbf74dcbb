"""A run's settings are checked once; the oracle of key and seeds is hw1.settings.identity."""

import copy
import dataclasses

import pytest
import yaml

from composed import CONF, plain
from hw1.settings import ConfigError, RunSettings, run_key, run_seed
from hw1.settings.run_settings import TOP, Objective, refuse_unknown
from made_runs import run_settings


def test_what_it_says():
    callbacks = {"x": {"_target_": "hw1.callbacks.WeightSnapshots", "every_n_epochs": 1}}
    given = run_settings(seed=3, replicas=2, callbacks=callbacks)
    made = RunSettings.check(given)
    assert made.plain == given and made.key == run_key(given)
    assert (made.name, made.seed, made.init, made.members, made.max_epochs) == ("hand", 3, "independent", 2, 3)
    assert (made.threads, made.checkpoint_seconds, made.progress) == (1, 10, True)
    assert made.member_seeds == [run_seed(given, 0), run_seed(given, 1)]
    assert (made.objective.minimise, made.objective.after) == ("loss", 0)
    assert made.callbacks == callbacks and made.scheduler is None and made.measures == {} == made.logger
    assert made.dataset == given["dataset"] and made.model == given["model"] and made.optimizer == given["optimizer"]
    own = {"threads", "checkpoint_seconds", "progress"}
    assert made.trainer == {name: value for name, value in given["trainer"].items() if name not in own}
    assert made.value("dataset.batch_size") == 64 and made.value("dataset.nothing", 5) == 5
    assert made.budget == {"name": "full"}


def test_it_does_not_change():
    given = run_settings()
    made = RunSettings.check(given)
    key, before = made.key, copy.deepcopy(given)
    given["optimizer"]["lr"] = 7.0
    given["model"]["hidden"].append(9)
    assert made.plain == before and run_key(made.plain) == key and made.model["hidden"] == [4]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.seed = 4
    assert copy.deepcopy(made) == made and yaml.safe_load(yaml.safe_dump(dict(made.plain))) == before


def test_old_runs_lack_later_settings():
    later = ("objective", "replicas", "budget", "measures")
    made = RunSettings.check({name: value for name, value in run_settings().items() if name not in later})
    assert (made.members, made.objective.minimise, made.measures) == (1, "loss", {})


GRADIENT = {"minimise": "squared_gradient_norm"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed: got -1, expected an integer of at least 0"),
        ({"init": "same"}, "init: got 'same', expected shared or independent"),
        ({"replicas": 0}, "replicas: got 0, expected a positive integer"),
        ({"replicas": True}, "replicas: got True, expected a positive integer"),
        ({"objective": 3}, "objective: got 3, expected objective.minimise and objective.after"),
        ({"objective": {"minimise": "x", "after": 0}},
         "objective.minimise: got 'x', expected loss or squared_gradient_norm"),
        ({"objective": {**GRADIENT, "after": -1}}, "objective.after: got -1, expected a number of epochs, 0 or more"),
        ({"objective": {"minimise": "loss", "after": 2}},
         "objective.after: got 2, expected 0 where objective.minimise is the loss throughout"),
        ({"objective": {**GRADIENT, "after": 3}},
         "objective.after: got 3, expected less than trainer.max_epochs=3, or objective.minimise=loss"),
        ({"dataset": None}, "dataset: got None, expected a group option with a _target_"),
        ({"trainer": "cpu"}, "trainer: got 'cpu', expected a group option with a _target_"),
        ({"callbacks": ["x"]}, "callbacks: got ['x'], expected options by name, each with a _target_"),
        ({"measures": "sharpness"}, "measures: got 'sharpness', expected options by name, each with a _target_"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_their_key(changes, message):
    with pytest.raises(ConfigError) as caught:
        RunSettings.check(run_settings() | changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_epochs", 0, "got 0, expected a positive integer"),
        ("max_epochs", None, "got None, expected a positive integer"),
        ("max_epochs", True, "got True, expected a positive integer"),
        ("threads", 0, "got 0, expected a positive integer"),
        ("threads", "two", "got 'two', expected an integer"),
        ("checkpoint_seconds", -1, "got -1, expected at least 0"),
        ("progress", 1, "got 1, expected true or false"),
    ],
)
def test_bad_settings_of_the_trainer(name, value, message):
    given = run_settings()
    given["trainer"][name] = value
    with pytest.raises(ConfigError) as caught:
        RunSettings.check(given)
    assert str(caught.value) == f"trainer.{name}: {message}"


def test_a_key_that_nothing_reads_is_refused_of_a_new_run_only():
    given = run_settings(nonsense=1)
    assert RunSettings.check(given).plain["nonsense"] == 1  # perhaps of a later version
    with pytest.raises(ConfigError) as caught:
        refuse_unknown(given)
    assert str(caught.value) == f"nonsense: no such setting; expected one of: {', '.join(sorted(TOP))}"


def test_every_key_of_the_command_is_known():
    refuse_unknown(plain("model=mlp"))
    assert set(yaml.safe_load((CONF / "train.yaml").read_text())) - {"defaults", "hydra"} <= set(TOP)


def test_the_phase_is_what_moved_the_weights_last():
    loss, both, only = Objective(), Objective("squared_gradient_norm", 2), Objective("squared_gradient_norm")
    assert [loss.phase(epoch) for epoch in (0, 3)] == ["training"] * 2
    assert [both.phase(epoch) for epoch in (1.5, 2, 2.1, 3)] == ["training"] * 2 + ["gradient_norm"] * 2
    assert [only.phase(epoch) for epoch in (0, 0.1, 1)] == ["training", "gradient_norm", "gradient_norm"]
