"""Small sweeps, and the moments at which one is interrupted before a fault meets it."""

from dataclasses import dataclass

NAME = "c"
_TINY = (
    *(f"name={NAME}", "model=mlp", "model.hidden=[8]", "dataset=digits", "dataset.train_size=60"),
    *("dataset.batch_size=20", "trainer.max_epochs=3", "trainer.checkpoint_seconds=0", "trainer.progress=false"),
)
_SNAPSHOTS = "callbacks.weight_snapshots.every_n_epochs=1"
_STUDY = "study={_target_: hw1.studies.FlatnessInterp, pair_by: optimizer.lr, start: 0, stop: 1, points: 3}"


@dataclass(frozen=True)
class Scenario:
    """A command, the number of its runs, and whether it starts workers."""

    words: tuple[str, ...]
    runs: int
    workers: bool = False


SCENARIOS = {
    "sweep": Scenario(
        (
            *(*_TINY, "callbacks=[default,weight_snapshots]", _SNAPSHOTS, "measures=[sensitivity]", _STUDY),
            *("optimizer.lr=1e-3,1e-2", "hydra/launcher=basic"),
        ),
        runs=2,
    ),
    "replicas": Scenario(
        (
            *(*_TINY, "callbacks=[default,weight_snapshots]", _SNAPSHOTS, "measures=[sensitivity]", "replicas=2"),
            *("logger=none", "hydra/launcher=basic"),
        ),
        runs=1,
    ),
    "averaged": Scenario(
        (
            *(*_TINY, "callbacks=[default,weight_snapshots,ema]", _SNAPSHOTS, "logger=none", "seed=0,1"),
            "hydra/launcher=basic",
        ),
        runs=2,
    ),
    "workers": Scenario(
        (
            *(*_TINY, "callbacks=[default,weight_snapshots]", _SNAPSHOTS, "measures=[sensitivity]", "logger=none"),
            *("seed=0,1,2", "hydra/launcher=parallel", "hydra.launcher.workers=2"),
        ),
        runs=3,
        workers=True,
    ),
}

# What lies there before the fault: nothing, or what a command left that was killed before it renamed a file of the last
# run, or of the sweep. {name: (glob, whether the last run's)}
STARTS = {
    "nothing": None,
    "training": ("runs/*/snapshots/epoch=000002.safetensors", True),
    "ending": ("runs/*/result.json", True),
    "measuring": ("runs/*/measures/*.json", True),
    "drawing": ("sweeps/*/runs.csv", False),
    "finished": None,
}
