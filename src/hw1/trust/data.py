"""The node `dataset` of a stranger's run, without the paths that he wrote: the reader says where hers are. No torch.

Data that are computed, that come with a package, or that lie in the reader's own data folder ($HW1_DATA) under the
names that torchvision gives them need nothing said. Nothing is downloaded, see `hw1.data.downloads.nothing_downloaded`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw1.data.torchvision_set import KNOWN
from hw1.settings import ConfigError
from hw1.trust.error import TrustError
from hw1.trust.names import lies_in
from hw1.typed import program

ROOT = "root"
# Arguments of hw1's classes that are paths, beside `root`; where others are, a class has none.
PATHS: dict[str, tuple[str, ...]] = {
    "Arrays": ("train_x", "train_y", "test_x", "test_y"),
    "Characters": ("file",),
    "HuggingFace": ("folder", "train_file", "test_file"),
    "ImageFolder": ("folder",),
    "Table": ("file", "test_file"),
}
WHERE = {ROOT, *(key for keys in PATHS.values() for key in keys)}
_JOINED = {"HuggingFace": ("train", "test")}  # names of folders in another one
_SAY = "expected where yours is: nothing is opened by what a stranger wrote"


def asked_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings of a node `dataset` that say where data are."""
    name = str(node.get("_target_", ""))
    if lies_in(name, ["hw1"]):
        return (ROOT, *PATHS.get(name.rpartition(".")[2], ()))
    return (ROOT, *(key for key, value in node.items() if key not in (ROOT, "_target_") and _looks_like_a_path(value)))


def with_given(node: Mapping[str, Any], given: Mapping[str, Any], strict: bool = True) -> dict[str, Any]:
    """A node `dataset` of the user's own run, with what she says of where its data are.

    Args:
        node: the settings.
        given: by name, as {"root": "/data"}.
        strict: whether a name that the data have not is refused; else it is of other data.

    Raises:
        ConfigError: something else than where data are.
    """
    known = asked_of(node)
    if strict and (wrong := [name for name in given if name not in known]):
        raise ConfigError(f"dataset.{wrong[0]}: got a setting of the run, expected where its data are: {known}")
    return {**node, **{name: str(value) for name, value in given.items() if name in known}}


def strangers(node: Mapping[str, Any], given: Mapping[str, Any], strict: bool = True) -> dict[str, Any]:
    """A node `dataset` of a stranger's run that leads nowhere but where the reader says; arguments as of `with_given`.

    A file or folder that he names below his data's root is taken below hers, if she names one.

    Raises:
        TrustError: data that are files, and nothing is said of where they are.
        ConfigError: something else than where data are.
    """
    made = with_given(node, given, strict)
    if node.get("_args_"):
        raise TrustError(f"dataset._args_: got arguments without names of a stranger, expected none: {_SAY}")
    own = str(node.get("_target_", "")).rpartition(".")[2]
    root = given.get(ROOT)
    if ROOT in made:
        made[ROOT] = None if root is None else str(root)
    for key in asked_of(node)[1:]:
        if key not in given and node.get(key) is not None:
            made[key] = _below(key, node[key], root)
    for key in _JOINED.get(own, ()):
        value = node.get(key)
        if not isinstance(value, str) or Path(value).name != value or value in ("", "..") or "\\" in value:
            raise TrustError(f"dataset.{key}: got {value!r}, expected the name of a folder in dataset.folder")
    if own == "TorchvisionSet":
        _check_set(node)
    theirs = not lies_in(node.get("_target_"), ["hw1"])
    for key, value in made.items():
        if not isinstance(value, str):  # those of the node itself are seen to above
            _refuse_paths_inside(f"dataset.{key}", value, theirs)
    return made


def _below(key: str, value: Any, root: Any) -> str:
    """A path that a stranger wrote, below a root that the reader named.

    Raises:
        TrustError: she named none, or it leads out of it.
    """
    named = f"dataset.{key}=PATH (in Python, run.datamodule({key}=PATH))"
    if root is None:
        raise TrustError(f"dataset.{key}: got {value!r} of a stranger, {_SAY}; add dataset.root=FOLDER, or {named}")
    base = Path(str(root)).expanduser().absolute()
    file, colon, part = str(value).partition(".npz:")  # an array's name in its file
    path = base / (file + (".npz" if colon else ""))
    below = "\0" not in str(value) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(base))
    if not below:
        raise TrustError(f"dataset.{key}: got {value!r} of a stranger, not below dataset.root, {_SAY}: {named}")
    return str(path) + (f":{part}" if colon else "")


def _refuse_paths_inside(key: str, value: Any, inside: bool) -> None:
    """Refuse what may be a path in a node inside that of the data, as the sets of `hw1.data.TorchDataset`.

    Args:
        key: where it stands.
        value: of the settings.
        inside: whether it is one of such a node; lists of hw1's own sources hold names of columns, and numbers.
    """
    if not isinstance(value, Mapping | list | tuple):
        if inside and _looks_like_a_path(value):
            raise TrustError(
                f"{key}: got {value!r} of a stranger, which may be a path, expected none: {program()} trust FOLDER "
                "if the results are yours"
            )
        return
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    inside = inside or (isinstance(value, Mapping) and "_target_" in value)
    for name, one in pairs:
        if name != "_target_":
            _refuse_paths_inside(f"{key}.{name}", one, inside)


def _check_set(node: Mapping[str, Any]) -> None:
    """Refuse a set of torchvision's whose arguments are files, and settings that could be some."""
    if node.get("set") not in KNOWN:
        raise TrustError(f"dataset.set: got {node.get('set')!r} of a stranger, expected one of {', '.join(KNOWN)}")
    options = node.get("options") or {}
    texts = {"options." + str(name): value for name, value in options.items()} if isinstance(options, Mapping) else {}
    texts |= {name: node.get(name) for name in ("train", "test")}
    for name, value in texts.items():
        plain = value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and value.isalnum())
        if not plain or name.rpartition(".")[2] in ("root", "download", "loader"):
            raise TrustError(f"dataset.{name}: got {value!r} of a stranger, expected a number or a word")


def _looks_like_a_path(value: Any) -> bool:
    """Whether a text could name something outside the settings: a path, an address, or what lies here."""
    return isinstance(value, str) and (bool({"/", "\\", "~", ":"} & set(value)) or os.path.lexists(value))
