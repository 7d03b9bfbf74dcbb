"""The density of the Hessian's eigenvalues."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hw1.measures.finite import finite
from hw1.measures.pieces import CHUNK, Piece, in_memory
from hw1.measures.protocol import Column, Finding, Measure, Subject
from hw1.measures.room import Cut, memory_file, say_long, taking
from hw1.measures.rounding import precision_file, row_of
from hw1.measures.training_part import Part, check_examples, training_part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hw1.curvature import Hessian

DENSITY = "density.safetensors"
CHUNK_SIZE = 256  # examples at a time
_NUMBER = re.compile(r"=(\d+)")


class Spectrum(Measure):
    """Density of the eigenvalues of the training loss's Hessian, by stochastic Lanczos quadrature.

    The Hessian is that of the mean loss in evaluation mode over a random part of the training set, stratified by class,
    in float32. `density.safetensors` holds the rules of all probes, `nodes` and `weights` [R, probes, steps] (see
    `hw1.curvature.spectral_density`; `hw1.plots.density.draw_density` draws them); `precision.json` says what float32
    makes of the products. The columns are the extreme nodes,
    which lie inside the spectrum, and the mean eigenvalue with its standard error over probes. A member whose weights
    or loss are not finite has NaN, and nodes NaN of weight 0. Of a network for which there is no room (see
    `hw1.measures.room`) fewer Lanczos vectors are kept, as `memory.json` says: nodes then repeat.

    Args:
        examples: number of training examples; null for all.
        probes: independent start vectors, at least 2.
        steps: Lanczos steps a probe.
        seed: of the choice of examples and of the probes; null for the run's.

    Raises:
        ValueError: a value is out of range; the message begins with its name.
    """

    version: ClassVar[int] = 1
    limits: ClassVar[Mapping[str, str]] = {"examples": "measured"}
    bounded: ClassVar[bool] = True
    columns: ClassVar[Mapping[str, Column]] = {
        "spectrum/largest": Column("largest eigenvalue of the Hessian's density"),
        "spectrum/smallest": Column("smallest eigenvalue of the Hessian's density"),
        "spectrum/mean": Column("mean eigenvalue of the Hessian", error="spectrum/mean_standard_error"),
        "spectrum/mean_standard_error": Column("standard error of the mean eigenvalue"),
    }

    def __init__(self, examples: int | None, probes: int, steps: int, seed: int | None) -> None:
        check_examples(examples)
        for name, value in (("probes", probes), ("steps", steps)):
            if value < 2:
                raise ValueError(f"{name}: got {value}, expected an integer of at least 2")
        self._examples, self._probes, self._steps, self._seed = examples, probes, steps, seed

    def take(self, subject: Subject, memory: Mapping[str, Tensor]) -> Finding:
        """The columns of every member, and its density."""
        return in_memory(self, subject)

    def pieces(self, members: int) -> Sequence[str]:
        """The probes of each member."""
        return [f"member={member}_probe={probe}" for member in range(members) for probe in range(self._probes)]

    def compute(self, subject: Subject, names: Iterable[str], chunk: Any) -> Iterator[tuple[str, Piece]]:
        """The rule of each probe: `nodes`, `weights` [steps]; of a member that is not finite none."""
        from hw1.curvature import probe_density
        from hw1.seeds import generator

        seed = subject.seed if self._seed is None else self._seed
        part = training_part(subject.data, self._examples, seed, "spectrum examples")
        of, hessian, bound = -1, None, None
        cut = None if chunk is None else Cut.of(chunk)
        for name in names:
            member, probe = (int(number) for number in _NUMBER.findall(name))
            if member != of:
                of, hessian = member, None  # what the last one kept goes before the next keeps
                hessian = _hessian(subject.end.nets[member], subject, part)
                if hessian is not None:
                    how, wanted = taking(hessian, part.size, cut), min(self._steps, hessian.size)
                    if cut is None:
                        shorter = "fewer measures.spectrum.examples, probes or steps"
                        say_long(how, self._probes * self._steps, 0, len(subject.end.nets), shorter)
                    cut = how.cut(wanted, cut)
                    bound = how.record(cut, Cut(CHUNK_SIZE, wanted))
            if hessian is None or cut is None:
                yield name, {"nodes": None, "weights": None}
                continue
            one = probe_density(
                *(hessian, probe),
                steps=self._steps,
                generator=generator(seed, "spectrum probes"),
                basis_size=cut.vectors,
            )
            piece = {
                CHUNK: cut.said,
                "nodes": one.nodes[0].tolist(),
                "weights": one.weights[0].tolist(),
                "precision": row_of(hessian.precision) if probe == 0 else None,
            }
            yield name, piece | ({"memory": bound} if bound and probe == 0 else {})

    def assemble(self, subject: Subject, pieces: Mapping[str, Piece]) -> Finding:
        """The densities of all members."""
        import torch
        from safetensors.torch import save

        from hw1.curvature import Density

        densities, precisions, bounds = [], [], list[Mapping[str, Any] | None]()
        rules = list(pieces.values())
        for member, net in enumerate(subject.end.nets):
            size = sum(parameter.numel() for parameter in net.parameters())
            own = rules[member * self._probes : (member + 1) * self._probes]
            if own[0]["nodes"] is None:
                nodes = torch.full((self._probes, min(self._steps, size)), torch.nan, dtype=torch.float64)
                weights = torch.zeros_like(nodes)
            else:
                nodes, weights = (
                    torch.tensor([one[name] for one in own], dtype=torch.float64) for name in ("nodes", "weights")
                )
            densities.append(Density(nodes, weights, size))
            precisions.append(own[0].get("precision"))
            bounds.append(own[0].get("memory"))
        means = [density.moment(1) for density in densities]
        values = {
            "spectrum/largest": [density.nodes.max().item() for density in densities],
            "spectrum/smallest": [density.nodes.min().item() for density in densities],
            "spectrum/mean": [mean.value for mean in means],
            "spectrum/mean_standard_error": [mean.standard_error for mean in means],
        }
        nodes, weights = (torch.stack([getattr(one, name) for one in densities]) for name in ("nodes", "weights"))
        return Finding(
            values,
            files={
                DENSITY: save({"nodes": nodes, "weights": weights}),
                **precision_file(precisions),
                **memory_file(bounds),
            },
        )


def _hessian(net: nn.Module, subject: Subject, part: Part) -> Hessian | None:
    """Of the loss on the examples; None where the network or its loss is not finite."""
    from hw1.curvature import EmpiricalRisk, Hessian
    from hw1.vectors import ParamSpace

    if not finite(net, subject.loss, part.batches):
        return None
    space = ParamSpace.of(net)
    risk = EmpiricalRisk(net, subject.loss, part.batches, space, keep_graph=part.held, chunk_size=CHUNK_SIZE)
    return Hessian(risk, risk.theta)
