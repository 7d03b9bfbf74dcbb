"""`--continue`: a run with more epochs goes on from a finished one, and comes to the bits of one that never stopped."""

import pytest
import torch

from composed import settings
from hw1.records import make_key
from hw1.runs import Run, is_complete
from hw1.training.fit import fit
from hydra_plugins.hw1_sweeper.going_on import go_on
from hydra_plugins.hw1_sweeper.plan import Job

SMALL = (
    *("dataset=function", "dataset.points=40", "dataset.batch_size=8", "model=mlp_571", "model.dropout=0.1"),
    *("logger=none", "optimizer.lr=0.01"),
)


def job(base, *words):
    made = settings(*SMALL, *words)
    return Job(list(words), made, base / "runs" / f"run-{made.key}")


def trained(base, *words):
    one = job(base, *words)
    result = fit(one.settings, one.folder)
    assert result["status"] == "complete", result.get("traceback")
    return one


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    make_key()
    found = tmp_path_factory.mktemp("going_on")
    trained(found, "trainer.max_epochs=2")
    return found


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("callbacks.weight_snapshots.every_n_epochs=2", "replicas=2"),
        ("+callbacks.gradient_norm={_target_:hw1.callbacks.GradientNorm,every_n_steps:1,per_layer:true}",
         "scheduler={_target_:torch.optim.lr_scheduler.StepLR,step_size:1}"),
    ],
    ids=["plain", "snapshots on a grid, two members", "callback and schedule"],
)  # fmt: skip
def test_the_bits_are_those_of_a_run_trained_undisturbed(words, tmp_path):
    make_key()
    trained(tmp_path, *words, "trainer.max_epochs=2")
    longer = job(tmp_path, *words, "trainer.max_epochs=5")
    longer.folder.mkdir()
    assert go_on([longer], tmp_path) == ["--continue: 1 run trained on from epoch 2 of a finished run"]
    fit(longer.settings, longer.folder)
    whole = trained(tmp_path / "whole", *words, "trainer.max_epochs=5")
    a, b = Run(longer.folder), Run(whole.folder)
    assert a.result["status"] == "complete" and a.result["metrics"] == b.result["metrics"]
    assert torch.equal(a.theta(), b.theta())
    assert (a.path / "metrics.csv").read_bytes() == (b.path / "metrics.csv").read_bytes()
    files = [{name for name in run.result["files"] if not name.startswith(".hydra/")} for run in (a, b)]
    assert files[0] == files[1]
    snapshots = [name for name in files[0] if name.startswith("snapshots/")]
    assert len(snapshots) == (4 if "replicas=2" in words else 2)
    assert all((a.path / name).read_bytes() == (b.path / name).read_bytes() for name in snapshots)


def test_the_longest_of_the_shorter_runs_is_taken_and_stays_as_it_is(base):
    first = job(base, "trainer.max_epochs=2")
    before = {file: file.read_bytes() for file in first.folder.rglob("*") if file.is_file() and file.name != ".lease"}
    longer = job(base, "trainer.max_epochs=3")
    longer.folder.mkdir()
    assert "from epoch 2" in go_on([longer], base)[0]
    assert {file: file.read_bytes() for file in before} == before and is_complete(first.folder)
    assert go_on([longer], base) == []  # it has a checkpoint of its own by now


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.max_epochs=1"], "no finished run is the same"),
        (["trainer.max_epochs=3", "optimizer.lr=0.02"], "no finished run is the same"),
        (["trainer.max_epochs=3", "seed=1"], "no finished run is the same"),
    ],
)
def test_other_settings_train_from_the_start(base, words, said):
    other = job(base, *words)
    (line,) = go_on([other], base)
    assert line.startswith("--continue: 1 run trained from the start: ") and said in line
    assert not (other.folder / "checkpoints").exists()


def finished(base, *words, **result):
    """A run that `_unfit` judges: trained in a moment, then said to be otherwise."""
    from hydra_plugins.hw1_sweeper import going_on

    run = Run(job(base, "trainer.max_epochs=2").folder, settings(*SMALL, "trainer.max_epochs=2", *words))
    file = run.path / "result.json"
    status = file.stat()
    run._read = (status.st_mtime_ns, status.st_size, status.st_ino), {**run.result, **result}
    return going_on._unfit(run)


TORCH = "torch.optim.lr_scheduler"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([f"scheduler={{_target_:{TORCH}.CosineAnnealingLR,T_max:9}}"], ""),
        ([f"scheduler={{_target_:{TORCH}.CosineAnnealingLR,T_max:null}}"], "scheduler.T_max is the length"),
        ([f"scheduler={{_target_:{TORCH}.OneCycleLR,max_lr:1.0}}"], "scheduler.total_steps is the length"),
        ([f"scheduler={{_target_:{TORCH}.LinearLR,total_iters:0.1}}"], "scheduler.total_iters is a share"),
        ([f"scheduler={{_target_:{TORCH}.SequentialLR,milestones:[2],schedulers:[{{_target_:my.Own}}]}}"],
         r"scheduler.schedulers\[0\] may look"),
        (["scheduler={_target_:my.Schedule}"], "scheduler may look at how long"),
        (["task={_target_:my.Task}"], "task may look at how long"),
        (["+callbacks.swa={_target_:lightning.pytorch.callbacks.StochasticWeightAveraging}"], "callbacks.swa may look"),
        (["+trainer.max_steps=20"], "trainer.max_steps says"),
    ],
)  # fmt: skip
def test_what_looks_at_the_end_is_not_gone_on_from(base, words, said):
    import re

    found = finished(base, *words)
    assert re.search(said, found) if said else found == ""


def test_weights_that_a_measure_needs_and_nobody_kept_are_trained_for(tmp_path):
    make_key()
    words = ("objective.minimise=squared_gradient_norm", "objective.after=1", "trainer.max_epochs=2")
    trained(tmp_path, *words)
    longer = job(tmp_path, *words[:2], "trainer.max_epochs=3", "measures=minimal_ratio")
    longer.folder.mkdir()
    assert go_on([longer], tmp_path) == [
        "--continue: 1 run trained from the start: the finished run has no weights of epoch 1, which a measure needs"
    ]


def test_a_run_that_stopped_early_is_not_gone_on_from(base):
    assert finished(base, epochs=1) == "the one of 2 epochs ended after 1"
