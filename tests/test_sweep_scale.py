"""A wide sweep is planned in a moment: what runs share is composed, checked and looked up once."""

import copy

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from composed import CONF
from hw1.runs import find_run, runs_by_key
from hw1.settings import ConfigError, RunSettings
from hydra_plugins.hw1_sweeper.checking import check_runs
from hydra_plugins.hw1_sweeper.composing import Composer
from hydra_plugins.hw1_sweeper.plan import Job


@pytest.fixture(scope="module")
def loader():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HW1_CHECKOUT", "checkout")
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield GlobalHydra.instance().config_loader()


def by_hydra(loader, words):
    config = OmegaConf.to_container(loader.load_configuration("train", words, RunMode.RUN))
    del config["hydra"]
    return OmegaConf.to_container(OmegaConf.create(config), resolve=True)


# Each line is a sweep: its jobs are composed in turn by one Composer, which keeps what they share.
SWEEPS = [
    [["seed=1"], ["seed=2"], ["seed=1"]],
    [["dataset=function", f"seed={seed}", f"optimizer.lr={lr}"] for seed in (0, 3) for lr in ("1e-3", "1", "null")],
    [["dataset=function", "seed=1", f"dataset.noise_seed={value}"] for value in ("7", "${seed}", "8")],
    [["model=mlp", f"model.hidden={value}", "seed=3"] for value in ("[3,4]", "[5]", "[]")],
    [["objective={after:3}"], ["objective={minimise:squared_gradient_norm}"], ["objective={after:4}"]],
    [["+trainer.gradient_clip_val=1", f"seed={seed}"] for seed in (1, 2)],
    [["+trainer.gradient_clip_val=1", f"trainer.gradient_clip_val={value}"] for value in (2, 3)],
    [["+trainer={fast_dev_run:true}", f"trainer.max_epochs={value}"] for value in (2, 3)],
    [[f"model={name}", f"seed={seed}"] for name in ("mlp", "rnn") for seed in (4, 5)],
    [["model=mlp", "model.activation='a b'"], ["model=mlp", "model.activation=tanh"]],
]


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: " ".join(sweep[0]))
def test_every_job_of_a_sweep_is_composed_as_hydra_composes_it(loader, sweep):
    master = loader.load_configuration("train", [], RunMode.MULTIRUN)
    compose = Composer(loader, master, OverridesParser.create(config_loader=loader))
    found = [compose(words) for words in sweep]
    kept = copy.deepcopy(found)
    assert found == [by_hydra(loader, words) for words in sweep]
    found[0]["trainer"]["threads"] = 99  # of its own: what is done to one job changes no other
    assert [compose(words) for words in sweep] == kept


def test_hydra_is_asked_once_per_key_and_reads_each_combination_of_groups_once(loader, monkeypatch):
    master = loader.load_configuration("train", [], RunMode.MULTIRUN)
    compose = Composer(loader, master, OverridesParser.create(config_loader=loader))
    asked, read = [], []
    options, load = loader.get_group_options, loader.load_sweep_config
    monkeypatch.setattr(loader, "get_group_options", lambda key: asked.append(key) or options(key))
    monkeypatch.setattr(loader, "load_sweep_config", lambda config, words: read.append(words) or load(config, words))
    for model in ("mlp", "rnn"):
        for seed in range(20):
            compose([f"model={model}", f"seed={seed}", "+trainer.gradient_clip_val=1"])
    assert sorted(asked) == ["model", "seed"] and len(read) == 2


def test_all_runs_are_found_in_one_look_as_one_by_one(tmp_path):
    names = ["a-0123456789", "b-0123456789", "x-y-abcdef0123", "nothing"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "file-9999999999").write_text("")
    found = runs_by_key(tmp_path)
    assert found == {key: find_run(tmp_path, key) for key in ("0123456789", "abcdef0123")}
    assert runs_by_key(tmp_path / "nowhere") == {}


SMALL = ("model=mlp_571", "dataset=function")


@pytest.fixture(scope="module")
def jobs(loader):
    """`jobs(words, ...)` -> the jobs of these words."""
    master = loader.load_configuration("train", [], RunMode.MULTIRUN)
    compose = Composer(loader, master, OverridesParser.create(config_loader=loader))

    def made(*combinations):
        settings = [RunSettings.check(compose([*SMALL, *words])) for words in combinations]
        return [Job(words, one, CONF / f"run-{one.key}") for words, one in zip(combinations, settings, strict=True)]

    return made


def test_runs_that_differ_in_seeds_and_learning_rates_are_checked_whole_but_twice(jobs, monkeypatch):
    from hw1.training import build, learning, optimization

    seen, optimizers = [], []
    whole, trial = build.validate, optimization.trial_optimizer
    monkeypatch.setattr(build, "validate", lambda settings, *more: seen.append(settings) or whole(settings, *more))
    for module in (learning, optimization):
        monkeypatch.setattr(
            module,
            "trial_optimizer",
            lambda settings, net: optimizers.append(settings.optimizer["lr"]) or trial(settings, net),
        )
    check_runs(jobs(*([f"seed={seed}", f"optimizer.lr={lr}"] for seed in (5, 1, 9, 4) for lr in (0.1, 0.2, 0.3))), [])
    assert [settings.seed for settings in seen] == [1, 9] and set(optimizers) == {0.1, 0.2, 0.3}


@pytest.mark.parametrize(
    ("combinations", "named"),
    [
        ([["optimizer.lr=0.1"], ["optimizer.lr=-0.5"], ["optimizer.lr=0.2"]], "optimizer.*-0.5"),
        ([["optimizer.lr=0.1"], ["optimizer.lr=high"]], "optimizer.lr: got 'high'"),
        ([["seed=1", "model.dropout=0"], ["seed=2", "model.dropout=2.0"], ["seed=3", "model.dropout=0"]], "dropout"),
        ([["trainer.max_epochs=1"], ["trainer.max_epochs=2", "+trainer.gradient_clip_algorithm=never"]], "never"),
    ],
)
def test_a_bad_value_among_many_good_ones_is_refused(jobs, combinations, named):
    with pytest.raises(ConfigError, match=named):
        check_runs(jobs(*combinations), [])


def test_each_distinct_problem_is_said_once(jobs):
    words = [[f"seed={seed}", f"optimizer.lr={lr}"] for seed in range(4) for lr in (0.1, -1.0, -2.0)]
    with pytest.raises(ConfigError) as refused:
        check_runs(jobs(*words), [])
    lines = sorted(str(refused.value).splitlines())
    assert len(lines) == 2 and "-1.0" in lines[0] and "-2.0" in lines[1]
