"""Several networks of one architecture, trained side by side as one module."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hw1.models.mlp import Mlp


class Members(nn.Module, ABC):
    """R networks ("members") with weights of their own: [R, B, ...] -> [R, B, out_features].

    A batch [1, B, ...] is shared by all members. Members do not see each other: a loss that is summed over them has
    the gradients that each would have alone, and a batch-norm has its own member's statistics. `side_by_side` picks the
    class that is fastest for an architecture.

    Attributes:
        count: R.
    """

    count: int

    @abstractmethod
    def member(self, member: int) -> nn.Module:
        """A copy of one member as an ordinary network.

        Raises:
            IndexError: there is no such member.
        """

    @abstractmethod
    def stacked(self) -> dict[str, Tensor]:
        """Parameters and buffers of all members by the name they have in one: [R, *shape] each, detached copies."""

    @abstractmethod
    def load_stacked(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `stacked` gave, in place.

        Raises:
            ValueError: other names or shapes.
        """

    @abstractmethod
    def squares(self, tensors: Sequence[Tensor]) -> Tensor:
        """Squared l2 norms of tensors shaped as `self.parameters()`: [R, parameters of a member]; differentiable."""

    def theta(self) -> Tensor:
        """The members' parameter vectors, [R, P], detached; P as in `ParamSpace.of(self.member(0))`."""
        tensors = self.stacked()
        return torch.cat([tensors[name].flatten(1) for name in self.member_names()], dim=1)

    @abstractmethod
    def member_names(self) -> list[str]:
        """Names of a member's parameters, in the order of `squares`."""

    def seed(self, seed_of: Callable[[int], int]) -> None:
        """Let each member draw (dropout) what it would draw alone after `torch.manual_seed(seed_of(member))`."""

    def random_states(self) -> list[Tensor]:
        """The state of what each member draws from; none where they draw nothing."""
        return []

    def set_random_states(self, states: Sequence[Tensor]) -> None:
        """Go on drawing from what `random_states` gave."""

    def _check(self, member: int) -> int:
        if not 0 <= member < self.count:
            raise IndexError(f"member: got {member}, expected 0 to {self.count - 1}")
        return member


def side_by_side(nets: Sequence[nn.Module]) -> Members:
    """Networks of one architecture as one module; their weights are copied bit for bit.

    Fully connected networks without dropout are stacked: one batched product a layer for all members. Everything else
    runs one member after another, which for convolutions is faster than `torch.func.vmap`.

    Args:
        nets: the members, at least one.

    Raises:
        ValueError: no network, or different architectures.

    Example:
        >>> nets = [Mlp((1,), 1, hidden=[4]) for _ in range(3)]
        >>> side_by_side(nets)(torch.zeros(1, 5, 1)).shape
        torch.Size([3, 5, 1])
    """
    if not nets:
        raise ValueError("nets: got none, expected at least one network")
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in nets]
    if any(other != shapes[0] for other in shapes):
        raise ValueError("nets: got networks of different shape, expected one architecture")
    stackable = type(nets[0]) is Mlp and not any(isinstance(layer, nn.Dropout) for layer in nets[0])
    return StackedMlp(nets) if stackable else OneAfterAnother(nets)


def members_of(net: nn.Module) -> list[nn.Module]:
    """The members of a `Members` as ordinary networks; a single network is its own only member."""
    return [net.member(member) for member in range(net.count)] if isinstance(net, Members) else [net]


class StackedMlp(Members):
    """Fully connected members, stacked: weights [R, out, in], biases [R, out].

    Activations are feature-major, [R, features, B], so that a layer is one `baddbmm` without a transposed copy: ten
    times faster than 100 small networks one after another.

    Args:
        nets: `Mlp`s of one architecture without dropout.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.count = len(nets)
        self._template = (copy.deepcopy(nets[0]),)  # in a tuple: its weights are no part of this module
        named = [dict(net.named_parameters()) for net in nets]
        self._names = list(named[0])
        # Where the member's layers find their stacked weights; a parameter's name may hold no dots.
        self.weights = nn.ParameterList(
            nn.Parameter(torch.stack([own[name].detach() for own in named])) for name in self._names
        )

    def __deepcopy__(self, memo: dict[int, object]) -> StackedMlp:
        twin = type(self)([self.member(member) for member in range(self.count)])
        memo[id(self)] = twin
        return twin.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every member, [R, B, out_features], from [R, B, ...] or one batch for all, [1, B, ...]."""
        h = x.flatten(2).transpose(1, 2)  # [R or 1, in, B]
        position = 0
        for layer in self._template[0].children():
            if isinstance(layer, nn.Linear):
                weight, bias = self.weights[position], self.weights[position + 1]  # [R, out, in], [R, out]
                h = _linear(weight, bias, h)  # [R, out, B]
                position += 2
            elif isinstance(layer, nn.ReLU):
                h = h.relu_()  # in place: the product's backward does not need what it gave
            elif not isinstance(layer, nn.Flatten):
                h = layer(h)
        return h.transpose(1, 2)

    def member(self, member: int) -> nn.Module:
        """A copy of one member."""
        self._check(member)
        net = copy.deepcopy(self._template[0]).to(self.weights[0])
        net.load_state_dict(
            {name: value[member].detach() for name, value in zip(self._names, self.weights, strict=True)}
        )
        return net.train(self.training)

    def stacked(self) -> dict[str, Tensor]:
        """Named parameters, [R, *shape]."""
        return {name: value.detach().clone() for name, value in zip(self._names, self.weights, strict=True)}

    def load_stacked(self, tensors: dict[str, Tensor]) -> None:
        """Take over named parameters [R, *shape]."""
        _require_same({name: value.shape for name, value in zip(self._names, self.weights, strict=True)}, tensors)
        with torch.no_grad():
            for name, value in zip(self._names, self.weights, strict=True):
                value.copy_(tensors[name])

    def squares(self, tensors: Sequence[Tensor]) -> Tensor:
        """[R, parameters of a member]."""
        return torch.stack([tensor.flatten(1).square().sum(1) for tensor in tensors], dim=1)

    def member_names(self) -> list[str]:
        """Names in one member."""
        return list(self._names)


