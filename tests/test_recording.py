"""Runs of a loop that is not hw1's: listed, reported, and never taken for complete before they are."""

import json
import re
from pathlib import Path

import pytest
import torch

from hw1.data import Digits
from hw1.models import Mlp
from hw1.recording import record
from hw1.records import is_own
from hw1.report.conclude import conclude
from hw1.report.listing import listing
from hw1.runs import Run, Sweep
from hw1.runs.sound import verify
from hw1.settings import ConfigError

DATA = {"_target_": "hw1.data.Digits", "batch_size": 64, "train_size": 50, "corruption": 0.0, "val_fraction": 0.0}
DATA |= {"seed": 0, "workers": 0, "eval_batch_size": 250}


def loop(run, steps=6, fail_at=None):
    for step in range(steps):
        if step == fail_at:
            raise RuntimeError("the loop\nbroke")
        run.log(step, {"train_step/loss": 1 / (step + 1)})
        if step % 2 == 1:
            run.log(step, {"train/loss": torch.tensor(0.5 / step), "test/loss": 1.0 / step}, epoch=(step + 1) / 2)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two runs that were recorded, one with snapshots of a net."""
    output = tmp_path_factory.mktemp("recorded")
    net = Mlp((1, 8, 8), 10, hidden=[4])
    for lr in (0.1, 0.01):
        with record("mine", {"optimizer": {"lr": lr}, "model": "small", "seed": 3}, output=output) as run:
            loop(run)
            run.snapshot(net, 3)
    return output, net


def test_a_recorded_run_is_a_run(recorded):
    output, net = recorded
    sweep = Sweep.read(output / "mine")
    assert sweep.status == "complete" and sweep.keys == ["optimizer.lr"] and len(sweep.runs) == 2
    run = sweep.runs[0]
    assert run.slug == "lr=0.1_small_seed=3" and run.settings.seed == 3 and is_own(run.path / "result.json")
    assert run.metrics() == pytest.approx({"train/loss": 0.1, "test/loss": 0.2})
    assert run.result["epochs"] == 3 and run.result["parameters"] == sum(p.numel() for p in net.parameters())
    history = run.history()
    assert list(history["step"]) == list(range(6)) and list(history["epoch"].dropna()) == [0, 1, 2]
    assert torch.equal(run.snapshots("1.weight").values[0], net[1].weight)
    assert not verify(output).damage and "2 runs: 2 complete" in listing(output / "mine", [], None)[0][0]
    with pytest.raises(ConfigError, match="known to its own loop alone"):
        run.net()


def test_they_have_a_page(recorded):
    sweep = Sweep.read(recorded[0] / "mine")
    lines = conclude(sweep.path)
    assert any(line.endswith("report.html") for line in lines)
    page = (sweep.path / "report.html").read_text()
    assert "test/loss" in page and "train.py" not in page
    assert Sweep.read(sweep.path).record["recorded"]


def test_with_a_model_and_data_of_hw1_the_net_is_known(tmp_path):
    model = {"_target_": "hw1.models.Mlp", "hidden": [4], "width": 1, "activation": "relu"}
    net = Mlp((1, 8, 8), 10, hidden=[4])
    with record("mine", {"model": model, "dataset": DATA}, output=tmp_path) as run:
        run.snapshot(net, 1)
    x = Digits().load().test_x
    assert torch.equal(Run(run.path).net()(x), net.eval()(x)) and Run(run.path).datamodule().sizes["train"] == 50


def test_what_broke_is_failed_and_what_was_interrupted_unfinished(tmp_path):
    settings = {"lr": 0.1}
    with pytest.raises(RuntimeError), record("mine", settings, output=tmp_path) as run:
        loop(run, fail_at=3)
    failed = Run(run.path)
    assert failed.status == "failed" and failed.result["error"] == "RuntimeError: the loop broke"
    assert len(failed.history()) == 3 and Sweep.read(tmp_path / "mine").status == "failed"
    with pytest.raises(KeyboardInterrupt), record("mine", settings, output=tmp_path) as run:
        assert Sweep.read(tmp_path / "mine").status == "running"
        assert "running" in "\n".join(listing(tmp_path / "mine", [], None)[0])
        loop(run, steps=4)
        run.snapshot(Mlp((1, 8, 8), 10, hidden=[4]), 2)
        raise KeyboardInterrupt
    assert Run(run.path).status == "unfinished" and Sweep.read(tmp_path / "mine").status == "interrupted"
    with record("mine", settings, output=tmp_path, first_step=2) as run:
        run.log(2, {"train_step/loss": 9.0})
    assert Run(run.path).metrics() == {"train/loss": 0.5, "test/loss": 1.0}  # of before
    again = Run(run.path)
    assert list(again.history()["train_step/loss"]) == [1.0, 0.5, 9.0] and again.status == "complete"
    assert again.result["epochs"] == 2 and Sweep.read(tmp_path / "mine").status == "complete"
    with pytest.raises(ConfigError, match="is complete; record other settings"):
        record("mine", settings, output=tmp_path).__enter__()
    with record("mine", settings, output=tmp_path, rerun=True) as run:
        pass
    assert Run(run.path).metrics() == {} and len(list((tmp_path / "mine" / "replaced").iterdir())) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([1], "settings: got a list, expected values by name"),
        ({"path": object()}, "expected numbers, text, lists and mappings"),
        ({"study": "x"}, "settings.study: got a setting of hw1's own commands"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_settings_that_cannot_be_kept(settings, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        record("mine", settings, output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_metrics_are_numbers(tmp_path):
    with record("mine", {}, output=tmp_path) as run:
        with pytest.raises(ValueError, match=r"metrics\.a: got 'x', expected a number"):
            run.log(0, {"a": "x"})
        with pytest.raises(ValueError, match=r"metrics\.epoch: got the name of a column"):
            run.log(0, {"epoch": 1})
    assert json.loads((run.path / "result.json").read_text())["metrics"] == {}


def test_the_loop_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "adopt.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "record(" in b)
    exec(block, {})
    assert Sweep.read("multirun/mine").runs[0].metrics() == pytest.approx({"train/loss": 1 / 3, "test/loss": 1 / 3})
