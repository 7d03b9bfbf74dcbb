"""The folders of settings, read without Hydra: the options of groups, and what an experiment's file says. No torch."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hw1.records import DamagedError
from hw1.settings import stored_yaml
from hw1.settings.identity import ConfigError
from hw1.typed import training

_MANY = 20  # options, from which on those in folders are not listed

# Groups in which a class or function of the user's own is a typed node.
_OF_A_TARGET = ("model", "dataset", "optimizer", "scheduler", "loss")

PROJECT = "HW1_PROJECT"  # the environment variable with the folder that a command works in; conf/train.yaml reads it
CONF = "HW1_CONF"  # "none" where the conf/ in that folder may be somebody else's
LOCAL = "local.yaml"  # what differs between machines; see conf/train.yaml


def shipped() -> Path:
    """The folder of hw1's own settings: inside the package of a wheel, at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return inside if (inside := package / "conf").is_dir() else package.parents[1] / "conf"


def project_conf() -> Path | None:
    """The user's own conf/, in the folder that a command works in; None where there is none but hw1's."""
    project = os.environ.get(PROJECT) if os.environ.get(CONF) != "none" else None
    folder = Path(project or "", "conf")
    return folder if project and folder.is_dir() and not _same(folder, shipped()) else None


def _same(folder: Path, other: Path) -> bool:
    return other.is_dir() and folder.samefile(other)


def refuse_replaced(conf: Path) -> None:
    """Refuse settings of the user's own that would stand in for all of hw1's.

    Raises:
        ConfigError: there is a train.yaml.
    """
    if (conf / "train.yaml").exists():
        raise ConfigError(
            f"{conf / 'train.yaml'}: got a file of the name of hw1's own settings, which it would replace; "
            f"expected settings of yours in {LOCAL} or in an experiment"
        )


def folders_of(conf: Path, own: Path | None = None) -> list[Path]:
    """Where options stand, the first one that has it wins, as with Hydra.

    Args:
        conf: hw1's own folder; the project's stands before it.
        own: the one that `--config-dir` names.
    """
    project = project_conf()
    return [*([project] if project else []), conf, *([own] if own else [])]


def options_of(folder: Path) -> list[str]:
    """Names of a group's options, nested ones as group/name; a folder `base` holds what options share."""
    files = sorted(file.relative_to(folder).with_suffix("") for file in folder.rglob("*.yaml"))
    return [file.as_posix() for file in files if file.parts[0] != "base"]


def unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    """What to say of an option that a group has not."""
    close = difflib.get_close_matches(option, options, 1) or difflib.get_close_matches(option.lower(), options, 1)
    if not close:  # a variant by its own name
        close = [one for one in options if one.rpartition("/")[2] == option]
    if not close and "." in option and group in _OF_A_TARGET:
        close = [f"'{group}={{_target_: {option}}}'"]
    if group == "dataset" and option.endswith((".csv", ".parquet")):
        close = [f"dataset=table dataset.file={option}"]
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    plain = [one for one in options if "/" not in one]
    few = options if len(options) < _MANY else [*plain, f"or a variant of one, see {training()} --help"]
    return f"{group}: got {option}, expected one of: {', '.join(few)}{hint}"


def options_with(group: str, setting: str, folders: Sequence[Path]) -> list[str]:
    """The options of a group whose own file has a setting."""
    files = {one: folder / group / f"{one}.yaml" for folder in reversed(folders) for one in options_of(folder / group)}
    return sorted(option for option, file in files.items() if setting in read_yaml(file))


def read_yaml(file: Path) -> dict[str, Any]:
    """The content of a file of settings.

    Raises:
        ConfigError: it is no YAML that is read, see `hw1.settings.stored_yaml.read_yaml`.
    """
    try:
        return mapping(stored_yaml.read_yaml(file))
    except DamagedError as error:
        raise ConfigError(str(error)) from error


def mapping(node: object) -> dict[str, Any]:
    """A node with text for keys; empty for what is no mapping."""
    return {str(key): value for key, value in node.items()} if isinstance(node, Mapping) else {}


def _chain(name: str, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The content of an experiment's file, behind those of the experiments that it begins with."""
    file = next((file for folder in folders if (file := folder / "experiment" / f"{name}.yaml").is_file()), None)
    if file is None:
        known = sorted(one for folder in folders for one in options_of(folder / "experiment"))
        raise ConfigError(unknown_option("experiment", name, known))
    node = read_yaml(file)
    named = [one for one in node.get("defaults") or [] if isinstance(one, str)]
    first = [one.removeprefix("/experiment/") for one in named if one.startswith("/experiment/")]
    return [*(part for one in first for part in _chain(one, folders)), node]


def merged(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """The settings of an experiment's file, with those of the experiments that it begins with.

    Raises:
        ConfigError: there is no such experiment, or a file is no YAML.
    """
    whole: dict[str, Any] = {}
    for node in _chain(name, folders):
        _merge(whole, node)
    return whole


def _merge(onto: dict[str, Any], node: Mapping[str, Any]) -> None:
    for key, value in node.items():
        if isinstance(value, Mapping) and isinstance(onto.get(key), dict):
            _merge(onto[key], mapping(value))
        else:
            onto[key] = mapping(value) if isinstance(value, Mapping) else value


def picked(name: str, folders: Sequence[Path]) -> dict[str, list[str]]:
    """The options that an experiment picks, by group; see `merged`."""
    found: dict[str, list[str]] = {}
    for node in _chain(name, folders):
        for entry in node.get("defaults") or []:
            for key, options in mapping(entry).items():
                group = key.removeprefix("override ").removeprefix("/")
                found[group] = [str(one) for one in options] if isinstance(options, list) else [str(options)]
    return found
