"""What a measure is, and what it is taken of. Constructing one imports neither torch nor pandas."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hw1.data import DataModule
    from hw1.kinds import Loss
    from hw1.settings import RunSettings


@dataclass(frozen=True)
class Column:
    """One number that a measure finds of every member.

    Attributes:
        label: what figures call it, `trace of the Hessian`.
        unit: of the number, `nats`; "" where it has none.
        error: the column that holds its standard error; "" where it has none.
    """

    label: str
    unit: str = ""
    error: str = ""


@dataclass(frozen=True)
class Weights:
    """The members of a run at one moment.

    Attributes:
        epoch: completed epochs.
        phase: what had been minimised until then: `training` (the loss) or `gradient_norm`.
        nets: R networks of one architecture, in evaluation mode, each with its own buffers.
    """

    epoch: int
    phase: str
    nets: Sequence[nn.Module]

    def theta(self) -> Tensor:
        """Their parameter vectors, [R, P]."""
        import torch

        from hw1.vectors import ParamSpace

        space = ParamSpace.of(self.nets[0])
        named = [{name: value.detach() for name, value in net.named_parameters()} for net in self.nets]
        return torch.stack([space.flatten(tensors) for tensors in named])


@dataclass(frozen=True)
class Subject:
    """What a measure is taken of.

    Attributes:
        moments: the weights that the measure asked for, in the order of their epochs; the last are those at the end.
        loss: (outputs [B, ...], targets) -> mean loss [].
        data: of the run, loaded.
        seed: of the run: what a measure's randomness derives from, unless it has a seed of its own.
    """

    moments: Sequence[Weights]
    loss: Loss
    data: DataModule
    seed: int

    @property
    def end(self) -> Weights:
        """The last weights."""
        return self.moments[-1]


@dataclass(frozen=True)
class Finding:
    """What a measure found of all members at once.

    Attributes:
        values: one number a member, [R], for each of the measure's columns (those that apply).
        rows: a longer table where one number a member does not do; each row names its `member`.
        files: {name: content} of what does not fit a table.
        memory: tensors from which the next taking may start, a little later on the same run; not kept on disk.
    """

    values: Mapping[str, Sequence[float]]
    rows: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)


class Measure(Protocol):
    """Something read off the weights of a run's members, while it trains or later.

    A class of your own inherits this one, sets `version` and `columns`, and writes `take`.

    Attributes:
        version: counts up when the same settings give other numbers; what was measured before is measured again.
        columns: of `Finding.values`, by name.
        limits: settings that a budget's limits bound, as {"examples": "measured"}: the cheap variant.
        bounded: whether it takes the memory that `hw1.measures.room` says, for networks that need as much.
    """

    version: ClassVar[int]
    columns: ClassVar[Mapping[str, Column]]
    limits: ClassVar[Mapping[str, str]] = {}
    bounded: ClassVar[bool] = False

    def epochs(self, settings: RunSettings) -> Collection[int]:
        """Completed epochs whose weights it needs besides those at the end; training then snapshots them."""
        return ()

    def check(self, settings: RunSettings, parameters: int) -> None:
        """Refuse a run that it cannot be taken of, before anything trains; unless said, any will do.

        Args:
            settings: of the run.
            parameters: P, of one member.

        Raises:
            ValueError: the message begins with the name of the measure's setting, and ends with the remedy.
        """

    def check_tracked(self) -> None:
        """Refuse settings that make no sense while a run trains, where columns alone are kept; unless said, all do.

        Raises:
            ValueError: as `check` does.
        """

    def take(self, subject: Subject, memory: Mapping[str, Tensor]) -> Finding:
        """The measurement. A member that is not finite (`hw1.measures.finite`) has NaN, the others what they have.

        Args:
            subject: what it is taken of.
            memory: of the last taking on the same run a little earlier; empty where there was none.
        """
