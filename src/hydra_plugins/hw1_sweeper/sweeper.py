"""`hydra/sweeper=hw1`: plans the runs of a command, trains those that are missing, and has the study conclude.

Hydra imports this file at every start: it stays free of torch.
"""

import copy
import itertools
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from hw1.command import explain
from hw1.files import new_folder, read_json, write_json
from hw1.runs import find_run, is_complete, slug_of
from hw1.training.budget import budget_name, budget_words, limited
from hw1.training.identity import WITHOUT_EFFECT, ConfigError, run_key, select
from hydra_plugins.hw1_sweeper.listing import Job, count, crowded, listing

# Keys that say where results go or what is asked of them: sweeping one would tear a sweep apart.
_UNSWEEPABLE = ("experiment", "name", "output", "study", "sweep", "hydra", "logger", "dataset.root", "budget", "quick")

_OF_MNIST = ("hw1.data.Mnist", "hw1.data.MnistMean")  # data sets whose source can be `auto`


@dataclass
class Hw1SweeperConf:
    """Settings of the sweeper; an experiment fills `params`, and a variant drops an inherited one with null."""

    _target_: str = "hydra_plugins.hw1_sweeper.sweeper.Hw1Sweeper"
    params: dict[str, str | None] | None = None
    dry_run: bool = False


ConfigStore.instance().store(group="hydra/sweeper", name="hw1", node=Hw1SweeperConf, provider="hw1")


