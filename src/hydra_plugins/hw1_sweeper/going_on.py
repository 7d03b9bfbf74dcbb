"""`--continue`: a run with more epochs goes on from where a finished one with fewer of them stopped.

The finished run is left as it is. The longer one has its own key and folder; the other's last checkpoint, metrics and
snapshots are copied there before it starts, and it resumes as an interrupted run does: bit by bit as if it had been
trained from its own start. That holds where nothing of the training looks at its length, which is checked here.

Hydra imports this file at every start: it stays free of torch.
"""

import copy
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hw1.files import lasting
from hw1.lease import HeldError, hold
from hw1.records import is_own
from hw1.runs import Run, is_complete, runs_by_key
from hw1.runs.changed import changed
from hw1.runs.damage import training_damage
from hw1.runs.weights import snapshot_files
from hw1.settings import ConfigError, run_key
from hw1.settings.construct import is_node
from hw1.settings.identity import put, select
from hw1.training.contents import RESULT, begin
from hw1.typed import program
from hw1.words import count
from hydra_plugins.hw1_sweeper.plan import Job

EPOCHS = "trainer.max_epochs"
_CHECKPOINT = Path("checkpoints", "last.ckpt")
_SNAPSHOTS = "hw1.callbacks.WeightSnapshots"
# Callbacks that do the same in an epoch, however many come.
_WITHOUT_AN_END = (_SNAPSHOTS, "hw1.callbacks.GradientNorm", "hw1.callbacks.StopAtTrainLoss")
_SCHEDULERS = "torch.optim.lr_scheduler."
_LENGTHS = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps", "PolynomialLR": "total_iters"}


def go_on(jobs: Sequence[Job], base: Path) -> list[str]:
    """Put what finished runs came to into the folders of longer ones; returns what to say.

    Args:
        jobs: to train; their folders are there.
        base: `multirun/<name>`.
    """
    shorter = _finished(base)
    said: dict[str, int] = {}
    for job in jobs:
        if (job.folder / _CHECKPOINT).exists():  # of its own: it goes on from there
            continue
        epochs = job.settings.max_epochs
        fewer = [run for run in shorter.get(_stem(job.settings.plain), []) if run.settings.max_epochs < epochs]
        run = max(fewer, key=lambda one: one.settings.max_epochs, default=None)
        none = "no finished run is the same but for fewer epochs"
        reason = none if run is None else _unfit(run) or _lacking(run, job)
        if run is not None and not reason:
            try:
                _place(run, job)
            except HeldError:
                reason = "a command is at work on the shorter run"
        if reason or run is None:
            line = f"trained from the start: {reason}"
        else:
            line = f"trained on from epoch {run.settings.max_epochs} of a finished run"
        said[line] = said.get(line, 0) + 1
    return [f"--continue: {count(number, 'run')} {line}" for line, number in said.items()]


def _finished(base: Path) -> dict[str, list[Run]]:
    """The complete runs of an experiment by all of their settings but the epochs."""
    found: dict[str, list[Run]] = {}
    for folder in runs_by_key(base / "runs").values():
        if is_complete(folder):
            run = Run(folder)
            found.setdefault(_stem(run.settings.plain), []).append(run)
    return found


def _stem(settings: Mapping[str, Any]) -> str:
    plain = copy.deepcopy(dict(settings))
    put(plain, EPOCHS, 0)
    return run_key(plain)


def _unfit(run: Run) -> str:
    """Why a longer run cannot go on from a finished one; "" where it can."""
    settings = run.settings
    if run.result["epochs"] != settings.max_epochs:
        return f"the one of {settings.max_epochs} epochs ended after {run.result['epochs']}"
    if select(settings.plain, "trainer.max_steps", -1) not in (-1, None):
        return "trainer.max_steps says how long they train"
    if line := next(_looking_at_the_end(settings.scheduler, "scheduler"), ""):
        return line
    if settings.value("task"):  # its configure_optimizers, say, asks the trainer for the number of steps
        return "task may look at how long they train"
    for name, node in settings.callbacks.items():
        if node.get("_target_") not in _WITHOUT_AN_END:
            return f"callbacks.{name} may look at how long they train"
    if not (run.path / _CHECKPOINT).is_file():
        return "the finished run's last checkpoint was removed"
    if training_damage(run.path):  # all of it: what is copied is gone on from
        return f"the finished run is damaged: see {program()} verify"
    if changed([run]):
        return "code of yours has changed since"
    if not is_own(run.path / RESULT):
        return "the finished run is not signed by you"
    return ""


