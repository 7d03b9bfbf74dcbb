"""A budget's limits on settings made by hand, and the budget in a run's key."""

from typing import ClassVar

import pytest

from hw1.settings.budget import budget_name, budget_words, limited
from hw1.settings.identity import ConfigError, run_key, run_seed
from made_runs import run_settings

LIMITS = {
    "train_size": 2000,
    "epochs": 10,
    "steps": 2000,
    "members": 10,
    "seeds": 2,
    "measured": 200,
    "source": "bundled",
}
MNIST = {"_target_": "hw1.data.Mnist", "train_size": None, "batch_size": 64, "source": "auto"}
FUNCTION = {"_target_": "hw1.data.Function", "train_size": None, "batch_size": None, "points": 500}


def settings(dataset, epochs=10, check=1, **others):
    trainer = {"max_epochs": epochs, "check_val_every_n_epoch": check}
    return {"dataset": dataset, "trainer": trainer, "budget": {"name": "quick", "limits": LIMITS}, **others}


def test_images_are_fewer_and_bundled():
    assert limited(settings(MNIST), []) == {"dataset.train_size": 2000, "dataset.source": "bundled"}
    assert limited(settings({**MNIST, "train_size": 1000, "source": "full"}), []) == {}
    assert limited(settings({**MNIST, "train_size": 5000}), ["dataset.source"]) == {"dataset.train_size": 2000}


@pytest.mark.parametrize("target", ["hw1.data.Digits", "hw1.data.ImageFolder", "hw1.data.Function"])
def test_datasets_that_may_be_small_stay_whole(target):
    assert limited(settings({"_target_": target, "train_size": None, "batch_size": 64}), []) == {}


class Many:
    """A user's own source of very many examples."""

    large = True


def test_the_class_of_the_data_says_whether_they_are_many():
    for name in ("Mnist", "MnistMean", "FashionMnist", "Cifar10"):
        dataset = {"_target_": f"hw1.data.{name}", "train_size": None, "batch_size": 64}
        assert limited(settings(dataset), []) == {"dataset.train_size": 2000}
    own = {"_target_": f"{__name__}.Many", "train_size": None, "batch_size": 64}
    assert limited(settings(own), []) == {"dataset.train_size": 2000}


def test_a_class_is_imported_only_where_it_matters():
    nowhere = {"_target_": "nowhere.Data", "train_size": None, "batch_size": 64}
    with pytest.raises(ConfigError, match=r"^dataset\._target_: got nowhere\.Data, which cannot be imported"):
        limited(settings(nowhere), [])
    assert limited(settings({**nowhere, "train_size": 10}), []) == {}
    full = settings(nowhere, measures={"own": {"_target_": "nowhere.Measure", "examples": None}})
    full["budget"] = {"name": "full", "limits": {}}
    assert limited(full, []) == {}


def test_what_counts_epochs_shrinks_alike():
    callbacks = {"weight_snapshots": {"every_n_epochs": 3}, "minimal_ratio": {"every_n_epochs": None}}
    objective = {"minimise": "squared_gradient_norm", "after": 15}
    changed = limited(settings({**FUNCTION, "batch_size": 32}, 30, 30, callbacks=callbacks, objective=objective), [])
    assert changed == {
        "trainer.max_epochs": 10,
        "trainer.check_val_every_n_epoch": 10,
        "callbacks.weight_snapshots.every_n_epochs": 1,
        "objective.after": 5,
    }


def test_the_experiment_s_own_settings_are_not_settings_of_the_run():
    own = {"callbacks.weight_snapshots.every_n_epochs": 2}
    long = settings({**FUNCTION, "batch_size": 32}, 30, 30, quick=own)
    long["budget"] |= {"settings": own}
    assert limited(long, own) == {"trainer.max_epochs": 10, "trainer.check_val_every_n_epoch": 10}


def test_full_batches_are_limited_in_steps():
    assert limited(settings(FUNCTION, 20000, 20000), []) == {
        "trainer.max_epochs": 2000,
        "trainer.check_val_every_n_epoch": 2000,
    }


