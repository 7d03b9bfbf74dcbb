"""What conf/local.yaml sets: a root is passed over by data that have none, errors name the file. No torch.

The file is one for all commands on a machine, whatever data and networks they pick; errors must name it, since nobody
looks for a key that she has not typed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hw1.settings.conf import LOCAL, folders_of, read_yaml, shipped
from hw1.settings.construct import is_node, takes, target_of
from hw1.settings.identity import WITHOUT_EFFECT, ConfigError, select
from hw1.settings.paths import leaves

NAME = f"conf/{LOCAL}"


def local_keys() -> list[str]:
    """The dotted keys that the first conf/local.yaml sets, as Hydra finds it; none where there is none."""
    file = next((file for folder in folders_of(shipped()) if (file := folder / LOCAL).is_file()), None)
    try:
        return [] if file is None else [key for key, _ in leaves(read_yaml(file)) if key != "defaults"]
    except (ConfigError, OSError):  # which Hydra says
        return []


def passed_over(
    settings: Mapping[str, Any], words: Sequence[str], keys: Sequence[str], shared: Collection[str]
) -> Iterator[str]:
    """Those of the keys that say where data lie, or the like, to a data set that does not ask.

    Args:
        settings: of one run, resolved.
        words: of it; what is typed is not passed over.
        keys: of conf/local.yaml.
        shared: settings of `dataset` that are hw1's, whatever its `_target_`.
    """
    for key in keys:
        group, _, name = key.rpartition(".")
        silent = group == "dataset" and key in WITHOUT_EFFECT and name not in shared and key not in _typed(words)
        node = select(settings, group) if silent else None
        if is_node(node) and name in node and not takes(target_of(node, group), name):
            yield key


def named(text: str, words: Sequence[str]) -> str:
    """An error, with the file in each line that is about a key that the file sets and no word does.

    Args:
        text: lines that begin with a key each.
        words: of the command.
    """
    return "\n".join(_named(line, words) for line in text.splitlines())


def _named(line: str, words: Sequence[str]) -> str:
    key, colon, _ = line.partition(":")
    if not colon or NAME in line or not re.fullmatch(r"\w+(\.\w+)*", key) or key in _typed(words):
        return line
    about_all = "." in key or "no such setting" in line  # a group at the top is about more than one setting
    mine = [one for one in local_keys() if one == key or key.startswith(f"{one}.")]
    mine += [one for one in local_keys() if about_all and one.startswith(f"{key}.")]
    return f"{line}; {NAME} sets {mine[0]}" if mine else line


def _typed(words: Sequence[str]) -> set[str]:
    return {word.lstrip("+~").partition("=")[0] for word in words}
