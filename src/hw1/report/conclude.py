"""The end of a sweep: measure, draw, write the page, and remember what it was made of. No torch until it measures."""

from __future__ import annotations

import os
import struct
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hw1
from hw1.cells import guarded_table
from hw1.files import file_sums, replacing, write_text
from hw1.inside import inside, refuse_linked_parts
from hw1.measures.cache import FORMAT, Cache
from hw1.news import at_work_on
from hw1.records import read_record, rewrite_record
from hw1.runs import Run, Sweep, asks_in, read_measured
from hw1.runs.sound import sweep_damage
from hw1.runs.standing import named_runs, strays
from hw1.seeds import digest as hashed
from hw1.settings import ConfigError
from hw1.settings.code import code_of_node
from hw1.studies.answers import Answer
from hw1.studies.headlines import Headline
from hw1.studies.learned import TABLE, left_out, training, untrained
from hw1.studies.overview import Overview
from hw1.studies.protocol import Study, of_sweep
from hw1.terminal import say
from hw1.training.contents import RESULT, stored
from hw1.trust import TrustError
from hw1.words import printable

if TYPE_CHECKING:
    import pandas as pd

PAGE = 4  # of what is concluded from the same measurements: words, figures, page


def digest(base: Path, record: Mapping[str, Any]) -> str:
    """Hash of all that a sweep's results depend on: runs, weights, the command's measures, the study, the version."""
    keys = [entry.get("key") for entry in record["runs"]]
    folders = [base / "runs" / name for name, _ in named_runs(record)]
    # Without a study, nothing looks at weights.
    weights = [Run(folder).weights_digest() for folder in folders] if record["study"] else []
    asks = asks_in({"measures": record.get("measures", [])})
    found = [read_measured(ask.file(folder)) for folder in folders for ask in asks]
    measured = [one.key if one is not None else "" for one in found]
    known = [keys, weights, measured, record["study"], record["swept"], FORMAT, PAGE, hw1.__version__]
    code = code_of_node(record["study"])  # of a study of the user's own
    return hashed([*known, code] if code else known)


def earlier(base: Path, wanted: str) -> list[str]:
    """What an earlier sweep with this digest said at its end, if its files and caches are what was written; else []."""
    for file in sorted(base.glob("sweeps/*/sweep.json"), reverse=True):
        try:
            # Most are not: there may be a sweep for each run.
            if not file.is_file() or wanted.encode() not in file.read_bytes():
                continue
            record = read_record(file)  # no more: its runs are those that were just looked through
        except (ValueError, OSError):  # a damaged record is no earlier result
            continue
        if record.get("digest") == wanted:
            if damage := sweep_damage(file.parent, record):
                say(*(f"{line}; this command draws a new one" for line in damage), file=sys.stderr)
                continue
            at_work_on(file.parent)
            return _lines(file.parent, record)
    return []


def conclude(folder: Path, cache: Cache | None = None, read: Sweep | None = None) -> list[str]:
    """Measure and draw a sweep whose runs have ended, write its page, and say where everything is.

    Args:
        folder: `multirun/<name>/sweeps/<time>`, with its sweep.json.
        cache: of the study's tables; None for that in the folder of the experiment.
        read: the sweep, where it has been read: its runs are not read again unless its record has changed since.

    Returns:
        Lines for the terminal: the headline, one number a line, and the files.
    """
    as_read = read if read is not None and read_record(folder / "sweep.json") == read.record else None
    sweep = as_read or Sweep.read(folder)
    at_work_on(sweep.path)
    record = dict(sweep.record)
    tables: dict[str, pd.DataFrame] = {}
    found: list[Headline] = []
    figures: list[str] = []
    answer = Answer()
    problem = ""
    budget = record.get("budget", "full")
    base = folder.parent.parent
    refuse_linked_parts(base)
    cache = cache or Cache(base / "measurements")
    if record["study"] or len(record["runs"]) > 1:
        try:
            study: Study = of_sweep(sweep) if record["study"] else Overview()
            tables = study.measure(sweep, cache)
            if tables:
                from hw1.plots.style import entitle, save
                from hw1.plots.text import as_text

                learned, reason = trained(study, sweep, tables)
                tables |= learned
                numbers = study.headlines(tables, sweep.keys)
                notes = [] if budget == "full" else [f"budget = {budget}: less data, fewer steps"]
                notes += ["no answer: networks that have not learned"] if reason else []
                for name, figure in study.draw(tables, sweep.keys).items():
                    if notes:
                        entitle(figure, "\n".join(notes))
                    if type(study).__module__.partition(".")[0] == "hw1":  # one of the user's own may write TeX
                        as_text(figure)
                    figures += [path.name for path in save(figure, inside(folder, name.replace("/", "-")))]
                found = [] if reason else numbers  # a number would be taken for an answer
                answer = answered(study, tables, sweep.keys, numbers, reason)
            elif record["study"]:
                problem = "too few complete runs to answer its question"
        except TrustError:  # nothing was run: what makes it the user's own is said, and the command given again
            raise
        except Exception as error:  # the runs and their table are worth a page all the same
            kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
            problem = kind + " ".join(str(error).split())
            record["traceback"] = traceback.format_exc()
    tables["runs"] = sweep.table()
    if budget != "full":
        tables = {name: table.assign(budget=budget) for name, table in tables.items()}
    for name, table in tables.items():
        with replacing(inside(folder, f"{name}.csv")) as temporary:
            guarded_table(table).to_csv(temporary, index=False)
    failed = {
        run.path.name: str(run.result.get("error", "it has not ended"))
        for run in sweep.runs
        if run.status != "complete"
    }
    failed |= _not_measured(sweep)
    headlines = [str(number) for number in found]
    started = {run.path.name for run in sweep.runs}
    failed |= {name: _why_not(base / "runs" / name) for name, _ in named_runs(record) if name not in started}
    failed |= dict.fromkeys(map(printable, strays(record)), "it was left out")

    from hw1.report.page import page

    if problem:
        failed = {"study": problem, **failed}
    report = folder / "report.html"
    write_text(report, page(sweep, answer, tables, figures, headlines, failed))
    _to_tensorboard(folder, [name for name in figures if name.endswith(".png")])
    record |= {
        "status": "failed" if failed else "complete",
        "failed": failed,
        "answer": answer.lines,
        "captions": dict(answer.captions),
        "headlines": headlines,
        "numbers": [asdict(number) for number in found],
        "files": _sums(folder, [*(folder / f"{n}.csv" for n in tables), *(folder / n for n in figures), report]),
        "caches": _sums(base, sorted(cache.used)),
    }
    if not failed:
        record["digest"] = digest(base, record)
    rewrite_record(folder / "sweep.json", record)
    return _lines(folder, record)