class Hw1Sweeper(BasicSweeper):
    """Every command is a sweep; a run that is complete is not trained again. Scaling out is the launcher's."""

    def __init__(self, params: dict[str, str | None] | None = None, dry_run: bool = False) -> None:
        super().__init__(max_batch_size=None, params=params)
        self.dry_run = dry_run

    def sweep(self, arguments: list[str]) -> None:
        """Plan, train what is missing, conclude. Leaves by exit code 1 if a run failed, 130 if interrupted.

        With `dry_run` nothing is trained: the runs are listed, with an estimate.

        Raises:
            ConfigError: a setting of some run is refused; nothing was trained.
        """
        assert self.config is not None
        base = Path(str(self.config.hydra.sweep.dir)).absolute()
        _check_name(str(self.config.name))
        swept, jobs = self._plan(arguments, base)
        node = self.config.study
        study = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        question = None
        if study:
            from hw1.studies.protocol import make

            question = make(study)
        todo = [job for job in jobs if not is_complete(job.folder)]
        if todo:
            _validate(todo)  # before the study's check: a value that no run can take is the better thing to name
        record = {
            "format": 1,
            "name": str(self.config.name),
            "status": "running",
            "command": arguments,
            "started": time.time(),
            "budget": budget_name(self._master()),
            "swept": swept,
            "study": study,
            "runs": [{"key": job.key, "folder": job.folder.name, "overrides": job.overrides} for job in jobs],
        }
        from hw1.report.conclude import conclude, digest, earlier

        before = [] if todo else earlier(base, digest(base, record))
        if question is not None and not before:  # what was concluded was checked, and a check may load torch
            question.check([job.settings for job in jobs], swept)
        if self.dry_run:
            print("\n".join(listing(jobs, todo, base)))
            return
        if before:
            print(f"{self.config.name}: nothing to do: {count(len(jobs), 'run')} complete, measured and drawn")
            print("\n".join(before))
            return
        if todo:
            todo = _allot(base, todo)
            if warning := crowded(self.config.hydra.launcher.get("n_jobs"), todo):
                print(warning, file=sys.stderr)
        record["trained"] = [job.folder.name for job in todo]
        with _folder_errors():
            folder = new_folder(base / "sweeps")
        write_json(folder / "sweep.json", record)
        print(f"{self.config.name}: {count(len(jobs), 'run')}, {len(todo)} to train, in {base}", flush=True)
        try:
            self._launch(todo, folder)
            lines = conclude(folder)
        except KeyboardInterrupt:
            write_json(folder / "sweep.json", {**record, "status": "interrupted"})
            print(
                f"{self.config.name}: interrupted; the same command goes on from the last checkpoints", file=sys.stderr
            )
            sys.exit(130)
        print("\n".join(lines))
        concluded = read_json(folder / "sweep.json")
        for name, error in concluded["failed"].items():
            print(f"failed: {name}: {error}", file=sys.stderr)
        if concluded["status"] != "complete":
            sys.exit(1)

    # Planning

    def _parse_config(self) -> list[str]:
        """The words of `params`; what is null is no longer swept."""
        return [f"{key}={values}" for key, values in self.params.items() if values is not None]

    def _plan(self, arguments: list[str], base: Path) -> tuple[list[str], list[Job]]:
        """Compose every job of the sweep before any folder is made."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = parser.parse_overrides(arguments)
        budget = parser.parse_overrides(budget_words(self._master()))
        named = {word.key_or_group for word in typed}
        own = [word for word in budget if word.key_or_group not in named]
        named |= {word.key_or_group for word in own}
        # The command line replaces what the budget sets, and both replace what is swept by default.
        by_default = [word for word in parser.parse_overrides(self._parse_config()) if word.key_or_group not in named]
        words = [*self._fewer_seeds(by_default, parser), *own, *typed]
        swept = list(dict.fromkeys(word.key_or_group for word in words if word.is_sweep_override()))
        for key in swept:
            if any(key == name or key.startswith(f"{name}.") for name in _UNSWEEPABLE):
                hint = "experiment" if key == "experiment" else "value"
                raise ConfigError(
                    f"{key}: cannot be swept: give one {hint} a command (quote a comma that is part of it)"
                )
        combinations = self.split_arguments(words, None)[0]
        problems: dict[str, None] = {}
        composed = []
        compose = _Composer(self.hydra_context.config_loader, self.config, parser)
        for overrides in combinations:
            try:
                composed.append((overrides, compose(overrides)))
            except Exception as error:  # explained in one line; each distinct one once, below
                problems[explain(error, self.hydra_context.config_loader)] = None
        if problems:
            raise ConfigError("\n".join(problems))
        pins = _Pins({*named, *swept})
        jobs = []
        readable = [*swept, *(word.key_or_group for word in words if word not in own)]
        for overrides, settings in composed:
            pinned = pins(settings)
            key = run_key(settings)
            jobs.append(
                Job(overrides, settings, key, base / "runs" / f"{_slug(readable, overrides, settings)}-{key}", pinned)
            )
        twice = [one for one, two in itertools.combinations(jobs, 2) if one.key == two.key]
        if twice:
            raise ConfigError(f"{' '.join(twice[0].overrides)}: the sweep names this run twice; remove one of them")
        for job in jobs:
            job.folder = find_run(base / "runs", job.key) or job.folder
        return swept, jobs

    def _master(self) -> dict[str, Any]:
        """What the budget needs of the settings that all runs share."""
        settings = OmegaConf.to_container(OmegaConf.masked_copy(self.config, ["budget", "quick"]), resolve=True)
        assert isinstance(settings, dict)
        return {str(name): value for name, value in settings.items()}

    def _fewer_seeds(self, words: list[Override], parser: OverridesParser) -> list[Override]:
        """The words of an experiment with no more seeds than the budget allows."""
        most = (self._master()["budget"].get("limits") or {}).get("seeds")
        if most is None:
            return words
        kept = []
        for word in words:
            if word.key_or_group == "seed" and word.is_discrete_sweep():
                seeds = itertools.islice(word.sweep_string_iterator(), most)
                word = parser.parse_override(f"seed={','.join(seeds)}")
            kept.append(word)
        return kept

    # Launching

    def _launch(self, jobs: list[Job], sweep: Path) -> None:
        """Launch; after a launcher's error, those that had not started, then each that was in flight alone."""
        assert self.launcher is not None
        batches = [jobs] if jobs else []
        while batches:
            batch = batches.pop(0)
            begun = time.time()
            try:
                results = self.launcher.launch([self._words(job, sweep) for job in batch], initial_job_idx=0)
            except Exception as error:  # a launcher's own: a killed worker, a lost node
                lost = [job for job in batch if not (job.folder / "result.json").exists()]
                started = [job for job in lost if _written_since(job.folder / "config.yaml", begun)]
                waiting = [job for job in lost if job not in started]
                if len(batch) == 1 or not lost:
                    for job in lost:
                        _record_failure(job, error)
                    continue
                print(f"launcher: {explain(error)}; going on with {count(len(lost), 'run')}", file=sys.stderr)
                alone = lost if waiting == batch else started  # no run started: not even a smaller batch will
                batches += ([waiting] if waiting and waiting != batch else []) + [[job] for job in alone]
                continue
            for job, result in zip(batch, results, strict=True):
                error = result._return_value
                if isinstance(error, Exception) and not (job.folder / "result.json").exists():
                    _record_failure(job, error)

    def _words(self, job: Job, sweep: Path) -> list[str]:
        subdir = str(job.folder.relative_to(job.folder.parent.parent))
        return [*job.overrides, *job.pins, f"hydra.sweep.subdir={_quoted(subdir)}", f"sweep={_quoted(str(sweep))}"]


