"""A group whose `_target_` is typed is that class's: what its option had set for another one is dropped. No torch.

Hydra merges what is typed into the option that was picked: `model={_target_: mine.Net}` would have the CNN's layers.
What does not belong there is removed again, by words (`~model.layers`) that a command's jobs are composed with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from hw1.settings.construct import takes, target_of
from hw1.settings.identity import select

GROUPS = ("model", "dataset", "optimizer", "scheduler", "loss", "task")


def settable(words: Sequence[str]) -> list[str]:
    """Words in which settings of a group whose `_target_` is typed may be ones that the picked option has not.

    Example:
        >>> settable(["optimizer._target_=torch.optim.RMSprop", "optimizer.alpha=0.9", "seed=1"])
        ['optimizer._target_=torch.optim.RMSprop', '++optimizer.alpha=0.9', 'seed=1']
        >>> settable(["model={_target_: mine.Net, depth: 3}"])
        ['++model={_target_: mine.Net, depth: 3}']
    """
    nodes = {_node_of(word) for word in words} - {""}
    return [f"++{word}" if word[:1].isalpha() and _is_new(word, nodes) else word for word in words]


def as_typed(words: Sequence[str]) -> list[str]:
    """Words as they were before `settable`.

    Example:
        >>> as_typed(["++model={_target_: mine.Net}", "++trainer.max_steps=3"])
        ['model={_target_: mine.Net}', '++trainer.max_steps=3']
    """
    bare = [word.removeprefix("++") for word in words]
    return [short if again == word else word for short, again, word in zip(bare, settable(bare), words, strict=True)]


def leftovers(settings: Mapping[str, Any], words: Sequence[str], shared: Callable[[str], Collection[str]]) -> list[str]:
    """Dotted paths of what is to be dropped, none where no `_target_` is typed.

    Of `group={_target_: X, ...}`, everything that is not typed; of `group._target_=X`, what X does not take and is not
    typed: values that it takes stay.

    Args:
        settings: composed from the words, resolved.
        words: of one run, as typed.
        shared: group -> its settings that are hw1's, whatever its `_target_`.

    Raises:
        ConfigError: X cannot be imported.
    """
    typed = {word.lstrip("+").partition("=")[0] for word in words if not word.startswith("~")}
    found: list[str] = []
    for word in words:
        if not (path := _node_of(word)) or not isinstance(node := select(settings, path), Mapping):
            continue
        key, _, value = word.lstrip("+").partition("=")
        kept = {*shared(path), "_target_"}
        own = _content(value) if key == path else None
        if own is not None:
            found += [left for left in _beside(node, own, path) if left.removeprefix(f"{path}.") not in kept]
        elif others := [name for name in node if name not in kept and f"{path}.{name}" not in typed]:
            target = target_of(node, path)
            found += [f"{path}.{name}" for name in others if not takes(target, name)]
    return [path for path in dict.fromkeys(found) if not any(_inside(one, {path}) or one == path for one in typed)]


def drop(settings: dict[str, Any], paths: Sequence[str]) -> list[str]:
    """Remove the settings at dotted paths, in place; returns the words that do so."""
    words = []
    for path in paths:
        group, _, name = path.rpartition(".")
        if select(settings, group).pop(name) is None:
            words.append(f"{path}=dropped")  # Hydra takes null for a setting that is not there
        words.append(f"~{path}")
    return words


def shared_settings(loader: Any, group: str) -> set[str]:
    """Settings of a group that its options share, those of conf/<group>/base.

    Args:
        loader: Hydra's config loader.
        group: of settings.
    """
    folder = f"{group}/base"
    found = [loader.repository.load_config(f"{folder}/{option}") for option in loader.get_group_options(folder)]
    return {str(name) for option in found if option is not None for name in option.config}


def _node_of(word: str) -> str:
    """The group, or the node in one, whose `_target_` a word sets; "" for any other word."""
    key, equals, value = word.lstrip("+").partition("=")
    path, dot, name = key.rpartition(".")
    if not equals or word.startswith("~") or key.partition(".")[0] not in GROUPS:
        return ""
    if dot and name == "_target_":
        return path
    return key if value.lstrip().startswith("{") and "_target_" in value else ""


def _is_new(word: str, nodes: Collection[str]) -> bool:
    """Whether a word is such a node, or a setting of one; Hydra takes an option and `_target_` without a plus."""
    key = word.partition("=")[0]
    return _node_of(word) == key or (_inside(key, nodes) and not key.endswith("._target_"))


def _inside(key: str, nodes: Collection[str]) -> bool:
    return any(key.startswith(f"{node}.") for node in nodes)


def _content(value: str) -> Mapping[str, Any]:
    """What a word says behind =, as Hydra reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    content = OverridesParser.create().parse_override(f"key={value}").value()
    return {str(name): inner for name, inner in content.items()} if isinstance(content, Mapping) else {}


def _beside(node: Mapping[str, Any], own: Mapping[str, Any], path: str) -> Iterator[str]:
    """What a composed node has besides what is its own."""
    for name, value in node.items():
        if name not in own:
            yield f"{path}.{name}"
        elif isinstance(value, Mapping) and isinstance(inner := own[name], Mapping):
            yield from _beside(value, {str(key): one for key, one in inner.items()}, f"{path}.{name}")
