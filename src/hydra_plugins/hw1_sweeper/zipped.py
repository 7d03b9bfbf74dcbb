"""The combinations of values that a sweep asks for: keys multiply, but those that are zipped go side by side.

Hydra imports this file at every start: it stays free of torch.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from hw1.settings import ConfigError

_KEY = "--zip (hydra.sweeper.zip)"
_FORM = "expected lists of swept keys, as [[optimizer.lr,dataset.batch_size]], or --zip optimizer.lr,dataset.batch_size"


def zips(value: Any, words: Sequence[Override]) -> list[tuple[str, ...]]:
    """The groups of keys whose values go side by side.

    Args:
        value: of the setting: a list of keys, or a list of such lists; a key may be named by its end, as `lr`.
        words: of the sweep.

    Raises:
        ConfigError: it is neither, a key is not swept or stands there twice, or lengths differ.
    """
    value = [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value
    swept = {word.key_or_group: len(values_of(word)) for word in words if word.is_sweep_override()}
    found: list[tuple[str, ...]] = []
    for group in value or []:
        if not isinstance(group, list) or len(group) < 2 or not all(isinstance(name, str) for name in group):
            raise ConfigError(f"{_KEY}: got {group}, {_FORM}")
        keys = tuple(_swept_key(name, swept, words) for name in group)
        if twice := [key for key in keys if keys.count(key) > 1 or any(key in others for others in found)]:
            raise ConfigError(f"{_KEY}: got {twice[0]} twice, expected each key once")
        lengths = {key: swept[key] for key in keys}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{number} of {key}" for key, number in lengths.items())
            raise ConfigError(f"{_KEY}: got other numbers of values ({said}), expected as many of each")
        found.append(keys)
    return found


def combinations(words: Sequence[Override], together: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """The words of every job, in the order in which Hydra has them; what is zipped counts where its first key stands.

    Args:
        words: of the sweep; of one key, the last counts.
        together: groups of keys.
    """
    of_group = {key: group for group in together for key in group}
    columns: dict[Any, dict[str, list[str]]] = {}
    for word in words:
        column = columns.setdefault(of_group.get(word.key_or_group, word.get_key_element()), {})
        column[word.get_key_element()] = [f"{word.get_key_element()}={value}" for value in values_of(word)]
    sides = [list(zip(*column.values(), strict=True)) for column in columns.values()]
    return [list(itertools.chain.from_iterable(one)) for one in itertools.product(*sides)]


def values_of(word: Override) -> list[str]:
    """The values of a word, as they are typed.

    Raises:
        ConfigError: it sweeps an interval, which has no values of its own.
    """
    if not word.is_sweep_override():
        return [word.get_value_element_as_str()]
    if not word.is_discrete_sweep():
        raise ConfigError(
            f"{(word.input_line or '').replace('=', ': got ', 1)}, expected values with commas; an interval is "
            "searched: see hydra.sweeper.search in docs/sweeps.md"
        )
    return list(word.sweep_string_iterator())


def _swept_key(name: str, swept: Mapping[str, int], words: Sequence[Override]) -> str:
    if name in swept:
        return name
    ends = [key for key in swept if key.endswith(f".{name}")]
    if len(ends) == 1:
        return ends[0]
    if len(ends) > 1:
        raise ConfigError(f"{_KEY}: got {name}, expected one of {', '.join(ends)}")
    one = any(word.key_or_group == name for word in words)
    got = f"{name}, which has one value" if one else f"{name}, which is not swept"
    raise ConfigError(f"{_KEY}: got {got}, expected some of: {', '.join(swept) or 'keys with several values'}")
