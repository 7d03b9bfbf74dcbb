"""`hydra/sweeper=hw1`: plans a command's runs, trains and measures what is missing, and has the study conclude.

Hydra imports this file at every start: it stays free of torch. It has more than 300 lines because it is the one place
that knows the order of a command: plan, check, launch, survive a launcher, conclude.
"""

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hw1.command import quoted
from hw1.files import new_folder, remove_left_below, remove_room
from hw1.inside import refuse_linked_parts, refuse_links
from hw1.lease import HeldError, hold
from hw1.machine import at_most
from hw1.news import at_work_on
from hw1.records import FORMAT, make_key, read_record, write_record
from hw1.replaced import as_typed
from hw1.runs import Ask, Run, Sweep, complete_result, is_complete
from hw1.runs.changed import READING, TRAINING, changed, refuse_changed
from hw1.runs.damage import passing_damage
from hw1.runs.mending import mend_finished, mend_unfinished
from hw1.runs.submitted import Left
from hw1.settings import ConfigError
from hw1.settings.budget import budget_name
from hw1.settings.code import code_of_node
from hw1.stages import stage
from hw1.terminal import say
from hw1.trust.owner import keep_code, vouch, vouch_folder
from hw1.typed import training
from hw1.words import count
from hydra_plugins.hw1_launcher.detached import answering, refuse_detach, reopened, settle
from hydra_plugins.hw1_sweeper.checking import check_runs
from hydra_plugins.hw1_sweeper.going_on import go_on
from hydra_plugins.hw1_sweeper.launching import allot, begun, folder_errors, interrupted, launch, workers_of
from hydra_plugins.hw1_sweeper.listing import crowded, listing, of_other_threads
from hydra_plugins.hw1_sweeper.measuring import asks_of_command, forget, lacking_measures, take_in
from hydra_plugins.hw1_sweeper.options import whole
from hydra_plugins.hw1_sweeper.piecing import jobs_asked, launch_parts, launch_pieces, refuse_pieces
from hydra_plugins.hw1_sweeper.plan import Job
from hydra_plugins.hw1_sweeper.planning import Planner
from hydra_plugins.hw1_sweeper.searching import KEY, Search, Trials, value_of, without_intervals


@dataclass
class Hw1SweeperConf:
    """Settings of the sweeper; an experiment fills `params`, and a variant drops an inherited one with null."""

    _target_: str = "hydra_plugins.hw1_sweeper.sweeper.Hw1Sweeper"
    params: dict[str, str | None] | None = None
    zip: Any = None
    search: Any = None
    dry_run: bool = False
    rerun: bool = False
    keep: bool = False
    go_on: bool = False
    detach: bool = False
    pieces: Any = "auto"


ConfigStore.instance().store(group="hydra/sweeper", name="hw1", node=Hw1SweeperConf, provider="hw1")


