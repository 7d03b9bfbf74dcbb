"""Who reads weights that are not theta's: a forward with copies of its own, a loss with the caller's module in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from hw1.risk.evaluable import alike, value_at
from hw1.risk.nested import cast

if TYPE_CHECKING:
    from hw1.risk.empirical import EmpiricalRisk


def own_weights_alone(risk: EmpiricalRisk, first: Any, near: Tensor, caller: nn.Module, name: str) -> None:
    """Refuse who reads weights that theta does not move.

    Raises:
        ValueError: the loss reads the caller's own module; forward reads a copy of a parameter, or none at all.
    """
    own = cast(first, near)
    with risk._point(near, leaves=False) as point:
        stale = risk._network.stale(point.leaves)

        def compute() -> None:
            with risk._values():
                risk._loss_of(point, own)

        names = set(risk.space.names)
        callers = [(key, p) for key, p in caller.named_parameters() if key in names]
        if found := read_of(callers, compute):
            function = "batch_loss=f(module, batch)" if risk.loss is not None else "the module that batch_loss is given"
            raise ValueError(
                f"{name}: got a function that reads {_some(found)} of your own module, which theta does not move, "
                f"expected one of {function}: compute with that module's parameters, and with .detach().clone() of "
                "what is to stay"
            )
        if found := read_of(stale, compute):
            raise ValueError(
                f"module: got a forward that reads {_some(found)} from elsewhere than the parameter, expected it to "
                "read self's parameter at every call: keep no lists, views or .data of parameters"
            )
    anew = risk._over(risk.examples)
    anew._network = risk._network.anew()
    if not alike(risk, value_at(anew, first, near), value_at(risk, first, near)):
        raise ValueError(
            "module: got another value from a copy that was evaluated at another theta before, expected a function of "
            "theta: does forward keep what it computed once?"
        )
    if _uses_none(risk, own, near) and torch.equal(
        value_at(risk, first, near), value_at(risk, first, risk.theta.to(near))
    ):
        raise ValueError(
            f"module: got a loss that depends on none of {_some(risk.space.names)}, expected one of theta: does "
            "forward read weights that were merged, cached or detached?"
        )


def _uses_none(risk: EmpiricalRisk, own: Any, theta: Tensor) -> bool:
    """Whether the loss of these examples has no way back to theta."""
    with risk._point(theta) as point:
        value = risk._loss_of(point, own)
        if not value.requires_grad:
            return True
        with contextlib.suppress(RuntimeError, NotImplementedError):
            found = torch.autograd.grad(value, tuple(point.leaves.values()), allow_unused=True)
            return all(gradient is None for gradient in found)
    return False


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class _Reads(TorchDispatchMode):
    """Notes which of some tensors' memory the operations inside are given."""

    def __init__(self, memory: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = memory
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for value in tree_iter((args, kwargs)):
            if isinstance(value, Tensor) and (place := _memory_of(value)) in self._memory:
                self.found.add(self._memory[place])
        return func(*args, **(kwargs or {}))


def read_of(tensors: Iterable[tuple[str, Tensor]], compute: Callable[[], object]) -> list[str]:
    """The names of those tensors whose memory is read while `compute` runs, views and `.data` of them too."""
    memory = {place: name for name, tensor in tensors if (place := _memory_of(tensor))}
    reads = _Reads(memory)
    with torch.no_grad(), reads:
        compute()
    return sorted(reads.found)


def _memory_of(tensor: Tensor) -> int:
    """Where its storage begins; 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
