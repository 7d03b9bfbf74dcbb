"""How fast a network's loss rises around its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from hw1.measures.finite import finite
from hw1.measures.protocol import Column, Finding, Measure, Subject
from hw1.measures.rounding import precision_file
from hw1.measures.training_part import Part, check_examples, training_part
from hw1.stages import at

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hw1.curvature import Eigenpairs
    from hw1.risk.precision_error import PrecisionError


_PARTS = 4  # of a network, to count: the largest eigenvalue, the trace, Keskar's two boxes, the adaptive one
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

    `precision.json` says what float32 makes of the Hessian's products.

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

        seed = subject.seed if self._seed is None else self._seed
        part = training_part(subject.data, self._examples, seed, "sharpness examples")
        starts = memory.get("eigenvectors")  # [R, P]; zeros where there is none
        rows, vectors = [], []
        precisions: list[PrecisionError | None] = []
        for member, net in enumerate(subject.end.nets):
            at(_PARTS * member, _PARTS * len(subject.end.nets))
            if not finite(net, subject.loss, part.batches):
                rows.append(dict.fromkeys(self.columns, math.nan))
                vectors.append(torch.cat([torch.zeros_like(part).flatten() for part in net.parameters()]).detach())
                precisions.append(None)
                continue
            start = None if starts is None or not starts[member].any() else starts[member]
            row, pair = self._of(net, subject, part, seed, start, member)
            rows.append(row)
            vectors.append(pair.vectors[:, 0].clone())
            precisions.append(pair.precision)
        values = {name: [row[name] for row in rows] for name in self.columns}
        return Finding(values, files=precision_file(precisions), memory={"eigenvectors": torch.stack(vectors)})

    def _of(
        self, net: nn.Module, subject: Subject, part: Part, seed: int, start: Tensor | None, member: int
    ) -> tuple[dict[str, float], Eigenpairs]:
        """The columns of one network, and its largest eigenvalue with the eigenvector [P]."""
        from hw1.curvature import EmpiricalRisk, Hessian, extreme_eigenpairs, hutchpp_trace
        from hw1.landscape import adaptive_sharpness, keskar_sharpness
        from hw1.seeds import generator
        from hw1.vectors import ParamSpace

        def randomness(purpose: str) -> torch.Generator:
            return generator(seed, f"sharpness {purpose}")

        def done(parts: int) -> None:
            at(_PARTS * member + parts, _PARTS * len(subject.end.nets))

        keep = part.held and part.size <= KEPT
        risk = EmpiricalRisk(net, subject.loss, part.batches, ParamSpace.of(net), keep_graph=keep)
        theta = risk.theta
        start = None if start is None else start.to(theta)  # a checkpoint's lies on the CPU
        hessian = Hessian(risk, theta)
        largest = extreme_eigenpairs(hessian, 1, tol=1e-3, generator=randomness("eigenvalue"), start=start)
        done(1)
        trace = hutchpp_trace(hessian, products=self._products, generator=randomness("trace"))
        done(2)
        wide, narrow = (keskar_sharpness(risk, theta, e, generator=randomness("box")) for e in (1e-3, 5e-4))
        done(3)
        adaptive = adaptive_sharpness(risk, theta, self._rho, generator=randomness("box"))
        found = {
            "sharpness/keskar_1e-3": wide.value,
            "sharpness/keskar_5e-4": narrow.value,
            "sharpness/adaptive": adaptive.value,
            "sharpness/largest_eigenvalue": largest.values[0].item(),
            "sharpness/trace": trace.value,
            "sharpness/trace_standard_error": trace.standard_error,
        }
        return found, largest
