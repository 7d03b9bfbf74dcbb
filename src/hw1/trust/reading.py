"""What the user has said beside a command that reads results: `trust=[my_models]`, `dataset.root=...`. No torch.

It is handed on to the processes that a command starts, in an environment variable. Modules that are trusted by name are
found in the current folder by these names alone: nothing else that lies there is imported, as a module that takes an
installed one's place, or that one tries to import, would be.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import yaml

from hw1.records import key_file
from hw1.settings.code import code_of_module
from hw1.settings.identity import ConfigError
from hw1.trust.names import parts_of

SAID = "HW1_READING"
FILE = "trusted.yaml"  # beside the user's key: `modules: [my_models]`


@dataclass(frozen=True)
class Reading:
    """What was said.

    Attributes:
        trusted: modules, on the command line and in the configuration folder.
        dataset: settings of the data by name, as {"root": "/data"}.
    """

    trusted: tuple[str, ...] = ()
    dataset: Mapping[str, str] = field(default_factory=dict)


def reading() -> Reading:
    """What was said to this process, or to the one that started it, and what the configuration folder says."""
    said = _said()
    trusted = [*said.get("trusted", ()), *_configured()]
    return Reading(tuple(dict.fromkeys(trusted)), dict(said.get("dataset", {})))


def take_words(words: Sequence[str], folder: Path, data: bool = True) -> list[str]:
    """Take what is said of trust, and of data, out of a command's words; returns the others.

    Args:
        words: as typed.
        folder: the current one.
        data: whether `dataset.root=` and the like are such words, and no filters or settings.

    Raises:
        ConfigError: `trust=` names no modules.
    """
    rest, trusted, dataset = [], list[str](), dict[str, str]()
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key == "trust":
            trusted += _modules(value)
        elif equals and data and _is_where(key):
            dataset[key.removeprefix("dataset.")] = value
        else:
            rest.append(word)
    os.environ.pop(SAID, None)
    for finder in [one for one in sys.meta_path if isinstance(one, _Named)]:  # of an earlier command in this process
        sys.meta_path.remove(finder)
    if trusted or dataset or _configured():
        _say({"trusted": trusted, "dataset": dataset, "folder": str(folder)})
    return rest


def _is_where(key: str) -> bool:
    """Whether a word says where data are; of other settings, the command says that they are the runs'."""
    from hw1.trust.data import WHERE

    return key.startswith("dataset.") and key.removeprefix("dataset.") in WHERE


def let_in(folder: Path, code: Mapping[str, Collection[str]]) -> None:
    """Let this process, and those that it starts, find modules of the user's own in a folder that is no project.

    Args:
        folder: the current one.
        code: hashes by module, from records that carry her signature; a module that is none of these stays out.
    """
    packages: dict[str, list[str]] = {}
    for name in code:
        packages.setdefault(name.partition(".")[0], []).append(name)
    same = [top for top, names in packages.items() if all(code_of_module(name, folder) in code[name] for name in names)]
    if same:
        said = json.loads(os.environ.get(SAID, "{}"))
        _say({**said, "folder": str(folder), "names": same})


def ready() -> None:
    """Let this process find the modules that may be taken from the folder that the command was given in."""
    said = _said()
    folder = said.get("folder")
    names = {str(name).partition(".")[0] for name in [*said.get("trusted", ()), *said.get("names", ())]}
    names |= {name.partition(".")[0] for name in _configured()} if folder else set()
    if folder and names:
        finder = next((one for one in sys.meta_path if isinstance(one, _Named)), None)
        if finder is None:
            sys.meta_path.append(finder := _Named(str(folder)))
        finder.folder, finder.names = str(folder), names


def _say(said: Mapping[str, Any]) -> None:
    os.environ[SAID] = json.dumps(said)
    ready()


def _said() -> dict[str, Any]:
    try:
        said = json.loads(os.environ.get(SAID, "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


class _Named:
    """Finds modules of some names in a folder, behind all other finders.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self.names = folder, set[str]()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As importlib asks."""
        return PathFinder.find_spec(name, [self.folder]) if path is None and name in self.names else None

    def invalidate_caches(self) -> None:
        """As importlib asks."""


def _modules(value: str) -> list[str]:
    names = [name.strip().strip("'\"") for name in value.strip().strip("[]").split(",")]
    if wrong := [name for name in names if not parts_of(name)]:
        raise ConfigError(f"trust: got {wrong[0]!r}, expected names of modules, as trust=[my_models]")
    return names


def _configured() -> list[str]:
    """The modules that the user's configuration folder names.

    Raises:
        ConfigError: the file is something else.
    """
    file = key_file().with_name(FILE)
    try:
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError:
        return []
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file}: got no YAML ({str(error).splitlines()[0]})") from error
    names = node.get("modules") if isinstance(node, Mapping) else None
    if node is not None and not (isinstance(names, list) and all(parts_of(name) for name in names)):
        raise ConfigError(f"{file}: got {node!r}, expected names of modules, as `modules: [my_models]`")
    return list(names or [])
