"""The jobs of a command before they are launched: what they would cost, and what to say of them.

Hydra imports this file at every start: it stays free of torch.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hw1.runs import Ask, is_complete, runs_by_key
from hw1.settings import run_key
from hw1.settings.identity import put
from hw1.stages import duration, through
from hw1.terminal import size
from hw1.words import count
from hydra_plugins.hw1_sweeper.plan import Job


def listing(
    jobs: Sequence[Job], to_train: Sequence[Job], lacking: Mapping[str, Sequence[Ask]], base: Path
) -> list[str]:
    """What a command would train and measure, with an estimate of time and disk; nothing is written."""
    lines, costs, measuring = [], {}, set()
    training = {job.key for job in to_train}
    for job in through(jobs, len(jobs)):
        name, line = job.folder.name, f"  complete  {job.folder.name}"
        if job.key in training:
            from hw1.training.cost import cost_group, cost_of

            group = cost_group(job.settings)
            if group not in costs:
                costs[group] = cost_of(job.settings)
            cost = costs[group]
            run = job.settings
            long = count(run.max_epochs, "epoch") if run.max_steps is None else count(run.max_steps, "step")
            line = f"  to train  {name}: {long}, about {duration(cost.seconds)}, {size(cost.size)}"
            measuring |= set(job.settings.measures)
        elif job.key in lacking:
            line = f"  to measure  {name}: {', '.join(ask.name for ask in lacking[job.key])}"
        lines.append(line)
    complete = len(lines) - len(to_train)
    also = f", {len(lacking)} to measure" if lacking else ""
    head = f"{base.name}: {count(len(lines), 'run')}, {complete} complete, {len(to_train)} to train{also}, in {base}"
    if not to_train:
        return [head, *lines, "nothing would be trained"]
    of_todo = [costs[cost_group(job.settings)] for job in to_train]
    seconds, disk = sum(cost.seconds for cost in of_todo), sum(cost.size for cost in of_todo)
    besides = ", ".join(["the study's figures and measurements", *sorted(measuring)])
    return [
        head,
        *lines,
        f"estimate, from a second of each kind of run on this machine as busy as it is: {duration(seconds)} of "
        f"training, one run after the other, and {size(disk)}; not counted: {besides}",
        "nothing was trained",
    ]


def crowded(workers: int | None, jobs: Sequence[Job]) -> str | None:
    """What to say where the workers of a launcher have more threads together than there are cores.

    Their number stays what it is: other threads mean other last bits, hence another run.
    """
    if workers is None or not jobs:
        return None
    import joblib

    cores, workers = joblib.cpu_count(), min(workers, len(jobs))
    threads = max(job.settings.threads for job in jobs)
    if workers == 1 or threads == 1 or workers * threads <= cores:
        return None
    return (
        f"hydra/launcher: {workers} workers of {threads} threads each on {count(cores, 'core')} slow each other down "
        "many times; add trainer.threads=1"
    )


def of_other_threads(jobs: Iterable[Job], base: Path) -> str | None:
    """What to say where runs that would be trained stand there with two threads, once the default of CNNs.

    Weights differ in the last bits between thread counts: they are other runs.
    """
    found, folders = 0, runs_by_key(base / "runs")
    for job in jobs if folders else ():
        if job.settings.threads == 1 and not job.folder.exists():
            plain = copy.deepcopy(dict(job.settings.plain))
            put(plain, "trainer.threads", 2)
            there = folders.get(run_key(plain))
            found += there is not None and is_complete(there)
    if not found:
        return None
    was, is_ = ("was", "is") if found == 1 else ("were", "are")
    return f"{found} of these runs {was} trained with trainer.threads=2, and {is_} found with it"
