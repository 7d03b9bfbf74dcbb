"""Sweeps of many finished runs that nobody trained: what reads and skips results is timed on them.

python benchmarks/finished_runs.py OUTPUT WORDS...    as `python train.py WORDS... output=OUTPUT` would leave its runs

The runs are planned as the command plans them, and written by what writes every run's folder. Weights are random,
one network's for all, and so are metrics: a curve that falls, and ends where the run's seed says.
"""

import os
import random
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

ROOT = Path(__file__).parents[1]
METRICS = ("train/loss", "train/accuracy", "test/loss", "test/accuracy")


def finished(output: Path, words: list[str]) -> Path:
    """Write the runs of a command below `output`, and a sweep that names them; returns the sweep's folder."""
    from hw1.files import new_folder
    from hw1.records import FORMAT, make_key, write_record

    if problem := make_key():
        sys.exit(problem)
    swept, jobs = planned([*words, f"output={output}"], output)
    base = jobs[0].folder.parent.parent
    shared = Shared.of(jobs[0].settings, output)
    for job in jobs:
        write(job, shared)
    folder = new_folder(base / "sweeps")
    record = {"format": FORMAT, "name": base.name, "status": "complete", "command": words, "program": "train.py"}
    record |= {"started": 0.0, "budget": "full", "swept": swept, "about": {}, "study": None, "measures": []}
    record |= {"trained": [], "launched": [], "launched_at": 0.0, "measuring_threads": None}
    runs = [{"key": job.key, "folder": job.folder.name, "overrides": job.overrides} for job in jobs]
    write_record(folder / "sweep.json", record | {"runs": runs})
    return folder


def planned(words: list[str], output: Path) -> tuple[list[str], list[Any]]:
    """(swept keys, jobs) of a command."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from hydra_plugins.hw1_sweeper.planning import Planner

    with (
        mock.patch.dict(os.environ, HW1_PROJECT=str(ROOT)),
        initialize_config_dir(str(ROOT / "conf"), version_base="1.3"),
    ):
        loader: Any = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", words, RunMode.MULTIRUN)
        return Planner(config, loader, [], None).plan(words, output / str(config.name))


class Shared:
    """What the runs have in common: weights, which are linked, and what result.json says of data and versions."""

    def __init__(self, checkpoint: Path, snapshots: list[Path], result: dict[str, Any]) -> None:
        self.checkpoint, self.snapshots, self.result = checkpoint, snapshots, result

    @classmethod
    def of(cls, settings: Any, output: Path) -> "Shared":
        """Made for a run of these settings."""
        import torch

        from hw1.sealed import seal
        from hw1.training import build
        from hw1.training.made_with import commit, versions
        from hw1.training.snapshots import save_snapshot

        data = build.datamodule(settings.dataset)
        data.prepare_data()
        data.setup()
        net = build.single_network(settings, data)
        folder = output / ".weights"
        folder.mkdir(parents=True, exist_ok=True)
        snapshots = [save_snapshot(net, folder, epoch) for epoch in (0, settings.max_epochs)]
        checkpoint = folder / "last.ckpt"
        torch.save({"state_dict": net.state_dict(), "epoch": settings.max_epochs}, checkpoint)
        seal(checkpoint)
        dataset = {"name": data.name, "source": data.source, **data.sizes, "sha256": data.identity()}
        parameters = sum(parameter.numel() for parameter in net.parameters())
        known = {"versions": versions(), "git": commit(), "dataset": dataset, "parameters": parameters, "replicas": 1}
        return cls(checkpoint, snapshots, known | {"constant": data.constant_metrics(), "steps": 100, "seconds": 1.0})


def write(job: Any, shared: Shared) -> None:
    """Write a run's folder, as `fit` leaves it."""
    from hw1.training import contents

    settings, folder = job.settings, job.folder
    folder.mkdir(parents=True)
    words = [*job.overrides, *job.pins]
    quick = mock.patch.object(
        contents, "config_text", lambda plain: yaml.dump(dict(plain), Dumper=yaml.CSafeDumper, sort_keys=False)
    )
    overrides = "".join(f"- {word}\n" for word in words)
    with quick:  # Python's own dumper takes ten times as long, for the same text
        config = contents.config_text(settings.plain)
        beside = {".hydra/config.yaml": config, ".hydra/hydra.yaml": _HYDRA, ".hydra/overrides.yaml": overrides}
        begun = contents.begin(folder, settings, words, beside, resumed=False)
    for file in shared.snapshots:
        _link(file, folder / "snapshots" / file.name)
    _link(shared.checkpoint, folder / "checkpoints" / "last.ckpt")
    draw = random.Random(settings.key)
    ends = [draw.uniform(0.1, 0.4), draw.uniform(0.9, 1.0), draw.uniform(0.2, 0.6), draw.uniform(0.8, 0.95)]
    lines = [",".join(["epoch", "step", *METRICS])]
    for epoch in range(settings.max_epochs):
        share = 1 - 1 / (epoch + 2)
        lines.append(
            ",".join([str(epoch), str(10 * epoch + 9), *(f"{value * share + (1 - share):.16g}" for value in ends)])
        )
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / "run.log").touch()
    result = {name: begun[name] for name in ("format", "key", "name", "overrides", "time", "settings", "code")}
    result |= {"status": "complete", "seed": settings.seed, "epochs": settings.max_epochs, **shared.result}
    contents.end(folder, result | {"metrics": dict(zip(METRICS, ends, strict=True))})


def _config_text(plain: Any) -> str:
    """As hw1's, by a dumper in C: Python's own takes ten times as long for the same text."""
    return str(yaml.dump(dict(plain), Dumper=yaml.CSafeDumper, sort_keys=False))


def _link(file: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    try:
        os.link(file, to)
    except OSError:  # the file system takes no more links to one file, or none
        to.write_bytes(file.read_bytes())


# About as long as Hydra's own.
_HYDRA = "hydra:\n" + "".join(f"  setting_{number}: ${{hydra.runtime.output_dir}}/{number}\n" for number in range(80))


if __name__ == "__main__":
    print(finished(Path(sys.argv[1]).absolute(), sys.argv[2:]))