class _Composer:
    """Composes once per combination of groups and applies plain values to copies: 1 ms a job instead of 60."""

    def __init__(self, loader: Any, master: DictConfig, parser: OverridesParser) -> None:
        self._loader, self._master, self._parser = loader, master, parser
        self._bases: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: list[str]) -> dict[str, Any]:
        parsed = [self._parser.parse_override(word) for word in overrides]
        plain = [word for word in parsed if self._is_plain(word)]
        if any(word.is_add() or word.is_force_add() or word.is_delete() for word in parsed):
            plain = []  # what is added and removed depends on the order: left to Hydra as a whole
        structural = tuple(word.input_line for word in parsed if word not in plain)
        if structural not in self._bases:
            config = self._loader.load_sweep_config(self._master, list(structural))
            with open_dict(config):
                del config["hydra"]
            self._bases[structural] = config
        config = copy.deepcopy(self._bases[structural])
        ConfigLoaderImpl._apply_overrides_to_config(plain, config)
        settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert isinstance(settings, dict)
        return {str(name): value for name, value in settings.items()}

    def _is_plain(self, word: Override) -> bool:
        key = word.key_or_group
        return not (key.startswith("hydra") or self._loader.get_group_options(key))


class _Pins:
    """Decides what a budget limits and, once per command, what is `auto`; writes it into settings and overrides.

    Args:
        given: keys that the command sets or sweeps: a budget does not limit them.
    """

    def __init__(self, given: set[str]) -> None:
        self._given = given
        self._decided: dict[tuple[str, Any], str] = {}

    def __call__(self, settings: dict[str, Any]) -> list[str]:
        limits = limited(settings, self._given)
        for key, value in limits.items():
            group, _, name = key.rpartition(".")
            (select(settings, group) if group else settings)[name] = value
        return [*(f"{key}={value}" for key, value in limits.items()), *self._source(settings)]

    def _source(self, settings: dict[str, Any]) -> list[str]:
        if select(settings, "dataset.source") != "auto" or select(settings, "dataset._target_") not in _OF_MNIST:
            return []
        from hw1.data.source import choose_mnist_source

        root = select(settings, "dataset.root")
        if ("source", root) not in self._decided:
            try:
                self._decided["source", root] = choose_mnist_source(root, "auto")
            except (ValueError, OSError) as error:
                raise ConfigError(f"dataset.{error}" if str(error).startswith("root:") else str(error)) from error
        settings["dataset"]["source"] = self._decided["source", root]
        return [f"dataset.source={settings['dataset']['source']}"]


def _validate(jobs: Iterable[Job]) -> None:
    """Refuse every bad value of every job before the first one trains."""
    from hw1.training.build import validate

    problems: dict[str, None] = {}
    for job in jobs:
        try:
            validate(job.settings, job.folder)
        except ConfigError as error:
            problems[str(error)] = None
    if problems:
        raise ConfigError("\n".join(problems))


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ConfigError(f"name: got {name!r}, expected letters, digits, '_', '-' and '.': it names a folder")


class _folder_errors:
    """Errors of making the output folder, which name the key that chose it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, OSError):
            raise ConfigError(
                f"output: got a folder that cannot be made: {error.strerror}: {error.filename}; expected a folder, or "
                "a path where one can be made"
            ) from error


def _allot(base: Path, jobs: Iterable[Job]) -> list[Job]:
    """Make the folders of runs under one lock; returns those that are still to train.

    A run is found by its key; the slug is the first command's. Another command may have finished some by now.
    """
    todo = []
    with _folder_errors():
        base.mkdir(parents=True, exist_ok=True)
        with FileLock(base / ".lock"):
            for job in jobs:
                job.folder = find_run(base / "runs", job.key) or job.folder
                if not is_complete(job.folder):
                    job.folder.mkdir(parents=True, exist_ok=True)
                    (job.folder / "result.json").unlink(missing_ok=True)  # of a failed attempt: it is tried again
                    todo.append(job)
    return todo


def _written_since(file: Path, moment: float) -> bool:
    return file.exists() and file.stat().st_mtime >= moment - 1  # some file systems count whole seconds


def _record_failure(job: Job, error: Exception) -> None:
    """A run that never came to fit, or took its worker with it, says so in its own folder."""
    result = {"format": 1, "status": "failed", "key": job.key, "name": job.settings["name"], "overrides": job.overrides}
    write_json(job.folder / "result.json", {**result, "seed": job.settings["seed"], "error": explain(error)})


def _slug(names: Iterable[str], overrides: Iterable[str], settings: dict[str, Any]) -> str:
    """A readable folder name: swept settings first, then the command's others that can change the result."""
    typed = {word.lstrip("+").partition("=")[0]: word.partition("=")[2] for word in overrides}
    parts = []
    for name in dict.fromkeys(names):
        silent = any(name == path or name.startswith(f"{path}.") for path in (*WITHOUT_EFFECT, "experiment"))
        if name in typed and not silent:
            value = select(settings, name, typed[name])
            parts.append(f"{name}={typed[name] if isinstance(value, dict) else _short(value)}")
    return slug_of(parts)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
