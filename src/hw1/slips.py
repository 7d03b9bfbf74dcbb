"""Slips of the command line, each named in one line with its remedy. No Hydra, unless there is an unknown option.

What Hydra takes is left to Hydra: here stands what it refuses in other words than a user's, or misunderstands.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from hw1.help import split_values
from hw1.settings.conf import folders_of, options_of, picked, read_yaml, shipped
from hw1.settings.identity import ConfigError
from hw1.settings.paths import paths
from hw1.typed import training

# Hydra's options that have a value of their own in the next word.
_WITH_VALUE = (
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p"),
    *("--cfg", "-c", "--info", "-i", "--experimental-rerun"),
)
_CALLBACKS = "callbacks"  # the one group whose options are a list that stands for every run
_CALL = re.compile(r"""(?<![\w"'.$])[A-Za-z_]\w*\([^()]*\)""")  # a layer as c3(10)


def slips(words: Sequence[str], conf: Path, own: Collection[str]) -> Iterator[str]:
    """One line for each slip among a command's words.

    Args:
        words: as typed.
        conf: the folder of settings.
        own: the options of train.py that are not Hydra's.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word.startswith("-"):
            if option in own:
                continue
            if said := _option(word, rest[0] if rest else "", conf, own):
                yield said
                if rest and not equals and _bare(rest[0]):
                    rest.pop(0)
            elif option in _WITH_VALUE and (
                said := _value_of(option, value if equals else rest.pop(0) if rest else "")
            ):
                yield said
        elif not equals and not word.startswith(("~", "+")):
            yield _alone(word, rest, conf)
        elif equals and (said := _key(option, value)):
            yield said
        elif equals and not value and rest and _bare(rest[0]):  # experiment= flatness_interp
            yield f"{word} {rest[0]}: got a space behind =, expected {word}{rest.pop(0)}"
        elif value.endswith(",") and rest and _bare(rest[0]):  # seed=1, 2
            whole = word
            while whole.endswith(",") and rest and _bare(rest[0]):
                whole += rest.pop(0)
            yield f"{word}: got a space behind a comma, expected {whole}"
        elif equals and (said := _values(option, value)):
            yield said


def _bare(word: str) -> bool:
    return "=" not in word and not word.startswith(("-", "~", "+"))


def _option(word: str, following: str, conf: Path, own: Collection[str]) -> str:
    """What is wrong with a word that begins with a dash; "" if Hydra knows it."""
    from hydra._internal.utils import get_args_parser

    option, equals, value = word.partition("=")
    name = option.lstrip("-")
    known = [*get_args_parser()._option_string_actions, *own]
    if option in known:
        return ""
    if name.partition(".")[0] in _settings(conf):
        found = value if equals else following if following and _bare(following) else "VALUE"
        return f"{word}: got a setting with dashes, expected {name}={found}"
    if any(one.startswith(option) for one in known if option.startswith("--")):  # Hydra takes a beginning
        return ""
    if equals:
        return f"{word}: no such option; a setting has no dashes: {name}={value}"
    close = difflib.get_close_matches(option, [one for one in known if one.startswith("--")], 1)
    return f"{option}: no such option; " + (f"did you mean {close[0]}?" if close else f"see {training()} --help")


def _value_of(option: str, value: str) -> str:
    """What is wrong with the value of an option of Hydra's; "" for nothing."""
    if option in ("--config-dir", "-cd") and not value:
        return f"{option}: got nothing, expected a folder: {option} FOLDER"
    if option in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
        return f"{option}: got {value or 'nothing'}, expected job, hydra or all: {option} job"
    return "" if value else f"{option}: got no value, expected {option} VALUE"


def _key(key: str, value: str) -> str:
    """What is wrong with what stands before =, or with a second one; "" for nothing."""
    if not key:
        return f"={value}: got no key, expected KEY={value or 'VALUE'}"
    if value.startswith("="):
        return f"{key}: got two =, expected {key}={value.lstrip('=') or 'VALUE'}"
    if found := re.search(r"[(){}\s,;!]", key):
        return f"{key}: got {found[0]!r} in a key, expected KEY=VALUE, see {training()} --help"
    if key == "sweep":
        return f"sweep: got {value}, expected nothing: it is set by what plans the runs"
    if key == "output" and value.strip("'\"") in ("", "null"):
        return f"output: got {value or 'nothing'}, expected a folder: output=FOLDER"
    if key == "quick" and not value.startswith("{"):
        return f"quick: got {value}, expected settings of budget=quick, as 'quick={{trainer.max_epochs: 5}}'"
    if key == "about" and not value.startswith("{"):
        return f"about: got {value}, expected its parts, as about.title=..., about.question=..."
    if key == "hydra.sweeper.params" and value.startswith("{"):
        return f"{key}: got {value}, expected the swept keys themselves, as seed=0,1,2"
    return ""


def _settings(conf: Path) -> set[str]:
    """Groups, and keys at the top of train.yaml."""
    top = re.findall(r"^(\w+):", (conf / "train.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    return {*top, *(path.name for path in _groups(conf))} - {"defaults"}


def _groups(conf: Path) -> list[Path]:
    """The folders of groups, hw1's and the project's own."""
    return [path for folder in folders_of(conf) for path in sorted(folder.iterdir()) if path.is_dir()]


def _alone(word: str, rest: list[str], conf: Path) -> str:
    """What is wrong with a word without =; takes the words that belong to it out of `rest`."""
    following = rest[0] if rest else ""
    if word.partition(".")[0] in _settings(conf):
        if following.startswith("="):  # experiment = x, experiment =x
            rest.pop(0)
            value = following[1:] or (rest.pop(0) if rest and _bare(rest[0]) else "VALUE")
            return f"{word} {following}: got a space before =, expected {word}={value}"
        if following and _bare(following):
            return f"{word} {rest.pop(0)}: got no =, expected {word}={following}"
        return f"{word}: got no value, expected {word}=VALUE"
    groups = [path for path in _groups(conf) if path.name != "hydra"]
    places = list(dict.fromkeys(f"{group.name}={word}" for group in groups if word in options_of(group)))
    return f"{word}: got no =, expected " + (" or ".join(places) or f"KEY=VALUE, see {training()} --help")


def _values(key: str, value: str) -> str:
    """What is wrong with the values of a key; "" for nothing."""
    parts = split_values(value)
    whole = [part for part in parts if part.strip()]
    if len(whole) < len(parts) > 1 and not whole:
        return f"{key}: got '{value}', expected values between commas, as {key}=VALUE,VALUE"
    if 0 < len(whole) < len(parts):
        return f"{key}: got '{value}', expected a value on both sides of each comma: {key}={','.join(whole)}"
    if key.rpartition(".")[2] not in ("seed", "noise_seed"):
        return ""
    numbers: list[str] = []
    for part in whole:
        if (match := re.fullmatch(r"\s*(\d+)\s*(?:-|\.\.\.?|:)\s*(\d+)\s*", part)) and int(match[1]) < int(match[2]):
            first, last = int(match[1]), int(match[2])
            if len(whole) == 1:
                return f"{key}: got {value}, expected values with commas, or '{key}=range({first},{last + 1})'"
            numbers += [str(number) for number in range(first, last + 1)]
        else:
            numbers.append(part)
    return f"{key}: got {value}, expected {key}={','.join(numbers)}" if numbers != whole else ""


def left_out(words: Sequence[str], conf: Path, own: Path | None = None) -> str:
    """What to say where typed callbacks replace those that an experiment, or every run, has; "" where none is lost.

    Args:
        words: of the command.
        conf: the folder of settings.
        own: the one that `--config-dir` names.
    """
    given = dict(word.partition("=")[::2] for word in words if "=" in word and not word.startswith("-"))
    values = [value.strip("[]").split(",") for value in split_values(given.get(_CALLBACKS, ""))]
    folders = folders_of(conf, own)
    try:
        usual = picked(given["experiment"], folders).get(_CALLBACKS) if given.get("experiment") else None
    except ConfigError:  # which Hydra says
        return ""
    for typed in ([name.strip() for name in value] for value in values):
        there = {part for name in typed for part in _parts(name, folders)}
        lost = [name for name in usual or ["default"] if not {*_parts(name, folders)} <= there]
        if not lost or typed in ([""], ["none"]) or typed[0].startswith("{"):  # a mapping is refused
            continue
        parts = [part for name in lost for part in _parts(name, folders)]
        known = [name for name in usual or lost if name in lost or name in typed]
        got, whole = ",".join(typed), ",".join([*known, *(name for name in typed if name not in known)])
        what = ", ".join(lost) + (f" ({', '.join(parts)})" if parts != lost else "")
        typed_as = got if len(typed) == 1 else f"[{got}]"
        return f"{_CALLBACKS}={typed_as}: leaves out {what}; {_CALLBACKS}=[{whole}] keeps it"
    return ""


def _parts(option: str, folders: Sequence[Path]) -> list[str]:
    """The options of callbacks that one is made of, itself if it is of none."""
    file = next((file for folder in folders if (file := folder / _CALLBACKS / f"{option}.yaml").is_file()), None)
    inner = (read_yaml(file).get("defaults") if file else None) or []
    own = [part for part in inner if isinstance(part, str) and part != "_self_"]
    return [part for one in own for part in _parts(one, folders)] or [option]


# What Hydra refuses


def unknown_function(word: str, name: str, known: Sequence[str]) -> str:
    r"""What to say where Hydra takes `c3(10)` for a call of a function.

    Example:
        >>> unknown_function("model.layers=[c3(10),p2]", "c3", ["range"])
        'model.layers: got [c3(10),p2], expected quotes where there are parentheses: \'model.layers=["c3(10)",p2]\''
    """
    key, _, value = word.partition("=")
    if close := difflib.get_close_matches(name, known, 1, cutoff=0.75):
        return f"{key}: got {value}, expected one of the functions {', '.join(known)} (did you mean {close[0]}?)"
    pieces = re.split(r"""("[^"]*"|'[^']*')""", value)  # what is quoted stays
    quoted = "".join(piece if piece[:1] in ('"', "'") else _CALL.sub(r'"\g<0>"', piece) for piece in pieces)
    return f"{key}: got {value}, expected quotes where there are parentheses: '{key}={quoted}'"


def elsewhere(key: str, settings: Mapping[str, object]) -> list[str]:
    """Dotted keys that end as one that does not exist does, or almost: `optimizer.lr` for `lr`.

    Args:
        key: a key at the top, or below a group that has not got it.
        settings: the composed settings.

    Example:
        >>> elsewhere("epochs", {"trainer": {"max_epochs": 1, "threads": 1}})
        ['trainer.max_epochs']
    """
    last = key.rpartition(".")[2]
    known = [path for path in paths(settings) if path.partition(".")[0] not in ("hydra", "quick", "about", "budget")]
    same = [path for path in known if path.rpartition(".")[2] == last]
    return same or [path for path in known if path.rpartition(".")[2].endswith(f"_{last}")]


def missing_value(key: str, conf: Path) -> str:
    """What to say of a setting that has no default: the comment that stands beside its ??? in conf/."""
    group, _, name = key.partition(".")
    said, line = "", re.compile(rf"^{re.escape(name)}: \?\?\?\s*# *(.*)$", re.MULTILINE)
    for file in (file for folder in folders_of(conf) for file in sorted((folder / group).rglob("*.yaml"))):
        if match := line.search(file.read_text(encoding="utf-8")):
            said = f" ({match[1]})"
            break
    return f"{key}: got no value, expected {key}=VALUE{said}"


def in_file(text: str) -> str:
    """What to say of Hydra's error about a file's own content; "" for any other error."""
    found = re.match(
        r"In '(?:\./)?([^']+)': (?:Could not override '([^']+)'|\w+ raised while composing config:\s*(.*))", text
    )
    if not found:
        return ""
    file, group, other = f"conf/{found[1]}.yaml", found[2], found[3]
    if group is None:
        unknown = re.match(r"Key '(\w+)' not in '(.+)'", other)
        if "with ListConfig" in other:
            return f"{file}: got a list, expected settings by name, as seed: 0"
        return f"{file}: {f'{unknown[1]}: no such setting of {unknown[2]}' if unknown else other}"
    if "@" in group:  # Hydra puts the groups of a file below its own one, unless it begins with this line
        below = group.partition("@")[2].partition(".")[0]
        return f"{file}: got settings below {below}, expected '# @package _global_' as its first line"
    known = sorted({path.name for path in _groups(shipped())})
    close = difflib.get_close_matches(group, known, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{file}: got override /{group}, expected a group: {', '.join(known)}{hint}"
