"""The setting `transform` -> what is done to each training input. No torch until a transform has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hw1.settings import ConfigError
from hw1.settings.construct import call, is_node


class Chain:
    """Transforms in a row.

    Args:
        steps: each an input -> an input.
    """

    def __init__(self, steps: Sequence[Callable[[Any], Any]]) -> None:
        self.steps = list(steps)

    def __call__(self, x: Any) -> Any:
        """The input after the last of them."""
        for step in self.steps:
            x = step(x)
        return x


def transform_of(setting: Mapping[str, Any] | Sequence[Any] | None) -> Chain | None:
    """The transforms of a node, of nodes by name, or of a list of them, in their order.

    A name whose value is null is left out: `transform.flip=null`. The arguments of a transform may be lists of nodes,
    as those of torchvision.transforms.v2.Compose.

    Raises:
        ConfigError: one is no node, or cannot be built, or is not to be called.
    """
    if not setting:
        return None
    if is_node(setting):
        nodes = {"transform": setting}
    elif isinstance(setting, Mapping):
        nodes = {f"transform.{name}": node for name, node in setting.items() if node is not None}
    else:
        nodes = {f"transform[{number}]": node for number, node in enumerate(setting)}
    steps = []
    for key, node in nodes.items():
        if not is_node(node):
            raise ConfigError(f"{key}: got {node!r}, expected a node with a _target_")
        step = call({name: _built(value, f"{key}.{name}") for name, value in node.items()}, key)
        if not callable(step):
            raise ConfigError(f"{key}: got a {type(step).__name__}, expected a callable: input -> input")
        steps.append(step)
    return Chain(steps) if steps else None


def _built(value: Any, key: str) -> Any:
    if isinstance(value, list) and value and all(map(is_node, value)):
        return [call(node, f"{key}[{number}]") for number, node in enumerate(value)]
    return value
