"""Fisher matrices of a risk: the empirical one, of the given targets, and one of targets that the model would draw."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hw1.curvature.algebra import Algebra
from hw1.curvature.operators import AtTheta
from hw1.kinds import loss_of
from hw1.risk.closeness import close
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.first_order import per_example_gradients, require_examples
from hw1.risk.guard import twice_differentiable
from hw1.risk.jacobian import Jacobian, Linearised

Likelihood = Literal["classes", "tokens", "values", "binary"]


class _OfSlopes(AtTheta):
    """1/N sum_n J_n^T s_n s_n^T J_n (or the sum): s_n the gradient of a loss by the outputs."""

    def __init__(self, risk: EmpiricalRisk, theta: Tensor) -> None:
        require_examples(risk, type(self).__name__)
        self._jacobian = Jacobian(risk, theta)
        self.risk, self.theta = risk, self._jacobian.theta


class EmpiricalFisher(_OfSlopes, Algebra):
    """F = 1/N sum_n g_n g_n^T at theta [P], of the gradients g_n of each example's own loss at its own target.

    The uncentred covariance of a mini-batch's gradient; neither the Fisher matrix nor near Gauss-Newton, unless the
    model is right and the examples are many (Kunstner, Balles & Hennig 2019). An example is an entry of dimension 0: of
    a sequence, g_n is the gradient of its mean over tokens. Where the loss is a sum, F is the sum of g_n g_n^T.
    It takes neither batch_loss nor losses that are counted (`count`, class weights, ignored targets): their examples
    have no losses of their own.

    Args:
        risk: R.
        theta: [P]; its dtype is the dtype of the computation.

    Raises:
        ValueError: theta is not as the risk expects, examples come in another order on another pass, they have no
            losses of their own (the risk has batch_loss, or is weighted by count), or the module's backward is not the
            derivative of its forward; and of products, where they are not finite.

    Example:
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> risk = EmpiricalRisk(torch.nn.Linear(1, 1, bias=False), F.mse_loss, [(x, 0 * x)])
        >>> EmpiricalFisher(risk, torch.ones(1)) @ torch.ones(1)  # gradients 2 and 8
        tensor([34.])
    """

    def matvec(self, v: Tensor) -> Tensor:
        """F v: [P] -> [P], or [P, k] -> [P, k]."""
        mean = self.risk.reduction == "mean"

        def loss(outputs: Tensor, targets: Any) -> Tensor:
            return self.risk._loss_at(outputs, targets, self.theta)

        def middle(_: int, chunk: Linearised, pushed: Tensor) -> Tensor:
            slopes = chunk.slopes(loss, chunk.targets) * (len(chunk.outputs) if mean else 1)  # s_n, [B, C...]
            return _rank_one(slopes, pushed, tuple(range(1, slopes.ndim)))

        product = self._jacobian.sandwich(v, middle)
        return product / self.risk.size if mean else product

    def diagonal(self) -> Tensor:
        """The diagonal, [P]: the mean of the squared gradients (their sum, where the loss is a sum)."""
        total = torch.zeros_like(self.theta)
        for rows in per_example_gradients(self.risk, self.theta):
            total += rows.square().sum(0)
        return total / self.risk.size if self.risk.reduction == "mean" else total

    def block(self, *names: str) -> EmpiricalFisher:
        """The diagonal block of some parameters (names or prefixes)."""
        return EmpiricalFisher(*self.risk.restricted(self.theta, *names))


class McFisher(_OfSlopes, Algebra):
    """F = 1/N sum_n E_y[g_n(y) g_n(y)^T] at theta [P], over targets y that the model itself draws: a few of each.

    Targets are drawn from the likelihood whose negative logarithm the loss is, once, so that it is one matrix. Over
    draws its mean is the Fisher matrix, which for these losses is the Gauss-Newton matrix (Martens 2020;
    Kunstner, Balles & Hennig 2019): softmax for cross-entropy of classes and tokens, Bernoulli for binary
    cross-entropy with logits, a Gaussian of variance 1/2 in each number for squared error. Each token and each number
    has a term of its own, as in Gauss-Newton, without products between them. It takes neither batch_loss nor losses
    that are counted (`count`, class weights, ignored targets).

    Args:
        risk: R.
        theta: [P]; its dtype is the dtype of the computation.
        samples: targets drawn for each example; the variance falls as 1 / samples.
        generator: for the targets.

    Attributes:
        targets: those drawn, one tensor [samples, B, ...] for each chunk of examples.
        likelihood: "classes", "tokens", "values" or "binary": found from the loss's values at drawn targets.

    Raises:
        ValueError: the loss is none of these, theta is not as the risk expects, examples come in another order on
            another pass, they have no losses of their own (the risk has batch_loss, or is weighted by count), or the
            module's backward is not the derivative of its forward; and of products, where they are not finite.

    Example:
        >>> net = torch.nn.Linear(1, 2, bias=False)
        >>> risk = EmpiricalRisk(net, F.cross_entropy, [(torch.ones(1, 1), torch.tensor([0]))])
        >>> op = McFisher(risk, torch.zeros(2), generator=torch.Generator().manual_seed(0))
        >>> op @ torch.tensor([1.0, 0.0])  # (p - y) (p - y)^T with p = 1/2, whatever y
        tensor([ 0.2500, -0.2500])
    """

    def __init__(self, risk: EmpiricalRisk, theta: Tensor, *, samples: int = 1, generator: torch.Generator) -> None:
        super().__init__(risk, theta)
        if samples < 1:
            raise ValueError(f"samples: got {samples}, expected at least 1: give targets drawn for each example")
        self.targets: list[Tensor] = []
        found: Likelihood | None = None
        terms = 0
        with twice_differentiable(self.theta.device, risk.module, risk.precision):
            for chunk in self._jacobian.chunks():
                outputs = chunk.outputs.detach()
                found = _likelihood(risk, outputs, generator) if found is None else found
                model = _MODELS[found]
                self.targets.append(torch.stack([model.draw(outputs, generator) for _ in range(samples)]))
                terms += self.targets[-1][0].numel()
        assert found is not None
        self.likelihood: Likelihood = found
        self._scale = 1 / (samples * (terms if risk.reduction == "mean" else 1))

    def matvec(self, v: Tensor) -> Tensor:
        """F v: [P] -> [P], or [P, k] -> [P, k]."""
        model = _MODELS[self.likelihood]

        def middle(number: int, chunk: Linearised, pushed: Tensor) -> Tensor:
            total = torch.zeros_like(pushed)
            for targets in self.targets[number]:
                total += _rank_one(chunk.slopes(model.total_loss, targets), pushed, model.within)
            return total

        return self._scale * self._jacobian.sandwich(v, middle)

    def block(self, *names: str) -> Self:
        """The diagonal block of some parameters (names or prefixes), with the same targets."""
        part = copy.copy(self)
        part.risk, part.theta = self.risk.restricted(self.theta, *names)
        part._jacobian = Jacobian(part.risk, part.theta)
        return part


@dataclass(frozen=True)
class _Model:
    """A likelihood of targets.

    Attributes:
        draw: (outputs, generator) -> targets.
        loss: (outputs, targets, reduction) -> [], its negative logarithm but for a constant, one term a target.
        within: dimensions of the outputs that a term's slope has.
    """

    draw: Callable[[Tensor, torch.Generator], Tensor]
    loss: Callable[..., Tensor]
    within: tuple[int, ...]

    def total_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets, reduction="sum")


def _categorical(outputs: Tensor, generator: torch.Generator, dim: int) -> Tensor:
    shares = outputs.double().softmax(dim).movedim(dim, -1).to(generator.device)
    drawn = torch.multinomial(shares.reshape(-1, shares.shape[-1]), 1, generator=generator)
    return drawn.reshape(shares.shape[:-1]).to(outputs.device)


def _gaussian(outputs: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(outputs.shape, generator=generator, device=generator.device, dtype=outputs.dtype)
    return outputs + math.sqrt(0.5) * noise.to(outputs.device)


def _bernoulli(outputs: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(outputs.shape, generator=generator, device=generator.device, dtype=torch.float64)
    return (uniform.to(outputs.device) < outputs.double().sigmoid()).to(outputs.dtype)


_MODELS: dict[Likelihood, _Model] = {
    "classes": _Model(lambda o, g: _categorical(o, g, 1), loss_of("classes"), (1,)),
    "tokens": _Model(lambda o, g: _categorical(o, g, -1), loss_of("tokens"), (-1,)),
    "values": _Model(_gaussian, loss_of("values"), ()),
    "binary": _Model(_bernoulli, F.binary_cross_entropy_with_logits, ()),
}


def _likelihood(risk: EmpiricalRisk, outputs: Tensor, generator: torch.Generator) -> Likelihood:
    """Which likelihood the loss is the negative logarithm of, from values at targets drawn from each."""
    state = generator.get_state()
    got: list[str] = []
    for name, model in _MODELS.items():
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Using a target size")  # broadcasting is no term a target
                targets = model.draw(outputs, generator)
                expected = model.loss(outputs, targets, reduction=risk.reduction)
                value = risk._loss_at(outputs, targets, outputs)
                if risk._ways.loss_float32:
                    value, expected = value.float(), expected.float()
        except (RuntimeError, ValueError, IndexError, TypeError, UserWarning):
            continue  # not for outputs of this shape
        finally:
            generator.set_state(state)
        if value.shape == expected.shape and close(value, expected):
            return name
        got.append(f"{value.reshape(-1)[0].item():.6g} where {name} have {expected.item():.6g}")
    raise ValueError(
        f"loss: got {'; '.join(got) or 'one that takes none of the drawn targets'}, expected cross-entropy of classes "
        "or tokens, binary cross-entropy with logits or squared error, to draw targets from: GaussNewton takes any loss"
    )


def _rank_one(slopes: Tensor, pushed: Tensor, within: tuple[int, ...]) -> Tensor:
    """The terms' s s^T J v: s [B, C...], J v [k, B, C...]; `within` are the dimensions of s that one term has."""
    along = slopes * pushed
    if within:
        along = along.sum([dim + 1 if dim >= 0 else dim for dim in within], keepdim=True)
    return slopes * along
