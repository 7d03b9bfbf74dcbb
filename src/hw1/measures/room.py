"""The memory that a measure of curvature may take, what it does where a network needs more, and how long it will take.

What fits is measured as ever, bit by bit. Else the graph is dropped, then chunks and bases become smaller;
`memory.json` beside the rows says which.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hw1.machine import allotted
from hw1.stages import duration, note

if TYPE_CHECKING:
    import torch

    from hw1.curvature import Hessian
    from hw1.risk.fitting import Fit

MOST = 2 * 2**30  # bytes beyond what the process holds, unless said: a laptop of 16 GB has room for several workers
LEAST = 2**28  # less is not worth asking for: it would be ten vectors of a ResNet-18
HELD = 2**29  # bytes of a worker's share that libraries, data and networks take
VECTORS = 0.25  # of the room: those of a basis; half of it is for graphs, the rest for what products need
SEARCH = (12, 300)  # vectors that the basis of a search for eigenpairs has, at least and at most
LONG = 300.0  # seconds, from which a measure says how long it will take before it begins
MANY = 1_000_000  # parameters, from which a network's memory counts beside what every process takes
MEMORY = "memory.json"


def room(device: torch.device) -> float:
    """Bytes that a measure may take on a device: `MOST`, if free.

    Of the CPU's `hydra.launcher.memory_per_worker`, where that was set.

    Of less that is free, the largest power of two: processes that look one after another mostly find the same, and so
    compute pieces of the same bits.
    """
    from hw1.risk.memory import free_on

    if device.type == "cpu" and (said := allotted()) is not None:
        return max(LEAST, said - HELD)
    free = max(LEAST, min(free_on(device), MOST))
    return math.ldexp(0.5, math.frexp(free)[1])


@dataclass(frozen=True)
class Cut:
    """How a measurement is cut to fit: what its bits depend on, wherever its pieces are computed.

    Attributes:
        chunk: examples at a time.
        vectors: that a basis may hold; None for as many as are asked for.
        search: that one of a search for eigenpairs may hold; None for the usual number.
    """

    chunk: int
    vectors: int | None = None
    search: int | None = None

    @classmethod
    def of(cls, said: Any) -> Cut:
        """What a piece says of itself.

        Example:
            >>> Cut.of(256), Cut.of(Cut(64, 12).said) == Cut(64, 12)
            (Cut(chunk=256, vectors=None, search=None), True)
        """
        return cls(*said) if isinstance(said, list) else cls(said)

    def within(self, other: Cut | None) -> Cut:
        """What has room where either has: the smaller of both; this one if there is no other.

        Example:
            >>> Cut(256, 12).within(Cut(64, None, 40))
            Cut(chunk=64, vectors=12, search=40)
        """
        if other is None:
            return self
        pairs = ((self.vectors, other.vectors), (self.search, other.search))
        vectors, search = (min((most for most in pair if most is not None), default=None) for pair in pairs)
        return Cut(min(self.chunk, other.chunk), vectors, search)

    @property
    def said(self) -> int | list[int | None]:
        """For a piece: the chunk alone, where vectors are as many as are asked for."""
        bounded = self.vectors is not None or self.search is not None
        return [self.chunk, self.vectors, self.search] if bounded else self.chunk


@dataclass(frozen=True)
class Taking:
    """How a measure is taken of one network.

    Attributes:
        fit: how its products are computed.
        room: bytes.
        each: bytes of a vector [P].
    """

    fit: Fit
    room: float
    each: int

    @property
    def vectors(self) -> int:
        """How many vectors a basis may hold; at least 2."""
        return max(2, int(VECTORS * self.room) // self.each)

    @property
    def search_basis(self) -> int | None:
        """The basis of a search for eigenpairs; None for the usual one, which takes a quarter of the usual room."""
        least, most = SEARCH
        own, usual = (max(least, min(most, count)) for count in (self.vectors, int(VECTORS * MOST) // self.each))
        return own if own < usual else None

    def cut(self, wanted: int, told: Cut | None) -> Cut:
        """How the measurement is cut.

        Args:
            wanted: vectors of the largest basis, had there been room.
            told: how other pieces of it are, which are then of the same bits unless here is less room; None for none.
        """
        vectors = self.vectors if self.vectors < wanted else None
        return Cut(self.fit.chunk_size, vectors, self.search_basis).within(told)

    def record(self, cut: Cut, wanted: Cut) -> dict[str, Any] | None:
        """What memory has made another; None if nothing.

        Args:
            cut: how it is measured.
            wanted: how it would be, had there been room, with the vectors of the largest basis.
        """
        if not self.fit.dropped and cut == Cut(wanted.chunk):
            return None
        return {
            "room_bytes": int(self.room),
            "graph_bytes": int(self.fit.graph),
            "graph_kept": self.fit.keep_graph,
            "chunk_size": cut.chunk,
            "chunk_size_wanted": wanted.chunk,
            "vectors": wanted.vectors if cut.vectors is None else cut.vectors,
            "vectors_wanted": wanted.vectors,
        }


def taking(hessian: Hessian, examples: int, told: Cut | None = None) -> Taking:
    """Make the products of a risk's Hessian fit the room of this process.

    What float32 makes of them is looked at now, while there is no basis beside what that takes.

    Args:
        hessian: of one network; its risk is changed.
        examples: how many the risk is over.
        told: as for `Taking.cut`.
    """
    from hw1.risk.fitting import fit
    from hw1.risk.memory import trim

    size, bytes_free = hessian.size, room(hessian.theta.device)
    found = fit(hessian.risk, examples, bytes_free, None if told is None else told.chunk)
    if hessian.precision is not None and size >= MANY:
        trim()
    return Taking(found, bytes_free, hessian.theta.element_size() * size)


def say_long(own: Taking, products: float, gradients: float, members: int, shorter: str) -> None:
    """One line before a measure begins that takes long.

    Args:
        own: of the first member.
        products: with the Hessian, of one member.
        gradients: likewise.
        members: R.
        shorter: the settings that make it shorter.
    """
    seconds = members * (products * own.fit.seconds + gradients * own.fit.gradient_seconds)
    if seconds < LONG:
        return
    of = f" of {members} members" if members > 1 else ""
    kept = "" if own.fit.keep_graph else f", without {own.fit.graph / 2**30:.1f} GiB of graph kept"
    note(
        f"about {duration(seconds)}{of} ({members * products:,.0f} products with the Hessian of "
        f"{duration(own.fit.seconds)}{kept}): {shorter} makes it shorter"
    )


def memory_file(records: Sequence[Mapping[str, Any] | None]) -> dict[str, bytes]:
    """`memory.json`: of each member what was bounded, null where nothing was; no file where of none.

    Example:
        >>> memory_file([None]), memory_file([None, {"vectors": 11}])
        ({}, {'memory.json': b'[null, {"vectors": 11}]'})
    """
    return {MEMORY: json.dumps(records).encode()} if any(records) else {}
