"""hw1 and its peers, asked for the same quantities of the same problem: for each what its manual would have one write.

A tool is made of a problem, in its own process where another tool's settings could matter. Whatever it raises or warns
of is the caller's to catch: see silent_errors.py and gpu.py.
"""

import inspect
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Problem:
    """A network, its batches, and a loss: of (outputs, targets) with a `reduction`, or of (module, batch)."""

    net: nn.Module
    batches: list[Pair]
    loss: Any = None
    batch_loss: Callable[[nn.Module, Pair], Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.net.parameters()).device


class NotOfferedError(Exception):
    """The tool has no way to ask for this."""


class Hw1:
    """`options` are EmpiricalRisk's, as far as this version has them."""

    package = "hw1"
    states = "standard error"

    def __init__(self, problem: Problem, **options: Any) -> None:
        from hw1.curvature import EmpiricalRisk, Hessian

        known = inspect.signature(EmpiricalRisk).parameters
        options = {name: value for name, value in options.items() if name in known}
        self.risk = EmpiricalRisk(
            problem.net, problem.loss, problem.batches, batch_loss=problem.batch_loss, **options
        )  # fmt: skip
        self.hessian = Hessian(self.risk, self.risk.theta)

    def product(self, v: Tensor) -> Tensor:
        """H v, [P]."""
        return self.hessian.matvec(v)

    def largest(self, seed: int, **options: Any) -> float:
        """The largest eigenvalue."""
        from hw1.curvature import extreme_eigenpairs

        return extreme_eigenpairs(self.hessian, 1, generator=seeded(seed), **options).values[0].item()

    def trace(self, seed: int, probes: int | None = None) -> tuple[float, float | None]:
        """The trace and the error that the tool states, if it does; by its defaults unless `probes` are given."""
        from hw1.curvature import hutchinson_trace

        chosen = {} if probes is None else {"probes": probes}
        estimate = hutchinson_trace(self.hessian, generator=seeded(seed), **chosen)
        return estimate.value, estimate.standard_error

    def density(self, seed: int, probes: int, steps: int) -> float:
        """The trace by the density, which must be computed for it."""
        from hw1.curvature import spectral_density

        density = spectral_density(self.hessian, probes=probes, steps=steps, generator=seeded(seed))
        return density.moment(1).value * density.size


class PyHessian:
    """`one_batch`: all examples at once, where it keeps the gradient's graph between products."""

    package = "pyhessian"
    states = "tolerance"
    tolerance = 1e-3  # its default: relative, of the trace and of eigenvalues

    def __init__(self, problem: Problem, one_batch: bool = False) -> None:
        from pyhessian import hessian

        whole = tuple(map(torch.cat, zip(*problem.batches, strict=True)))
        data = {"data": whole} if one_batch else {"dataloader": problem.batches}
        self.tool = hessian(problem.net, needs_loss(problem), cuda=problem.device.type == "cuda", **data)

    def product(self, v: Tensor) -> Tensor:
        """H v, [P]."""
        from pyhessian.utils import hessian_vector_product

        parts = unflatten(v, self.tool.params)
        if self.tool.full_dataset:
            return flatten(self.tool.dataloader_hv_product(parts)[1])
        return flatten(hessian_vector_product(self.tool.gradsH, self.tool.params, parts))

    def largest(self, seed: int, **options: Any) -> float:
        """The largest eigenvalue."""
        torch.manual_seed(seed)
        return self.tool.eigenvalues(**options)[0][0]

    def trace(self, seed: int, probes: int | None = None) -> tuple[float, float | None]:
        """The trace and the error that the tool states, if it does; by its defaults unless `probes` are given."""
        torch.manual_seed(seed)
        # With a number of probes it must not stop after fewer of them.
        samples = self.tool.trace() if probes is None else self.tool.trace(maxIter=probes, tol=-math.inf)
        mean = statistics.mean(samples)
        return mean, self.tolerance * abs(mean)

    def density(self, seed: int, probes: int, steps: int) -> float:
        """The trace by its density; it needs torch.eig, which current torch lacks."""
        torch.manual_seed(seed)
        torch.eig = symmetric_eig
        try:
            nodes, weights = self.tool.density(iter=steps, n_v=probes)
        finally:
            del torch.eig
        size = sum(p.numel() for p in self.tool.params)
        return (torch.tensor(nodes) * torch.tensor(weights)).double().sum(1).mean().item() * size


