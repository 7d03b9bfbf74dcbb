"""The density of the Hessian's eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from hw1.measures.finite import finite
from hw1.measures.protocol import Column, Finding, Measure, Subject
from hw1.measures.rounding import precision_file
from hw1.measures.training_part import check_examples, training_part
from hw1.stages import through

if TYPE_CHECKING:
    from torch import Tensor


DENSITY = "density.safetensors"


class Spectrum(Measure):
    """Density of the eigenvalues of the training loss's Hessian, by stochastic Lanczos quadrature.

    The Hessian is that of the mean loss in evaluation mode over a random part of the training set, stratified by class,
    in float32. `density.safetensors` holds the rules of all probes, `nodes` and `weights` [R, probes, steps] (see
    `hw1.curvature.spectral_density`; `hw1.plots.density.draw_density` draws them); `precision.json` says what float32
    makes of the products. The columns are the extreme nodes,
    which lie inside the spectrum, and the mean eigenvalue with its standard error over probes. A member whose weights
    or loss are not finite has NaN, and nodes NaN of weight 0.

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
        import torch
        from safetensors.torch import save

        from hw1.curvature import Density, EmpiricalRisk, Hessian, spectral_density
        from hw1.seeds import generator
        from hw1.vectors import ParamSpace

        seed = subject.seed if self._seed is None else self._seed
        part = training_part(subject.data, self._examples, seed, "spectrum examples")
        densities = []
        for net in through(subject.end.nets, len(subject.end.nets)):
            if not finite(net, subject.loss, part.batches):
                size = sum(parameter.numel() for parameter in net.parameters())
                nodes = torch.full((self._probes, min(self._steps, size)), torch.nan, dtype=torch.float64)
                densities.append(Density(nodes, torch.zeros_like(nodes), size))
                continue
            risk = EmpiricalRisk(net, subject.loss, part.batches, ParamSpace.of(net), keep_graph=part.held)
            randomness = generator(seed, "spectrum probes")
            hessian = Hessian(risk, risk.theta)
            densities.append(spectral_density(hessian, probes=self._probes, steps=self._steps, generator=randomness))
        means = [density.moment(1) for density in densities]
        values = {
            "spectrum/largest": [density.nodes.max().item() for density in densities],
            "spectrum/smallest": [density.nodes.min().item() for density in densities],
            "spectrum/mean": [mean.value for mean in means],
            "spectrum/mean_standard_error": [mean.standard_error for mean in means],
        }
        precision = precision_file([density.precision for density in densities])
        nodes, weights = (torch.stack([getattr(one, name) for one in densities]) for name in ("nodes", "weights"))
        return Finding(values, files={DENSITY: save({"nodes": nodes, "weights": weights}), **precision})