def trained(study: Study, sweep: Sweep, tables: Mapping[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], str]:
    """The table of what has learned, where a study asks for it, and why it cannot answer; "" where it can."""
    if not hasattr(study, "must_learn"):
        return {}, ""
    try:
        table = training(sweep)
    except (OSError, ConfigError) as error:  # data of runs of an earlier version, which are gone
        return {}, f"It cannot be told which networks have learned: {' '.join(str(error).split())}"
    return {TABLE: table}, untrained(study.must_learn(table, tables))


def answered(
    study: Study,
    tables: Mapping[str, pd.DataFrame],
    keys: Sequence[str],
    numbers: Sequence[Headline],
    reason: str = "",
) -> Answer:
    """The answer of a study in words, or the reason why there is none; empty of one that has no words of its own."""
    if not hasattr(study, "answer") or (reason and TABLE not in tables):
        return Answer(too_short=reason)
    answer: Answer = study.answer(tables, keys, numbers)
    if reason:
        return replace(answer, sentences=(), too_short=reason)
    must = study.must_learn(tables[TABLE], tables) if hasattr(study, "must_learn") else None
    return answer if must is None else replace(answer, sentences=[*answer.sentences, *left_out(must)])


def _sums(base: Path, files: Iterable[Path]) -> dict[str, list[Any]]:
    return {file.relative_to(base).as_posix(): file_sums(file) for file in files}


def _not_measured(sweep: Sweep) -> dict[str, str]:
    """Why measures that the command asked for are missing on complete runs, by run and measure.

    Those that were asked for later are no failure of the sweep.
    """
    found = {}
    for run in sweep.complete().runs:
        for ask in asks_in({"measures": sweep.record.get("measures", [])}):
            measured = read_measured(ask.file(run.path))
            if measured is None or measured.error:
                name = f"{run.path.name}: measures.{ask.name}{ask.label}"
                found[name] = measured.error if measured else "it was not taken, or its file is damaged"
    return found


def _why_not(folder: Path) -> str:
    """Why a run has not begun: its folder may hold what its job met."""
    return str((stored(folder / RESULT) or {}).get("error", "it never started"))


def _lines(folder: Path, record: Mapping[str, Any]) -> list[str]:
    budget = record.get("budget", "full")
    lines = [] if budget == "full" else [f"budget = {budget}: less data and fewer steps than the experiment's own"]
    lines += [printable(line) for line in [*record.get("answer", []), *record["headlines"]]]
    kinds = {"figure": ".png", "table": ".csv", "report": ".html"}
    for kind, suffix in kinds.items():
        lines += [
            printable(f"{kind}: {_shown(inside(folder, name))}") for name in record["files"] if name.endswith(suffix)
        ]
    return lines


def _shown(path: Path) -> str:
    """A path as a user in the current folder would type it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _to_tensorboard(folder: Path, figures: list[str]) -> None:
    """Show the study's figures under the sweep's name in TensorBoard."""
    if not figures:
        return
    # Not torch's writer: without a study, nothing else of a sweep's end needs torch.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for old in folder.glob("events.out.tfevents.*"):  # of an earlier drawing of the same sweep
        old.unlink()
    writer = EventFileWriter(str(folder))
    try:
        for name in figures:
            content = (folder / name).read_bytes()
            wide, high = struct.unpack(">II", content[16:24])  # of the PNG's header
            image = Summary.Image(height=high, width=wide, colorspace=4, encoded_image_string=content)
            value = Summary.Value(tag=f"figures/{Path(name).stem}", image=image)
            writer.add_event(Event(wall_time=time.time(), summary=Summary(value=[value])))
    finally:
        writer.close()
