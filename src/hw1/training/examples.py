"""The node `dataset` -> its source of examples, and what they are today. No torch, but for a source of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hw1.data.identities import Remembered, definition_of, identity_of, remembered
from hw1.data.protocol import OF_DATAMODULE, ExampleSource
from hw1.settings.construct import call


def source_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """What of the node `dataset` goes to the source at its `_target_`, without what `DataModule` takes."""
    return {key: value for key, value in node.items() if key not in OF_DATAMODULE}


def examples_of(node: Mapping[str, Any]) -> ExampleSource:
    """The source of the node `dataset`.

    Raises:
        ConfigError: a value is refused, by its key.
    """
    return cast(ExampleSource, call(source_node(node), "dataset"))


@dataclass(frozen=True)
class Today:
    """What data are at this moment.

    Attributes:
        identity: of their source.
        files: those that are newer or of another size than when they were last read; all where none is.
    """

    identity: str
    files: tuple[str, ...]


def today(node: Mapping[str, Any], known_only: bool = False) -> Today | None:
    """What the data of a node `dataset` are, read again only where a file of theirs is another by size or time.

    Args:
        node: the settings.
        known_only: whether no source is built: what was not read here before, or has changed since, is passed over.

    Returns:
        None where there are no such data, or what there is cannot be read.
    """
    own = source_node(node)
    definition = definition_of(own)
    before = remembered(definition)
    if before is not None and before.stands():
        return Today(before.identity, tuple(before.stamps))
    if known_only:  # somebody else's: neither is anything imported, nor a path of theirs opened
        return None
    touched = before.touched() or before.stamps if before is not None else ()
    try:
        examples = examples_of(node)
        if _gone(examples, before):  # it would be downloaded
            return None
        return Today(identity_of(examples, definition), tuple(touched))
    except (ValueError, OSError, ImportError):  # whatever the source says of its missing files when it trains
        return None


def _gone(examples: ExampleSource, before: Remembered | None) -> bool:
    """Whether all files of a source are missing."""
    own = getattr(examples, "files", None)
    paths = list(own()) if own is not None else list(before.stamps) if before is not None else []
    return bool(paths) and not any(Path(path).exists() for path in paths)
