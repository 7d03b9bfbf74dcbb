"""The empirical risk of any nn.Module as a function of its parameter vector: value, gradient, curvature products.

One class, and longer than others: value, derivatives and metrics share its evaluation and what it keeps of a theta.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from hw1.kinds import Kind
from hw1.risk import scrutiny
from hw1.risk.checks import check_module, check_parameters, check_theta, check_vectors
from hw1.risk.chunk_size import ChunkChoice, choose_chunk
from hw1.risk.counts import Count, Reduction, derived_count, in_dtype, stated_reduction
from hw1.risk.evaluation import Metrics, columns_of
from hw1.risk.examples import Examples
from hw1.risk.guard import twice_differentiable
from hw1.risk.memory import give_back, halving, out_of_memory
from hw1.risk.nested import cast, common_length, detached, map_tensors, rows_of
from hw1.risk.network import Function, Network, call, spread_of
from hw1.risk.precision import Precision, check_precision, forward_in
from hw1.risk.precision_error import EXAMPLES, SINGLES, PrecisionError, precision_error
from hw1.risk.products import GaussNewtonProduct, HessianProduct, Product
from hw1.risk.ranks import Ranks
from hw1.risk.second_derivatives import TwiceDifferentiable
from hw1.vectors import ParamSpace

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# A block of vectors goes through vmap where a network is so small that the overhead of operations rules; in a larger
# one it saves nothing and multiplies the memory of a chunk's activations.
BATCHED_PARAMETERS = 10_000
BATCHED_COLUMNS = 32

Loss = Callable[[Any, Any], Tensor]
BatchLoss = Callable[[nn.Module, Any], Tensor]
Space = ParamSpace | str | Sequence[str]


@dataclass
class Ways:
    """How this module and this loss are to be evaluated, as found out on the first examples.

    Attributes:
        float32: the module has constants of float32, and takes no float64: it computes in float32, whatever theta is.
        loss_float32: the loss has.
        graph: the loss differentiates by itself, so that values need a graph, too.
        clones: forward or loss writes to what it is given, which therefore is a copy.
        confirmed: what has been found right: "gradient", "hessian", "gauss_newton".
    """

    float32: bool = False
    loss_float32: bool = False
    graph: bool = False
    clones: bool = False
    confirmed: frozenset[str] = frozenset()


class Point(NamedTuple):
    """Theta in the network.

    Attributes:
        leaves: name -> leaf [*shape] that derivatives are taken by.
        network: the module that computes with them.
    """

    leaves: dict[str, Tensor]
    network: nn.Module


class EmpiricalRisk:
    """theta [P] -> R(theta) = sum_b count_b loss_b / sum_b count_b, the mean over all examples of all batches.

    Examples weigh equally, also in a ragged last batch. Where losses of classes ignore targets or weigh classes, these
    do (`hw1.risk.counts.derived_count`); with `count`, whatever it counts. A sum is taken as what it is, the sum over
    all examples, R = sum_b loss_b, which `reduction` then says. The network is evaluated in evaluation mode (dropout
    off, batch-norm with its running statistics), on a copy in theta's dtype and on theta's device; the caller's module,
    its mode and gradients, batches, loaders and random states are left alone.

    What would make a number wrong is looked for, and refused by name. At construction: a loss that is no mean (nor a
    sum) over examples, at all of the data and across batches; examples that influence each other; chance; weights that
    are read from elsewhere than theta. At the first gradient or product: a backward that is not the derivative of what
    comes before it, by differences in float64 on a few examples. This costs a forward pass over the data (three with
    `batch_loss`, none for torch's own losses) and some forty gradients of eight examples; `check=False` leaves it out.

    Products with the Hessian keep the graph of the gradient, in chunks that fit the cache, from one product to the
    next: for a small CNN about 1.1 gradients a product where recomputing costs 2.4 (Pearlmutter 1994 gives the product
    itself).

    With `batch_loss` in place of `loss`, batches may be of any nested structure (dicts and what is like one, tuples,
    lists, dataclasses), and the loss may be computed inside the module, or hold terms in its parameters.

    Args:
        module: the network; or a function f(parameters, inputs) -> outputs, with its `parameters`.
        loss: (outputs, targets) -> mean loss over the B examples, [].
        batches: (inputs, targets), tensors [B, ...] in any structure; a list, a DataLoader, or whatever can be iterated
            again. Inputs in a tuple are handed to the module as arguments, those in a mapping by name, where forward
            takes them so; otherwise as one argument.
        space: the parameters to differentiate by: names, prefixes or patterns ("head", "*.bias"), or a `ParamSpace`;
            the others keep the module's values. Those that ask for gradients, unless said; all, if none does.
        parameters: of a function: name -> tensor.
        batch_loss: (module, batch) -> mean loss over what the batch counts, []; the module that it gets computes with
            theta. Exactly one of `loss` and `batch_loss` is given.
        count: batch -> how much it weighs, at least 0: examples, counted tokens, summed class weights, nodes. Unless
            said, what the loss itself divides by where that is known, else the number of examples (the length of the
            first tensor). Batches that it weighs are taken whole.
        reduction: "mean" or "sum"; unless said, as the loss says, or as its values do; a mean with `check=False`.
        kind: what targets are, beside `loss`: "classes", "tokens" and "binary" have an accuracy among the metrics.
        chunk_size: examples at a time; 128 to 256 keep a small CNN's activations in the cache. "auto" times a few sizes
            at the first gradient or product and takes the fastest, within half of the free memory. Batches of
            `batch_loss` or with `count` are not split.
        keep_graph: keep the gradient's graph for all examples between products. Without it memory stays that of one
            chunk, and a product costs a gradient more.
        statistics_inputs: training inputs [M, ...], or batches of them that can be iterated again, on which `metrics`
            recomputes batch-norm statistics at every theta; without them, and for value and derivatives, the module's
            own running statistics are constants.
        precision: how float32 is multiplied, whatever the process has set: "ieee", "tf32" or "bfloat16" (autocast).
        check: whether to look for what would make a number wrong.
        group: processes of torch.distributed that share the chunks of every sum over examples: values, gradients,
            products. Each makes the same calls with the same arguments, and gets what one process would, to the bit
            (`hw1.risk.ranks`); what is kept between products is divided among them.

    Attributes:
        space: the parameters that theta consists of.
        reduction: "mean" or "sum".
        columns: what `metrics` gives: ("loss",) or ("loss", "accuracy").
        loss: as given.
        examples: the batches, read again at every pass.
        precision: as given.
        chunk_choice: with chunk_size="auto", what was timed and chosen, once it was.

    Raises:
        ValueError: whatever is refused; the message says what was got, what was expected, and the remedy.

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

    _metrics: Metrics | None
    # What is kept of the last theta: its value, and for each kind of product the leaves and one closure a chunk.
    _at: Tensor | None
    _kept: dict[str, tuple[dict[str, Tensor], list[Product | None]]]

    def __init__(
        self,
        module: nn.Module | Callable[[dict[str, Tensor], Any], Any],
        loss: Loss | None = None,
        batches: Iterable[Any] | None = None,
        space: Space | None = None,
        *,
        parameters: Mapping[str, Tensor] | None = None,
        batch_loss: BatchLoss | None = None,
        count: Count | None = None,
        reduction: Reduction | None = None,
        kind: Kind | None = None,
        chunk_size: int | Literal["auto"] = 256,
        keep_graph: bool = True,
        statistics_inputs: Tensor | Iterable[Tensor] | None = None,
        precision: Precision = "ieee",
        check: bool = True,
        group: ProcessGroup | None = None,
    ) -> None:
        if (loss is None) == (batch_loss is None):
            got = "neither" if loss is None else "both"
            raise ValueError(
                f"loss, batch_loss: got {got}, expected loss(outputs, targets) or batch_loss(module, batch): give one"
            )
        for name, function in (("loss", loss), ("batch_loss", batch_loss)):
            if function is not None and (isinstance(function, type) or not callable(function)):
                got = f"the class {function.__name__}" if isinstance(function, type) else f"a {type(function).__name__}"
                raise ValueError(f"{name}: got {got}, expected a function or loss object: give nn.MSELoss(), say")
        if batch_loss is not None and kind is not None:
            raise ValueError(f"kind: got {kind!r} beside batch_loss, expected loss: accuracy is taken from outputs")
        if parameters is not None:
            if isinstance(module, nn.Module) or not callable(module):
                raise ValueError(
                    f"parameters: got some beside a {type(module).__name__}, expected f(parameters, inputs) there: a "
                    "module has its own"
                )
            module = Function(module, parameters)
        own = check_module(module)
        check_parameters(own)
        self.space = _space_of(own, space)
        self._network = Network(own, self.space.names)
        self.loss = loss
        self.columns = columns_of(kind)
        self.precision = check_precision(precision)
        self._batch_loss = batch_loss
        self._kind, self._statistics_inputs = kind, statistics_inputs
        self._keep_graph, self._checked, self._bounded = keep_graph, check, False
        self._warned, self._said_float32 = False, True  # nobody asked yet
        self._batched = self.space.size <= BATCHED_PARAMETERS
        self._ways = Ways()
        if group is not None and chunk_size == "auto":
            raise ValueError("chunk_size: got auto beside group, expected a number: each process would choose its own")
        self._ranks = Ranks(group)
        self._losses: dict[tuple[torch.dtype, torch.device], Loss] = {}
        self._auto = chunk_size == "auto"
        self.chunk_choice: ChunkChoice | None = None
        self.examples = Examples(
            batches, 256 if chunk_size == "auto" else chunk_size, count,
            pairs=batch_loss is None, derived=None if batch_loss is not None else derived_count(loss),
        )  # fmt: skip
        stated = stated_reduction(loss) if reduction is None else reduction
        if stated not in (None, "mean", "sum"):
            raise ValueError(
                f"{'loss' if reduction is None else 'reduction'}: got reduction={stated!r}, expected 'mean' or 'sum': "
                "one number for all examples of a batch"
            )
        self._spread = "whole" if batch_loss is not None else spread_of(self.module, self.examples.first[0])
        self._forget()
        self.examples.reduction = scrutiny.examine(self, stated, own if check else None)
        self._said_float32 = False

    @property
    def module(self) -> nn.Module:
        """A copy of the network, in evaluation mode."""
        return self._network.module

    @property
    def size(self) -> int | float:
        """What all batches weigh: N, the number of examples, unless `count` or the loss says something else."""
        return self.examples.size

    @property
    def reduction(self) -> Reduction:
        """Whether R is the "mean" over what batches weigh, or the "sum" over all examples."""
        return self.examples.reduction

    @property
    def chunk_size(self) -> int:
        """Examples at a time; bits depend on it, so a measurement that is to be repeated takes the same."""
        return self.examples.chunk_size

    def __repr__(self) -> str:
        """What R is: of how many parameters, over how much, in which precision."""
        over = f"{self.reduction} over {self.size:g} {'counted' if self.examples.counted else 'examples'}"
        return f"EmpiricalRisk({type(self.module).__name__}, P = {self.space.size:,}, {over}, {self.precision})"

    @property
    def theta(self) -> Tensor:
        """The module's own parameters as it was given, theta [P]."""
        named = dict(self.module.named_parameters())
        return self.space.flatten(named).clone()

    def __call__(self, theta: Tensor) -> Tensor:
        """R(theta), []."""
        with self._point(theta, leaves=False) as point, self._values():
            total = torch.zeros((), dtype=theta.dtype, device=theta.device)

            def add(part: Tensor, chunk: tuple[Any, float]) -> None:
                part += self._loss_of(point, chunk[0]).detach() * self.examples.share(chunk[1])

            self._ranks.add(total, self.examples.chunks(theta), add)
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
                statistics_inputs=self._statistics_inputs, batch_size=self.chunk_size, precision=self.precision,
            )  # fmt: skip
        return self._metrics(theta)

    def outputs(self, theta: Tensor) -> Tensor:
        """The network's outputs for all N examples, in the order of the batches: [N, ...].

        Raises:
            ValueError: the risk has `batch_loss`, which keeps outputs to itself, or outputs are no tensor.
        """
        self._need_loss("outputs", "it says how outputs are made")
        with self._point(theta, leaves=False) as point, self._values():
            parts = [detached(self._outputs(point, batch[0])) for batch, _ in self.examples.chunks(theta)]
        if not isinstance(parts[0], Tensor):
            raise ValueError(
                f"outputs: got {type(parts[0]).__name__}, expected one tensor: wrap the module in one that returns it"
            )
        return torch.cat(parts)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of R at theta: [P] -> [P].

        Raises:
            ValueError: theta is not as expected, or the module's backward is not the derivative of its forward.
        """
        check_theta(theta, self.space.size)
        scrutiny.confirm(self, "gradient")
        return self._in_memory(theta, lambda: self._whole_gradient(theta))

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Hessian of R at theta times v: [P] -> [P], or a block [P, k] -> [P, k].

        Raises:
            ValueError: theta or v is not as expected, or an operation has no second derivative, or a wrong one.
        """
        return self._product("hessian", theta, v)

    def gauss_newton_vp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Gauss-Newton matrix of R at theta times v: [P] -> [P], or a block [P, k] -> [P, k].

        G = 1/N sum_n J_n^T (d2 loss_n / d outputs2) J_n (Schraudolph 2002): positive semidefinite for a convex loss,
        and not the Hessian unless the network is linear or fits perfectly.

        Raises:
            ValueError: the risk has `batch_loss`, which does not say where outputs end and the loss begins; or as for
                `hvp`.
        """
        self._need_loss("gauss_newton_vp", "Gauss-Newton splits it at the outputs")
        return self._product("gauss_newton", theta, v)

    def restricted(self, theta: Tensor, *names: str) -> tuple[EmpiricalRisk, Tensor]:
        """The risk as a function of some parameters alone, the others fixed at theta; and those parameters [p].

        Args:
            theta: [P].
            names: parameter names, prefixes or patterns, as in `ParamSpace.subset`.

        Raises:
            ValueError: a name is unknown, or theta is not as expected.
        """
        part = self.space.subset(*names)
        tensors = {name: tensor.detach() for name, tensor in self._parameters(theta).items()}
        risk = copy.copy(self)
        risk.space = part
        risk._network = self._network.restricted(part.names, tensors)
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
        return self._over(self.examples.draw(size, generator))

    def few(self, most: int) -> EmpiricalRisk:
        """The risk of at most so many examples, spread over the batches; of the first batch where none can be cut.

        Args:
            most: examples; at most some 64 are at hand.
        """
        risk = self._over(self.examples.few(most))
        risk._auto = False
        return risk

    @property
    def in_float64(self) -> bool:
        """Whether module and loss compute in float64 where theta does."""
        return not (self._ways.float32 or self._ways.loss_float32 or self.theta.device.type == "mps")

    def precision_error(
        self, theta: Tensor, generator: torch.Generator, product: Literal["hvp", "gauss_newton_vp"] = "hvp"
    ) -> PrecisionError:
        """How far value, gradient and a product lie from float64's at theta [P], on a few of the examples.

        On at most 64; on the first batch where none can be cut.

        Absolute, and relative to what a single example contributes: the mean gradient vanishes at a minimum.

        Args:
            theta: in the dtype whose error is asked for.
            generator: for the vector of the product.
            product: which one is meant.

        Raises:
            ValueError: the module takes no float64, or as for `hvp`.

        Example:
            >>> x, y = torch.randn(9, 2), torch.randn(9, 1)
            >>> risk = EmpiricalRisk(nn.Linear(2, 1), nn.functional.mse_loss, [(x, y)])
            >>> risk.precision_error(risk.theta, torch.Generator().manual_seed(0)).relative_gradient < 1e-5
            True
        """
        if not self.in_float64:
            raise ValueError(
                "precision_error: got a module or loss that computes in float32 alone, expected one that takes float64 "
                "to compare with: make its constants of the inputs' dtype"
            )
        if theta.dtype == torch.float64:  # nothing to compare with
            return PrecisionError(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, self.precision, theta.dtype)
        few = self.few(EXAMPLES)
        few._keep_graph = False  # nine risks, each with two thetas and one product at each
        if self._bounded:  # chunks that memory made small are twice as large in float64
            few.examples = few.examples.in_chunks(max(1, self.chunk_size // 2))
        length = common_length(few.examples.first)
        rows = [] if length is None else [i * length // SINGLES for i in range(min(SINGLES, length))]
        one = few.examples.first
        parts = [rows_of(one, slice(row, row + 1)) for row in rows]
        singles = [few._over(self.examples.of([part])) for part in parts if self.examples.weight(part)] or [few]
        return precision_error(
            few, singles, theta, generator, examples=1 if length is None else length, precision=self.precision,
            reduction=self.reduction, product=product,
        )  # fmt: skip

    def let_go(self) -> None:
        """Give up what is kept for further products at the last theta; they make it anew."""
        self._forget()

    # --- evaluation

    def _forget(self) -> None:
        """Nothing is kept of another module, space or theta."""
        self._metrics = None
        self._at, self._kept = None, {}

    def _over(self, examples: Examples) -> EmpiricalRisk:
        """The same function of other examples; what is known of the module is known there, too."""
        risk = copy.copy(self)
        risk.examples = examples
        risk._forget()
        return risk

    def _need_loss(self, what: str, reason: str) -> Loss:
        if self.loss is None:
            raise ValueError(f"{what}: got a risk with batch_loss, expected loss(outputs, targets): {reason}")
        return self.loss

    def _parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """Named leaves [*shape] that hold theta, after theta has been checked."""
        check_theta(theta, self.space.size)
        self._say_float32(theta)
        # Each leaf has memory of its own: views of one vector would be slower to differentiate by.
        with torch.inference_mode(False):
            return {
                name: tensor.detach().clone().requires_grad_() for name, tensor in self.space.unflatten(theta).items()
            }

    @contextlib.contextmanager
    def _point(self, theta: Tensor, *, leaves: bool = True) -> Iterator[Point]:
        """Theta in the network, where all kernels can be differentiated twice; without a graph unless `leaves`."""
        parameters = self._parameters(theta)
        if not leaves:
            parameters = {name: leaf.detach() for name, leaf in parameters.items()}
        with twice_differentiable(theta.device, self.module, self.precision), self._placed(parameters) as point:
            yield point

    @contextlib.contextmanager
    def _placed(self, leaves: dict[str, Tensor]) -> Iterator[Point]:
        """These leaves in the network, in the dtype that it computes in."""
        inside = {name: leaf.float() for name, leaf in leaves.items()} if self._ways.float32 else leaves
        with self._network.at(inside) as network:
            yield Point(leaves, network)

    def _values(self) -> torch.set_grad_enabled:
        """Around values alone: no graph, unless the loss needs one."""
        return torch.set_grad_enabled(self._ways.graph)

    def _given(self, part: Any, like: Tensor) -> Any:
        """Inputs or a batch as the module takes them, in its dtype, and as its own to write to where it does."""
        if self._ways.float32:
            part = cast(part, like.float())
        return map_tensors(part, torch.clone) if self._ways.clones else part

    def _outputs(self, point: Point, inputs: Any) -> Any:
        """The network's outputs, in theta's dtype."""
        like = next(iter(point.leaves.values()))
        with forward_in(self.precision, like.device):
            outputs = call(point.network, self._given(inputs, like), self._spread)
        plain = self.precision == "ieee" and not self._ways.float32
        return outputs if plain else cast(outputs, like)

    def _loss_at(self, outputs: Any, targets: Any, like: Tensor) -> Tensor:
        """The loss of outputs and targets, [], in theta's dtype."""
        assert self.loss is not None
        dtype = torch.float32 if self._ways.loss_float32 else like.dtype
        key = (dtype, like.device)
        if key not in self._losses:
            self._losses[key] = in_dtype(self.loss, *key)
        if self._ways.loss_float32:
            outputs, targets = cast((outputs, targets), like.float())
        if self._ways.clones:
            outputs, targets = map_tensors((outputs, targets), torch.clone)
        return self._as_theta(self._losses[key](outputs, targets), like)

    def _loss_of(self, point: Point, batch: Any) -> Tensor:
        """The mean (or summed) loss of a batch, []."""
        like = next(iter(point.leaves.values()))
        if self.loss is not None:
            return self._loss_at(self._outputs(point, batch[0]), batch[1], like)
        assert self._batch_loss is not None
        with forward_in(self.precision, like.device):
            return self._as_theta(self._batch_loss(point.network, self._given(batch, like)), like)

    @staticmethod
    def _as_theta(value: Tensor, like: Tensor) -> Tensor:
        """A loss in theta's dtype, where it is computed in another one."""
        return value.to(like.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def _outputs_with(self, leaves: dict[str, Tensor], inputs: Any) -> Any:
        """Outputs at these leaves, for a forward alone."""
        with self._placed(leaves) as point:
            return self._outputs(point, inputs)

    def _loss_with(self, leaves: dict[str, Tensor], batch: Any) -> Tensor:
        """The loss of a batch at these leaves, for a forward alone."""
        with self._placed(leaves) as point:
            return self._loss_of(point, batch)

    def _evaluate(self, network: nn.Module, batch: Any) -> tuple[Tensor | None, Tensor]:
        """Outputs, where there are some, and the mean loss of a batch, with the network's own parameters."""
        point = Point(dict(network.named_parameters()), network)
        with self._values():
            if self.loss is None:
                return None, self._loss_of(point, batch).detach()
            like = next(iter(point.leaves.values()))
            outputs = self._outputs(point, batch[0])
            value = self._loss_at(outputs, batch[1], like)
        return outputs, value.detach()

    # --- memory

    def _in_memory(self, theta: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` returns; with chunk_size="auto" in chunks that are chosen first, and halved where need be."""
        if not self._auto:
            return compute()
        if self.chunk_choice is None:
            self._choose_chunk(theta)
        if self._keep_graph:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                line = str(error).partition("\n")[0]
            self._keep_graph = False
            self._forget()
            give_back()
            warnings.warn(f"keep_graph: memory ran out ({line}), goes on without a kept graph", stacklevel=3)

        def in_chunks(chunk: int) -> Tensor:
            self.examples = self.examples.in_chunks(chunk)
            self._forget()
            return compute()

        result, _ = halving(in_chunks, self.chunk_size)
        return result

    def _choose_chunk(self, theta: Tensor) -> None:
        """Time a gradient with its graph and a product at a few sizes, of the first batch's examples."""
        first = detached(self.examples.first)
        length = common_length(first)
        if length is None or self.examples.said or not self.examples.pairs:  # never cut
            self.chunk_choice = ChunkChoice(self.chunk_size, (), "all")
            return
        parts = tuple(self.space.unflatten(torch.ones_like(theta)).values())

        def run(size: int) -> None:
            batch = cast(rows_of(first, torch.arange(size) % length), theta)
            with self._point(theta) as point:
                self._hessian_chunk(point, batch, self.examples.weight(batch)).times(parts, batched=False)

        self.chunk_choice = choose_chunk(run, length, theta.device)
        self.examples = self.examples.in_chunks(self.chunk_choice.chunk)

    # --- derivatives

    def _whole_gradient(self, theta: Tensor) -> Tensor:
        used: set[str] = set()
        with self._point(theta) as point:
            total = torch.zeros_like(theta)

            def add(part: Tensor, chunk: tuple[Any, float]) -> None:
                gradients = self._chunk_gradient(point, *chunk, create_graph=False)
                self._add(part, gradients)
                used.update(name for name, g in zip(self.space.names, gradients, strict=True) if g is not None)

            self._ranks.add(total, self.examples.chunks(theta), add)
        self._say_unused(used)
        return self._finite("gradient", total)

    def _chunk_gradient(self, point: Point, batch: Any, weight: float, create_graph: bool) -> tuple[Tensor | None, ...]:
        value = self._loss_of(point, batch) * self.examples.share(weight)
        if not value.requires_grad:
            return (None,) * len(point.leaves)
        with scrutiny.said_by_name("gradient"):
            return torch.autograd.grad(
                value, tuple(point.leaves.values()), create_graph=create_graph, allow_unused=True
            )

    def _hessian_chunk(self, point: Point, batch: Any, weight: float) -> Product:
        with TwiceDifferentiable():
            gradients = self._chunk_gradient(point, batch, weight, create_graph=True)
        return HessianProduct(tuple(point.leaves.values()), gradients)

    def _gauss_newton_chunk(self, point: Point, batch: Any, weight: float) -> Product:
        with TwiceDifferentiable():
            outputs = self._outputs(point, batch[0])
        return GaussNewtonProduct(
            tuple(point.leaves.values()), outputs,
            lambda cut: self._loss_at(cut, batch[1], next(iter(point.leaves.values()))) * self.examples.share(weight),
        )  # fmt: skip

    def _products(self, kind: str, theta: Tensor) -> Iterator[Product | None]:
        """One product a chunk, with its theta in the network: those kept if theta is that of the last call, or new.

        None in the place of a chunk that another process computes.
        """
        kept_at = self._at
        same_kind = kept_at is not None and (kept_at.dtype, kept_at.device) == (theta.dtype, theta.device)
        if kept_at is None or not same_kind or not torch.equal(kept_at, theta):
            self._at, self._kept = None, {}
        if kind in self._kept:
            leaves, products = self._kept[kind]
            with self._placed(leaves):
                yield from products
            return
        make = {"hessian": self._hessian_chunk, "gauss_newton": self._gauss_newton_chunk}[kind]
        leaves = self._parameters(theta)
        kept: list[Product | None] = []
        used: set[str] = set()
        with self._placed(leaves) as point:
            for number, (batch, weight) in enumerate(self.examples.chunks(theta)):
                product = make(point, batch, weight) if self._ranks.own(number) else None
                if product is not None:
                    used.update(name for name, is_used in zip(self.space.names, product.used, strict=True) if is_used)
                if self._keep_graph:
                    kept.append(product)
                yield product
        self._say_unused(used)
        if self._keep_graph:
            self._at = theta.detach().clone()
            self._kept[kind] = (leaves, kept)

    def _product(self, kind: str, theta: Tensor, v: Tensor) -> Tensor:
        check_theta(theta, self.space.size)
        check_vectors(v, theta, self.space.size)
        scrutiny.confirm(self, kind)
        return self._in_memory(theta, lambda: self._whole_product(kind, theta, v))

    def _whole_product(self, kind: str, theta: Tensor, v: Tensor) -> Tensor:
        with twice_differentiable(theta.device, self.module, self.precision):
            rows = v.detach().reshape(len(v), -1).T.contiguous()  # [k, P]
            parts = tuple(self.space.unflatten(rows).values())  # [k, *shape] each
            result = torch.zeros_like(rows)

            def add(part: Tensor, product: Product | None) -> None:
                assert product is not None
                self._add_product(part, product, parts)

            self._ranks.add(result, self._products(kind, theta), add)
        return self._finite("product", result).T.reshape(v.shape)

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
            with scrutiny.said_by_name("product"):
                self._add(result[row], product.times([part[row] for part in parts], batched=False))

    def _add(self, total: Tensor, tensors: Sequence[Tensor | None]) -> None:
        """Add the tensors [..., *shape], one a parameter, to total [..., P], in place."""
        for own, tensor in zip(self.space.unflatten(total).values(), tensors, strict=True):
            if tensor is not None:
                own += tensor

    def _finite(self, what: str, result: Tensor) -> Tensor:
        """The result [..., P], where all of it is finite.

        Raises:
            ValueError: it is not; the message names the parameter.
        """
        if result.isfinite().all():
            return result
        name = next(name for name, part in self.space.unflatten(result).items() if not part.isfinite().all())
        raise ValueError(
            f"{what}: got values in {name} that are not finite, expected finite ones at this theta: does the loss "
            "overflow, or take a root, a norm or a logarithm at 0?"
        )

    def _say_float32(self, theta: Tensor) -> None:
        """One warning in the life of the risk where float64 is asked of what computes in float32."""
        narrow = self._ways.float32 or self._ways.loss_float32
        if narrow and theta.dtype == torch.float64 and not self._said_float32:
            self._said_float32 = True
            warnings.warn(
                f"theta: got float64, but the {'module' if self._ways.float32 else 'loss'} holds float32 constants and "
                "computes in float32: seven digits, not sixteen",
                stacklevel=4,
            )

    def _say_unused(self, used: set[str]) -> None:
        """One warning in the life of the risk for parameters that no example's loss depends on."""
        used = self._ranks.names(used, self.space.names)
        unused = [name for name in self.space.names if name not in used]
        if unused and not self._warned:
            self._warned = True
            warnings.warn(
                f"the loss does not use {', '.join(unused)}: gradient and curvature are zero there; "
                "leave them out with space=[names or patterns]",
                stacklevel=4,
            )


def _space_of(module: nn.Module, space: Space | None) -> ParamSpace:
    """The parameters that are meant: those that ask for gradients, unless said.

    Raises:
        ValueError: unknown ones.
    """
    everything = ParamSpace.of(module)
    if space is None:
        asking = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        return everything if len(asking) in (0, len(everything.names)) else everything.only(asking)
    if isinstance(space, str):
        return everything.subset(space)
    if not isinstance(space, ParamSpace):
        space = everything.subset(*space)
    if not space.names:
        raise ValueError("space: got no parameters, expected at least one: leave it out for the trainable ones")
    if unknown := [name for name in space.names if name not in everything.names]:
        raise ValueError(f"space: got {', '.join(unknown)}, expected names among {', '.join(everything.names)}")
    everything.only(space.names).require_same(space)
    return space
