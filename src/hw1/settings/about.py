"""What an experiment says of itself in words: title, question, and what to expect. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hw1.settings.conf import read_yaml
from hw1.settings.identity import ConfigError

_HOURS = {"second": 1 / 3600, "minute": 1 / 60, "hour": 1.0}
_WORDS = {"a": 1.0, "an": 1.0, "half a": 0.5, "half an": 0.5}
_TIME = re.compile(r"(?:about )?((.*?) ?(second|minute|hour)s?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class About:
    """An experiment in words.

    Attributes:
        title: of its page.
        question: what it asks, in one sentence.
        expect: how long it takes at full budget, first, and what comes out.
        quick: how long it takes at the quick one.
    """

    title: str = ""
    question: str = ""
    expect: str = ""
    quick: str = ""

    @classmethod
    def of(cls, node: object) -> About:
        """The setting `about` of an experiment; what is missing, or no text, is "".

        Example:
            >>> About.of({"title": "Seeds", "expect": 3})
            About(title='Seeds', question='', expect='', quick='')
        """
        known = node if isinstance(node, Mapping) else {}
        return cls(*(text if isinstance(text := known.get(key), str) else "" for key in cls.__annotations__))

    @property
    def time(self) -> str:
        """How long it takes at full budget, as `expect` says; "" where that begins with no time.

        Example:
            >>> About(expect="About half an hour on 2 cores; two figures.").time
            'half an hour'
        """
        match = _TIME.match(self.expect)
        return match[1] if match else ""

    @property
    def hours(self) -> float:
        """Hours at full budget, as `expect` says.

        Raises:
            ConfigError: it begins with no time.

        Example:
            >>> About(expect="About half an hour on 2 cores; two figures.").hours
            0.5
        """
        match = _TIME.match(self.expect.lower())
        _, number, unit = match.groups() if match else ("", "", "")
        try:
            return (_WORDS[number] if number in _WORDS else float(number)) * _HOURS[unit]
        except (KeyError, ValueError) as error:
            raise ConfigError(
                "about.expect: got no time, expected a number of seconds, minutes or hours first, as 'about 7 minutes'"
            ) from error


def experiments(conf: Path) -> dict[str, About]:
    """What each experiment of a folder of settings says, by name in alphabetical order; variants as group/name.

    Raises:
        ConfigError: a file is no YAML.
    """
    folder, found = conf / "experiment", {}
    names = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    for name in names:
        found[name] = About.of(read_yaml(folder / f"{name}.yaml").get("about"))
    return found
