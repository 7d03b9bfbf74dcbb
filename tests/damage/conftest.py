"""A finished run of a module of the user's own, signed, that may be damaged."""

import shutil

import pytest
from whole_runs import CODE, fitted

from composed import settings
from hw1.records import make_key
from hw1.runs import Run

SMALL = (
    *("dataset=digits", "dataset.train_size=60", "logger=none", "trainer.progress=false", "model=mlp"),
    *("model.hidden=[4]", "trainer.max_epochs=2", "trainer.checkpoint_seconds=0"),
)


@pytest.fixture(scope="session")
def small():
    return settings(*SMALL)


@pytest.fixture(scope="session")
def made(small, tmp_path_factory):
    assert make_key() == ""
    folder = fitted(small, tmp_path_factory.mktemp("made"))
    assert Run(folder).status == "complete" and Run(folder).code == CODE
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it."""
    copy = tmp_path / "runs" / made.name
    shutil.copytree(made, copy)
    return copy


@pytest.fixture
def again(small):
    """again(folder) -> what the run's command makes of it: its result."""

    def go(folder):
        fitted(small, folder.parent.parent)
        return Run(folder).result

    return go