class Hw1Sweeper(BasicSweeper):
    """Every command is a sweep; a run that is complete is not trained again. Scaling out is the launcher's."""

    def __init__(
        self,
        params: dict[str, str | None] | None = None,
        zip: Any = None,
        search: Any = None,
        dry_run: bool = False,
        rerun: bool = False,
        keep: bool = False,
        go_on: bool = False,
        detach: bool = False,
        pieces: Any = "auto",
    ) -> None:
        super().__init__(max_batch_size=None)
        self.pieces = pieces
        self.words, self.zip, self.search = params or {}, _plain(zip), _plain(search)
        self.dry_run, self.rerun, self.keep, self.go_on, self.detach = dry_run, rerun, keep, go_on, detach

    def sweep(self, arguments: list[str]) -> None:
        """Plan, train and measure what is missing, conclude.

        Leaves by exit code 1 if something failed, 130 if interrupted.

        With `dry_run` nothing is trained: the runs are listed, with an estimate. With `measured_sweep` the finished
        runs of that sweep are measured, and nothing is trained.

        Runs that were trained with other code of the user's own than today's are trained again with `rerun`, taken as
        they are with `keep`, and else refused.

        Raises:
            ConfigError: a setting of some run is refused, or its code has changed; nothing was trained.
        """
        if self.detach:
            refuse_detach(self.launcher, self.search is not None)
            with answering() as answer:
                self._sweep(arguments, answer)
        else:
            self._sweep(arguments, [])

    def _sweep(self, arguments: list[str], answer: list[str]) -> None:
        """The same; a command that leaves appends its answer."""
        assert self.config is not None
        refuse_pieces(self.pieces, self.detach)
        if self.config.measured_sweep is not None:
            self._measure(Path(str(self.config.measured_sweep)), arguments, answer)
            return
        arguments = whole(arguments, self._planner.parser)
        base = Path(str(self.config.hydra.sweep.dir)).absolute()
        _check_name(str(self.config.name))
        refuse_linked_parts(base)
        if self.search is not None:
            self._search(arguments, base)
            return
        with stage("planning the runs"):
            swept, jobs = self._plan(arguments, base)
        from hw1.measures.take import asks_of, measure_of

        asks = asks_of(jobs[0].settings.measures)
        for ask in asks:
            measure_of(ask)  # refuses its settings
        study = _plain(self.config.study)
        question = None
        if study:
            from hw1.studies.protocol import make

            question = make(study)
        to_train, complete, lacking = self._standing(jobs, asks)
        record = self._record(arguments, swept, study, asks, jobs)
        from hw1.report.conclude import conclude, digest, earlier

        before = [] if to_train or lacking else earlier(base, digest(base, record))
        if question is not None and not before:  # what was concluded was checked, and a check may load torch
            question.check([job.settings for job in jobs], swept)
        if hint := of_other_threads(to_train, base):
            say(hint, file=sys.stderr)
        if self.dry_run:
            with stage("timing some steps of each kind of run"):
                lines = listing(jobs, to_train, lacking, base)
            say(*lines)
            return
        if before:
            remove_left_below(base)
            settle(base)
            say(f"{self.config.name}: nothing to do: {count(len(jobs), 'run')} complete, measured and drawn")
            say(*before)
            return
        launched, to_train, to_measure = self._allotted(base, jobs, to_train, complete, lacking, asks)
        if warning := crowded(workers_of(self.launcher, to_train), to_train):
            say(warning, file=sys.stderr)
        opened = reopened(base, record)
        with folder_errors():
            folder = opened[0] if opened else new_folder(base / "sweeps")
        _prepare_to_sign()
        known = opened[1] if opened else {}
        record |= {"started": known.get("started", record["started"])} | self._launching(launched, to_train, known)
        forget(to_measure, asks)
        also = f", {len(to_measure)} to measure" if to_measure else ""
        with hold(folder):  # while the command is at work
            write_record(folder / "sweep.json", record)
            vouch_folder(folder)
            at_work_on(folder)
            what = "read" if jobs[0].settings.value("adopted") else "train"
            line = f"{record['name']}: {count(len(jobs), 'run')}, {len(to_train)} to {what}{also}, in {base}"
            say(line)
            try:
                self._pieces([] if to_train else to_measure, asks, folder / "sweep.json", record)
                lost = launch(self.launcher, launched, folder / "sweep.json", record)
                if study:
                    self._parts(folder, jobs[0], folder / "sweep.json", record)
                with at_most(self._most_cores()), stage(f"measuring and drawing {record['name']}"):
                    lines = conclude(folder)
                settle(base)
            except Left as left:
                answer.append(left.told(folder))
                return
            except KeyboardInterrupt:
                write_record(folder / "sweep.json", {**record, "status": "interrupted"})
                interrupted(record)
        self._end(folder, lines, lost)

    def _search(self, arguments: Sequence[str], base: Path) -> None:
        """Train what Optuna asks for, batch by batch, and conclude; see `searching`.

        Raises:
            ConfigError: a setting is refused; of the first batch's runs, before anything trains.
        """
        from hw1.measures.take import asks_of, measure_of
        from hw1.report.conclude import conclude, digest, earlier

        assert self.config is not None
        rest, intervals = without_intervals(arguments, self._planner.parser)
        search = Search.of(self.search, intervals)
        if twice := [word for word in rest if word.lstrip("+").partition("=")[0] in search.keys]:
            raise ConfigError(f"{KEY}.space: got a key that is typed as well, {twice[0]}; remove one of them")
        trials = Trials(search)
        if _plain(self.config.study):
            raise ConfigError(f"{KEY}: got it beside a study, which asks something else of its runs; add study=null")
        jobs: dict[str, Job] = {}
        of_trials: list[list[str]] = []
        record: dict[str, Any] = {}
        folder: Path | None = None
        lost: dict[str, str] = {}
        with ExitStack() as held:
            for batch in trials.batches():
                with stage("planning the runs"):
                    plans = [self._plan([*words, *rest], base) for words in batch]  # a folder's name begins with them
                if not record:
                    swept, first = plans[0]
                    trials.search.check([job.settings for job in first])
                    asks = asks_of(first[0].settings.measures)
                    for ask in asks:
                        measure_of(ask)  # refuses its settings
                    record = self._record(arguments, [*trials.search.keys, *swept], None, asks, [])
                    record["search"] = trials.record([])
                planned = {job.key: job for _, found in plans for job in found}
                new = [job for key, job in planned.items() if key not in jobs]  # trials may be alike
                to_train, complete, lacking = self._standing(new, asks)
                jobs |= {job.key: job for job in new}
                of_trials += [[job.key for job in found] for _, found in plans]
                record["runs"] = _entries(jobs.values())
                if (to_train or lacking) and self.dry_run:
                    lines = listing(list(jobs.values()), to_train, lacking, base)
                    left = trials.search.trials - len(trials.words)
                    say(
                        "\n".join([*lines, f"and {count(left, 'trial')} that depend on these" if left else ""]).rstrip()
                    )
                    return
                if to_train or lacking:
                    launched, to_train, to_measure = self._allotted(base, new, to_train, complete, lacking, asks)
                    if folder is None:
                        folder = self._opened(base, held)
                        say(f"{record['name']}: searching {count(trials.search.trials, 'trial')}, in {base}")
                    record |= self._launching(launched, to_train, record)
                    forget(to_measure, asks)
                    write_record(folder / "sweep.json", record)
                    try:
                        lost |= launch(self.launcher, launched, folder / "sweep.json", record)
                    except KeyboardInterrupt:
                        write_record(folder / "sweep.json", {**record, "status": "interrupted"})
                        interrupted(record)
                trials.tell([_value(trials.search, [jobs[job.key] for job in found], asks) for _, found in plans])
                names = [[jobs[key].folder.name for key in keys] for keys in of_trials]
                record["search"] = trials.record(names)
            if folder is None and (before := earlier(base, digest(base, record))):
                say(f"{record['name']}: nothing to do: {count(len(jobs), 'run')} complete, measured and drawn")
                say(*before)
                return
            if self.dry_run:
                say("\n".join(listing(list(jobs.values()), [], {}, base)))
                return
            folder = folder or self._opened(base, held)
            write_record(folder / "sweep.json", {**self._launching([], []), **record})
            with at_most(self._most_cores()), stage(f"drawing {record['name']}"):
                lines = conclude(folder)
        self._end(folder, lines, lost)

    # Parts of a command

    def _opened(self, base: Path, held: ExitStack) -> Path:
        """The new folder of a sweep, which is held while the command is at work."""
        with folder_errors():
            folder = new_folder(base / "sweeps")
        _prepare_to_sign()
        vouch_folder(folder)
        held.enter_context(hold(folder))
        return folder

    def _standing(self, jobs: Sequence[Job], asks: Sequence[Ask]) -> tuple[list[Job], list[Job], dict[str, list[Ask]]]:
        """The checked jobs that are to train, those that are complete, and the measures that these lack."""
        for job in jobs:  # Hydra writes a log there before the job itself looks
            for room in refuse_links(job.folder):
                if not self.dry_run:
                    remove_room(room)
        again = self._trained_otherwise(jobs)
        to_train, complete, damage = list[Job](), list[Job](), list[str]()
        for job in jobs:  # one look at each, whose result is read once: there may be ten thousand
            result = None if job.folder in again else complete_result(job.folder)
            (to_train if result is None else complete).append(job)
            damage += self._damage(job.folder, result) if result is not None else []
        if damage:
            raise ConfigError("\n".join(damage))
        lacking = lacking_measures(complete, asks)
        for job in to_train if not self.dry_run else ():
            if said := mend_unfinished(job.folder):
                say(said, file=sys.stderr)
        if to_train:
            if (prepare := getattr(self.launcher, "prepare", None)) is not None and not self.dry_run:
                prepare([job.settings for job in to_train])
            with stage(
                "loading torch, checking the runs"
            ):  # before the study's check: what no run can take is the better to name
                check_runs(to_train, asks)
        return to_train, complete, lacking

    def _damage(self, folder: Path, result: Mapping[str, Any]) -> list[str]:
        """What is wrong with a finished run, when what costs nothing was written again."""
        damage = passing_damage(folder, result)
        if damage and not self.dry_run and (said := mend_finished(folder, result)):
            say(said, file=sys.stderr)
            return passing_damage(folder)
        return damage

    def _record(
        self, arguments: Sequence[str], swept: Sequence[str], study: Any, asks: Sequence[Ask], jobs: Sequence[Job]
    ) -> dict[str, Any]:
        """The content of a sweep's record before anything is launched."""
        assert self.config is not None
        return {
            "format": FORMAT,
            "name": str(self.config.name),
            "status": "running",
            "command": [*self._typed(), *as_typed(arguments)],
            "program": training(),
            "started": time.time(),
            "budget": budget_name(self._planner.master()),
            "swept": list(swept),
            "about": OmegaConf.to_container(self.config.about, resolve=True) if "about" in self.config else {},
            "study": study,
            "measures": [ask.record() for ask in asks],
            "code": code_of_node([study, [ask.node for ask in asks]]),  # of the user's own
            "runs": _entries(jobs),
        }

    def _allotted(
        self,
        base: Path,
        jobs: Sequence[Job],
        to_train: Sequence[Job],
        complete: Sequence[Job],
        lacking: Mapping[str, Sequence[Ask]],
        asks: Sequence[Ask],
    ) -> tuple[list[Job], list[Job], list[Job]]:
        """The jobs that are launched: all, those that train, those that measure; the first have folders now."""
        todo = allot(base, to_train, self.rerun)
        if self.go_on and (lines := go_on(todo, base)):
            say("\n".join(lines))
        finished = {job.key for job in complete}
        ended = [job for job in _others(jobs, todo) if job.key in lacking or job.key not in finished]
        to_measure = ended if asks else []
        idle = _others(_others(jobs, todo), to_measure)
        return _others(jobs, idle), todo, to_measure

    def _end(self, folder: Path, lines: Sequence[str], lost: Mapping[str, str]) -> None:
        """Say what a sweep came to, and leave by exit code 1 where something failed, or was taken over."""
        say(*lines)
        concluded = read_record(folder / "sweep.json")
        _say_failures({**concluded["failed"], **lost})
        if lost or concluded["status"] != "complete":
            sys.exit(1)

    def _measure(self, path: Path, arguments: Sequence[str], answer: list[str]) -> None:
        """Take measures of a sweep's finished runs; its tables, figures and page take them in.

        A command that leaves appends its answer.

        Raises:
            ConfigError: a measure or another word is refused, the sweep has no finished run, or a command is still at
                work on it.
        """
        from hw1.measures.take import measure_of

        assert self.config is not None and self.hydra_context is not None
        sweep = Sweep.read(path)
        base, finished = sweep.path.parent.parent, sweep.complete().runs
        if not finished:
            raise ConfigError(f"{path}: got a sweep without a finished run, expected one; run its command first")
        try:  # another measuring command has it for a moment, in the end
            hold(sweep.path, 0 if sweep.record.get("status") == "running" else None).release()
        except HeldError:
            raise ConfigError(
                f"{path}: a command is still at work on this sweep; measure it when that has ended"
            ) from None
        asks = asks_of_command(self.config, self.hydra_context.config_loader, sweep, arguments)
        for ask in asks:
            measure_of(ask)  # refuses its settings
        if not self.keep:
            refuse_changed([run for run in finished if run.is_signed], READING)  # others are judged
        words = [f"measured_sweep={quoted(str(sweep.path))}"]
        jobs = [Job(words, run.settings, run.path) for run in finished]
        lacking = lacking_measures(jobs, asks)
        to_measure = [job for job in jobs if job.key in lacking]
        for run in finished:
            if any(job.folder == run.path for job in to_measure):  # else each of them would say so, as a failure
                run.dataset_node()
                if self.keep:
                    keep_code(run.path, run.settings.plain, run.key)
        line = f"{sweep.record['name']}: {count(len(finished), 'run')}, {len(to_measure)} to measure, in {base}"
        say(line)
        if self.dry_run:
            return
        record = {
            "name": sweep.record["name"],
            "measures": [ask.record() for ask in asks],
            "runs": sweep.record["runs"],
        }
        _prepare_to_sign()
        record |= self._launching(to_measure, [])
        forget(to_measure, asks)
        # A record of its own: other commands may measure the same sweep.
        with tempfile.NamedTemporaryFile("w", dir=sweep.path, prefix="measuring-", suffix=".json") as file:
            file.write(json.dumps(record))
            file.flush()
            try:
                self._pieces(to_measure, asks, Path(file.name), record)
                lost = launch(self.launcher, to_measure, Path(file.name), record)
            except Left as left:
                answer.append(left.told(sweep.path))
                return
            except KeyboardInterrupt:
                interrupted(record)
        settle(base)
        with at_most(self._most_cores()), stage(f"drawing {sweep.record['name']}"):
            lines, failed = take_in(sweep.path, asks, [run.path for run in finished])
        say(*lines)
        failed |= lost
        _say_failures(failed)
        if failed:
            sys.exit(1)

    def _pieces(self, jobs: Sequence[Job], asks: Sequence[Ask], file: Path, record: Mapping[str, Any]) -> None:
        """Have jobs compute the pieces of measures of finished runs, where these are fewer than workers, or as told."""
        assert self.config is not None
        settings = [job.settings for job in jobs]
        if number := jobs_asked(self.pieces, self.launcher, self.config.hydra.launcher, settings):
            launch_pieces(self.launcher, jobs, asks, number, file, record)

    def _parts(self, sweep: Path, job: Job, file: Path, record: Mapping[str, Any]) -> None:
        """Have jobs compute what its study measures, where the launcher is not our own, whose cores the study uses."""
        assert self.config is not None
        if self.pieces == "auto" and hasattr(self.launcher, "count"):
            return
        if number := jobs_asked(self.pieces, self.launcher, self.config.hydra.launcher, [job.settings]):
            launch_parts(self.launcher, replace(job, folder=sweep), number, file, record)

    def _most_cores(self) -> int | None:
        """Cores that a study may use: under Hydra's basic launcher all stays in this process, for a debugger's sake."""
        assert self.config is not None
        basic = str(self.config.hydra.launcher.get("_target_")).endswith(".BasicLauncher")
        most: int | None = 1 if basic else getattr(self.launcher, "workers", None)
        return most

    def _launching(
        self, jobs: Sequence[Job], to_train: Sequence[Job], before: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What jobs read of the command that launches them, which may have launched others `before`.

        Raises:
            ConfigError: the launcher cannot launch them, for want of a package say.
        """
        if jobs and (ready := getattr(self.launcher, "ready", None)) is not None:
            ready([job.settings for job in jobs])
        known = before or {}
        return {
            "trained": [*dict.fromkeys([*known.get("trained", []), *(job.folder.name for job in to_train)])],
            "launched": [*dict.fromkeys([*known.get("launched", []), *(job.folder.name for job in jobs)])],
            "launched_at": known.get("launched_at", time.time()),
            # Finished runs are measured side by side with one thread each: more would slow each other down.
            "measuring_threads": None if workers_of(self.launcher, jobs) in (None, 1) else 1,
        }

    # Planning

    def _typed(self) -> list[str]:
        """The words of the command that shape the sweep and are settings of the sweeper's."""
        assert self.config is not None
        shaping = tuple(f"hydra.sweeper.{name}=" for name in ("zip", "search"))
        return [word for word in self.config.hydra.overrides.hydra if word.startswith(shaping)]

    def _parse_config(self) -> list[str]:
        """The words of `params`; what is null is no longer swept."""
        return [f"{key}={values}" for key, values in self.words.items() if values is not None]

    def _plan(self, arguments: list[str], base: Path) -> tuple[list[str], list[Job]]:
        """The swept keys, and every job of the sweep; no folder is made."""
        swept, jobs = self._planner.plan(arguments, base)
        vouch(job.settings.plain for job in jobs)
        return swept, jobs

    @cached_property
    def _planner(self) -> Planner:
        assert self.hydra_context is not None and self.config is not None
        return Planner(self.config, self.hydra_context.config_loader, self._parse_config(), self.zip)

    def _trained_otherwise(self, jobs: Iterable[Job]) -> set[Path]:
        """The folders of runs to train again, as their code has changed."""
        if self.rerun and self.keep:
            raise ConfigError("--rerun, --keep: got both, expected one of them")
        if not self.rerun and not self.keep:
            refuse_changed(begun(jobs), TRAINING)
        for run in begun(jobs) if self.keep else ():
            keep_code(run.path, run.settings.plain, run.key)
        return {run.path for run in changed(begun(jobs))} if self.rerun else set()


def _value(search: Search, jobs: Sequence[Job], asks: Sequence[Ask]) -> float | None:
    """What a trial came to."""
    if not all(is_complete(job.folder) for job in jobs):
        return None
    return value_of(search, [Run(job.folder, job.settings) for job in jobs], asks)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _say_failures(failed: Mapping[str, str]) -> None:
    for name, error in failed.items():
        say(f"failed: {name}: {error}", file=sys.stderr)


def _prepare_to_sign() -> None:
    """Make the user's key before workers need it."""
    if problem := make_key():
        say(f"results are not signed: {problem}", file=sys.stderr)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ConfigError(f"name: got {name!r}, expected letters, digits, '_', '-' and '.': it names a folder")


def _others(jobs: Iterable[Job], some: Iterable[Job]) -> list[Job]:
    """The jobs without some of them."""
    keys = {job.key for job in some}
    return [job for job in jobs if job.key not in keys]


def _entries(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    return [{"key": job.key, "folder": job.folder.name, "overrides": job.overrides} for job in jobs]
