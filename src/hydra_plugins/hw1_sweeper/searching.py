"""A search: which settings Optuna would have tried next, asked in batches and told what became of them.

The trials are ordinary runs. What is asked depends on the search's settings and on what earlier batches came to, and on
nothing else: not on the number of workers, nor on when a command was interrupted. So the same command finds the runs of
its trials again, and goes on where it stopped.

Hydra imports this file at every start: Optuna is imported when something is searched.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from hw1.help import split_values
from hw1.metrics import is_of_test_set
from hw1.runs import Run
from hw1.settings import ConfigError, RunSettings

KEY = "hydra.sweeper.search"
_FORMS = "log(1e-4,1e-1), interval(0.0,0.9), range(1,9) or choice(a,b)"
_DIRECTIONS = ("minimize", "maximize")
_SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler"}


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        metric: of a finished run; of a trial of several runs (seeds, say) or members, their mean.
        trials: how many.
        space: by dotted key, one of `_FORMS`; of two integers, only integers are tried. A key may begin with a plus, as
            that of any word.
        direction: minimize or maximize.
        sampler: tpe (Bergstra et al. 2011, Algorithms for hyper-parameter optimization) or random.
        seed: of the sampler.
        batch: trials that are asked before any of them has ended; how many run side by side is the launcher's.
    """

    metric: str
    trials: int
    space: Mapping[str, str] = field(default_factory=dict)
    direction: str = "minimize"
    sampler: str = "tpe"
    seed: int = 0
    batch: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise ConfigError(f"{KEY}.metric: got {self.metric!r}, expected a metric, as val/loss")
        if is_of_test_set(self.metric):
            raise ConfigError(
                f"{KEY}.metric: got {self.metric}, expected one of data that may be looked at: a test set that is "
                "searched on measures nothing any more; hold some out: dataset.val_fraction=0.1, and "
                f"metric: {self.metric.replace('test/', 'val/', 1)}"
            )
        for name, least in (("trials", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{KEY}.{name}: got {value!r}, expected an integer of at least {least}")
        for name, known in (("direction", _DIRECTIONS), ("sampler", tuple(_SAMPLERS))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{KEY}.{name}: got {getattr(self, name)!r}, expected {' or '.join(known)}")
        if not isinstance(self.space, Mapping) or not self.space:
            raise ConfigError(f"{KEY}.space: got {self.space!r}, expected what is tried by key, as {_FORMS}")

    @property
    def keys(self) -> list[str]:
        """What is searched, by dotted key."""
        return [_bare(key) for key in self.space]

    @classmethod
    def of(cls, node: Any, intervals: Mapping[str, str]) -> "Search":
        """The search of a setting.

        Args:
            node: what stands at `hydra.sweeper.search`.
            intervals: what is typed as `optimizer.lr=interval(...)`, which replaces what `space` says of it.

        Raises:
            ConfigError: it is none, or a value is refused.
        """
        known = list(cls.__annotations__)
        if not isinstance(node, Mapping):
            raise ConfigError(f"{KEY}: got {node!r}, expected {{metric:val/loss,trials:20,space:{{...}}}}")
        if unknown := [name for name in node if name not in known]:
            raise ConfigError(f"{KEY}.{unknown[0]}: no such setting, expected one of: {', '.join(known)}")
        if missing := [name for name in ("metric", "trials") if node.get(name) is None]:
            raise ConfigError(f"{KEY}.{missing[0]}: got no value, expected one")
        space = node.get("space") or {}
        given = {name: value for name, value in node.items() if value is not None}
        if isinstance(space, Mapping):
            typed = set(map(_bare, intervals))
            space = {**{key: text for key, text in space.items() if _bare(str(key)) not in typed}, **intervals}
        return cls(**{**given, "space": space})

    def check(self, runs: Sequence[RunSettings]) -> None:
        """Refuse runs that will not have the metric.

        Raises:
            ConfigError: it is of the validation set, and there is none.
        """
        if self.metric.startswith("val/") and not all(run.value("dataset.val_fraction") for run in runs):
            raise ConfigError(
                f"{KEY}.metric: got {self.metric} where nothing is held out; expected dataset.val_fraction=0.1 besides"
            )


class Trials:
    """Asks Optuna for trials and tells it what they came to.

    Args:
        search: what is searched.

    Raises:
        ConfigError: Optuna is not installed, or a value of the space is refused.
    """

    def __init__(self, search: Search) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError(f'{KEY}: needs Optuna, which is not installed: pip install "hw1[search]"') from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.version = search, str(optuna.__version__)
        self._space = {key: _distribution(key, text) for key, text in search.space.items()}
        sampler = getattr(optuna.samplers, _SAMPLERS[search.sampler])(seed=search.seed)
        direction: Any = search.direction
        self._study = optuna.create_study(direction=direction, sampler=sampler)
        self._asked: list[Any] = []
        self.words: list[list[str]] = []
        self.values: list[float | None] = []

    def batches(self) -> Iterator[list[list[str]]]:
        """The words of the trials of each batch in turn; `tell` comes before the next."""
        while len(self.words) < self.search.trials:
            number = min(self.search.batch, self.search.trials - len(self.words))
            self._asked = [self._study.ask(self._space) for _ in range(number)]
            words = [[f"{key}={trial.params[key]}" for key in self._space] for trial in self._asked]
            self.words += words
            yield words

    def tell(self, values: Sequence[float | None]) -> None:
        """What the trials of the batch came to; None or a value that is not finite: it failed."""
        from optuna.trial import TrialState

        for trial, value in zip(self._asked, values, strict=True):
            good = value is not None and math.isfinite(value)
            self._study.tell(trial, value if good else None, state=None if good else TrialState.FAIL)
            self.values.append(value if good else None)

    def record(self, runs: Sequence[Sequence[str]]) -> dict[str, Any]:
        """What the record of the sweep says of the search.

        Args:
            runs: the folders of each trial's runs.
        """
        trials = [
            {"words": words, "value": value, "runs": list(folders)}
            for words, value, folders in zip(self.words, self.values, runs, strict=False)
        ]
        return {**asdict(self.search), "optuna": self.version, "tried": trials}


def without_intervals(arguments: Sequence[str], parser: OverridesParser) -> tuple[list[str], dict[str, str]]:
    """The words of a command without those that say an interval, and these as of a space: `optimizer.lr=interval(1,9)`.

    A `tag(log,interval(...))` is one of the logarithm, as in Hydra's own Optuna sweeper.
    """
    rest, found = [], {}
    for word, parsed in zip(arguments, parser.parse_overrides(list(arguments)), strict=True):
        if parsed.is_interval_sweep():
            interval: Any = parsed.value()
            function = "log" if "log" in interval.tags else "interval"
            ends = re.search(r"interval\(([^()=]*)\)", word)  # as typed: integers have become numbers by now
            key = word[: len(word) - len(word.lstrip("+"))] + parsed.key_or_group
            found[key] = f"{function}({ends[1] if ends else f'{interval.start},{interval.end}'})"
        else:
            rest.append(word)
    return rest, found


def value_of(search: Search, runs: Sequence[Run], asks: Sequence[Any]) -> float | None:
    """The metric of a trial, a mean over its runs and their members; None where one of them failed.

    Raises:
        ConfigError: the runs have no such metric.
    """
    found = []
    for run in runs:
        if run.status != "complete":
            return None
        known: dict[str, list[float]] = {}
        for member in range(run.count):
            for name, value in run.metrics(member).items():
                known.setdefault(name, []).append(value)
        for ask in asks:
            if measured := run.measured(ask):
                known |= {name: list(values) for name, values in measured.values.items()}
        if search.metric not in known:
            some = ", ".join(sorted(name for name in known if not is_of_test_set(name)))
            raise ConfigError(f"{KEY}.metric: got {search.metric}, expected one that the runs have: {some}")
        found += known[search.metric]
    return sum(found) / len(found)


def _distribution(key: str, text: Any) -> Any:
    """The distribution that a text describes.

    Raises:
        ConfigError: it describes none.
    """
    from optuna import distributions

    match = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", text) if isinstance(text, str) else None
    try:
        if match is None:
            raise ValueError("no function")
        function, values = match[1], [value.strip() for value in split_values(match[2])]
        if function == "choice" and len(values) > 1 and all(values):
            return distributions.CategoricalDistribution(values)
        numbers: list[Any] = [_number(value) for value in values]
        whole = all(isinstance(number, int) for number in numbers)
        if function == "range" and whole and len(numbers) in (2, 3):
            steps = range(*numbers)
            return distributions.IntDistribution(steps[0], steps[-1], step=steps.step)
        if function in ("log", "interval") and len(numbers) == 2 and numbers[0] < numbers[1]:
            kind: Any = distributions.IntDistribution if whole else distributions.FloatDistribution
            return kind(*numbers, log=function == "log")
        raise ValueError(f"no {function} of {len(values)}")
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{KEY}.space: got {text!r} for {key} ({error}), expected {_FORMS}") from error


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _bare(key: str) -> str:
    return key.lstrip("+")