class Eigenthings:
    """The operator, and its algorithms with their defaults."""

    package = "hessian-eigenthings"
    states = "standard error"

    def __init__(self, problem: Problem) -> None:
        from hessian_eigenthings import HessianOperator, supervised_loss

        loss = supervised_loss(problem.loss) if problem.batch_loss is None else problem.batch_loss
        self.tool = HessianOperator(problem.net, problem.batches, loss)

    def product(self, v: Tensor) -> Tensor:
        """H v, [P]."""
        return self.tool.matvec(v)

    def largest(self, seed: int) -> float:
        """The largest eigenvalue."""
        from hessian_eigenthings import lanczos

        return lanczos(self.tool, k=1, seed=seed).eigenvalues[0].item()

    def trace(self, seed: int, probes: int | None = None) -> tuple[float, float | None]:
        """The trace and the error that the tool states, if it does; by its defaults unless `probes` are given."""
        from hessian_eigenthings import hutchinson, trace

        result = trace(self.tool, seed=seed) if probes is None else hutchinson(self.tool, num_samples=probes, seed=seed)
        return result.estimate, result.stderr


class Curvlinops:
    """The operator; eigenvalues by SciPy, as its manual shows."""

    package = "curvlinops-for-pytorch"
    states = "nothing"

    def __init__(self, problem: Problem) -> None:
        from curvlinops import HessianLinearOperator

        parameters = [p for p in problem.net.parameters() if p.requires_grad]
        self.tool = HessianLinearOperator(problem.net, needs_loss(problem), parameters, problem.batches)

    def product(self, v: Tensor) -> Tensor:
        """H v, [P]."""
        return self.tool @ v

    def largest(self, seed: int, **options: Any) -> float:
        """The largest eigenvalue."""
        import numpy
        from scipy.sparse.linalg import eigsh

        start = numpy.random.default_rng(seed).standard_normal(self.tool.shape[0])
        options = {"which": "LA", "v0": start, **options}
        return float(eigsh(self.tool.to_scipy(), k=1, return_eigenvectors=False, **options)[0])

    def trace(self, seed: int, probes: int | None = None) -> tuple[float, float | None]:
        """The trace and the error that the tool states, if it does; by its defaults unless `probes` are given."""
        from curvlinops import hutchinson_trace

        torch.manual_seed(seed)
        return hutchinson_trace(self.tool, num_matvecs=probes or 100).item(), None

    def density(self, seed: int, probes: int, steps: int) -> float:
        """Its density of Papyan 2020 is of a spectrum scaled to [-1, 1], on a grid: another quantity."""
        raise NotOfferedError("no quadrature")


class Landscaper:
    """Its Hessian, a modified PyHessian; the planes are in silent_errors.py."""

    package = "landscaper"
    states = "tolerance"
    tolerance = 1e-3

    def __init__(self, problem: Problem) -> None:
        import landscaper

        self.tool = landscaper.PyHessian(problem.net, needs_loss(problem), problem.batches, str(problem.device))

    def product(self, v: Tensor) -> Tensor:
        """H v, [P]."""
        return flatten(self.tool.hv_product(unflatten(v, self.tool.params))[1])

    def largest(self, seed: int) -> float:
        """The largest eigenvalue."""
        torch.manual_seed(seed)
        return self.tool.eigenvalues()[0][0]

    def trace(self, seed: int, probes: int | None = None) -> tuple[float, float | None]:
        """The trace and the error that the tool states, if it does; by its defaults unless `probes` are given."""
        torch.manual_seed(seed)
        mean = float(self.tool.trace() if probes is None else self.tool.trace(maxIter=probes, tol=-math.inf))
        return mean, self.tolerance * abs(mean)


class LossLandscapes:
    """Losses along lines and planes; it has no curvature."""

    package = "loss-landscapes"
    states = "nothing"

    def __init__(self, problem: Problem) -> None:
        import loss_landscapes  # noqa: F401

        raise NotOfferedError("no curvature")


TOOLS = {
    "hw1": Hw1,
    "PyHessian": PyHessian,
    "hessian-eigenthings": Eigenthings,
    "curvlinops": Curvlinops,
    "Landscaper": Landscaper,
    "loss-landscapes": LossLandscapes,
}


def needs_loss(problem: Problem) -> Any:
    if problem.loss is None:
        raise NotOfferedError("its loss gets outputs and targets only")
    return problem.loss


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flatten(tensors: Any) -> Tensor:
    """[P] of a parameter's shape each."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(v: Tensor, like: list[Tensor]) -> list[Tensor]:
    """A part in each tensor's shape, of v [P]."""
    parts = v.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def symmetric_eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
    """What torch.eig returned for a symmetric matrix: values [n, 2] (real, imaginary) and vectors [n, n]."""
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], 1), vectors
