"""A risk's products within a stated amount of memory: whether its graph is kept, how many examples at a time; its time.

What is kept changes no bit of a product, the chunk its last ones: where either is bounded, `Fit` says so.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hw1.risk import scrutiny
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.memory import give_back, held_by, memory_of
from hw1.risk.nested import cast, common_length, detached, rows_of
from hw1.risk.products import Product

# The share of the room that graphs may take: those that are kept, or one chunk's. The rest is for vectors.
SHARE = 0.5


@dataclass(frozen=True)
class Fit:
    """How products with a risk's Hessian are computed, and what that takes.

    Attributes:
        room: bytes that it was to fit in.
        graph: bytes of the graph of all examples, or more where that is small.
        keep_graph: whether it is kept from one product to the next.
        dropped: whether it would have been kept, had it fitted.
        chunk_size: examples at a time.
        wanted: examples at a time that were asked for.
        seconds: of a product over all examples, as expected from one of a chunk's.
        gradient_seconds: of a gradient, likewise.
    """

    room: float
    graph: float
    keep_graph: bool
    dropped: bool
    chunk_size: int
    wanted: int
    seconds: float
    gradient_seconds: float

    @property
    def bounded(self) -> bool:
        """Whether memory made it another than asked for."""
        return self.dropped or self.chunk_size != self.wanted


def fit(risk: EmpiricalRisk, examples: int, room: float, most: int | None = None) -> Fit:
    """Make products with the Hessian of R fit in so many bytes, from now on.

    Half of them may be graphs. Where that of all examples is larger it is dropped, and a product costs about a gradient
    more; where that of one chunk is, chunks become smaller, down to one example. Costs a gradient and a product of two
    examples, and of one chunk for the time; where they do not fit easily, a few of 2 and 4 examples more. Batches that
    are never cut stay whole.

    Args:
        risk: R; it is changed.
        examples: how many it is over.
        room: bytes.
        most: examples at a time, however much room there is; None for as many as the risk takes.

    Raises:
        ValueError: as for `EmpiricalRisk.hvp`.

    Example:
        >>> x, y = torch.randn(64, 3), torch.randn(64, 1)
        >>> risk = EmpiricalRisk(torch.nn.Linear(3, 1), torch.nn.functional.mse_loss, [(x, y)])
        >>> fit(risk, 64, 2**30).bounded, fit(risk, 64, 1000).keep_graph
        (False, False)
    """
    theta = risk.theta
    scrutiny.confirm(risk, "hessian")
    wanted, keeps = risk.chunk_size, risk._keep_graph
    first = detached(risk.examples.first)
    length = common_length(first)
    cut = length is not None and risk.examples.pairs and not risk.examples.said
    rows = length if cut and length is not None else 1
    parts = tuple(risk.space.unflatten(torch.ones_like(theta)).values())

    def graph(size: int) -> Product:
        batch = cast(rows_of(first, torch.arange(size) % rows), theta) if cut else cast(first, theta)
        with risk._point(theta) as point:
            return risk._hessian_chunk(point, batch, risk.examples.weight(batch))

    def run(size: int) -> object:
        with risk._point(theta):
            return graph(size).times(parts, batched=False)

    chunk = wanted if most is None else min(wanted, most)
    pair = memory_of(run, 2).fixed  # what two examples take, with all that does not grow with them
    if cut and pair * math.ceil(examples / 2) <= SHARE * room:  # so it is for small networks, and nothing more is asked
        whole = pair * math.ceil(examples / 2)
    elif cut:
        # As if there were four: of fewer the same sizes tell, and a graph is never taken for nothing.
        needs = memory_of(run, max(4, rows))
        fits = (SHARE * room - needs.fixed) / max(needs.each, 1.0)
        if fits < min(chunk, rows):
            chunk = 1 << (max(1, int(fits)).bit_length() - 1)
        kept = held_by(graph, max(4, rows))
        whole = kept.each * examples + kept.fixed * math.ceil(examples / chunk)
    else:
        whole = held_by(graph, 1).fixed * math.ceil(examples / max(1, length or 1))
    keep = keeps and whole <= SHARE * room
    seconds = _timed(risk, graph, parts, theta, min(chunk, rows), keep)
    if chunk != wanted:
        risk.examples = risk.examples.in_chunks(chunk)
    risk._keep_graph, risk._bounded = keep, chunk != wanted
    risk._forget()
    if chunk != wanted or keep != keeps:
        give_back()
    product, gradient = (examples / min(chunk, rows if cut else length or 1) * each for each in seconds)
    return Fit(room, whole, keep, keeps and not keep, chunk, wanted, product, gradient)


def _timed(
    risk: EmpiricalRisk, graph: Any, parts: tuple[Tensor, ...], theta: Tensor, size: int, keep: bool
) -> tuple[float, float]:
    """Seconds of a product and of a gradient of `size` examples."""

    def now() -> float:
        if theta.is_cuda:  # which has only been told so far
            torch.cuda.synchronize(theta.device)
        return time.perf_counter()

    with risk._point(theta):
        begin = now()
        product = graph(size)
        made = now()
        product.times(parts, batched=False)
        done = now()
    return done - (made if keep else begin), made - begin
