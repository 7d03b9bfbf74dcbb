"""Small runs whose steps are logged, and what a command came to."""

from pathlib import Path

from hw1.runs import Run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEPS = 12  # of a run: 3 epochs of 4
WORDS = (
    *("model=mlp", "model.hidden=[8]", "dataset=digits", "dataset.train_size=64", "dataset.batch_size=16"),
    *("trainer.max_epochs=3", "trainer.checkpoint_seconds=0", "trainer.progress=false", "logger=none"),
    *("+callbacks.log._target_=crowded.Log",),
)
BASIC, PARALLEL = "hydra/launcher=basic", "hydra/launcher=two_workers"


def ends(process, code=0):
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == code, stdout + stderr
    assert "Traceback" not in stderr, stderr
    return stdout, stderr


def logged(tmp_path):
    """[process, run's key, step, `open` or `ended`] of every line."""
    return [line.split() for line in (tmp_path / "log").read_text().splitlines()]


def runs(output):
    """Complete runs; those of a command that could keep no key are not signed, so their callback is trusted by name."""
    return [Run(file.parent, trust=["crowded"]) for file in sorted((output / "default" / "runs").glob("*/result.json"))]


def weights(output):
    return {run.key: run.theta().tolist() for run in runs(output)}
