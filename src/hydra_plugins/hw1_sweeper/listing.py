"""The runs of a command before they are launched: what they would cost, and what to say of them.

Hydra imports this file at every start: it stays free of torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw1.command import duration

# Callbacks whose work comes after the training.
_AT_THE_END = ("minimal_ratio", "sensitivity", "sharpness")


@dataclass
class Job:
    """One run of the sweep, before it is launched."""

    overrides: list[str]
    settings: dict[str, Any]
    key: str
    folder: Path
    pins: list[str] = field(default_factory=list)


def listing(jobs: Iterable[Job], todo: list[Job], base: Path) -> list[str]:
    """What a command would train, with an estimate of its time and disk; nothing is written."""
    lines, costs, measuring = [], {}, set()
    for job in jobs:
        name, line = job.folder.name, f"  complete  {job.folder.name}"
        if job in todo:
            from hw1.training.estimate import cost_group, estimate

            group = cost_group(job.settings)
            if group not in costs:
                costs[group] = estimate(job.settings)
            cost = costs[group]
            epochs = count(job.settings["trainer"]["max_epochs"], "epoch")
            line = f"  to train  {name}: {epochs}, about {duration(cost.seconds)}, {_size(cost.size)}"
            measuring |= {key for key in job.settings["callbacks"] or {} if key in _AT_THE_END}
        lines.append(line)
    head = (
        f"{base.name}: {count(len(lines), 'run')}, {len(lines) - len(todo)} complete, {len(todo)} to train, in {base}"
    )
    if not todo:
        return [head, *lines, "nothing would be trained"]
    of_todo = [costs[cost_group(job.settings)] for job in todo]
    seconds, size = sum(cost.seconds for cost in of_todo), sum(cost.size for cost in of_todo)
    besides = ", ".join(["the study's figures and measurements", *sorted(measuring)])
    return [
        head,
        *lines,
        f"estimate, from a second of each kind of run on this machine as busy as it is: {duration(seconds)} of "
        f"training, one run after the other, and {_size(size)}; not counted: {besides}",
        "nothing was trained",
    ]


def _size(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def crowded(n_jobs: int | None, jobs: list[Job]) -> str | None:
    """What to say where the workers of joblib's launcher have more threads together than there are cores.

    Their number stays what it is: other threads mean other last bits, hence another run.
    """
    if n_jobs is None or not jobs:
        return None
    import joblib

    cores = joblib.cpu_count()
    workers = min(joblib.effective_n_jobs(n_jobs), len(jobs))
    threads = max(job.settings["trainer"]["threads"] for job in jobs)
    if workers == 1 or threads == 1 or workers * threads <= cores:
        return None
    return (
        f"hydra/launcher: {workers} workers of {threads} threads each on {count(cores, 'core')} slow each other down "
        "many times; add trainer.threads=1"
    )


def count(number: int, noun: str) -> str:
    """`2 runs`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
