"""The caller's module as a function of theta: copies of it, in any dtype and on any device, that compute with theta."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hw1.risk.guard import own_copy

Spread = Literal["whole", "arguments", "names"]


class Function(nn.Module):
    """A function of named parameters and inputs, as a module.

    Args:
        f: (parameters, inputs) -> outputs.
        parameters: name -> tensor; those that ask for no gradient are constants, unless none does.

    Raises:
        ValueError: no parameters, or what are no tensors.

    Example:
        >>> net = Function(lambda w, x: x @ w["a.b"], {"a.b": torch.ones(2, 1)})
        >>> [name for name, _ in net.named_parameters()], net(torch.ones(3, 2)).shape
        (['a.b'], torch.Size([3, 1]))
    """

    def __init__(self, f: Callable[[dict[str, Tensor], Any], Any], parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        if not isinstance(parameters, Mapping) or not parameters:
            raise ValueError(
                f"parameters: got a {type(parameters).__name__} without tensors, expected "
                "{name: tensor}, at least one, as f(parameters, inputs) takes them"
            )
        self._f = f
        for name, tensor in parameters.items():
            if not isinstance(tensor, Tensor):
                raise ValueError(
                    f"parameters: got {type(tensor).__name__} for {name}, expected a tensor: use torch.as_tensor"
                )
            floating = tensor.is_floating_point() or tensor.is_complex()
            asks = floating and (tensor.requires_grad or not any(t.requires_grad for t in parameters.values()))
            # Not by register_parameter: names may hold dots, as those of a module's named_parameters do.
            self._parameters[name] = nn.Parameter(tensor.detach().clone(), requires_grad=asks)

    def forward(self, inputs: Any) -> Any:
        """The outputs of f."""
        return self._f({name: tensor for name, tensor in self._parameters.items() if tensor is not None}, inputs)


class Network:
    """Copies of a module, one a dtype and device, into which the leaves of a theta can be put.

    Args:
        module: the caller's; it is copied.
        names: the parameters that theta consists of.

    Attributes:
        module: a copy in evaluation mode, with the module's own values.
    """

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        self.module = own_copy(module)
        self._names = names
        self._cast: dict[tuple[torch.dtype, torch.device], nn.Module] = {}
        self._places: dict[tuple[torch.dtype, torch.device], list[tuple[dict[str, Any], str, str]]] = {}
        self._own: dict[tuple[torch.dtype, torch.device], list[tuple[str, nn.Parameter]]] = {}

    def like(self, theta: Tensor) -> nn.Module:
        """The copy in theta's dtype, on its device."""
        key = (theta.dtype, theta.device)
        if key not in self._cast:
            network = own_copy(self.module).to(dtype=theta.dtype, device=theta.device)
            self._cast[key] = network
            self._places[key] = list(_places(network, self._names))
            self._own[key] = list(network.named_parameters())
        return self._cast[key]

    @contextlib.contextmanager
    def at(self, parameters: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """Inside, the copy's parameters are these tensors: for a forward, and for every backward that looks again.

        What is recomputed in a backward (torch.utils.checkpoint) reads the parameters then, not when the graph was
        made. May be nested, also with other tensors.
        """
        first = next(iter(parameters.values()))
        network = self.like(first)
        before = []
        try:
            for held, own, name in self._places[first.dtype, first.device]:
                before.append((held, own, held[own]))
                held[own] = parameters[name]
            yield network
        finally:
            for held, own, tensor in reversed(before):
                held[own] = tensor

    def restricted(self, names: tuple[str, ...], values: Mapping[str, Tensor]) -> Network:
        """The network as a function of other names, with these values for whatever is not among them."""
        network = copy.copy(self)
        first = next(iter(values.values()))
        network.module = own_copy(self.like(first))
        put(network.module, values)
        network._names, network._cast, network._places, network._own = names, {}, {}, {}
        return network

    def anew(self) -> Network:
        """The same network, in copies that have not been evaluated yet."""
        network = copy.copy(self)
        network._cast, network._places, network._own = {}, {}, {}
        return network

    def drop(self, dtype: torch.dtype) -> None:
        """Keep no copies in this dtype, unless it is the module's own; what is asked for is made again."""
        if any(parameter.dtype == dtype for parameter in self.module.parameters()):
            return
        for key in [key for key in self._cast if key[0] == dtype]:
            del self._cast[key], self._places[key], self._own[key]

    def stale(self, parameters: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """The values that stand in the copies where theta does not, by name: what no forward should read."""
        first = next(iter(parameters.values()))
        self.like(first)
        held = [*self.module.named_parameters(), *self._own[first.dtype, first.device]]
        wanted = set(self._names)
        return [(name, tensor) for name, tensor in held if name in wanted]


def put(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy named values into a module's parameters, whatever names its state has.

    Raises:
        KeyError: a name is no parameter's.
    """
    named = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            named[name].copy_(value)


def _places(module: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Where each parameter stands, tied ones in several places: (the dict that holds it, its name there, its name)."""
    wanted = set(names)
    called = {id(tensor): name for name, tensor in module.named_parameters() if name in wanted}
    for part in module.modules():
        for own, tensor in part._parameters.items():
            if tensor is not None and id(tensor) in called:
                yield part._parameters, own, called[id(tensor)]


# --- inputs of any structure


def spread_of(module: nn.Module, inputs: Any) -> Spread:
    """How inputs are handed to a module: tuples and lists as arguments, mappings by names, where forward takes them so.

    Otherwise as one argument.
    """
    if isinstance(inputs, Tensor) or isinstance(module, Function):
        return "whole"
    try:
        signature = inspect.signature(module.forward)
        if isinstance(inputs, Mapping):
            signature.bind(**inputs)
            return "names"
        if isinstance(inputs, tuple | list):
            signature.bind(*inputs)
            return "arguments"
    except (TypeError, ValueError):
        pass
    return "whole"


def call(network: nn.Module, inputs: Any, spread: Spread) -> Any:
    """The network's outputs."""
    if spread == "names":
        return network(**inputs)
    if spread == "arguments":
        return network(*inputs)
    return network(inputs)
