"""The empirical risk of any nn.Module as a function of its parameter vector: value, gradient, curvature products.

One class, and longer than others: value, derivatives and metrics share its evaluation and what it keeps of a theta.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hw1.kinds import Kind
from hw1.risk.checks import check_batch_loss, check_pairs, check_parameters, check_theta, check_vectors
from hw1.risk.evaluation import Metrics, columns_of
from hw1.risk.examples import Count, Examples
from hw1.risk.guard import own_copy, twice_differentiable
from hw1.risk.nested import cast
from hw1.risk.products import GaussNewtonProduct, HessianProduct, Product
from hw1.risk.second_derivatives import TwiceDifferentiable
from hw1.vectors import ParamSpace

# A block of vectors goes through vmap where a network is so small that the overhead of operations rules; in a larger
# one it saves nothing and multiplies the memory of a chunk's activations.
BATCHED_PARAMETERS = 10_000
BATCHED_COLUMNS = 32

Loss = Callable[[Tensor, Tensor], Tensor]
BatchLoss = Callable[[nn.Module, Any], Tensor]


class EmpiricalRisk:
    """theta [P] -> R(theta) = 1/N sum_n loss(f(x_n; theta), y_n), the mean over all examples of all batches.

    Examples weigh equally, also in a ragged last batch. The network is evaluated in evaluation mode (dropout off,
    batch-norm with its running statistics), on a copy in theta's dtype and on theta's device; the caller's module, its
    mode and gradients and the random state are left alone. A module or a loader that gives other values on a second
    look is refused: curvature is that of one function.

    Products with the Hessian keep the graph of the gradient, in chunks that fit the cache, from one product to the
    next: for a small CNN about 1.1 gradients a product where recomputing costs 2.4 (Pearlmutter 1994 gives the product
    itself).

    With `count`, batches are taken whole and R = sum_b count_b loss_b / sum_b count_b: what is right for a mean over
    counted tokens, or over class weights. With `batch_loss` in place of `loss`, they may be of any nested structure
    (dicts and what is like one, tuples, lists), and the loss may be computed inside the module, or hold terms in its
    parameters.

    Args:
        module: the network.
        loss: (outputs [B, ...], targets [B, ...]) -> mean loss over the B examples, [].
        batches: (inputs [B, ...], targets [B, ...]); a list, a DataLoader, or whatever can be iterated again.
        space: the parameters to differentiate by, e.g. `ParamSpace.of(module).subset("fc")`; the others keep the
            module's values. All, unless said.
        batch_loss: (module, batch) -> mean loss over what the batch counts, []; the module that it gets computes with
            theta. Exactly one of `loss` and `batch_loss` is given.
        count: batch -> how much it weighs, at least 0; its number of examples, unless said (the length of its first
            tensor).
        kind: what targets are, beside `loss`: "classes" or "tokens" have an accuracy among the metrics.
        chunk_size: examples at a time; 128 to 256 keep a small CNN's activations in the cache. Batches of `batch_loss`
            or with `count` are not split.
        keep_graph: keep the gradient's graph for all examples between products. Without it memory stays that of one
            chunk, and a product costs a gradient more.
        statistics_inputs: training inputs [M, ...], on which `metrics` recomputes batch-norm statistics at every theta;
            without them, and for value and derivatives, the module's own running statistics are constants.

    Attributes:
        space: the parameters that theta consists of.
        size: what all batches weigh: N, the number of examples, unless `count` says something else.
        columns: what `metrics` gives: ("loss",) or ("loss", "accuracy").
        module: a copy of the network, in evaluation mode.
        loss: as given.
        examples: the batches, read again at every pass.

    Raises:
        ValueError: neither or both of `loss` and `batch_loss`, no examples, shapes that do not fit, a loss that is not
            a scalar mean over examples, parameters that are not finite or not floating point, an unknown parameter in
            `space`, a module whose examples influence each other, or a risk that is not deterministic.

    Example:
        >>> net = nn.Linear(2, 1, bias=False).double()
        >>> x, y = torch.randn(5, 2).double(), torch.randn(5, 1).double()
        >>> risk = EmpiricalRisk(net, nn.functional.mse_loss, [(x[:3], y[:3]), (x[3:], y[3:])])
        >>> v = torch.tensor([1.0, 2.0]).double()
        >>> bool(torch.allclose(risk.hvp(risk.theta, v), 2 / 5 * x.T @ x @ v))
        True

        A loss that the batch and the module decide, here with weight decay:

        >>> def ridge(module, batch):
        ...     penalty = sum(p.square().sum() for p in module.parameters())
        ...     return (module(batch["x"]) - batch["y"]).square().mean() + penalty
        >>> risk = EmpiricalRisk(net, batches=[{"x": x[:3], "y": y[:3]}, {"x": x[3:], "y": y[3:]}], batch_loss=ridge)
        >>> bool(torch.allclose(risk.hvp(risk.theta, v), 2 / 5 * x.T @ x @ v + 2 * v))
        True
    """

    _cast: dict[tuple[torch.dtype, torch.device], nn.Module]
    _metrics: Metrics | None
    # What is kept of the last theta: its value, and for each kind of product one closure a chunk.
    _at: Tensor | None
    _kept: dict[str, list[Product]]

    def __init__(
        self,
        module: nn.Module,
        loss: Loss | None = None,
        batches: Iterable[Any] | None = None,
        space: ParamSpace | None = None,
        *,
        batch_loss: BatchLoss | None = None,
        count: Count | None = None,
        kind: Kind | None = None,
        chunk_size: int = 256,
        keep_graph: bool = True,
        statistics_inputs: Tensor | None = None,
    ) -> None:
        if (loss is None) == (batch_loss is None):
            got = "neither" if loss is None else "both"
            raise ValueError(
                f"loss, batch_loss: got {got}, expected loss(outputs, targets) or batch_loss(module, batch)"
            )
        if batch_loss is not None and kind is not None:
            raise ValueError(f"kind: got {kind!r} beside batch_loss, expected loss: accuracy is taken from outputs")
        everything = ParamSpace.of(module)
        self.space = everything if space is None else space
        if unknown := [name for name in self.space.names if name not in everything.names]:
            raise ValueError(f"space: got {', '.join(unknown)}, expected names among {', '.join(everything.names)}")
        everything.subset(*self.space.names).require_same(self.space)
        check_parameters(module)
        self.module = own_copy(module)
        self.loss = loss
        self.columns = columns_of(kind)
        self._batch_loss = batch_loss
        self._kind, self._statistics_inputs, self._chunk_size = kind, statistics_inputs, chunk_size
        self._keep_graph = keep_graph
        self._warned = False
        self._batched = self.space.size <= BATCHED_PARAMETERS
        self.examples = Examples(batches, chunk_size, count, pairs=batch_loss is None)
        self.size = self.examples.size
        self._forget()
        self._check()

    @property
    def theta(self) -> Tensor:
        """The module's own parameters as it was given, theta [P]."""
        named = dict(self.module.named_parameters())
        return self.space.flatten(named).clone()

    def __call__(self, theta: Tensor) -> Tensor:
        """R(theta), []."""
        parameters = self._parameters(theta)
        total = torch.zeros((), dtype=theta.dtype, device=theta.device)
        with twice_differentiable(theta.device, self.module), torch.no_grad():
            for batch, weight in self.examples.chunks(theta):
                total += self._loss_of(parameters, batch) * (weight / self.size)
        return total

    def metrics(self, theta: Tensor) -> Tensor:
        """Values of `columns` at theta [P], float64: R, and with a `kind` that has one, the accuracy.

        The fast way to values alone, e.g. along a path: in the module's dtype and memory format. See `Metrics`.

        Raises:
            ValueError: theta has another shape. It need not be finite.
        """
        if self._metrics is None:
            self._metrics = Metrics(
                self.module, self.space, self._evaluate, self.examples, kind=self._kind,
                statistics_inputs=self._statistics_inputs, batch_size=self._chunk_size,
            )  # fmt: skip
        return self._metrics(theta)

    def outputs(self, theta: Tensor) -> Tensor:
        """The network's outputs for all N examples, in the order of the batches: [N, ...].

        Raises:
            ValueError: the risk has `batch_loss`, which keeps outputs to itself.
        """
        self._need_loss("outputs", "it says how outputs are made")
        parameters = self._parameters(theta)
        with twice_differentiable(theta.device, self.module), torch.no_grad():
            return torch.cat([self._outputs(parameters, batch[0]) for batch, _ in self.examples.chunks(theta)])

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of R at theta: [P] -> [P]."""
        parameters = self._parameters(theta)
        total = torch.zeros_like(theta)
        used: set[str] = set()
        with twice_differentiable(theta.device, self.module):
            for batch, weight in self.examples.chunks(theta):
                gradients = self._chunk_gradient(parameters, batch, weight, create_graph=False)
                self._add(total, gradients)
                used.update(name for name, g in zip(self.space.names, gradients, strict=True) if g is not None)
        self._say_unused(used)
        return total

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Hessian of R at theta times v: [P] -> [P], or a block [P, k] -> [P, k]."""
        return self._product("hessian", theta, v)

    def gauss_newton_vp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Gauss-Newton matrix of R at theta times v: [P] -> [P], or a block [P, k] -> [P, k].

        G = 1/N sum_n J_n^T (d2 loss_n / d outputs2) J_n (Schraudolph 2002): positive semidefinite for a convex loss,
        and not the Hessian unless the network is linear or fits perfectly.

        Raises:
            ValueError: the risk has `batch_loss`, which does not say where outputs end and the loss begins.
        """
        self._need_loss("gauss_newton_vp", "Gauss-Newton splits it at the outputs")
        return self._product("gauss_newton", theta, v)

    def restricted(self, theta: Tensor, *names: str) -> tuple[EmpiricalRisk, Tensor]:
        """The risk as a function of some parameters alone, the others fixed at theta; and those parameters [p].

        Args:
            theta: [P].
            names: parameter names or prefixes, as in `ParamSpace.subset`.

        Raises:
            ValueError: a name is unknown, or theta is not as expected.
        """
        part = self.space.subset(*names)
        tensors = {name: tensor.detach() for name, tensor in self._parameters(theta).items()}
        risk = copy.copy(self)
        risk.space = part
        risk.module = copy.deepcopy(self._network(theta))
        risk.module.load_state_dict(tensors, strict=False)
        risk._forget()
        return risk, part.flatten(tensors)

    def draw(self, size: int, generator: torch.Generator) -> EmpiricalRisk:
        """The risk of a random mini-batch: `size` examples, without replacement.

        Args:
            size: of the mini-batch, at most the number of examples.
            generator: for the choice. Examples that come from a loader are held in memory from the first draw on.

        Raises:
            ValueError: the size is out of range, or the risk has `batch_loss`, whose batches cannot be mixed.

        Example:
            >>> x, y = torch.arange(6.0)[:, None], torch.zeros(6, 1)
            >>> risk = EmpiricalRisk(nn.Linear(1, 1), nn.functional.mse_loss, [(x[:4], y[:4]), (x[4:], y[4:])])
            >>> risk.draw(3, torch.Generator().manual_seed(0)).size
            3
        """
        self._need_loss("draw", "batches of any structure cannot be mixed")
        risk = copy.copy(self)
        risk.examples = self.examples.draw(size, generator)
        risk.size = risk.examples.size
        networks = self._cast
        risk._forget()
        risk._cast = networks
        return risk

    # --- evaluation

    def _forget(self) -> None:
        """Nothing is kept of another module, space or theta."""
        self._cast = {}
        self._metrics = None
        self._at, self._kept = None, {}

    def _need_loss(self, what: str, reason: str) -> Loss:
        if self.loss is None:
            raise ValueError(f"{what}: got a risk with batch_loss, expected loss(outputs, targets): {reason}")
        return self.loss

    def _parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """Named leaves [*shape] that hold theta, after theta has been checked."""
        check_theta(theta, self.space.size)
        # Each leaf has memory of its own: views of one vector would be slower to differentiate by.
        with torch.inference_mode(False):
            return {
                name: tensor.detach().clone().requires_grad_() for name, tensor in self.space.unflatten(theta).items()
            }

    def _network(self, theta: Tensor) -> nn.Module:
        key = (theta.dtype, theta.device)
        if key not in self._cast:
            self._cast[key] = copy.deepcopy(self.module).to(dtype=theta.dtype, device=theta.device)
        return self._cast[key]

    def _outputs(self, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        network = self._network(next(iter(parameters.values())))
        outputs: Tensor = torch.func.functional_call(network, parameters, (inputs,))
        return outputs

    def _loss_of(self, parameters: dict[str, Tensor], batch: Any) -> Tensor:
        """The mean loss of a batch, []."""
        if self.loss is not None:
            return self.loss(self._outputs(parameters, batch[0]), batch[1])
        # A module around the network, so that the caller's function sees the network itself, with theta in it.
        around = _Around(self._network(next(iter(parameters.values()))), self._batch_loss)
        named = {f"network.{name}": tensor for name, tensor in parameters.items()}
        value: Tensor = torch.func.functional_call(around, named, (batch,))
        return value

    def _evaluate(self, network: nn.Module, batch: Any) -> tuple[Tensor | None, Tensor]:
        """Outputs, where there are some, and the mean loss of a batch, with the network's own parameters."""
        if self.loss is None:
            return None, _Around(network, self._batch_loss)(batch)
        outputs = network(batch[0])
        return outputs, self.loss(outputs, batch[1])

    def _check(self) -> None:
        """The first examples, at the module's own parameters."""
        theta = self.theta
        if theta.dtype not in (torch.float32, torch.float64):
            theta = theta.float()
        parameters = {name: tensor.detach() for name, tensor in self._parameters(theta).items()}
        first = cast(self.examples.first, theta)
        with twice_differentiable(theta.device, self.module):
            if self.loss is None:
                check_batch_loss(functools.partial(self._loss_of, parameters), first)
                return
            few = len(first[0]) if self.examples.counted else max(2, self._chunk_size)  # a batch may be the whole set
            inputs, targets = first[0][:few], first[1][:few]
            if len(inputs) == 1:  # a mean stays the same when its only example is doubled
                inputs, targets = torch.cat([inputs, inputs]), torch.cat([targets, targets])
            outputs_of = functools.partial(self._outputs, parameters)
            check_pairs(outputs_of, self.loss, inputs, targets, split=not self.examples.counted)

    # --- derivatives

    def _chunk_gradient(
        self, parameters: dict[str, Tensor], batch: Any, weight: float, create_graph: bool
    ) -> tuple[Tensor | None, ...]:
        value = self._loss_of(parameters, batch) * (weight / self.size)
        if not value.requires_grad:
            return (None,) * len(parameters)
        return torch.autograd.grad(value, tuple(parameters.values()), create_graph=create_graph, allow_unused=True)

    def _hessian_chunk(self, parameters: dict[str, Tensor], batch: Any, weight: float) -> Product:
        leaves = tuple(parameters.values())
        with TwiceDifferentiable():
            gradients = self._chunk_gradient(parameters, batch, weight, create_graph=True)
        return HessianProduct(leaves, gradients)

    def _gauss_newton_chunk(self, parameters: dict[str, Tensor], batch: Any, weight: float) -> Product:
        loss = self._need_loss("gauss_newton_vp", "Gauss-Newton splits it at the outputs")
        with TwiceDifferentiable():
            outputs = self._outputs(parameters, batch[0])
        cut = outputs.detach().requires_grad_()
        value = loss(cut, batch[1]) * (weight / self.size)
        (slope,) = torch.autograd.grad(value, cut, create_graph=True)
        return GaussNewtonProduct(tuple(parameters.values()), outputs, cut, slope)

    def _products(self, kind: str, theta: Tensor) -> Iterator[Product]:
        """One product a chunk: those kept if theta is that of the last call, else new ones."""
        kept_at = self._at
        same_kind = kept_at is not None and (kept_at.dtype, kept_at.device) == (theta.dtype, theta.device)
        if kept_at is None or not same_kind or not torch.equal(kept_at, theta):
            self._at, self._kept = None, {}
        if kind in self._kept:
            yield from self._kept[kind]
            return
        make = {"hessian": self._hessian_chunk, "gauss_newton": self._gauss_newton_chunk}[kind]
        parameters = self._parameters(theta)
        kept: list[Product] = []
        used: set[str] = set()
        for batch, weight in self.examples.chunks(theta):
            product = make(parameters, batch, weight)
            used.update(name for name, is_used in zip(self.space.names, product.used, strict=True) if is_used)
            if self._keep_graph:
                kept.append(product)
            yield product
        self._say_unused(used)
        if self._keep_graph:
            self._at = theta.detach().clone()
            self._kept[kind] = kept

    def _product(self, kind: str, theta: Tensor, v: Tensor) -> Tensor:
        check_vectors(v, theta, self.space.size)
        with twice_differentiable(theta.device, self.module):
            rows = v.detach().reshape(len(v), -1).T.contiguous()  # [k, P]
            parts = tuple(self.space.unflatten(rows).values())  # [k, *shape] each
            result = torch.zeros_like(rows)
            for product in self._products(kind, theta):
                self._add_product(result, product, parts)
        return result.T.reshape(v.shape)

    def _add_product(self, result: Tensor, product: Product, parts: Sequence[Tensor]) -> None:
        """Add the product with each of the k vectors, parts [k, *shape], to result [k, P]."""
        done = 0
        if len(result) > 1 and self._batched:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="There is a performance drop"
                )  # no batching rule: still right
                try:
                    for done in range(0, len(result), BATCHED_COLUMNS):
                        few = slice(done, done + BATCHED_COLUMNS)
                        self._add(result[few], product.times([part[few] for part in parts], batched=True))
                    return
                except RuntimeError:  # a layer that vmap does not know: one vector after another, from now on
                    self._batched = False
        for row in range(done, len(result)):
            self._add(result[row], product.times([part[row] for part in parts], batched=False))

    def _add(self, total: Tensor, tensors: Sequence[Tensor | None]) -> None:
        """Add the tensors [..., *shape], one a parameter, to total [..., P], in place."""
        for own, tensor in zip(self.space.unflatten(total).values(), tensors, strict=True):
            if tensor is not None:
                own += tensor

    def _say_unused(self, used: set[str]) -> None:
        """One warning in the life of the risk for parameters that no example's loss depends on."""
        unused = [name for name in self.space.names if name not in used]
        if unused and not self._warned:
            self._warned = True
            warnings.warn(
                f"the loss does not use {', '.join(unused)}: gradient and curvature are zero there; "
                "leave them out with space=ParamSpace.of(module).subset(...)",
                stacklevel=4,
            )


class _Around(nn.Module):
    """batch -> batch_loss(network, batch), as a module: what torch.func.functional_call can put theta into."""

    def __init__(self, network: nn.Module, batch_loss: BatchLoss | None) -> None:
        super().__init__()
        assert batch_loss is not None
        self.network = network
        self._batch_loss = batch_loss

    def forward(self, batch: Any) -> Tensor:
        return self._batch_loss(self.network, batch)
