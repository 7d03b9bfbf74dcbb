"""The gradient of every single example, and how much they differ; what a risk must have for that."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from hw1.risk import scrutiny
from hw1.risk.checks import check_theta
from hw1.risk.closeness import close
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.guard import reading, twice_differentiable
from hw1.risk.nested import cast, detached, examples_in, map_tensors, tensors_of

ROWS_NUMBERS = 2**24  # numbers in the per-example gradients held at a time: 128 MiB in float64
UNKNOWN_TO_VMAP = (RuntimeError, ValueError, TypeError, AttributeError, KeyError)


@dataclass(frozen=True)
class GradientNoise:
    """How the gradients g_n of the N examples differ from their mean g.

    It is that of these N examples, exact but for rounding; as an estimate for a larger population that they were drawn
    from, `variance` is N / (N - 1) times as much.

    Attributes:
        norms: |g_n|, [N], float64, in the order of the batches.
        mean_norm: |g|.
        variance: tr(Cov) = 1/N sum_n |g_n - g|^2; a mini-batch of B examples has a gradient with variance / B.
    """

    norms: Tensor
    mean_norm: float
    variance: float

    @property
    def noise_scale(self) -> float:
        """tr(Cov) / |g|^2, the simple noise scale in examples (McCandlish et al. 2018, equation 2.9); inf at g = 0."""
        return self.variance / self.mean_norm**2 if self.mean_norm else math.inf


def per_example_gradients(risk: EmpiricalRisk, theta: Tensor) -> Iterator[Tensor]:
    """Gradients g_n of each example's own loss at theta [P]: some [B, P] at a time, in the order of the batches.

    R's gradient is their mean, or their sum for a loss that is a sum. By `torch.func.vmap`; one example after another
    where it does not know a layer. A row of each block is compared with autograd's own. What a loader gives is read
    once, and held meanwhile.

    Raises:
        ValueError: theta is not as the risk expects, examples come in another order on another pass, they have no
            losses of their own (the risk has batch_loss, or is weighted by count), the module's backward is not the
            derivative of its forward, or gradients are not finite.

    Example:
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> risk = EmpiricalRisk(torch.nn.Linear(1, 1, bias=False), torch.nn.functional.mse_loss, [(x, 0 * x)])
        >>> torch.cat(list(per_example_gradients(risk, torch.ones(1)))).tolist()  # 2 w x^2
        [[2.0], [8.0]]
    """
    check_theta(theta, risk.space.size)
    require_examples(risk, "per_example_gradients")
    theta = theta.detach().clone()
    require_order(risk, theta)
    scrutiny.confirm(risk, "gradient")
    return _rows(risk, theta)


def gradient_noise(risk: EmpiricalRisk, theta: Tensor) -> GradientNoise:
    """Norms of all examples' gradients at theta [P], and their variance.

    Raises:
        ValueError: as in `per_example_gradients`.

    Example:
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> risk = EmpiricalRisk(torch.nn.Linear(1, 1, bias=False), torch.nn.functional.mse_loss, [(x, 0 * x)])
        >>> gradient_noise(risk, torch.ones(1))  # gradients 2 and 8
        GradientNoise(norms=tensor([2., 8.], dtype=torch.float64), mean_norm=5.0, variance=9.0)
    """
    norms: list[Tensor] = []
    count, squares = 0, 0.0
    mean = torch.zeros(risk.space.size, dtype=torch.float64, device=theta.device)
    for rows in per_example_gradients(risk, theta):
        rows = rows.double()
        norms.append(rows.norm(dim=1))
        # Chan, Golub & LeVeque 1983: no difference of large numbers, however alike the gradients are.
        own = rows.mean(0)
        new = count + len(rows)
        squares += (rows - own).square().sum().item()
        squares += (own - mean).square().sum().item() * count * len(rows) / new
        mean += (own - mean) * (len(rows) / new)
        count = new
    return GradientNoise(torch.cat(norms), mean.norm().item(), squares / count)


# --- what is asked of the risk


def require_pairs(risk: EmpiricalRisk, what: str) -> Callable[[Any, Any], Tensor]:
    """The loss (outputs, targets) -> [].

    Raises:
        ValueError: the risk has batch_loss instead.
    """
    if risk.loss is None:
        raise ValueError(
            f"{what}: got a risk with batch_loss, expected loss(outputs, targets), which names outputs and "
            "examples: give loss in place of batch_loss"
        )
    return risk.loss


def require_examples(risk: EmpiricalRisk, what: str) -> None:
    """Refuse a risk whose examples have no losses of their own, of which R is the mean or the sum.

    Raises:
        ValueError: it has batch_loss, or is weighted by count.
    """
    require_pairs(risk, what)
    if risk.examples.counted:
        raise ValueError(
            f"{what}: got a mean weighted by count, expected one over examples, each with a loss of its own: leave out "
            "count, and average over each example's own tokens"
        )


def require_order(risk: EmpiricalRisk, theta: Tensor) -> None:
    """Refuse batches whose order changes: what is indexed by examples would mean others at every pass.

    Raises:
        ValueError: two passes give other chunks.
    """
    with twice_differentiable(theta.device, risk.module, risk.precision), torch.no_grad():
        one, two = ([_mark(batch) for batch, _ in risk.examples.chunks(theta)] for _ in range(2))
        same = len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    if not same:
        raise ValueError(
            "batches: got the examples in another order on another pass, expected the same one: use "
            "DataLoader(shuffle=False)"
        )


def _mark(batch: Any) -> Tensor:
    """Some numbers that change with the order of a batch."""
    marks = []
    for tensor in tensors_of(batch):
        flat = tensor.detach().reshape(-1).double()
        marks.append(flat @ torch.cos(torch.arange(flat.numel(), device=flat.device).double()))
    return torch.stack(marks)


def _rows(risk: EmpiricalRisk, theta: Tensor) -> Iterator[Tensor]:
    """Per-example gradients [B, P], some at a time; between two of them, nothing of the caller's is switched."""
    parameters = {name: leaf.detach() for name, leaf in risk._parameters(theta).items()}
    few = max(1, ROWS_NUMBERS // risk.space.size)
    by_vmap = True
    risk._network.like(theta)  # made here: inside vmap it could not be
    # A pass that waits between two blocks would rewind the caller's random states whenever it is dropped.
    for chunk in _held(risk):
        length = examples_in(chunk)
        for first in range(0, length, few):
            part = cast(detached(_examples(chunk, first, first + few)), theta)
            with twice_differentiable(theta.device, risk.module, risk.precision):
                rows = _by_vmap(risk, parameters, part) if by_vmap else None
                by_vmap = rows is not None
                if rows is None:
                    rows = _one_by_one(risk, parameters, part)
            yield risk._finite("gradient", rows)


def _held(risk: EmpiricalRisk) -> list[Any]:
    """All chunks of one pass, which has ended; views of the batches where these are in memory."""
    with reading(risk.examples._batches):
        return [part for batch in risk.examples._batches for part in risk.examples._parts(batch)]


def _examples(batch: Any, first: int, last: int) -> Any:
    return map_tensors(batch, lambda tensor: tensor[first:last])


def _by_vmap(risk: EmpiricalRisk, parameters: dict[str, Tensor], batch: Any) -> Tensor | None:
    """[B, P] at once; None where vmap does not know a layer, or gets the first example wrong."""

    def loss_of(values: dict[str, Tensor], example: Any) -> Tensor:
        return risk._loss_with(values, map_tensors(example, lambda tensor: tensor[None]))

    with warnings.catch_warnings(), contextlib.suppress(*UNKNOWN_TO_VMAP):
        warnings.filterwarnings("ignore", message="There is a performance drop")  # no batching rule: still right
        gradients = vmap(grad(loss_of), in_dims=(None, 0))(parameters, batch)
        rows = torch.cat([gradients[name].reshape(examples_in(batch), -1) for name in risk.space.names], 1).detach()
        first = _one_by_one(risk, parameters, _examples(batch, 0, 1))[0]
        if close(rows[0], first):
            return rows
    return None


def _one_by_one(risk: EmpiricalRisk, parameters: dict[str, Tensor], batch: Any) -> Tensor:
    """[B, P] by autograd, one example after another."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    rows = []
    with risk._placed(leaves) as point:
        for n in range(examples_in(batch)):
            value = risk._loss_of(point, _examples(batch, n, n + 1))
            own: tuple[Tensor | None, ...] = (None,) * len(leaves)
            if value.requires_grad:
                own = torch.autograd.grad(value, tuple(leaves.values()), allow_unused=True)
            parts = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves.values(), own, strict=True)]
            rows.append(torch.cat([part.detach().reshape(-1) for part in parts]))
    return torch.stack(rows)
