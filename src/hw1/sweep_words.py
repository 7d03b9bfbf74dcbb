"""What a command's words say of a sweep beyond Hydra's grammar, in words that Hydra takes. Imports nothing heavy."""

import re
from collections.abc import Sequence

from hw1.help import split_values

ZIP = "--zip"
_FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|extend_list)\(")


def joined(words: Sequence[str]) -> list[str]:
    """The words with `--zip` and the keys behind it as one.

    Example:
        >>> joined(["--zip", "optimizer.lr,seed", "seed=1,2"])
        ['--zip=optimizer.lr,seed', 'seed=1,2']
    """
    rest, found = list(words), list[str]()
    while rest:
        word = rest.pop(0)
        alone = word == ZIP and rest and "=" not in rest[0] and not rest[0].startswith("-")
        found.append(f"{word}={rest.pop(0)}" if alone else word)
    return found


def zipped(words: Sequence[str]) -> list[str]:
    """The words with all `--zip` as one setting of the sweeper, in the first one's place.

    Example:
        >>> zipped(["--zip=optimizer.lr,seed", "seed=1,2"])
        ['hydra.sweeper.zip=[[optimizer.lr,seed]]', 'seed=1,2']
    """
    together = [word.partition("=")[2] for word in words if word.partition("=")[0] == ZIP]
    found = list[str]()
    for word in words:
        if word.partition("=")[0] != ZIP:
            found.append(word)
        elif together:
            found.append("hydra.sweeper.zip=[" + ",".join(f"[{keys}]" for keys in together) + "]")
            together = []
    return found


def apart(words: Sequence[str]) -> list[str]:
    """The words with settings of a group as if they were swept, where its options are.

    Hydra composes a command once with the default of what is swept, which need not have the setting.

    Example:
        >>> apart(["model=mlp,rnn", "model.dropout=0.1", "model.width=1,2", "seed=1"])
        ['model=mlp,rnn', 'model.dropout=choice(0.1)', 'model.width=1,2', 'seed=1']
    """
    swept = {key for key, equals, value in (word.partition("=") for word in words) if equals and _several(value)}
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        mine = equals and value and key[:1] not in ("+", "~", "-") and not key.startswith("hydra.")
        taken = mine and key.partition(".")[0] in swept and "." in key and not _several(value)
        found.append(f"{key}=choice({value})" if taken else word)
    return found


def _several(value: str) -> bool:
    return len(split_values(value)) > 1 or bool(_FUNCTION.match(value))