def _linear(weight: Tensor, bias: Tensor, h: Tensor) -> Tensor:
    """Map h [R, in, B], or a shared [1, in, B], by weight [R, out, in] and bias [R, out] -> [R, out, B]."""
    members, out, _ = weight.shape
    if len(h) == 1 < members:  # one product of all members' rows with the shared inputs
        rows: Tensor = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), h[0]).unflatten(0, (members, out))
        return rows
    return torch.baddbmm(bias[:, :, None], weight, h)


class OneAfterAnother(Members):
    """Members of any architecture, evaluated one after another.

    Args:
        nets: networks of one architecture; copied.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.count = len(nets)
        self.members = nn.ModuleList(copy.deepcopy(net) for net in nets)
        draws = any(getattr(layer, "p", 0) or getattr(layer, "dropout", 0) for layer in nets[0].modules())
        # One random state a member and device, where a member draws random numbers.
        self._states: list[Tensor] | None = [] if draws else None

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every member, [R, B, out_features], from [R, B, ...] or one batch for all, [1, B, ...]."""
        batches = x.expand(self.count, *x.shape[1:]) if len(x) == 1 else x
        if not (self.training and self._states):
            return torch.stack([net(own) for net, own in zip(self.members, batches, strict=True)])
        outputs = []
        for member, (net, own) in enumerate(zip(self.members, batches, strict=True)):
            _set_state(self._states[member], x.device)
            outputs.append(net(own))
            self._states[member] = _get_state(x.device)
        return torch.stack(outputs)

    def seed(self, seed_of: Callable[[int], int]) -> None:
        """A random state of its own for each member, from now on."""
        if self._states is not None:
            device = next(self.parameters()).device
            self._states = []
            for member in range(self.count):
                torch.manual_seed(seed_of(member))
                self._states.append(_get_state(device))

    def random_states(self) -> list[Tensor]:
        """Of each member, where they draw."""
        return [state.clone() for state in self._states or ()]

    def set_random_states(self, states: Sequence[Tensor]) -> None:
        """Of each member, where they draw."""
        if self._states is not None:
            self._states = [state.clone() for state in states]

    def member(self, member: int) -> nn.Module:
        """A copy of one member."""
        return copy.deepcopy(self.members[self._check(member)])

    def stacked(self) -> dict[str, Tensor]:
        """Named parameters and buffers, [R, *shape]."""
        states = [net.state_dict() for net in self.members]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def load_stacked(self, tensors: dict[str, Tensor]) -> None:
        """Take over named parameters and buffers [R, *shape]."""
        own = self.members[0].state_dict()
        _require_same({name: torch.Size([self.count, *value.shape]) for name, value in own.items()}, tensors)
        for member, net in enumerate(self.members):
            net.load_state_dict({name: tensors[name][member] for name in own})

    def squares(self, tensors: Sequence[Tensor]) -> Tensor:
        """[R, parameters of a member]."""
        return torch.stack([tensor.square().sum() for tensor in tensors]).reshape(self.count, -1)

    def member_names(self) -> list[str]:
        """Names in one member."""
        return [name for name, _ in self.members[0].named_parameters()]


def _get_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _require_same(shapes: dict[str, torch.Size], tensors: dict[str, Tensor]) -> None:
    for name in [*shapes, *(name for name in tensors if name not in shapes)]:
        got = list(tensors[name].shape) if name in tensors else "none"
        expected = list(shapes[name]) if name in shapes else "none"
        if got != expected:
            raise ValueError(f"{name}: got {got}, expected {expected}: networks of different shape")
