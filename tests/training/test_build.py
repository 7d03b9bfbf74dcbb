"""What validation refuses before anything trains, and where measures compute."""

import pytest
import torch

from composed import settings
from hw1.settings import ConfigError, RunSettings
from hw1.training import build
from made_runs import run_settings

SMALL = ("dataset=digits", "model=mlp", "model.hidden=[4]", "logger=none", "callbacks=none")


@pytest.mark.parametrize(
    ("words", "key", "got"),
    [
        (("trainer.devices=2",), "devices", 2),
        (("+trainer.num_nodes=2",), "num_nodes", 2),
    ],
)
def test_several_processes_are_refused(words, key, got, tmp_path):
    with pytest.raises(ConfigError) as caught:
        build.validate(settings(*SMALL, *words), tmp_path)
    meant = "or trainer=ddp, which divides each batch among so many processes"
    assert str(caught.value) == f"trainer.{key}: got {got}, expected 1, {meant}"


def test_one_process_may_have_any_strategy(tmp_path):
    build.validate(settings(*SMALL, "+trainer.strategy=ddp"), tmp_path)


def test_an_unknown_key_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^nonsense: no such setting; expected one of: about, adopted, budget, callbacks, "
    ):
        build.validate(settings(*SMALL, "+nonsense=1"), tmp_path)


@pytest.mark.parametrize(
    ("accelerator", "devices", "cuda", "mps", "expected"),
    [
        ("cpu", 1, True, True, "cpu"),
        ("auto", 1, False, False, "cpu"),
        ("gpu", 1, False, False, "cpu"),  # a finished run, measured on another machine
        ("gpu", 1, True, False, "cuda:0"),
        ("cuda", [1], True, False, "cuda:1"),
        ("auto", "auto", True, False, "cuda:0"),
        ("gpu", 1, False, True, "mps"),
        ("mps", 1, False, True, "mps"),
        ("cuda", 1, False, True, "cpu"),
    ],
)
def test_measures_compute_where_the_run_trained(accelerator, devices, cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    given = run_settings()
    given["trainer"] |= {"accelerator": accelerator, "devices": devices}
    assert build.device(RunSettings.check(given)) == torch.device(expected)
