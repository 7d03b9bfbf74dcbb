"""Measurements of fewer runs than there are workers: their pieces are launched first, and put together behind that.

Hydra imports this file at every start: it stays free of torch.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hw1.command import quoted
from hw1.explaining import explain
from hw1.lease import hold
from hw1.machine import cores
from hw1.runs import Ask, Run
from hw1.runs.order import write_pieces
from hw1.settings import ConfigError
from hw1.terminal import say
from hw1.words import count
from hydra_plugins.hw1_sweeper.fetching import fetch
from hydra_plugins.hw1_sweeper.plan import Job

_JOBS = 4  # a worker, so that all end together


def jobs_asked(asked: Any, launcher: Any, node: Mapping[str, Any], runs: Sequence[Any]) -> int:
    """Into how many jobs the pieces of these runs' measures go; 0 for none: each run is measured in one.

    Args:
        asked: `hydra.sweeper.pieces`.
        launcher: Hydra's, or our own.
        node: its settings.
        runs: the settings of the runs that are measured.

    Raises:
        ConfigError: see `refuse_pieces`.
    """
    queue = hasattr(launcher, "detach")
    refuse_pieces(asked, queue and launcher.detach)
    if asked != "auto":
        return int(asked)
    if queue:  # a piece may be shorter than the time that it waits there
        return 0
    workers = _workers(launcher, node, runs)
    return _JOBS * workers if workers > max(1, len(runs)) else 0


def refuse_pieces(asked: Any, leaves: bool) -> None:
    """Refuse what `hydra.sweeper.pieces` cannot be.

    Args:
        asked: it.
        leaves: whether the command leaves when its jobs are in a queue.

    Raises:
        ConfigError: it is neither auto, false nor a number of jobs; or it is that, and nobody would put them together.
    """
    number = isinstance(asked, int) and not isinstance(asked, bool) and asked > 0
    if not number and asked != "auto" and asked is not False:
        raise ConfigError(f"hydra.sweeper.pieces: got {asked!r}, expected auto, false or a number of jobs above 0")
    if number and leaves:
        raise ConfigError(
            f"hydra.sweeper.pieces: got {asked} beside --detach, expected auto or false: the command puts pieces "
            "together, and would have left; leave out one of them"
        )


def _workers(launcher: Any, node: Mapping[str, Any], runs: Sequence[Any]) -> int:
    """Jobs that a launcher has at work at a time, where it says so; else 1."""
    if not runs:
        return 1
    if (counted := getattr(launcher, "count", None)) is not None:  # our own: as many as there is room for
        return int(counted([runs[number % len(runs)] for number in range(max(cores(), len(runs)))]))
    return max(1, int(node.get("array_parallelism") or 1))


def launch_pieces(
    launcher: Any, jobs: Sequence[Job], asks: Sequence[Ask], number: int, file: Path, record: Mapping[str, Any]
) -> None:
    """Have the pieces that these runs' measures lack computed by jobs of the launcher.

    What a lost worker leaves is launched again, as long as there is less of it each time. What cannot be computed here
    is the measuring job's to say: it computes what it does not find.

    Args:
        launcher: Hydra's, or our own.
        jobs: the finished runs that are measured.
        asks: their measures.
        number: of jobs, at most.
        file: of the record; what jobs read of it stands beside it meanwhile.
        record: of the command.

    Raises:
        ConfigError: nothing was launched: data that jobs measure by are not to be had.
        LostError: another process took a run over while this one was silent.
    """
    with ExitStack() as held:
        for job in jobs:
            held.enter_context(hold(job.folder))
        before = None
        while left := _lacking(jobs, asks, record):
            if before is None:
                fetch(jobs)
            if before is not None and len(left) >= before:
                return
            before = len(left)
            if not _launched(launcher, _shares(left, number), file, record):
                return


def launch_parts(launcher: Any, job: Job, number: int, file: Path, record: Mapping[str, Any]) -> None:
    """Have the parts of what a sweep's study measures computed by jobs of the launcher.

    What is not computed here, the study computes itself.

    Args:
        launcher: Hydra's.
        job: one of the command's, with the sweep's folder.
        number: of jobs, at most.
        file: of the record; what jobs read of it stands beside it meanwhile.
        record: of the command.
    """
    from hw1.studies.parts import lacking_parts

    before = None
    while left := [(job, ("study", part.label)) for part in lacking_parts(job.folder)]:
        if before is not None and len(left) >= before:
            return
        before = len(left)
        if not _launched(launcher, _shares(left, number), file, record):
            return


def _lacking(jobs: Sequence[Job], asks: Sequence[Ask], record: Mapping[str, Any]) -> list[tuple[Job, tuple[str, str]]]:
    from hw1.measures.take import lacking_pieces

    threads = record.get("measuring_threads")
    return [(job, piece) for job in jobs for piece in lacking_pieces(Run(job.folder, job.settings), asks, threads)]


def _shares(left: Sequence[tuple[Job, tuple[str, str]]], number: int) -> list[tuple[Job, list[tuple[str, str]]]]:
    """The pieces in about so many parts, each of one run, of about as many pieces in a row."""
    most = -(-len(left) // number)
    shares: list[tuple[Job, list[tuple[str, str]]]] = []
    for job, piece in left:
        if not shares or shares[-1][0] is not job or len(shares[-1][1]) == most:
            shares.append((job, []))
        shares[-1][1].append(piece)
    return shares


def _launched(
    launcher: Any, shares: Sequence[tuple[Job, list[tuple[str, str]]]], file: Path, record: Mapping[str, Any]
) -> bool:
    """Launch one job a share; returns whether the launcher lost some, and it may help to launch them again."""
    say(f"{count(sum(len(pieces) for _, pieces in shares), 'piece')} to measure, in {count(len(shares), 'job')}")
    orders = write_pieces(file, record, [pieces for _, pieces in shares])
    words = []
    for (job, _), order in zip(shares, orders, strict=True):
        subdir = str(job.folder.relative_to(job.folder.parent.parent))
        words.append([*job.overrides, *job.pins, f"hydra.sweep.subdir={quoted(subdir)}", f"sweep={quoted(str(order))}"])
    try:
        if (expect := getattr(launcher, "expect", None)) is not None:
            expect([job.settings for job, _ in shares])
        results = launcher.launch(words, initial_job_idx=0)
    except Exception as error:  # a launcher's own: a killed worker, a lost node
        say(f"launcher: {explain(error)}", file=sys.stderr)
        return True
    finally:
        if not getattr(launcher, "left", False):  # jobs stay in a queue, and will read them
            for order in orders:
                order.unlink(missing_ok=True)
    raised = [result._return_value for result in results if isinstance(result._return_value, Exception)]
    for text in dict.fromkeys(explain(error) for error in raised):
        say(f"pieces: {text}", file=sys.stderr)
    return False
