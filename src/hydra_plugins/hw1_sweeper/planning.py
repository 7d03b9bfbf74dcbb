"""What a command asks for, with its experiment's sweep and its budget, as the jobs of a sweep.

Hydra imports this file at every start: it stays free of torch.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from hw1.environment import refuse_secrets
from hw1.settings import ConfigError
from hw1.settings.budget import budget_words
from hydra_plugins.hw1_sweeper.composing import Composer
from hydra_plugins.hw1_sweeper.plan import Job, Pins, jobs_of
from hydra_plugins.hw1_sweeper.zipped import combinations, zips

# Keys that say where results go or what is asked of them: sweeping one would tear a sweep apart.
UNSWEEPABLE = (
    *("experiment", "name", "output", "study", "measures", "sweep", "measured_sweep", "hydra", "logger"),
    *("dataset.root", "budget", "quick", "about"),
)


class Planner:
    """Makes the jobs of a command.

    Args:
        config: as Hydra composed it, without what is swept.
        loader: Hydra's.
        by_default: what an experiment sweeps, as words; what is typed replaces it.
        together: the setting `hydra.sweeper.zip`.
    """

    def __init__(self, config: DictConfig, loader: Any, by_default: Sequence[str], together: Any) -> None:
        self._config, self._loader, self._by_default, self._together = config, loader, by_default, together
        self.parser = OverridesParser.create(config_loader=loader)
        self._compose = Composer(loader, config, self.parser)

    def plan(self, arguments: Sequence[str], base: Path) -> tuple[list[str], list[Job]]:
        """The swept keys, and every job of the sweep; no folder is made.

        Args:
            arguments: the words of the command.
            base: `multirun/<name>`.

        Raises:
            ConfigError: one line a problem.
        """
        refuse_secrets(OmegaConf.masked_copy(self._config, [str(name) for name in self._config if name != "hydra"]))
        parser = self.parser
        typed = parser.parse_overrides(list(arguments))
        budget = parser.parse_overrides(budget_words(self.master()))
        named = {word.key_or_group for word in typed}
        own = [word for word in budget if word.key_or_group not in named]
        named |= {word.key_or_group for word in own}
        # The command line replaces what the budget sets, and both replace what is swept by default.
        by_default = [word for word in parser.parse_overrides(list(self._by_default)) if word.key_or_group not in named]
        words = [*self._fewer_seeds(by_default), *own, *typed]
        swept = list(dict.fromkeys(word.key_or_group for word in words if word.is_sweep_override()))
        for key in swept:
            if any(key == name or key.startswith(f"{name}.") for name in UNSWEEPABLE):
                hint = "experiment" if key == "experiment" else "value"
                raise ConfigError(
                    f"{key}: cannot be swept: give one {hint} a command (quote a comma that is part of it)"
                )
        for word in typed:
            _refuse_empty(word)
            first, _, rest = word.key_or_group.partition(".")
            if first == "measures" and rest and (name := rest.partition(".")[0]) not in self._picked():
                raise ConfigError(
                    f"{word.key_or_group}: got a setting of a measure that is not asked for; add measures=[{name}]"
                )
        readable = [*swept, *(word.key_or_group for word in words if word not in own)]
        pins = Pins({*named, *swept})
        of_jobs = combinations(words, zips(self._together, words))
        jobs = jobs_of(of_jobs, self._compose, pins, readable, base, self._loader)
        if any(job.settings.measures != jobs[0].settings.measures for job in jobs):
            raise ConfigError("measures: got other settings for some of the runs, expected one for all of a command's")
        return swept, jobs

    def master(self) -> dict[str, Any]:
        """What the budget needs of the settings that all runs share."""
        settings = OmegaConf.to_container(OmegaConf.masked_copy(self._config, ["budget", "quick"]), resolve=True)
        assert isinstance(settings, dict)
        measures = OmegaConf.to_container(self._config.measures)
        return {**{str(name): value for name, value in settings.items()}, "measures": measures}

    def _picked(self) -> list[str]:
        """The measures that the command asks for; an experiment may have settings of others."""
        return [str(name) for name, node in self._config.measures.items() if "_target_" in node]

    def _fewer_seeds(self, words: Sequence[Override]) -> list[Override]:
        """The words of an experiment with no more seeds than the budget allows; those that are zipped stay."""
        limits: Mapping[str, Any] = self.master()["budget"].get("limits") or {}
        most = limits.get("seeds")
        if most is None or "seed" in str(self._together):
            return list(words)
        kept = []
        for word in words:
            if word.key_or_group == "seed" and word.is_discrete_sweep():
                seeds = itertools.islice(word.sweep_string_iterator(), most)
                word = self.parser.parse_override(f"seed={','.join(seeds)}")
            kept.append(word)
        return kept


def _refuse_empty(word: Override) -> None:
    """Refuse a range without values, as range(6,1), or with a step of 0."""
    if not word.is_range_sweep():
        return
    try:
        first = next(word.sweep_string_iterator(), None)
    except ValueError:  # a step of 0
        first = None
    if first is None:
        got = word.input_line.partition("=")[2] if word.input_line else "a range"
        raise ConfigError(f"{word.key_or_group}: got {got}, which holds no value; expected range(FIRST,BEYOND,STEP)")
