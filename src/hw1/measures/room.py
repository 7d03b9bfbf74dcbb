"""The memory that a measure of curvature may take, what it does where a network needs more, and how long it will take.

What fits is measured as ever, bit by bit. Else the graph is dropped, then chunks and bases become smaller;
`memory.json` beside the rows says which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hw1.machine import allotted, free_memory
from hw1.stages import duration, note

if TYPE_CHECKING:
    from hw1.curvature import Hessian
    from hw1.risk.fitting import Fit

MOST = 2 * 2**30  # bytes beyond what the process holds, unless said: a laptop of 16 GB has room for several workers
LEAST = 2**28  # less is not worth asking for: it would be ten vectors of a ResNet-18
HELD = 2**29  # bytes of a worker's share that libraries, data and networks take
VECTORS = 0.25  # of the room: those of a basis; half of it is for graphs, the rest for what products need
LONG = 300.0  # seconds, from which a measure says how long it will take before it begins
MANY = 1_000_000  # parameters, from which memory between tensors is worth giving back
MEMORY = "memory.json"


def room() -> float:
    """Bytes that a measure may take: of `hydra.launcher.memory_per_worker` where that was set, else `MOST`, if free."""
    said = allotted()
    return max(LEAST, min(free_memory(), MOST) if said is None else said - HELD)


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
        return None if self.room >= MOST else min(300, self.vectors)  # at least 12 all the same

    def cut(self, chunk: int, wanted: int) -> Cut:
        """How the measurement is cut, in chunks of so many examples.

        Args:
            chunk: of the products.
            wanted: vectors of the largest basis, had there been room.
        """
        return Cut(chunk, self.vectors if self.vectors < wanted else None, self.search_basis)

    def record(self, wanted: int) -> dict[str, Any] | None:
        """What memory has made another; None if nothing.

        Args:
            wanted: vectors of the largest basis, had there been room.
        """
        if not self.fit.bounded and self.vectors >= wanted and self.search_basis is None:
            return None
        return {
            "room_bytes": int(self.room),
            "graph_bytes": int(self.fit.graph),
            "graph_kept": self.fit.keep_graph,
            "chunk_size": self.fit.chunk_size,
            "chunk_size_wanted": self.fit.wanted,
            "vectors": min(self.vectors, wanted),
            "vectors_wanted": wanted,
        }


def taking(hessian: Hessian, examples: int) -> Taking:
    """Make the products of a risk's Hessian fit the room of this process.

    What float32 makes of them is looked at now, while there is no basis beside what that takes.

    Args:
        hessian: of one network; its risk is changed.
        examples: how many the risk is over.
    """
    from hw1.risk.fitting import fit
    from hw1.risk.memory import trim

    size, bytes_free = hessian.size, room()
    found = fit(hessian.risk, examples, bytes_free)
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