def _lacking(run: Run, job: Job) -> str:
    """What a finished run has not kept of the weights that a longer one's measures need; "" for nothing."""
    if not job.settings.measures:
        return ""
    from hw1.measures.take import asks_of, epochs_wanted

    kept = {epoch for epoch, file in snapshot_files(run.path).items() if file.name != _last_snapshot(run)}
    wanted = epochs_wanted(asks_of(job.settings.measures), job.settings)
    gone = sorted(epoch for epoch in wanted - kept if epoch <= run.settings.max_epochs)
    return f"the finished run has no weights of epoch {gone[0]}, which a measure needs" if gone else ""


def _looking_at_the_end(node: Any, key: str) -> Iterator[str]:
    """What of a schedule depends on the length of the training, or may."""
    if isinstance(node, list | tuple):
        for i, inner in enumerate(node):
            yield from _looking_at_the_end(inner, f"{key}[{i}]")
    if not is_node(node):
        return
    target = str(node["_target_"])
    length = _LENGTHS.get(target.removeprefix(_SCHEDULERS))
    if not target.startswith(_SCHEDULERS):
        yield f"{key} may look at how long they train"
    elif length is not None and not isinstance(node.get(length), int):
        yield f"{key}.{length} is the length of the training"
    for name, value in node.items():
        if name in ("total_iters", "total_steps", "T_max", "milestones") and not _are_integers(value):
            yield f"{key}.{name} is a share of the training"
        yield from _looking_at_the_end(value, f"{key}.{name}")


def _are_integers(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, list) and all(isinstance(one, int) for one in value))


def _place(run: Run, job: Job) -> None:
    """Copy a finished run's checkpoint, metrics and snapshots, the checkpoint last: what is there is whole."""
    folder = job.folder
    with hold(run.path, 0), hold(folder, 0):
        begin(folder, job.settings, [*job.overrides, *job.pins], {}, resumed=False)
        end = _last_snapshot(run)
        for file in [run.path / "metrics.csv", *sorted((run.path / "snapshots").glob("*.safetensors"))]:
            if file.is_file() and file.name != end:
                _copy(file, folder / file.relative_to(run.path))
        checkpoint = folder / _CHECKPOINT
        if not end:
            _copy(run.path / _CHECKPOINT, checkpoint)
            return
        import torch

        from hw1.sealed import is_whole, seal
        from hw1.tensor_files import refuse_claims
        from hw1.training.checkpoint import RECORDED

        refuse_claims(run.path / _CHECKPOINT)
        if not is_whole(run.path / _CHECKPOINT):
            raise ConfigError(f"{run.path / _CHECKPOINT} is damaged; leave out --continue to train from the start")
        state = torch.load(run.path / _CHECKPOINT, map_location="cpu", weights_only=True)
        state.get(RECORDED, {}).get("snapshots", {}).pop(f"snapshots/{end}", None)
        checkpoint.parent.mkdir(exist_ok=True)
        with lasting(checkpoint) as temporary:
            torch.save(state, temporary)
            seal(temporary)


def _last_snapshot(run: Run) -> str:
    """The name of the snapshot that the run took because it ended; "" where it would have taken it anyway."""
    epochs = run.settings.max_epochs
    every = [node.get("every_n_epochs") for node in run.settings.callbacks.values() if node["_target_"] == _SNAPSHOTS]
    return "" if any(one and epochs % one == 0 for one in every) else f"epoch={epochs:06d}.safetensors"


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with lasting(to) as temporary:
        shutil.copyfile(file, temporary)
