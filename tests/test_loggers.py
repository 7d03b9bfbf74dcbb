"""Loggers besides TensorBoard, in their offline modes, where their packages are installed."""

import sys

import pytest

from composed import settings
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.training import build

SMALL = (
    *("dataset=digits", "dataset.train_size=90", "model=mlp", "model.hidden=[5]", "trainer.max_epochs=2"),
    *("measures=none", "trainer.threads=1", "trainer.progress=false", "dataset.batch_size=30", "seed=0,1,2"),
)


@pytest.fixture(scope="module")
def logged(command, tmp_path_factory):
    """`logged(logger)` -> (output folder, sweep of three runs, what it left in an empty home, the command)."""
    made = {}

    def make(name):
        if name not in made:
            output, home = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp("home")
            here = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "TMPDIR": str(home)}
            launched = ("hydra/launcher=two_workers",) if name != "many" else ("hydra/launcher=basic",)
            done = command(*SMALL, f"logger={name}", *launched, output=output, **here)
            assert done.returncode == 0, done.stderr
            left = {path.name for path in home.iterdir()} - {".cache"}
            made[name] = output, Sweep.read(output / "default"), left, done
        return made[name]

    return make


def stored(output):
    """{key: (run, its metrics' histories)} of an MLflow store."""
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{output}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'default'")
    runs = client.search_runs([experiment.experiment_id])
    return {
        run.data.tags["key"]: (run, lambda name, id=run.info.run_id: client.get_metric_history(id, name))
        for run in runs
    }


def written(run):
    """What stands in the one offline file of a run of Weights & Biases."""
    (file,) = (run.path / "wandb").glob(f"offline-run-*-{run.key}/run-{run.key}.wandb")
    return file.read_bytes()


def test_mlflow_has_a_run_for_each_of_a_parallel_sweep(logged):
    pytest.importorskip("mlflow")
    output, sweep, _, done = logged("mlflow")
    found = stored(output)
    assert set(found) == {run.key for run in sweep.runs} and "Creating" not in done.stderr
    for run in sweep.runs:
        there, history = found[run.key]
        assert there.info.run_name == run.path.name and there.info.status == "FINISHED"
        assert there.data.params["dataset.batch_size"] == "30" and there.data.params["seed"] == str(run.settings.seed)
        for name in ("train/loss", "test/accuracy", "train_step/loss"):
            logged_here = run.history().dropna(subset=[name])
            expected = dict(zip(logged_here["step"], logged_here[name], strict=True))
            assert {point.step: point.value for point in history(name)} == pytest.approx(expected)
    assert not list(sweep.runs[0].path.glob("events.out.*")) and not (output / "default" / "mlruns").exists()


def test_mlflow_goes_on_with_a_resumed_run(tmp_path):
    pytest.importorskip("mlflow")
    from hw1.training import mlflow_logger

    settings = {"experiment_name": "default", "tracking_uri": f"sqlite:///{tmp_path}/new/mlflow.db"}
    first = mlflow_logger("slug-0123456789", 0, **settings)
    first.log_metrics({"loss": 1.0}, step=0)
    first.finalize("failed")
    resumed = mlflow_logger("slug-0123456789", 1, **settings)
    assert resumed.run_id == first.run_id and mlflow_logger("slug-0123456789", 0, **settings).run_id != first.run_id
    assert mlflow_logger("other-9876543210", 5, **settings).run_id != first.run_id
    resumed.log_metrics({"loss": 0.5}, step=1)
    resumed.finalize("success")
    client = resumed.experiment
    assert [point.value for point in client.get_metric_history(first.run_id, "loss")] == [1.0, 0.5]
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_wandb_writes_into_the_run_s_folder_alone(logged):
    pytest.importorskip("wandb")
    output, sweep, left, done = logged("wandb")
    assert left == set() and {path.name for path in output.iterdir()} == {"default"} and "WARNING" not in done.stderr
    for run in sweep.runs:
        content = written(run)
        assert run.path.name.encode() in content and b"optimizer.lr" in content
        assert repr(run.result["metrics"]["test/loss"]).encode() in content
        assert not any(name.startswith("wandb/") for name in run.result["files"])


def test_many_runs_of_one_process_are_kept_apart(logged):
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    output, sweep, _, _ = logged("many")
    assert len(stored(output)) == 3
    for run in sweep.runs:
        assert len(list(run.path.glob("events.out.*"))) == 1
        assert repr(run.result["metrics"]["test/loss"]).encode() in written(run)


def test_loggers_are_no_part_of_the_key():
    options = ("none", "csv", "tensorboard", "wandb", "mlflow", "many", "[tensorboard,wandb]")
    assert len({settings("dataset=digits", "model=mlp", f"logger={option}").key for option in options}) == 1


@pytest.mark.parametrize(("package", "home"), [("wandb", "weights_and_biases"), ("mlflow", "mlflow_store")])
def test_a_missing_package_is_refused_before_anything_trains(package, home, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, f"hw1.training.{home}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"^logger\.{package}\._target_: .*: pip install {package}$"):
        build.validate(settings("dataset=digits", "model=mlp", f"logger={package}"), tmp_path)


def test_an_estimate_of_the_cost_tells_no_service(command, tmp_path):
    pytest.importorskip("mlflow")
    done = command(*SMALL, "logger=mlflow", "--dry-run", output=tmp_path)
    assert done.returncode == 0 and not list(tmp_path.rglob("mlflow.db")), done.stderr
