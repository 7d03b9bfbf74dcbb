"""The sweeper's own parts: composing as Hydra does, allotting folders, launching after a launcher's error."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from hw1.settings import RunSettings
from hydra_plugins.hw1_sweeper import launching
from hydra_plugins.hw1_sweeper.composing import Composer
from hydra_plugins.hw1_sweeper.launching import allot
from hydra_plugins.hw1_sweeper.listing import crowded
from hydra_plugins.hw1_sweeper.plan import Job, Pins
from hydra_plugins.hw1_sweeper.sweeper import Hw1Sweeper
from made_runs import run_settings

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture
def loader(monkeypatch):
    monkeypatch.setenv("HW1_PROJECT", "checkout")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["model=mlp", "dataset=digits", "optimizer.lr=0.1", "seed=3"],
        ["dataset.batch_size=32", "++optimizer.lr=0.1", "optimizer.lr=1e-3"],
        ["optimizer.lr=1e-3", "++optimizer.lr=0.1"],
        ["+trainer.gradient_clip_val=1", "trainer.max_epochs=2"],
        ["~callbacks.weight_snapshots", "experiment=flatness_interp", "trainer.max_epochs=3"],
        ["optimizer.lr=0.5", "optimizer=sgd"],
        ["model=mlp", "model.hidden=[3,4]", "dataset.root='/a b/c,d'"],
    ],
)
def test_composed_as_hydra_composes(loader, words):
    master = loader.load_configuration("train", [], RunMode.MULTIRUN)
    compose = Composer(loader, master, OverridesParser.create(config_loader=loader))
    expected = OmegaConf.to_container(loader.load_configuration("train", words, RunMode.RUN))
    del expected["hydra"]
    expected = OmegaConf.to_container(OmegaConf.create(expected), resolve=True)
    for _ in range(2):  # the second time from the copy that is kept
        assert compose(words) == expected


def settings_of(seed, **trainer):
    plain = run_settings(seed=seed)
    return RunSettings.check(plain | {"trainer": plain["trainer"] | trainer})


@pytest.mark.parametrize(
    ("workers", "threads", "runs", "named"),
    [(4, 2, 3, True), (2, 3, 2, True), (2, 2, 2, False), (2, 3, 1, False), (4, 1, 9, False), (None, 8, 3, False)],
)
def test_workers_with_more_threads_than_cores_are_pointed_out(workers, threads, runs, named, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    said = crowded(workers, [Job([], settings_of(0, threads=threads), CONF)] * runs)
    assert ("trainer.threads=1" in said and "on 4 cores" in said) if named else said is None


def test_a_variant_drops_an_inherited_sweep_with_null():
    sweeper = object.__new__(Hw1Sweeper)  # Hydra reloads its plugins, and with them the class below this one
    sweeper.words = {"seed": "0,1", "model.width": None}
    assert sweeper._parse_config() == ["seed=0,1"]


@pytest.mark.parametrize(("target", "pinned"), [("Mnist", True), ("MnistMean", True), ("FashionMnist", False)])
def test_the_source_of_mnist_is_pinned(target, pinned, tmp_path, monkeypatch):
    monkeypatch.setattr("hw1.data.source.choose_mnist_source", lambda root, source: "bundled")
    settings = {"dataset": {"_target_": f"hw1.data.{target}", "root": str(tmp_path), "source": "auto"}}
    assert Pins(set())(settings) == (["dataset.source=bundled"] if pinned else [])
    assert settings["dataset"]["source"] == ("bundled" if pinned else "auto")


def job(base, number):
    settings = settings_of(number)
    return Job([f"seed={number}"], settings, base / "runs" / f"seed={number}-{settings.key}")


def finish(folder, status="complete"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("{}")
    came_to = {"metrics": {}, "dataset": {"name": "made", "source": "made", "train": 1}, "parameters": 1}
    (folder / "result.json").write_text(json.dumps({"status": status} | came_to))


def test_what_another_command_has_finished_is_not_trained_again(tmp_path):
    jobs = [job(tmp_path, number) for number in range(3)]
    finish(jobs[0].folder)
    finish(jobs[1].folder, "failed")
    renamed = jobs[2].folder.with_name(f"another-slug-{jobs[2].key}")
    renamed.mkdir(parents=True)
    left = allot(tmp_path, jobs)
    assert left == jobs[1:] and jobs[2].folder == renamed
    assert (jobs[0].folder / "result.json").exists() and not (jobs[1].folder / "result.json").exists()


class Launcher:
    """Runs jobs as a script says: by call, what happens to which seed."""

    def __init__(self, folders, behave):
        self.folders, self.behave, self.calls = folders, behave, []

    def launch(self, batch, initial_job_idx):
        seeds = [int(words[0].partition("=")[2]) for words in batch]
        self.calls.append(seeds)
        results = []
        for seed in seeds:
            outcome = self.behave(seed, seeds)
            if outcome in ("started", "killer"):
                self.folders[seed].mkdir(parents=True, exist_ok=True)
                (self.folders[seed] / "config.yaml").write_text("{}")
            if outcome == "done":
                finish(self.folders[seed])
            if outcome in ("killer", "broken"):
                raise RuntimeError("a worker was killed")
            results.append(SimpleNamespace(_return_value=OSError("no space") if outcome == "error" else None))
        return results


def launch(tmp_path, number, behave):
    jobs = [job(tmp_path, seed) for seed in range(number)]
    allot(tmp_path, jobs)
    launcher = Launcher([one.folder for one in jobs], behave)
    record = {"measures": [], "trained": [job.folder.name for job in jobs]}
    launching.launch(launcher, jobs, tmp_path / "sweeps" / "now", record)
    results = [json.loads((one.folder / "result.json").read_text()) for one in jobs]
    return launcher.calls, [result["status"] for result in results], results


def test_a_run_that_kills_its_worker_is_lost_alone(tmp_path, capsys):
    def behave(seed, together):
        return "killer" if seed == 2 else "started" if seed == 1 and len(together) > 1 else "done"

    calls, statuses, results = launch(tmp_path, 5, behave)
    assert statuses == ["complete", "complete", "failed", "complete", "complete"]
    assert calls == [[0, 1, 2, 3, 4], [3, 4], [1], [2]]
    assert results[2]["error"] == "RuntimeError: a worker was killed" and results[2]["seed"] == 2
    assert "going on with 4 runs" in capsys.readouterr().err


def test_a_launcher_that_starts_nothing_ends(tmp_path):
    calls, statuses, _ = launch(tmp_path, 3, lambda seed, together: "broken")
    assert statuses == ["failed"] * 3 and calls == [[0, 1, 2], [0], [1], [2]]


def test_an_error_of_a_job_is_the_job_s(tmp_path):
    calls, statuses, results = launch(tmp_path, 2, lambda seed, together: "error" if seed else "done")
    assert calls == [[0, 1]] and statuses == ["complete", "failed"] and "no space" in results[1]["error"]
