"""Settings of a group whose options are swept: `model=mlp,rnn model.dropout=0.1`. Not every option takes each.

Hydra composes a command once without what is swept, hence with the group's default, which need not have the setting:
`apart` has it taken for swept, and `whole` takes that back.

Hydra imports this file at every start: it stays free of torch.
"""

import re
from collections.abc import Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override


def whole(arguments: Sequence[str], parser: OverridesParser) -> list[str]:
    """The words of a command as they were typed, before `hw1.sweep_words.apart`."""
    parsed = parser.parse_overrides(list(arguments))
    swept = {word.key_or_group for word in parsed if word.is_sweep_override()}
    return [_plain(word) if word.key_or_group.partition(".")[0] in swept else word.input_line or "" for word in parsed]


def _plain(word: Override) -> str:
    values = list(word.sweep_string_iterator()) if word.is_choice_sweep() else []
    return f"{word.get_key_element()}={values[0]}" if len(values) == 1 else word.input_line or ""


class Lacking:
    """The swept options that have not got a setting, of those that a sweep names."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[str, str]] = {}  # option: what Hydra said

    def note(self, overrides: Sequence[str], error: Exception, said: str) -> bool:
        """Remember that a job has no such setting; whether that was what was wrong with it.

        Args:
            overrides: the words of the job.
            error: what composing them raised.
            said: it in one line.
        """
        missing = re.search(r"Could not override '([^']+)'", str(error))
        if missing is None or not (option := _option(overrides, missing[1])):
            return False
        self._by_key.setdefault(missing[1], {})[option] = said
        return True

    def lines(self, combinations: Sequence[Sequence[str]]) -> list[str]:
        """One line a setting that some of the options lack; what was said of it, where all do."""
        found: list[str] = []
        for key, said in self._by_key.items():
            options = dict.fromkeys(_option(words, key) for words in combinations)
            having = [option for option in options if option not in said]
            if not having:
                found += dict.fromkeys(said.values())
                continue
            value = next(word.partition("=")[2] for word in combinations[0] if word.partition("=")[0] == key)
            verb = "does" if len(said) == 1 else "do"
            found.append(
                f"{key}: got {value}, which {_and(list(said))} {verb} not take, expected a setting of each option "
                f"that is swept: give {_and(having)} a command of {'its' if len(having) == 1 else 'their'} own"
            )
        return found


def _option(words: Sequence[str], key: str) -> str:
    """The word of a job that picks the option of a setting's group; "" where none does."""
    picked: Mapping[str, str] = {word.partition("=")[0].partition("@")[0]: word for word in words}
    parts = key.split(".")
    groups = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((picked[group] for group in groups if group in picked), "")


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
