"""How fast a network's loss rises around its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from hw1.measures.finite import finite
from hw1.measures.pieces import CHUNK, Piece
from hw1.measures.protocol import Column, Finding, Measure, Subject
from hw1.measures.room import Cut, memory_file, say_long, taking
from hw1.measures.rounding import precision_file, row_of
from hw1.measures.training_part import Part, check_examples, training_part
from hw1.stages import through

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hw1.curvature import Eigenpairs, Hessian


_PARTS = ("eigenvalue", "trace", "keskar", "adaptive")  # that are independent of each other
CHUNK_SIZE = 256  # examples at a time
SEARCH, ASCENTS = 60, 120  # products that the largest eigenvalue takes, gradients that the three boxes take, or so
KEPT = 4096  # examples whose graph is kept between products: above, memory counts for more than time


class Sharpness(Measure):
    """Sharpness of the mean training loss in evaluation mode, over a random part of the training set.

    The part is stratified by class. For a CNN of 14,718 parameters and 4,000 images of MNIST, three parts of 1,024 and
    the whole differed by 5% in the largest eigenvalue and 15% in `sharpness/keskar_5e-4`, and a part took 12 to 16
    seconds of one core.

    - `sharpness/keskar_1e-3`, `sharpness/keskar_5e-4`: Keskar et al. 2017, see `hw1.landscape.keskar_sharpness`
    - `sharpness/adaptive`: unchanged by rescaling, see `hw1.landscape.adaptive_sharpness`; in the unit of the loss
    - `sharpness/largest_eigenvalue` of the Hessian, to a residual of 0.1%
    - `sharpness/trace` of the Hessian, estimated (Hutch++), with `sharpness/trace_standard_error`

    `precision.json` says what float32 makes of the Hessian's products. Of a network for which there is no room (see
    `hw1.measures.room`) `memory.json` says how it was measured instead, and the trace's standard error is larger.

    While training, the largest eigenvalue is searched from the last eigenvector. A member whose weights or loss are not
    finite has NaN.

    Args:
        examples: number of training examples; null for all.
        rho: half the width of the box of `sharpness/adaptive`, relative to each weight.
        trace_products: Hessian-vector products that the trace may take, at least 6.
        seed: of the choice of examples, and of the starts and probes; null for the run's.

    Raises:
        ValueError: a value is out of range; the message begins with its name.
    """

    version: ClassVar[int] = 1
    limits: ClassVar[Mapping[str, str]] = {"examples": "measured"}
    bounded: ClassVar[bool] = True
    columns: ClassVar[Mapping[str, Column]] = {
        "sharpness/keskar_1e-3": Column("Keskar's sharpness, ε = 1e-3"),
        "sharpness/keskar_5e-4": Column("Keskar's sharpness, ε = 5e-4"),
        "sharpness/adaptive": Column("adaptive sharpness", "unit of the loss"),
        "sharpness/largest_eigenvalue": Column("largest Hessian eigenvalue"),
        "sharpness/trace": Column("trace of the Hessian", error="sharpness/trace_standard_error"),
        "sharpness/trace_standard_error": Column("standard error of the trace"),
    }

    def __init__(self, examples: int | None, rho: float, trace_products: int, seed: int | None) -> None:
        check_examples(examples)
        if not (rho > 0 and math.isfinite(rho)):
            raise ValueError(f"rho: got {rho}, expected a positive number")
        if trace_products < 6:
            raise ValueError(f"trace_products: got {trace_products}, expected at least 6")
        self._examples, self._rho, self._products, self._seed = examples, rho, trace_products, seed

    def take(self, subject: Subject, memory: Mapping[str, Tensor]) -> Finding:
        """The columns of every member."""
        import torch

        starts = memory.get("eigenvectors")  # [R, P]; zeros where there is none
        names = self.pieces(len(subject.end.nets))
        pieces, vectors = dict[str, Piece](), [_none(net) for net in subject.end.nets]
        for name, piece, pair in self._computed(subject, through(names, len(names)), None, starts):
            pieces[name] = piece
            if pair is not None:
                vectors[_member(name)] = pair.vectors[:, 0].clone()
        return replace(self.assemble(subject, pieces), memory={"eigenvectors": torch.stack(vectors)})

    def pieces(self, members: int) -> Sequence[str]:
        """What is measured of each member."""
        return [f"member={member}_{part}" for member in range(members) for part in _PARTS]

    def compute(self, subject: Subject, names: Iterable[str], chunk: Any) -> Iterator[tuple[str, Piece]]:
        """The columns of each, by their names; of a member that is not finite none."""
        for name, piece, _ in self._computed(subject, names, chunk, None):
            yield name, piece

    def assemble(self, subject: Subject, pieces: Mapping[str, Piece]) -> Finding:
        """The columns of all members."""
        rows: list[dict[str, float]] = [dict.fromkeys(self.columns, math.nan) for _ in subject.end.nets]
        precisions, bounds = (list[Mapping[str, Any] | None]([None] * len(rows)) for _ in range(2))
        for name, piece in pieces.items():
            rows[_member(name)] |= piece["columns"]
            precisions[_member(name)] = piece.get("precision") or precisions[_member(name)]
            bounds[_member(name)] = piece.get("memory") or bounds[_member(name)]
        values = {name: [row[name] for row in rows] for name in self.columns}
        return Finding(values, files={**precision_file(precisions), **memory_file(bounds)})

    def _computed(
        self, subject: Subject, names: Iterable[str], chunk: Any, starts: Tensor | None
    ) -> Iterator[tuple[str, Piece, Eigenpairs | None]]:
        """(name, piece, the largest eigenvalue where it is that); searched from `starts` [R, P], where there are."""
        from hw1.curvature import extreme_eigenpairs, hutchpp_trace
        from hw1.landscape import adaptive_sharpness, keskar_sharpness
        from hw1.risk.memory import trim
        from hw1.seeds import generator

        seed = subject.seed if self._seed is None else self._seed
        part = training_part(subject.data, self._examples, seed, "sharpness examples")

        def randomness(purpose: str) -> torch.Generator:
            return generator(seed, f"sharpness {purpose}")

        of, hessian, bound = -1, None, None
        cut = None if chunk is None else Cut.of(chunk)
        wanted = max(self._products // 3, 1)  # vectors of the trace's basis; the search has a bound of its own
        for name in names:
            member, pair = _member(name), None
            if member != of:
                of, hessian = member, None  # what the last one kept goes before the next keeps
                hessian = _hessian(subject.end.nets[member], subject, part)
                if hessian is not None:
                    how = taking(hessian, part.size, cut)
                    if cut is None:
                        shorter = "a smaller measures.sharpness.examples"
                        say_long(how, SEARCH + self._products, ASCENTS, len(subject.end.nets), shorter)
                    cut = how.cut(wanted, cut)
                    bound = how.record(cut, Cut(CHUNK_SIZE, wanted))
            if hessian is None or cut is None:
                yield name, {"columns": {}}, None
                continue
            risk, theta, columns = hessian.risk, hessian.theta, dict[str, float]()
            if name.endswith("_eigenvalue"):
                known = starts is not None and bool(starts[member].any())
                start = starts[member].to(theta) if starts is not None and known else None  # a checkpoint's: on the CPU
                pair = extreme_eigenpairs(
                    hessian, 1, tol=1e-3, generator=randomness("eigenvalue"), start=start, basis_size=cut.search
                )
                trim()
                columns["sharpness/largest_eigenvalue"] = pair.values[0].item()
            elif name.endswith("_trace"):
                trace = hutchpp_trace(
                    hessian, products=self._products, generator=randomness("trace"), basis_size=cut.vectors
                )
                risk.let_go()
                trim()
                columns["sharpness/trace"] = trace.value
                columns["sharpness/trace_standard_error"] = trace.standard_error
            elif name.endswith("_keskar"):
                for epsilon in ("1e-3", "5e-4"):
                    rise = keskar_sharpness(risk, theta, float(epsilon), generator=randomness("box"))
                    columns[f"sharpness/keskar_{epsilon}"] = rise.value
            else:
                adaptive = adaptive_sharpness(risk, theta, self._rho, generator=randomness("box"))
                columns["sharpness/adaptive"] = adaptive.value
            piece: dict[str, Any] = {CHUNK: cut.said, "columns": columns}
            if pair is not None:
                piece |= {"precision": row_of(pair.precision)} | ({"memory": bound} if bound else {})
            yield name, piece, pair


def _member(name: str) -> int:
    """Of a piece."""
    return int(name.removeprefix("member=").partition("_")[0])


def _none(net: nn.Module) -> Tensor:
    """No eigenvector: zeros, [P]."""
    import torch

    return torch.cat([torch.zeros_like(part).flatten() for part in net.parameters()]).detach()


def _hessian(net: nn.Module, subject: Subject, part: Part) -> Hessian | None:
    """Of the loss on the examples; None where the network or its loss is not finite."""
    from hw1.curvature import EmpiricalRisk, Hessian
    from hw1.vectors import ParamSpace

    if not finite(net, subject.loss, part.batches):
        return None
    keep = part.held and part.size <= KEPT
    risk = EmpiricalRisk(net, subject.loss, part.batches, ParamSpace.of(net), keep_graph=keep, chunk_size=CHUNK_SIZE)
    return Hessian(risk, risk.theta)
