"""The Jacobian of a network's outputs by its parameters, over all examples, as products from both sides."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from hw1.risk import scrutiny
from hw1.risk.checks import check_theta, check_vectors
from hw1.risk.empirical import BATCHED_PARAMETERS, EmpiricalRisk
from hw1.risk.first_order import require_order, require_pairs
from hw1.risk.guard import twice_differentiable
from hw1.risk.second_derivatives import TwiceDifferentiable


class Linearised:
    """One chunk at theta: outputs [B, C...] with their graph, and J as a map.

    Args:
        risk: whose network it is.
        parameters: theta, as named leaves.
        batch: (inputs, targets).

    Attributes:
        outputs: f(x_n; theta), [B, C...].
        targets: of the chunk.

    Raises:
        ValueError: the outputs are no tensor.
    """

    def __init__(self, risk: EmpiricalRisk, parameters: dict[str, Tensor], batch: Any) -> None:
        self._space, self._names = risk.space, tuple(parameters)
        self._leaves = tuple(parameters.values())
        inputs, self.targets = batch
        self._forward: Callable[[dict[str, Tensor]], Any] = lambda values: risk._outputs_with(values, inputs)
        with TwiceDifferentiable():
            outputs = self._forward(parameters)
        if not isinstance(outputs, Tensor):
            raise ValueError(
                f"module: got outputs of {type(outputs).__name__}, expected one tensor [B, ...]: wrap the module in "
                "one that returns it"
            )
        self.outputs = outputs

    def push(self, rows: Tensor) -> Tensor:
        """J v for each of k vectors: [k, P] -> [k, B, C...]."""
        parts = tuple(self._space.unflatten(rows).values())  # [k, *shape] each
        u, pulled_back = self._pulled
        pairs = [(g, v) for g, v in zip(pulled_back, parts, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return self.outputs.new_zeros(len(rows), *self.outputs.shape)
        pulled, vectors = zip(*pairs, strict=True)

        def derivative(vectors: Sequence[Tensor], batched: bool) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(pulled, (u,), vectors, retain_graph=True, is_grads_batched=batched)

        try:
            (pushed,) = _each(derivative, vectors, self._space.size)
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            # Layers whose backward cannot be differentiated still have forward mode.
            values = dict(zip(self._names, (leaf.detach() for leaf in self._leaves), strict=True))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")  # torch's own use of it
                return torch.stack([jvp(self._forward, (values,), (self._space.unflatten(row),))[1] for row in rows])
        assert pushed is not None
        return pushed.detach()

    def pull(self, u: Tensor) -> Tensor:
        """J^T u for each of k vectors: [k, B, C...] -> [k, P]."""
        result = u.new_zeros(len(u), self._space.size)
        if not self.outputs.requires_grad:
            return result

        def derivative(vectors: Sequence[Tensor], batched: bool) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(
                (self.outputs,), self._leaves, vectors, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )

        parts = _each(derivative, (u,), self._space.size)
        for own, part in zip(self._space.unflatten(result).values(), parts, strict=True):
            if part is not None:
                own += part
        return result

    def slopes(self, loss: Callable[[Any, Any], Tensor], targets: Any) -> Tensor:
        """Gradient of a loss (outputs, targets) -> [] by the outputs: [B, C...]."""
        cut = self.outputs.detach().requires_grad_()
        value = loss(cut, targets)
        return torch.autograd.grad(value, cut)[0] if value.requires_grad else torch.zeros_like(cut)

    @functools.cached_property
    def _pulled(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """A vector u = 0 [B, C...], and J^T u as a function of it, one tensor a parameter."""
        u = torch.zeros_like(self.outputs, requires_grad=True)
        if not self.outputs.requires_grad:
            return u, (None,) * len(self._leaves)
        return u, torch.autograd.grad(self.outputs, self._leaves, u, create_graph=True, allow_unused=True)


class Jacobian:
    """J = d f(x_n; theta) / d theta at theta [P], of the outputs f(x_n) [C...] of all N examples: J v and J^T u.

    J^T u is a backward pass. J v is the derivative of J^T u by u, on a graph that is kept from one product to the next;
    layers whose backward cannot be differentiated go by forward mode.

    Args:
        risk: its network and examples; the loss plays no part.
        theta: [P]; its dtype is the dtype of the computation.

    Raises:
        ValueError: theta is not as the risk expects, the risk has batch_loss, outputs are no tensor, examples come
            in another order on another pass, or the module's backward is not the derivative of its forward; and of
            products, where they are not finite.

    Example:
        >>> net = torch.nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> risk = EmpiricalRisk(net, torch.nn.functional.mse_loss, [(x, torch.zeros(2, 1))])
        >>> j = Jacobian(risk, risk.theta)
        >>> j.matvec(torch.tensor([1.0, 1.0])).tolist(), j.rmatvec(torch.ones(2, 1)).tolist()
        ([[3.0], [7.0]], [4.0, 6.0])
    """

    def __init__(self, risk: EmpiricalRisk, theta: Tensor) -> None:
        check_theta(theta, risk.space.size)
        require_pairs(risk, "Jacobian")
        self.risk = risk
        self.theta = theta.detach().clone()  # the caller may train on
        require_order(risk, self.theta)
        scrutiny.confirm(risk, "gradient")
        self._leaves = risk._parameters(self.theta)
        self._kept: list[Linearised] | None = None

    def matvec(self, v: Tensor) -> Tensor:
        """J v: [P] -> [N, C...], or [P, k] -> [N, C..., k]; examples in the order of the batches."""
        check_vectors(v, self.theta, self.risk.space.size)
        rows = v.detach().reshape(len(v), -1).T.contiguous()
        with twice_differentiable(self.theta.device, self.risk.module, self.risk.precision):
            pushed = torch.cat([chunk.push(rows) for chunk in self.chunks()], 1)  # [k, N, C...]
        if not pushed.isfinite().all():
            raise ValueError(
                "product: got derivatives of outputs that are not finite, expected finite ones at this theta: does "
                "the module overflow, or take a root, a norm or a logarithm at 0?"
            )
        return pushed.movedim(0, -1) if v.ndim == 2 else pushed[0]

    def rmatvec(self, u: Tensor) -> Tensor:
        """J^T u: [N, C...] -> [P], or [N, C..., k] -> [P, k].

        Raises:
            ValueError: another shape or dtype than that of the outputs.
        """
        first = 0
        total: Tensor | None = None
        block = False
        with twice_differentiable(self.theta.device, self.risk.module, self.risk.precision):
            for chunk in self.chunks():
                shape = chunk.outputs.shape
                block = u.ndim == len(shape) + 1
                rows = u.detach()[first : first + shape[0]]
                if u.dtype != self.theta.dtype or rows.shape[: len(shape)] != shape or u.ndim > len(shape) + 1:
                    raise _bad_outputs(u, shape, self.theta.dtype)
                pulled = chunk.pull((rows.movedim(-1, 0) if block else rows[None]).contiguous())
                total = pulled if total is None else total + pulled
                first += shape[0]
        if total is None or first != len(u):
            raise ValueError(f"u: got {len(u)} rows, expected {first}, one an example: give u for all examples")
        total = self.risk._finite("product", total)
        return total.T if block else total[0]

    def sandwich(self, v: Tensor, middle: Callable[[int, Linearised, Tensor], Tensor]) -> Tensor:
        """J^T M J v for a matrix M between examples of one chunk: [P] -> [P], or [P, k] -> [P, k].

        Args:
            v: [P] or [P, k].
            middle: (number of the chunk, chunk, J v [k, B, C...]) -> M J v [k, B, C...].
        """
        check_vectors(v, self.theta, self.risk.space.size)
        rows = v.detach().reshape(len(v), -1).T.contiguous()
        total = torch.zeros_like(rows)
        with twice_differentiable(self.theta.device, self.risk.module, self.risk.precision):
            for number, chunk in enumerate(self.chunks()):
                total += chunk.pull(middle(number, chunk, chunk.push(rows)))
        return self.risk._finite("product", total).T.reshape(v.shape)

    def chunks(self) -> Iterator[Linearised]:
        """The chunks, those kept or new ones; inside `twice_differentiable`."""
        with self.risk._placed(self._leaves):  # a backward that computes again reads theta then
            if self._kept is not None:
                yield from self._kept
                return
            kept: list[Linearised] | None = [] if self.risk._keep_graph else None
            for batch, _ in self.risk.examples.chunks(self.theta):
                chunk = Linearised(self.risk, self._leaves, batch)
                if kept is not None:
                    kept.append(chunk)
                yield chunk
            self._kept = kept


def _each(
    derivative: Callable[[Sequence[Tensor], bool], tuple[Tensor | None, ...]], vectors: Sequence[Tensor], size: int
) -> tuple[Tensor | None, ...]:
    """A linear map of k vectors [k, ...]: all at once by vmap in small networks, else one after another; [k, ...]."""
    count = len(vectors[0])
    if count > 1 and size <= BATCHED_PARAMETERS:
        with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
            warnings.filterwarnings("ignore", message="There is a performance drop")  # no batching rule: still right
            return derivative(vectors, True)
    rows = [derivative([vector[k] for vector in vectors], False) for k in range(count)]
    return tuple(
        None if parts[0] is None else torch.stack([part for part in parts if part is not None])
        for parts in zip(*rows, strict=True)
    )


def _bad_outputs(u: Tensor, shape: torch.Size, dtype: torch.dtype) -> ValueError:
    expected = ", ".join(["N", *map(str, shape[1:])])
    return ValueError(
        f"u: got {u.dtype} of shape {list(u.shape)}, expected {dtype} of [{expected}] or [{expected}, k]: give one "
        "number for each output of all examples, in theta's dtype"
    )
