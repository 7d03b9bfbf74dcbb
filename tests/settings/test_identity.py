import json

import pytest

from hw1.seeds import mixed
from hw1.settings import identity
from hw1.settings.identity import ConfigError, run_key, run_seed, select
from made_runs import run_settings


def changed(path, value, **settings):
    """The settings with one value, at a dotted path, replaced or added."""
    made = json.loads(json.dumps(run_settings(**settings)))
    *parents, last = path.split(".")
    node = made
    for part in parents:
        if not isinstance(node.get(part), dict):
            node[part] = {}
        node = node[part]
    node[last] = value
    return made


BASE = run_settings()
WITHOUT_EFFECT = [
    ("dataset.root", "elsewhere"),
    ("dataset.workers", 4),
    ("name", "other"),
    ("output", "other"),
    ("sweep", "multirun/x"),
    ("study", {"_target_": "hw1.studies.FlatnessInterp"}),
    ("logger", {"tensorboard": {"_target_": "hw1.training.tensorboard_logger"}}),
    ("hydra.job.num", 3),
    ("trainer.progress", False),
    ("trainer.checkpoint_seconds", 0),
]
WITH_EFFECT = [
    ("optimizer.lr", 2e-3),
    ("optimizer._target_", "torch.optim.SGD"),
    ("optimizer.weight_decay", 0.1),
    ("dataset.batch_size", 65),
    ("dataset.source", "bundled"),
    ("dataset.train_size", 100),
    ("dataset.corruption", 0.5),
    ("dataset.noise_seed", 1),
    ("model.width", 2),
    ("model.hidden", [4, 4]),
    ("trainer.threads", 2),
    ("trainer.precision", "bf16-mixed"),
    ("trainer.max_epochs", 4),
    ("trainer.gradient_clip_val", 1),
    ("seed", 1),
    ("init", "shared"),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1}),
    ("callbacks", {"gradient_norm": {"_target_": "hw1.callbacks.GradientNorm", "every_n_steps": 1}}),
]


@pytest.mark.parametrize(("path", "value"), WITHOUT_EFFECT)
def test_the_key_does_not_change_with(path, value):
    assert run_key(changed(path, value)) == run_key(BASE)


@pytest.mark.parametrize(("path", "value"), WITH_EFFECT)
def test_the_key_changes_with(path, value):
    assert run_key(changed(path, value)) != run_key(BASE)


def test_keys_are_ten_hexadecimal_digits_and_do_not_depend_on_order():
    def reversed_(node):
        if isinstance(node, dict):
            return {key: reversed_(node[key]) for key in reversed(node)}
        return node

    key = run_key(BASE)
    assert len(key) == 10 and int(key, 16) >= 0
    assert run_key(reversed_(BASE)) == key
    # But the order of a list is a setting.
    assert run_key(changed("model.hidden", [4, 8])) != run_key(changed("model.hidden", [8, 4]))


def test_the_key_is_what_it_was():
    # Written down once: a change here means that every recorded run would be trained again.
    assert (
        run_key({"seed": 0, "optimizer": {"lr": 0.001}, "dataset": {"root": "here", "batch_size": 64}}) == "850b16aa6b"
    )


def test_the_same_number_in_other_digits_is_the_same_run():
    assert run_key(changed("optimizer.lr", 1e-3)) == run_key(changed("optimizer.lr", float("0.0010")))
    assert run_key(changed("model.width", 1)) == run_key(changed("model.width", 1.0))
    assert run_key(changed("dataset.corruption", 0)) == run_key(changed("dataset.corruption", 0.0))
    assert run_seed(changed("dataset.corruption", 0)) == run_seed(changed("dataset.corruption", 0.0))
    assert run_key(changed("x", 1)) != run_key(changed("x", True))
    assert run_key(changed("x", 1)) != run_key(changed("x", "1"))


@pytest.mark.parametrize("value", [None, 0.0, {"a": [1]}])
def test_a_setting_of_a_later_version_keeps_old_keys_at_its_old_value(monkeypatch, value):
    key, seed = run_key(BASE), run_seed(BASE)
    monkeypatch.setattr(identity, "ADDED", {"optimizer.new": value, "trainer.deep.new": 3})
    assert run_key(BASE) == key and run_seed(BASE) == seed
    assert run_key(changed("optimizer.new", value)) == key and run_seed(changed("optimizer.new", value)) == seed
    assert run_key(changed("optimizer.new", 7)) != key and run_seed(changed("optimizer.new", 7)) != seed
    with_group = changed("trainer.deep", {"new": 3, "old": 1})
    without_new = changed("trainer.deep", {"old": 1})
    assert run_key(with_group) == run_key(without_new)
    assert run_key(changed("trainer.deep", {"new": 4, "old": 1})) != run_key(without_new)


def test_a_shared_start_comes_from_the_seed_alone():
    shared = run_seed(run_settings(init="shared"))
    for path, value in [*WITHOUT_EFFECT, *WITH_EFFECT]:
        if path not in ("seed", "init"):
            assert run_seed({**changed(path, value), "init": "shared"}) == shared
    assert run_seed(run_settings(seed=1, init="shared")) != shared


@pytest.mark.parametrize(
    ("path", "value"),
    [("dataset.batch_size", 65), ("optimizer.lr", 2e-3), ("model.width", 2), ("dataset.train_size", 9), ("seed", 1)],
)
def test_independent_starts_differ_with(path, value):
    assert run_seed(changed(path, value)) != run_seed(BASE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainer.max_epochs", 99),
        ("trainer.threads", 2),
        ("callbacks", {"x": {"_target_": "hw1.callbacks.StepLoss"}}),
        ("dataset.root", "elsewhere"),
        ("dataset.workers", 2),
        ("name", "other"),
        ("study", {"_target_": "x"}),
    ],
)
def test_independent_starts_do_not_differ_with(path, value):
    assert run_seed(changed(path, value)) == run_seed(BASE)


@pytest.mark.parametrize("init", ["shared", "independent"])
def test_member_r_is_the_run_with_the_seed_plus_r(init):
    for member in range(4):
        single = run_settings(seed=3 + member, init=init)
        single["dataset"]["noise_seed"] = 3 + member  # ${seed}, as conf/dataset/function.yaml has it
        replicated = run_settings(seed=3, init=init)
        replicated["dataset"]["noise_seed"] = 3
        assert run_seed(replicated, member) == run_seed(single)


def test_seeds_are_32_bit_and_scattered():
    seeds = [run_seed(run_settings(seed=s, init="shared")) for s in range(200)]
    assert len(set(seeds)) == 200 and all(0 <= seed < 2**32 for seed in seeds)
    assert max(seeds) > 2**31 and min(seeds) < 2**31
    assert mixed(1, "epoch", 2) != mixed(1, "epoch", 3) != mixed(2, "epoch", 3)


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, None])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ConfigError, match=rf"^seed: got {seed!r}, expected an integer of at least 0$"):
        run_seed({**BASE, "seed": seed})


@pytest.mark.parametrize("init", ["same", "", None, 1])
def test_bad_inits_are_refused(init):
    with pytest.raises(ConfigError, match=rf"^init: got {init!r}, expected shared or independent$"):
        run_seed({**BASE, "init": init})


def test_select():
    assert select(BASE, "dataset.batch_size") == 64
    assert select(BASE, "seed") == 0 and select(BASE, "dataset") == BASE["dataset"]
    assert select(BASE, "dataset.train_size", "default") is None  # there, and null
    for path in ("nothing", "dataset.nothing", "seed.deeper", "dataset.batch_size.deeper", ""):
        assert select(BASE, path) is None and select(BASE, path, 3) == 3
