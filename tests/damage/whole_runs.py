"""Training a small run as if it used a module of the user's own."""

from unittest import mock

from hw1.training import contents
from hw1.training.fit import fit

CODE = {"mine": "the hash of its source"}


def fitted(run, base):
    """Train, or go on with, a run below the folder of an experiment, as if it used a module of the user's own."""
    folder = base / "runs" / f"small-{run.key}"
    with mock.patch.object(contents, "code_of", lambda plain: CODE):
        fit(run, folder, ["seed=0"], snapshots=[0, 2])
    return folder