class Dear:
    """A measure that says which of its settings make it dear."""

    limits: ClassVar = {"examples": "measured", "models": "members", "rest": "no limit of this name"}


@pytest.mark.parametrize(("examples", "changed"), [(None, 200), (1024, 200), (100, 100)])
def test_measures_take_fewer_examples(examples, changed):
    node = {"_target_": f"{__name__}.Dear", "examples": examples, "models": 7, "rest": 10**6}
    own = settings(FUNCTION, measures={"dear": node, "cheap": {"_target_": "hw1.data.Digits", "examples": None}})
    expected = {"measures.dear.examples": changed} if changed != examples else {}
    assert limited(own, []) == expected
    assert limited(own, ["measures.dear.examples"]) == {}
    track = {"_target_": "hw1.callbacks.Track", "measure": {"dear": {**node, "models": None}}, "every_n_epochs": None}
    found = limited(settings(FUNCTION, callbacks={"track": track, "none": None}), [])
    assert found == {key.replace("measures", "callbacks.track.measure"): value for key, value in expected.items()} | {
        "callbacks.track.measure.dear.models": 10
    }


def test_what_is_given_stays():
    long = settings(FUNCTION, 20000, 20000, replicas=100)
    assert limited(long, ["trainer.max_epochs"]) == {"replicas": 10}
    assert limited({**long, "budget": {"name": "full"}}, []) == {}
    assert limited({name: value for name, value in long.items() if name != "budget"}, []) == {}


def test_an_unknown_limit_is_refused():
    with pytest.raises(
        ConfigError, match=r"^budget\.limits\.epoch: no such limit; expected one of: train_size, epochs"
    ):
        limited({**settings(MNIST), "budget": {"name": "mine", "limits": {"epoch": 3}}}, [])
    for most in ("ten", 0, True, 1.5):
        with pytest.raises(ConfigError, match=rf"^budget\.limits\.epochs: got {most!r}, expected a positive integer"):
            limited({**settings(MNIST), "budget": {"name": "mine", "limits": {"epochs": most}}}, [])


def test_the_key_holds_the_budget_but_not_how_it_works():
    old = run_settings()
    quick = {"name": "quick", "limits": LIMITS, "settings": {"replicas": 3}}
    keys = {run_key({**old, "budget": budget}) for budget in (quick, {**quick, "limits": {}}, {"name": "quick"})}
    assert run_key(old) == run_key({**old, "budget": {"name": "full"}, "quick": {"replicas": 3}}) and len(keys) == 1
    assert run_key(old) not in keys and run_seed({**old, "budget": quick}) == run_seed(old)
    assert budget_name(old) == "full" and budget_name({"budget": quick}) == "quick"
    assert budget_words({**old, "budget": quick}) == ["replicas=3"] and budget_words(old) == []


def test_the_experiment_s_own_settings_have_dotted_keys():
    nested = {"name": "quick", "settings": {"trainer": {"max_epochs": 3}}}
    with pytest.raises(ConfigError, match=r"^quick\.trainer: got a group .* as trainer\.max_epochs: \.\.\.$"):
        budget_words({"budget": nested})


@pytest.mark.parametrize(
    ("node", "changed"),
    [
        ({"step_size": 20, "gamma": 0.1, "interval": "epoch"}, {"scheduler.step_size": 4}),
        ({"milestones": [25, 40, 0.5]}, {"scheduler.milestones": [5, 8, 0.5]}),
        ({"patience": 3, "cooldown": 9}, {"scheduler.patience": 1}),
        ({"T_max": None, "warmup": 0.1}, {}),
        ({"T_max": 500, "interval": "step"}, {}),
        (None, {}),
    ],
)
def test_a_schedule_in_epochs_shrinks_with_them(node, changed):
    data = {"_target_": "hw1.data.Digits", "train_size": None, "batch_size": 64}
    run = settings(data, epochs=50, scheduler=node)
    assert limited(run, []) == {"trainer.max_epochs": 10, **changed}
    assert limited(run, ["trainer.max_epochs"]) == {}
    assert not set(limited(run, changed)) & set(changed)
