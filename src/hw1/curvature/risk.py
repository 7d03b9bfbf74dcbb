"""The empirical risk of any nn.Module as a function of its parameter vector: value, gradient, curvature products."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hw1.curvature.examples import Examples, cast, close
from hw1.curvature.products import GaussNewtonProduct, HessianProduct, Product
from hw1.curvature.twice import TwiceDifferentiable
from hw1.vectors import ParamSpace

# A block of vectors goes through vmap where a network is so small that the overhead of operations rules; in a larger
# one it saves nothing and multiplies the memory of a chunk's activations.
BATCHED_PARAMETERS = 10_000
BATCHED_COLUMNS = 32

Loss = Callable[[Tensor, Tensor], Tensor]


class EmpiricalRisk:
    """theta [P] -> R(theta) = 1/N sum_n loss(f(x_n; theta), y_n), the mean over all examples of all batches.

    Examples weigh equally, also in a ragged last batch. The network is evaluated in evaluation mode (dropout off,
    batch-norm with its running statistics), on a copy in theta's dtype and on theta's device; the caller's module, its
    mode and gradients and the random state are left alone. A module or a loader that gives other values on a second
    look is refused: curvature is that of one function.

    Products with the Hessian keep the graph of the gradient, in chunks that fit the cache, from one product to the
    next: for a small CNN about 1.1 gradients a product where recomputing costs 2.4 (Pearlmutter 1994 gives the product
    itself).

    Args:
        module: the network.
        loss: (outputs [B, ...], targets [B, ...]) -> mean loss over the B examples, [].
        batches: (inputs [B, ...], targets [B, ...]); a list, a DataLoader, or whatever can be iterated again.
        space: the parameters to differentiate by, e.g. `ParamSpace.of(module).subset("fc")`; the others keep the
            module's values. All, unless said.
        chunk_size: examples at a time; 128 to 256 keep a small CNN's activations in the cache.
        keep_graph: keep the gradient's graph for all examples between products. Without it memory stays that of one
            chunk, and a product costs a gradient more.

    Attributes:
        space: the parameters that theta consists of.
        size: N, the number of examples.
        module: a copy of the network, in evaluation mode.
        loss: as given.
        examples: the batches, read again at every pass.

    Raises:
        ValueError: no examples, shapes that do not fit, a loss that is not a scalar mean over examples, parameters
            that are not finite or not floating point, an unknown parameter in `space`, a module whose examples
            influence each other, or a risk that is not deterministic.

    Example:
        >>> net = nn.Linear(2, 1, bias=False).double()
        >>> x, y = torch.randn(5, 2).double(), torch.randn(5, 1).double()
        >>> risk = EmpiricalRisk(net, nn.functional.mse_loss, [(x[:3], y[:3]), (x[3:], y[3:])])
        >>> v = torch.tensor([1.0, 2.0]).double()
        >>> bool(torch.allclose(risk.hvp(risk.theta, v), 2 / 5 * x.T @ x @ v))
        True
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        batches: Iterable[Sequence[Tensor]],
        space: ParamSpace | None = None,
        *,
        chunk_size: int = 256,
        keep_graph: bool = True,
    ) -> None:
        everything = ParamSpace.of(module)
        self.space = everything if space is None else space
        if unknown := [name for name in self.space.names if name not in everything.names]:
            raise ValueError(f"space: got {', '.join(unknown)}, expected names among {', '.join(everything.names)}")
        everything.subset(*self.space.names).require_same(self.space)
        _check_parameters(module)
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._cast: dict[tuple[torch.dtype, torch.device], nn.Module] = {}
        self.loss = loss
        self._keep_graph = keep_graph
        self._warned = False
        self._batched = self.space.size <= BATCHED_PARAMETERS
        # What is kept of the last theta: its value, and for each kind of product one closure a chunk.
        self._at: Tensor | None = None
        self._kept: dict[str, list[Product]] = {}
        self.examples = Examples(batches, chunk_size)
        self.size = self.examples.size
        few = max(2, chunk_size)  # a batch may be the whole set
        self._check_loss(*(part[:few] for part in self.examples.first))

    @property
    def theta(self) -> Tensor:
        """The module's own parameters as it was given, theta [P]."""
        named = dict(self.module.named_parameters())
        return self.space.flatten(named).clone()

    def __call__(self, theta: Tensor) -> Tensor:
        """R(theta), []."""
        parameters = self._parameters(theta)
        total = torch.zeros((), dtype=theta.dtype, device=theta.device)
        with self._undisturbed(theta.device), torch.no_grad():
            for inputs, targets in self.examples.chunks(theta):
                total += self.loss(self._outputs(parameters, inputs), targets) * (len(inputs) / self.size)
        return total

    def outputs(self, theta: Tensor) -> Tensor:
        """The network's outputs for all N examples, in the order of the batches: [N, ...]."""
        parameters = self._parameters(theta)
        with self._undisturbed(theta.device), torch.no_grad():
            return torch.cat([self._outputs(parameters, inputs) for inputs, _ in self.examples.chunks(theta)])

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of R at theta: [P] -> [P]."""
        parameters = self._parameters(theta)
        total = torch.zeros_like(theta)
        used: set[str] = set()
        with self._undisturbed(theta.device):
            for inputs, targets in self.examples.chunks(theta):
                gradients = self._chunk_gradient(parameters, inputs, targets, create_graph=False)
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
        """
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
        risk.space, risk._cast, risk._at, risk._kept = part, {}, None, {}
        risk.module = copy.deepcopy(self._network(theta))
        risk.module.load_state_dict(tensors, strict=False)
        return risk, part.flatten(tensors)

    # --- evaluation

    def _parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """Named leaves [*shape] that hold theta, after theta has been checked."""
        if theta.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"theta: got {theta.dtype}, expected float32 or float64: convert it with theta.double()")
        if theta.shape != (self.space.size,):
            raise ValueError(
                f"theta: got shape {list(theta.shape)}, expected [{self.space.size}]: begin with risk.theta"
            )
        if bad := int((~theta.isfinite()).sum()):
            raise ValueError(
                f"theta: got {bad} of {theta.numel()} values that are not finite, expected none of them: did training "
                "diverge?"
            )
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

    @contextlib.contextmanager
    def _undisturbed(self, device: torch.device) -> Iterator[None]:
        """Gradients on, autocast off, kernels that can be differentiated twice; random state restored at the end."""
        recurrent = any(isinstance(part, nn.RNNBase) for part in self.module.modules())
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autocast(device.type, enabled=False))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if recurrent and device.type == "cuda":  # cuDNN's recurrent layers have no second derivative
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield

    # --- derivatives

    def _chunk_gradient(
        self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor, create_graph: bool
    ) -> tuple[Tensor | None, ...]:
        value = self.loss(self._outputs(parameters, inputs), targets) * (len(inputs) / self.size)
        if not value.requires_grad:
            return (None,) * len(parameters)
        return torch.autograd.grad(value, tuple(parameters.values()), create_graph=create_graph, allow_unused=True)

    def _hessian_chunk(self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Product:
        leaves = tuple(parameters.values())
        with TwiceDifferentiable():
            gradients = self._chunk_gradient(parameters, inputs, targets, create_graph=True)
        return HessianProduct(leaves, gradients)

    def _gauss_newton_chunk(self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Product:
        with TwiceDifferentiable():
            outputs = self._outputs(parameters, inputs)
        cut = outputs.detach().requires_grad_()
        value = self.loss(cut, targets) * (len(inputs) / self.size)
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
        for inputs, targets in self.examples.chunks(theta):
            product = make(parameters, inputs, targets)
            used.update(name for name, is_used in zip(self.space.names, product.used, strict=True) if is_used)
            if self._keep_graph:
                kept.append(product)
            yield product
        self._say_unused(used)
        if self._keep_graph:
            self._at = theta.detach().clone()
            self._kept[kind] = kept

    def _product(self, kind: str, theta: Tensor, v: Tensor) -> Tensor:
        if v.ndim not in (1, 2) or len(v) != self.space.size:
            raise ValueError(
                f"v: got shape {list(v.shape)}, expected [{self.space.size}] or [{self.space.size}, k]: flatten named "
                "tensors with risk.space.flatten(...)"
            )
        if v.dtype != theta.dtype or v.device != theta.device:
            raise ValueError(
                f"v: got {v.dtype} on {v.device}, expected theta's {theta.dtype} on {theta.device}: use v.to(theta)"
            )
        with self._undisturbed(theta.device):
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

    # --- checks

    def _check_loss(self, inputs: Tensor, targets: Tensor) -> None:
        """The first examples: shapes fit, the loss is a scalar mean, examples are independent, nothing is random."""
        theta = self.theta
        if theta.dtype not in (torch.float32, torch.float64):
            theta = theta.float()
        inputs, targets = cast(inputs, theta), cast(targets, theta)
        if len(inputs) == 1:  # a mean stays the same when its only example is doubled
            inputs, targets = torch.cat([inputs, inputs]), torch.cat([targets, targets])
        parameters = {name: tensor.detach() for name, tensor in self._parameters(theta).items()}
        shapes = f"inputs {list(inputs.shape)}, targets {list(targets.shape)}"
        with self._undisturbed(theta.device), torch.no_grad(), warnings.catch_warnings():
            # torch only warns where mse_loss broadcasts [B] against [B, 1] to a [B, B] of wrong pairs.
            warnings.filterwarnings("error", message="Using a target size")
            try:
                outputs = self._outputs(parameters, inputs)
                again = self._outputs(parameters, inputs)
                shapes += f", outputs {list(outputs.shape)}"
                value = self.loss(outputs, targets)
            except (RuntimeError, ValueError, IndexError, TypeError, UserWarning) as error:
                raise ValueError(
                    f"batches: got {shapes}, expected shapes and dtypes that the module and the loss take: {error}"
                ) from error
            if not isinstance(value, Tensor) or value.ndim:
                got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"loss: got {got}, expected a tensor of shape []: the mean over examples")
            if not value.isfinite():
                raise ValueError(f"loss: got {value.item()} at the module's parameters, expected a finite number")
            if not close(outputs, again):
                raise ValueError(
                    "module: got other outputs for the same inputs, expected a deterministic function: use nn.Dropout, "
                    "which evaluation mode switches off, in place of random calls in forward"
                )
            self._check_mean(outputs, targets, value)
            half = (len(inputs) + 1) // 2
            if not close(self._outputs(parameters, inputs[:half]), outputs[:half]):
                raise ValueError(
                    "module: got other outputs for an example when others left its batch, expected independent "
                    "examples: give batch-norm running statistics (track_running_stats=True)"
                )

    def _check_mean(self, outputs: Tensor, targets: Tensor, value: Tensor) -> None:
        half = (len(outputs) + 1) // 2
        weight = half / len(outputs)
        parts = torch.stack([self.loss(outputs[:half], targets[:half]), self.loss(outputs[half:], targets[half:])])
        halves = weight * parts[0] + (1 - weight) * parts[1]
        if not close(value, halves, parts.abs().max()):
            raise ValueError(
                f"loss: got {value.item():.6g} on a batch and {halves.item():.6g} as the weighted mean of its halves, "
                "expected a mean over examples: use reduction='mean', and no class weights or ignored targets"
            )


def _check_parameters(module: nn.Module) -> None:
    named = list(module.named_parameters())
    if not named:
        raise ValueError("module: got no parameters, expected at least one (a quantized module hides its weights)")
    for name, parameter in named:
        if not parameter.is_floating_point():
            raise ValueError(
                f"module: got {name} of {parameter.dtype}, expected floating point: convert it with module.double()"
            )
        if not parameter.isfinite().all():
            raise ValueError(
                f"module: got values in {name} that are not finite, expected finite ones: did training diverge?"
            )
