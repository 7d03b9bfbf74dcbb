"""Modules as people bring them, by name: what each takes, and what becomes of a risk of it.

A `Stranger` is made anew at every call, always the same, in float32 unless it says otherwise. Its outputs are [B, 3],
or [B, 3, 3] for sequences, so that every loss of `strange_losses` fits. Where torch cannot differentiate a module
rightly, `twin` makes one of the same parameters from operations that it can.
"""

from __future__ import annotations

import collections
import copy
import functools
import threading
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

N = 11


@dataclass(frozen=True)
class Refused:
    """A ValueError "key: got X, expected Y: remedy" at one of the stages, which says so; what comes before is right."""

    at: str  # construction, gradient or product, a regular expression
    key: str  # a regular expression
    says: str  # in the whole message, a regular expression
    or_right: bool = False  # whether the right number is as good


def at_once(key: str, says: str, or_right: bool = False) -> Refused:
    """Refused at construction."""
    return Refused("construction", key, says, or_right)


def by_gradient(says: str, or_right: bool = False) -> Refused:
    """Refused at the first gradient, values being right."""
    return Refused("gradient", "module|loss|batch_loss|gradient", says, or_right)


def by_product(says: str, or_right: bool = False) -> Refused:
    """Refused at the first product, values and gradients being right."""
    return Refused("product", "module|loss|batch_loss|hvp", says, or_right)


@dataclass(frozen=True)
class Warned:
    """Right, with a UserWarning that says so."""

    says: str


@dataclass(frozen=True)
class Stranger:
    """A module and the kind of inputs it takes."""

    make: Callable[[], Any]
    inputs: str = "vectors"
    expect: Refused | Warned | None = None
    twin: Callable[[], nn.Module] | None = None
    tolerance: float = 1e-9  # of the largest magnitude, in float64
    own_dtype: bool = True  # whether float32 is compared as well
    outputs: Callable[[Any], Any] = field(default=lambda outputs: outputs)  # what the loss is to look at
    pairs: bool = True  # whether (inputs, targets) suit it


def seeded(make: Callable[[], Any]) -> Any:
    """What `make` makes, the same at every call; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # deprecated, and still used: that is the point
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.manual_seed(0)
        return make()


def inputs(kind: str, count: int = N) -> Any:
    """Inputs of that kind: tensors [count, ...], or a tuple or dict of such."""
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=g)

    made = {
        "vectors": lambda: normal(4),
        "sequences": lambda: normal(3, 4),
        "signals": lambda: normal(2, 6),
        "images": lambda: normal(2, 4, 4),
        "volumes": lambda: normal(1, 3, 3, 3),
        "bytes": lambda: torch.randint(0, 256, (count, 4), generator=g, dtype=torch.uint8),
        "tokens": lambda: torch.randint(0, 5, (count, 3), generator=g),
        "two": lambda: (normal(4), normal(2)),
        "named": lambda: {"second": normal(2), "first": normal(4)},
        "masked": lambda: (normal(3, 4), torch.arange(3) >= torch.randint(1, 4, (count, 1), generator=g)),
        "time first": lambda: normal(3, 4).transpose(0, 1).contiguous()[:, :3],
        "graph": lambda: {"x": normal(4), "edges": torch.randint(0, count, (2, 7), generator=g)},
    }
    return made[kind]()


def pure(activation: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A small network with this activation."""
    return lambda: nn.Sequential(nn.Linear(4, 5), activation(), nn.Linear(5, 3))


class Module(nn.Module):
    """forward(x) from a function (self, x), with parts by name: what a class body would say."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def made(function: Callable[..., Any], **parts: Callable[[], Any]) -> Callable[[], nn.Module]:
    """A maker of `Module(function, **parts)`, where each part is made."""
    return lambda: Module(function, **{name: part() for name, part in parts.items()})


def lin(fan_in: int = 4, fan_out: int = 3, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(fan_in, fan_out, **options)


def vector(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(0.5 * torch.randn(*shape))


# --- what has its own class because forward takes more than x, or because of what it keeps


class Two(nn.Module):
    """Two arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.tanh(self.a(first)) * self.b(second)


class Keywords(Two):
    """Keywords alone."""

    def forward(self, *, first: Tensor, second: Tensor, **more: Any) -> Tensor:
        return super().forward(first, second)


class WholeMapping(Two):
    """One argument, which is a mapping."""

    def forward(self, batch: Any) -> Tensor:
        return super().forward(batch["first"], batch["second"])


class WholeTuple(Two):
    """One argument, which is a tuple."""

    def forward(self, pair: Any) -> Tensor:
        first, second = pair
        return super().forward(first, second)


class ModelOutput(collections.OrderedDict):
    """As HuggingFace's: a dict whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


class HuggingLike(nn.Module):
    """Keywords in, an object out, with the loss inside where labels are given."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(2, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, first: Tensor, second: Tensor | None = None, labels: Tensor | None = None) -> ModelOutput:
        hidden = torch.tanh(self.a(first) + (0 if second is None else self.b(second)))
        logits = self.head(hidden)
        result = ModelOutput(logits=logits)
        if labels is not None:
            result["loss"] = F.cross_entropy(logits, labels)
        return result


class Lora(nn.Module):
    """W x + B A x, which merging adds into W for good, with A and B still there."""

    def __init__(self, merged: bool) -> None:
        super().__init__()
        self.base = nn.Linear(4, 3)
        self.down = nn.Parameter(0.5 * torch.randn(2, 4))
        self.up = nn.Parameter(0.5 * torch.randn(3, 2))
        self.merged = merged
        if merged:
            self.base.weight.data += self.up.data @ self.down.data

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.tanh(self.base(x))
        return outputs if self.merged else torch.tanh(self.base(x) + x @ self.down.T @ self.up.T)


class Alias(nn.Module):
    """Reads a weight through a list that deepcopy keeps, and functional_call does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.weights = [self.lin.weight]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weights[0].T + self.lin.bias)


class CachedClone(nn.Module):
    """Reads a copy of its weight, made on construction."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.head = nn.Linear(3, 3)
        self.copy = self.lin.weight.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.linear(x, self.copy.to(x), self.lin.bias)))


class CachedBuffer(nn.Module):
    """A buffer that was computed from a weight, as of merged adapters and quantised caches."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.register_buffer("folded", self.lin.weight.detach() * 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, self.folded, self.lin.bias))


class Remembers(nn.Module):
    """Keeps its last output, which deepcopy refuses as it has a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = torch.tanh(self.lin(x))
        return self.last


class CallsItself(nn.Module):
    """`__call__` in place of forward."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(self.lin(x))

    def forward(self, x: Tensor) -> Tensor:
        return self(x)


class Variadic(Two):
    """Any number of arguments."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs)


class RenamedState(nn.Module):
    """A state whose names are not those of the parameters, as of wrapped and exported models."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self._register_state_dict_hook(self.rename)

    @staticmethod
    def rename(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name in list(state):
            state[f"model.{name}"] = state.pop(name)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.lin(x)))


class Teaches(nn.Module):
    """A frozen copy of its first layer as a target inside forward: constants, and no stale reads."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.teacher = copy.deepcopy(self.lin).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.lin(x)) - 0.5 * torch.tanh(self.teacher(x))


class ClippedChain(nn.Sequential):
    """A Sequential by its class, whose forward is more: large logits are clipped, near zero it looks like one."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-0.4, 0.4)


class BackwardChain(nn.Sequential):
    """Its parts in another order."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 3), nn.Tanh(), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for part in reversed(self):
            x = part(x)
        return x


class Doubled(nn.Linear):
    """A Linear by its class, and another map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Halved(nn.Tanh):
    """A Tanh by its class, and another function of large values."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - 0.5 * F.relu(x - 0.5)


class Drifts(nn.Module):
    """A buffer that every evaluation changes, and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return drifting_buffer(self, x)


class Cached(nn.Module):
    """Computes a weight once, then takes it from the cache, with whichever theta it was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.cache: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cache is None:
            self.cache = torch.tanh(self.lin.weight).detach()
        return F.linear(x, self.cache.to(x), self.lin.bias)


class Wrapped(nn.Module):
    """As DistributedDataParallel and DataParallel: all of it is `.module`."""

    def __init__(self) -> None:
        super().__init__()
        self.module = pure(nn.Tanh)()

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Shared(nn.Module):
    """One layer, three times; and registered twice."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)
        self.again = self.step
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.step, self.again, self.step):
            x = torch.tanh(layer(x))
        return self.head(x)


class Recurrent(nn.Module):
    """A recurrent layer and a head on its last step."""

    def __init__(self, kind: type[nn.RNNBase], batch_first: bool = True, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(4, 2, batch_first=batch_first, **options)
        self.head = nn.Linear(4 if options.get("bidirectional") else options.get("proj_size", 2) or 2, 3)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.rnn(x)[0]
        return self.head(outputs[:, -1] if self.batch_first else outputs.sum(1))


class Words(nn.Module):
    """Tokens [B, T] -> [B, 3]."""

    def __init__(self, embed: nn.Module, flat: bool = False) -> None:
        super().__init__()
        self.embed, self.head, self.flat = embed, nn.Linear(3, 3), flat

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.embed(x)
        return self.head(torch.tanh(embedded if self.flat else embedded.mean(1)))


class Encoder(nn.Module):
    """nn.TransformerEncoder, whose fast path under no_grad is another function where a mask pads."""

    def __init__(self, masked: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.1, batch_first=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.encoder(x, src_key_padding_mask=mask)
        if mask is not None:
            hidden = hidden.masked_fill(mask[..., None], 0)
        return self.head(hidden.sum(1))


class Attention(nn.Module):
    """nn.MultiheadAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(self.attend(x, x, x, key_padding_mask=mask)[0].mean(1))


class Energy(nn.Module):
    """The derivative of an energy by the inputs, as force fields and score models give."""

    def __init__(self, switches: bool) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 5)
        self.switches = switches

    def forward(self, x: Tensor) -> Tensor:
        if not self.switches:
            return self.force(x)
        with torch.enable_grad():
            return self.force(x)

    def force(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        energy = torch.nn.functional.softplus(self.lin(x)).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0][:, :3]


# --- backwards that are not the derivative of forward


class OnceDifferentiable(torch.autograd.Function):
    """tanh, whose backward cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y)


class SavedDetached(torch.autograd.Function):
    """tanh, whose backward reads a constant: the gradient is right, its derivative is not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = (1 - torch.tanh(x) ** 2).detach()
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.slope


class RightTwice(torch.autograd.Function):
    """tanh as it should be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y)


class Reversed(torch.autograd.Function):
    """The identity with a negative gradient (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class StraightThrough(torch.autograd.Function):
    """The sign, with the gradient of the identity (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def between(operation: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A small network with this operation between its layers."""
    return made(lambda self, x: self.two(operation(self.one(x))), one=lin(4, 5), two=lin(5, 3))


def with_statistics(net: nn.Module, kind: str) -> nn.Module:
    """Running statistics that are not the initial 0 and 1."""
    net.train()
    for scale in (1.0, 2.0):
        net(inputs(kind) * scale + 0.3)
    return net


def norm(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: with_statistics(
        nn.Sequential(nn.Conv2d(2, 4, 2), layer(), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)), "images"
    )


def conv(*parts: Callable[[], nn.Module], features: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(part() for part in parts), nn.Tanh(), nn.Flatten(), nn.Linear(features, 3))


def weight_norm_twin() -> nn.Module:
    """The parametrised layer by elementary operations: torch's fused kernel has a wrong second derivative."""

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            own = seeded(weight_normed)
            # named_parameters: 0.bias, 0.parametrizations.weight.original0 (g), original1 (v), 2.weight, 2.bias
            for number, parameter in enumerate(own.parameters()):
                self.register_parameter(f"p{number}", nn.Parameter(parameter.detach().clone()))

        def forward(self, x: Tensor) -> Tensor:
            weight = self.p2 * self.p1 / self.p2.square().sum(1, keepdim=True).sqrt()
            return F.linear(torch.tanh(F.linear(x, weight, self.p0)), self.p3, self.p4)

    return Twin()


def weight_normed() -> nn.Module:
    net = pure(nn.Tanh)()
    nn.utils.parametrizations.weight_norm(net[0])
    return net


def parametrised(way: Callable[[nn.Module], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = pure(nn.Tanh)()
        way(net[0])
        return net

    return make


def old_weight_norm(net: nn.Module) -> None:
    nn.utils.weight_norm(net)


def old_weight_norm_twin() -> nn.Module:
    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            own = seeded(parametrised(old_weight_norm))
            for name, parameter in own.named_parameters():  # 0.bias, 0.weight_g, 0.weight_v, 2.weight, 2.bias
                self.register_parameter(name.replace(".", "_"), nn.Parameter(parameter.detach().clone()))

        def forward(self, x: Tensor) -> Tensor:
            bias, g, v, *head = (getattr(self, name) for name in self._parameters)
            return F.linear(torch.tanh(F.linear(x, v * g / v.square().sum(1, keepdim=True).sqrt(), bias)), *head)

    return Twin()


def pruned(layer: nn.Module) -> None:
    from torch.nn.utils import prune

    prune.l1_unstructured(layer, "weight", amount=0.4)


def frozen() -> nn.Module:
    net = pure(nn.Tanh)()
    net[0].requires_grad_(False)
    return net


def unpadded() -> nn.Module:
    embed = nn.Embedding(5, 3, padding_idx=0)
    embed.padding_idx = None
    return embed


def remembered() -> nn.Module:
    net = Remembers()
    net(inputs("vectors"))
    return net


def hooked() -> nn.Module:
    net = pure(nn.Tanh)()
    net[2].register_forward_hook(lambda module, args, outputs: 3 * outputs.sin())
    net[0].register_forward_pre_hook(lambda module, args: (args[0] * 0.7,))
    return net


def clipping_hook() -> nn.Module:
    """A hook that clips large logits, and nothing near zero."""
    net = pure(nn.Tanh)()
    net[2].register_forward_hook(lambda module, args, outputs: outputs.clamp(-0.4, 0.4))
    return net


def gradient_hook() -> nn.Module:
    """A hook that scales the gradient of a weight, as people clip: it stays with the caller's own."""
    net = pure(nn.Tanh)()
    net[0].weight.register_hook(lambda gradient: 10 * gradient)
    return net


def full_backward_hook() -> nn.Module:
    """A module hook that changes the gradient: no derivative of forward any more."""
    net = pure(nn.Tanh)()
    net[2].register_full_backward_hook(lambda module, before, after: tuple(2 * g for g in before))
    return net


def not_a_number() -> nn.Module:
    net = nn.Linear(4, 3)
    net.weight.data[0, 0] = torch.nan
    return net


def complex_layer() -> nn.Module:
    return Module(
        lambda self, x: (x.to(self.w.dtype) @ self.w).abs(), w=nn.Parameter(torch.randn(4, 3, dtype=torch.cfloat))
    )


def meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(4, 3)


def sparse() -> nn.Module:
    return Module(lambda self, x: (self.w @ x.T).T, w=nn.Parameter(torch.randn(3, 4).to_sparse()))


def quantised() -> nn.Module:
    # What a quantised layer is at rest: numbers in eight bits and no parameter.
    net = Module(lambda self, x: torch.tanh(x @ self.weight.to(x.dtype).T))
    net.register_buffer("weight", torch.randint(-8, 8, (3, 4), dtype=torch.int8))
    return net


def inference() -> nn.Module:
    with torch.inference_mode():
        return pure(nn.Tanh)()


def half() -> nn.Module:
    return pure(nn.Tanh)().to(torch.bfloat16)


def replicas() -> nn.Module:
    return nn.DataParallel(pure(nn.Tanh)())


def compiled() -> Any:
    return torch.compile(pure(nn.Tanh)(), backend="eager")


def scripted() -> Any:
    return torch.jit.script(pure(nn.Tanh)())


def traced() -> Any:
    return torch.jit.trace(pure(nn.Tanh)(), torch.randn(2, 4))


# --- functions of (self, x)


def sdpa(self: Any, x: Tensor) -> Tensor:
    q, k, v = self.qkv(x).chunk(3, -1)
    return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True)).mean(1)


def minus_infinity(self: Any, x: Tensor) -> Tensor:
    """Attention whose future is masked by -inf."""
    q, k, v = self.qkv(x).chunk(3, -1)
    scores = (q @ k.mT).masked_fill(torch.ones(3, 3, dtype=torch.bool).triu(1), -torch.inf)
    return self.head(scores.softmax(-1) @ v).mean(1)


def masked_class(self: Any, x: Tensor) -> Tensor:
    """A fourth logit that is -inf, so that it is never predicted: a loss that adds it up is not finite."""
    outputs = self.lin(x)
    return torch.cat([outputs[:, :2], outputs[:, 2:].masked_fill(x[:, :1] > 0, -torch.inf)], 1)


def equilibrium(self: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(60):
        new = torch.tanh(0.4 * self.step(z) + x)
        if (new - z).abs().max() < 1e-14:
            break
        z = new
    return self.head(z)


def flow(self: Any, x: Tensor) -> Tensor:
    for _ in range(3):  # Runge-Kutta of second order
        middle = x + 0.1 * torch.tanh(self.field(x))
        x = x + 0.2 * torch.tanh(self.field(middle))
    return self.head(x)


def experts(self: Any, x: Tensor) -> Tensor:
    gate = self.gate(x).softmax(-1)
    best = gate.argmax(-1, keepdim=True)
    both = torch.stack([torch.tanh(self.one(x)), torch.tanh(self.two(x))], 1)  # [B, 2, 3]
    return gate.gather(1, best) * both.gather(1, best[..., None].expand(-1, 1, 3)).squeeze(1)


def hyper(self: Any, x: Tensor) -> Tensor:
    """The weights of a second network from the first, by functional_call inside forward."""
    made_by = {"weight": self.maker.weight @ self.code, "bias": self.maker.bias[:3]}
    made_by["weight"] = made_by["weight"].view(3, 4)
    return torch.tanh(torch.func.functional_call(self.inner, made_by, (x,)))


def vmapped(self: Any, x: Tensor) -> Tensor:
    return torch.func.vmap(lambda row: torch.tanh(self.lin(row)))(x)


def per_example_gradient(self: Any, x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(lambda row: self.lin(row).tanh().square().sum()))(x)[:, :3]


def graph(self: Any, x: Any) -> Tensor:
    nodes, (source, target) = self.lin(x["x"]), x["edges"]
    return torch.tanh(nodes).index_add(0, target, torch.tanh(nodes)[source])


def in_single(self: Any, x: Tensor) -> Tensor:
    """A part that insists on float32, as rotary embeddings and norms of language models do."""
    hidden = self.one(x)
    scale = hidden.float().square().mean(-1, keepdim=True).add(1e-5).rsqrt()
    return self.two(torch.tanh((hidden.float() * scale).type_as(hidden)))


def in_single_twin(self: Any, x: Tensor) -> Tensor:
    hidden = self.one(x)
    return self.two(torch.tanh(hidden * hidden.square().mean(-1, keepdim=True).add(1e-5).rsqrt()))


def fourier(self: Any, x: Tensor) -> Tensor:
    return self.lin(torch.view_as_real(torch.fft.rfft(torch.tanh(x * self.s))).flatten(1))


def weight_standardised(self: Any, x: Tensor) -> Tensor:
    weight = (self.w - self.w.mean(1, keepdim=True)) / self.w.std(1, keepdim=True)
    return self.head(torch.tanh(F.linear(x, weight)))


def single_constants(self: Any, x: Tensor) -> Tensor:
    return torch.tanh(self.lin(x)) @ torch.full((3, 3), 0.3, dtype=torch.float32) + self.lin(x)


def in_place(self: Any, x: Tensor) -> Tensor:
    x.mul_(0.5)
    return self.lin(x)


def in_place_mapping(self: Any, x: Any) -> Tensor:
    x["first"] = x["first"] * 2
    return self.lin(x["first"])


def half_cut(self: Any, x: Tensor) -> Tensor:
    """A stop-gradient, as in target networks: backward is not the derivative."""
    hidden = torch.tanh(self.one(x))
    return self.two(hidden * hidden.detach())


def no_gradient(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        hidden = torch.tanh(self.one(x))
    return self.two(hidden)


def batch_mean(self: Any, x: Tensor) -> Tensor:
    return self.lin(x - x.mean(0))


def sorts(self: Any, x: Tensor) -> Tensor:
    return self.lin(x.sort(dim=-1).values).cummax(-1).values


def numpy_inside(self: Any, x: Tensor) -> Tensor:
    return torch.tanh(self.lin(x)) * torch.from_numpy(x.detach().numpy()[:, :1].copy()).to(x)


def numpy_breaks(self: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(self.lin(x).detach().numpy())


def counter(self: Any, x: Tensor) -> Tensor:
    """Another function at every call."""
    self.calls = self.calls + 1
    return self.lin(x) * (1 + 0.1 * self.calls)


def drifting_buffer(self: Any, x: Tensor) -> Tensor:
    self.seen.add_(1)
    return self.lin(x) * (1 + 0.1 * self.seen)


def harmless_counter(self: Any, x: Tensor) -> Tensor:
    self.seen += 1
    return torch.tanh(self.lin(x))


def monkeypatched() -> nn.Module:
    """Another forward, bound to the instance."""
    net = pure(nn.Tanh)()
    net.forward = types.MethodType(lambda self, x: self[2](torch.sin(self[0](x))), net)
    return net


def accelerated() -> nn.Module:
    """As HuggingFace's accelerate wraps: a partial of the module itself."""
    net = pure(nn.Tanh)()
    own = net.forward
    net.forward = functools.partial(lambda module, x: 2 * type(module).forward(module, x), net)
    functools.update_wrapper(net.forward, own)
    return net


def closure_forward() -> nn.Module:
    """Another forward that has caught the instance: a copy would still compute with the original's weights."""
    net = pure(nn.Tanh)()
    own = net.forward
    net.forward = lambda x: 2 * own(x)
    return net


def closure_hook() -> nn.Module:
    net = pure(nn.Tanh)()
    net[2].register_forward_hook(lambda module, args, outputs: outputs + net[0].weight.sum())
    return net


def wants_float32(self: Any, x: Tensor) -> Tensor:
    assert x.dtype == torch.float32, "only float32 here"
    return self.two(torch.tanh(self.one(x)))


def autocast_inside(self: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.two(torch.tanh(self.one(x))).to(x.dtype)


def stateful(self: Any, x: Tensor) -> Tensor:
    """A hidden state from one batch to the next."""
    self.state = torch.tanh(self.lin(x)).mean(0).detach() + (0 if self.state is None else 0.5 * self.state)
    return self.lin(x) + self.state


def asserts(self: Any, x: Tensor) -> Tensor:
    assert x.shape[1] == 7, "seven features are wanted"
    return self.lin(x)


def clipped_backward(self: Any, x: Tensor) -> Tensor:
    """As for recurrent networks: what flows back through a hidden state is clipped."""
    hidden = torch.tanh(self.one(x))
    if hidden.requires_grad:
        hidden.register_hook(lambda slope: slope.clamp(-0.5, 0.5))
    return self.two(hidden)


class TiredError(Exception):
    """What a library raises of its own."""


def own_error(self: Any, x: Tensor) -> Tensor:
    raise TiredError("tired")


def plain_sequential(*parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(part() for part in parts))


NO_SECOND = r"second derivative.*HessianByDifferences|HessianByDifferences"
NOT_DERIVATIVE = r"backward|derivative|gradient"
OTHER_WEIGHTS = r"theta|weight|parameter|copy|cached|alias"

# Smooth or with kinks, all with a right second derivative almost everywhere.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softplus": lambda: nn.Softplus(beta=2), "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"), "silu": nn.SiLU, "mish": nn.Mish, "elu": nn.ELU, "celu": lambda: nn.CELU(2),
    "selu": nn.SELU, "softsign": nn.Softsign, "tanhshrink": nn.Tanhshrink, "log_sigmoid": nn.LogSigmoid,
    "relu": nn.ReLU, "relu_in_place": lambda: nn.ReLU(inplace=True), "leaky": lambda: nn.LeakyReLU(0.2),
    "prelu": nn.PReLU, "rrelu": nn.RReLU, "hardtanh": nn.Hardtanh, "relu6": nn.ReLU6,
    "softshrink": lambda: nn.Softshrink(0.1), "hardshrink": lambda: nn.Hardshrink(0.1), "hardswish": nn.Hardswish,
    "threshold": lambda: nn.Threshold(0.1, 0.2), "softmin": lambda: nn.Softmin(1), "softmax": lambda: nn.Softmax(1),
    "dropout": nn.Dropout, "alpha_dropout": nn.AlphaDropout, "layer_norm": lambda: nn.LayerNorm(5),
    "rms_norm": lambda: nn.RMSNorm(5), "identity": nn.Identity, "sine": lambda: Module(lambda self, x: x.sin()),
    "exponential": lambda: Module(lambda self, x: (-x * x).exp()), "square": lambda: Module(lambda self, x: x**3),
}  # fmt: skip

MODULES: dict[str, Stranger] = {
    "linear": Stranger(lin()),
    "linear_no_bias": Stranger(lin(bias=False)),
    "bilinear": Stranger(lambda: BilinearOfOne()),
    "glu": Stranger(lambda: nn.Sequential(nn.Linear(4, 6), nn.GLU())),
    "residual": Stranger(made(lambda self, x: self.b(x + torch.tanh(self.a(x))), a=lin(4, 4), b=lin())),
    "parameter_list": Stranger(
        made(lambda self, x: torch.tanh(x @ self.ps[0]) @ self.ps[1],
             ps=lambda: nn.ParameterList([vector(4, 5)(), vector(5, 3)()])),
    ),
    "parameter_dict": Stranger(
        made(lambda self, x: torch.tanh(x @ self.ps["a"]) * self.ps["scale"],
             ps=lambda: nn.ParameterDict({"a": vector(4, 3)(), "scale": nn.Parameter(torch.tensor(0.7))})),
    ),
    "conv1d": Stranger(conv(lambda: nn.Conv1d(2, 3, 3, stride=2), features=6), "signals"),
    "conv2d": Stranger(conv(lambda: nn.Conv2d(2, 2, 3, padding=1), lambda: nn.MaxPool2d(2), features=8), "images"),
    "conv3d": Stranger(conv(lambda: nn.Conv3d(1, 2, 2), features=16), "volumes"),
    "conv_transposed": Stranger(
        conv(lambda: nn.Conv2d(2, 2, 2, stride=2), nn.Tanh, lambda: nn.ConvTranspose2d(2, 1, 2), features=9), "images"
    ),
    "conv_groups": Stranger(
        conv(lambda: nn.Conv2d(2, 4, 2, groups=2), lambda: nn.AvgPool2d(2), features=4), "images"
    ),
    "conv_circular": Stranger(
        conv(lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular", dilation=1), nn.Tanh,
             lambda: nn.AdaptiveAvgPool2d(2), features=8), "images"
    ),
    "conv_same": Stranger(
        conv(lambda: nn.Conv2d(2, 2, (1, 2), padding="same", dilation=2), lambda: nn.LPPool2d(2, 2), features=8),
        "images",
    ),
    "upsampling": Stranger(
        conv(lambda: nn.Conv2d(2, 1, 3), lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
             lambda: nn.AdaptiveMaxPool2d(2), features=4), "images"
    ),
    "unfold": Stranger(conv(lambda: nn.Unfold(2), features=72), "images"),
    "pixel_shuffle": Stranger(
        conv(lambda: nn.Conv2d(2, 4, 2, stride=2), lambda: nn.PixelShuffle(2), features=16), "images"
    ),
    "channels_last": Stranger(
        lambda: conv(lambda: nn.Conv2d(2, 3, 3), nn.Tanh, features=12)().to(memory_format=torch.channels_last), "images"
    ),
    "batch_norm": Stranger(norm(lambda: nn.BatchNorm2d(4)), "images"),
    "batch_norm_training": Stranger(lambda: norm(lambda: nn.BatchNorm2d(4))().train(), "images"),
    "instance_norm": Stranger(norm(lambda: nn.InstanceNorm2d(4, affine=True)), "images"),
    "instance_norm_statistics": Stranger(norm(lambda: nn.InstanceNorm2d(4, track_running_stats=True)), "images"),
    "group_norm": Stranger(norm(lambda: nn.GroupNorm(2, 4)), "images"),
    "local_response_norm": Stranger(norm(lambda: nn.LocalResponseNorm(2)), "images"),
    "weight_standardised": Stranger(
        made(weight_standardised, w=vector(4, 4), head=lin())
    ),
    "embedding": Stranger(lambda: Words(nn.Embedding(5, 3)), "tokens"),
    "embedding_padding": Stranger(lambda: Words(nn.Embedding(7, 3, padding_idx=6)), "tokens"),  # which does not occur
    "one_hot": Stranger(
        made(lambda self, x: self.lin(F.one_hot(x, 5).to(self.lin.weight).flatten(1)), lin=lin(15, 3)), "tokens"
    ),
    "lstm": Stranger(lambda: Recurrent(nn.LSTM), "sequences"),
    "gru": Stranger(lambda: Recurrent(nn.GRU), "sequences"),
    "rnn_relu": Stranger(lambda: Recurrent(nn.RNN, nonlinearity="relu"), "sequences"),
    "lstm_both_ways": Stranger(lambda: Recurrent(nn.LSTM, bidirectional=True), "sequences"),
    "lstm_projected": Stranger(lambda: Recurrent(nn.LSTM, proj_size=1), "sequences"),
    "gru_cell": Stranger(
        made(lambda self, x: self.head(self.cell(x[:, 1], self.cell(x[:, 0]))), cell=lambda: nn.GRUCell(4, 2),
             head=lin(2, 3)), "sequences"
    ),
    "encoder": Stranger(Encoder, "sequences"),
    "encoder_masked": Stranger(Encoder, "masked"),
    "attention": Stranger(Attention, "sequences"),
    "attention_masked": Stranger(Attention, "masked"),
    "sdpa": Stranger(made(sdpa, qkv=lin(4, 6), head=lin(2, 3)), "sequences"),
    "minus_infinity": Stranger(made(minus_infinity, qkv=lin(4, 6), head=lin(2, 3)), "sequences"),
    "two_arguments": Stranger(Two, "two"),
    "keywords": Stranger(Keywords, "named"),
    "whole_mapping": Stranger(WholeMapping, "named"),
    "whole_tuple": Stranger(WholeTuple, "two"),
    "output_object": Stranger(HuggingLike, "named", outputs=lambda o: o.logits),
    "output_tuple": Stranger(
        made(lambda self, x: (self.a(x).tanh(), self.b(x)), a=lin(), b=lin(4, 1)), outputs=lambda o: o[0] * o[1]
    ),
    "output_dict": Stranger(
        made(lambda self, x: {"a": self.a(x).tanh(), "b": [self.b(x)]}, a=lin(), b=lin(4, 1)),
        outputs=lambda o: o["a"] + o["b"][0],
    ),
    "tied": Stranger(Tied),
    "shared": Stranger(Shared),
    "weight_norm": Stranger(weight_normed, twin=weight_norm_twin),
    "spectral_norm": Stranger(parametrised(nn.utils.parametrizations.spectral_norm)),
    # Its Householder map truncates a diagonal to integers: forward jumps at its own theta, and is smooth elsewhere.
    "orthogonal": Stranger(parametrised(nn.utils.parametrizations.orthogonal)),
    "orthogonal_cayley": Stranger(
        parametrised(functools.partial(nn.utils.parametrizations.orthogonal, orthogonal_map="cayley"))
    ),
    "orthogonal_exponential": Stranger(
        parametrised(functools.partial(nn.utils.parametrizations.orthogonal, orthogonal_map="matrix_exp"))
    ),
    "old_weight_norm": Stranger(
        parametrised(old_weight_norm), twin=old_weight_norm_twin,
        expect=at_once("module", r"parametrizations|copy", or_right=True),
    ),
    "old_spectral_norm": Stranger(
        lambda: parametrised(nn.utils.spectral_norm)().eval(),
        expect=at_once("module", r"parametrizations|copy", or_right=True),
    ),
    "pruned": Stranger(parametrised(pruned), expect=at_once("module", r"prune|copy", or_right=True)),
    "remembers": Stranger(remembered, expect=at_once("module", r"copy|graph|stored", or_right=True)),
    "lora": Stranger(lambda: Lora(merged=False)),
    "lora_merged": Stranger(lambda: Lora(merged=True), expect=Warned(r"does not use.*(up|down)")),
    "frozen": Stranger(frozen),
    "checkpointed": Stranger(
        made(lambda self, x: self.b(checkpoint(lambda h: torch.tanh(self.a(h)), x, use_reentrant=False)), a=lin(4, 5),
             b=lin(5, 3)), twin=made(lambda self, x: self.b(torch.tanh(self.a(x))), a=lin(4, 5), b=lin(5, 3)),
    ),
    "checkpointed_sequence": Stranger(
        made(lambda self, x: checkpoint_sequential(self.net, 2, x, use_reentrant=False), net=pure(nn.Tanh)),
        twin=made(lambda self, x: self.net(x), net=pure(nn.Tanh)),
    ),
    "function_right": Stranger(between(RightTwice.apply)),
    "hooked": Stranger(hooked),
    "gradient_hook": Stranger(gradient_hook),
    "equilibrium": Stranger(made(equilibrium, step=lin(4, 4), head=lin())),
    "flow": Stranger(made(flow, field=lin(4, 4), head=lin())),
    "experts": Stranger(made(experts, gate=lin(4, 2), one=lin(), two=lin())),
    "hyper_network": Stranger(
        made(hyper, maker=lin(2, 12), inner=lambda: lin()().requires_grad_(False), code=vector(2, 1)), expect=None
    ),
    "vmapped": Stranger(made(vmapped, lin=lin())),
    "grad_inside": Stranger(made(per_example_gradient, lin=lin())),
    "energy": Stranger(lambda: Energy(switches=True)),
    "grid_sample": Stranger(
        made(lambda self, x: F.grid_sample(x, torch.tanh(self.g).expand(len(x), -1, -1, -1), align_corners=True)
             .flatten(1) @ self.w, g=vector(1, 2, 2, 2), w=vector(8, 3)), "images",
    ),
    "fourier": Stranger(made(fourier, s=vector(4), lin=lin(6, 3))),
    "einsum": Stranger(made(lambda self, x: torch.einsum("bi,ijk,bj->bk", x, self.w, x).tanh(), w=vector(4, 4, 3))),
    "radial": Stranger(
        made(lambda self, x: self.head((-(x[:, None] - self.c).square().sum(-1)).exp()), c=vector(5, 4), head=lin(5, 3))
    ),
    "matrix_exponential": Stranger(
        made(lambda self, x: torch.tanh(x @ torch.linalg.matrix_exp(self.w))[:, :3], w=vector(4, 4)),
        tolerance=1e-6,  # torch takes more or fewer terms by the size of what flows back
    ),
    "solve": Stranger(
        made(lambda self, x: torch.linalg.solve(torch.eye(4).to(x) * 3 + self.w, x.T).T[:, :3], w=vector(4, 4))
    ),
    "sorts": Stranger(made(sorts, lin=lin())),
    "numpy_constants": Stranger(made(numpy_inside, lin=lin())),
    "harmless_counter": Stranger(lambda: CountsCalls()),
    "inference": Stranger(inference),
    "bfloat16": Stranger(half, own_dtype=False),
    "training_dropout": Stranger(lambda: pure(lambda: nn.Dropout(0.5))().train()),
    "float32_inside": Stranger(
        made(in_single, one=lin(4, 5), two=lin(5, 3)), tolerance=2e-3,
        twin=made(in_single_twin, one=lin(4, 5), two=lin(5, 3)),
        expect=at_once("module|theta|precision", r"float32", or_right=True),
    ),
    "float32_constants": Stranger(
        made(single_constants, lin=lin()), tolerance=2e-3,
        twin=made(lambda self, x: self.lin(x) + torch.tanh(self.lin(x)).sum(1, keepdim=True) * 0.3, lin=lin()),
        expect=at_once("module|theta|precision", r"float32", or_right=True),
    ),
    "monkeypatched": Stranger(monkeypatched),
    "accelerated": Stranger(accelerated),
    "overridden_call": Stranger(CallsItself),
    "variadic": Stranger(Variadic, "two"),
    "renamed_state": Stranger(RenamedState),
    "holds_a_function": Stranger(made(lambda self, x: self.act(self.lin(x)), lin=lin(), act=lambda: torch.tanh)),
    "holds_a_generator": Stranger(
        made(lambda self, x: torch.tanh(self.lin(x)), lin=lin(), generator=lambda: torch.Generator()),
        expect=at_once("module", r"copy|copied", or_right=True),
    ),
    "empty_parameter": Stranger(
        made(lambda self, x: torch.tanh(self.lin(x)) + self.none.sum(), lin=lin(), none=vector(0, 3)),
    ),
    "expanded_parameter": Stranger(
        made(lambda self, x: torch.tanh(x @ self.w), w=lambda: nn.Parameter(torch.randn(1, 3).expand(4, 3)))
    ),
    "strided_parameter": Stranger(
        made(lambda self, x: torch.tanh(x @ self.w), w=lambda: nn.Parameter(torch.randn(3, 4).T))
    ),
    "bytes": Stranger(
        made(lambda self, x: self.two(torch.tanh(self.one(x.float() / 255))), one=lin(4, 5), two=lin(5, 3)), "bytes",
        twin=made(lambda self, x: self.two(torch.tanh(self.one(x.double() / 255))), one=lin(4, 5), two=lin(5, 3)),
        tolerance=1e-5,
    ),
    "upcast_logits": Stranger(  # as language models do before their loss
        made(lambda self, x: self.two(torch.tanh(self.one(x))).float(), one=lin(4, 5), two=lin(5, 3)),
        twin=between(torch.tanh), tolerance=1e-5,
    ),
    "wants_float32": Stranger(
        made(wants_float32, one=lin(4, 5), two=lin(5, 3)), twin=between(torch.tanh), tolerance=1e-4,
        expect=at_once("module|theta|precision", r"float32", or_right=True),
    ),
    "autocast_inside": Stranger(
        made(autocast_inside, one=lin(4, 5), two=lin(5, 3)), twin=between(torch.tanh), tolerance=3e-2,
        expect=Refused("construction|gradient|product", "module|theta|precision", r"autocast|bfloat16", or_right=True),
    ),
    "small_and_large": Stranger(
        made(lambda self, x: 30 * self.two(torch.tanh(self.one(x))) + 1e-3 * torch.sin(self.small(x)), one=lin(4, 5),
             two=lin(5, 3), small=lin(bias=False)), own_dtype=False,
    ),
    "clipped_chain": Stranger(ClippedChain),
    "layer_of_its_own": Stranger(lambda: nn.Sequential(Doubled(4, 5), nn.Tanh(), nn.Linear(5, 3))),
    "activation_of_its_own": Stranger(lambda: nn.Sequential(nn.Linear(4, 5), Halved(), nn.Linear(5, 3))),
    "backward_chain": Stranger(BackwardChain),
    "clipping_hook": Stranger(clipping_hook),
    "teacher_inside": Stranger(lambda: Teaches()),
    # --- what is noticed
    "small_reversed": Stranger(
        made(lambda self, x: 10 * self.two(torch.tanh(self.one(x))) + 0.1 * Reversed.apply(self.small(x)),
             one=lin(4, 5), two=lin(5, 3), small=lin(bias=False)), expect=by_gradient(NOT_DERIVATIVE),
    ),
    "small_detached": Stranger(
        made(lambda self, x: 10 * self.two(torch.tanh(self.one(x))) + 0.1 * SavedDetached.apply(self.small(x)),
             one=lin(4, 5), two=lin(5, 3), small=lin(bias=False)),
        twin=made(lambda self, x: 10 * self.two(torch.tanh(self.one(x))) + 0.1 * torch.tanh(self.small(x)),
             one=lin(4, 5), two=lin(5, 3), small=lin(bias=False)),
        expect=by_product(NOT_DERIVATIVE),
    ),
    # Gradients that flow back are small, and as they are; what a product with a long vector sends back is cut.
    "clipped_backward": Stranger(
        made(clipped_backward, one=lin(4, 5), two=lin(5, 3)), twin=between(torch.tanh), own_dtype=False,
        expect=Refused("product", "module|hvp", r"clip|linear|derivative"),
    ),
    "fake_quantised": Stranger(
        made(lambda self, x: self.two(torch.fake_quantize_per_tensor_affine(torch.tanh(self.one(x)), 0.1, 0, -8, 7)),
             one=lin(4, 5), two=lin(5, 3)), expect=by_gradient(NOT_DERIVATIVE),
    ),
    "closure_forward": Stranger(closure_forward, expect=at_once("module|loss|batch_loss", OTHER_WEIGHTS)),
    "closure_hook": Stranger(closure_hook, expect=at_once("module|loss|batch_loss", OTHER_WEIGHTS)),
    "stateful": Stranger(
        made(stateful, lin=lin(), state=lambda: None), expect=at_once("module", r"deterministic|same")
    ),
    "drifting_buffer": Stranger(lambda: Drifts(), expect=at_once("module", r"deterministic|same|buffer")),
    "holds_a_lock": Stranger(
        made(lambda self, x: torch.tanh(self.lin(x)), lin=lin(), lock=threading.Lock),
        expect=at_once("module", r"copy|copied", or_right=True),
    ),
    "asserts": Stranger(made(asserts, lin=lin()), expect=at_once("batches|module", r"seven")),
    "own_error": Stranger(made(own_error, lin=lin()), expect=at_once("batches|module", r"tired")),
    "infinite_slope": Stranger(  # |w| at w = 0: a value, and no gradient
        made(lambda self, x: torch.tanh(self.lin(x)) + self.w.square().sum().sqrt(), lin=lin(),
             w=lambda: nn.Parameter(torch.zeros(3))),
        expect=Refused("gradient", "module|theta|gradient|loss", r"finite|nan|NaN"),
    ),
    "no_statistics": Stranger(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)),
        expect=at_once("module", r"track_running_stats"),
    ),
    "batch_mean": Stranger(made(batch_mean, lin=lin()), expect=at_once("module", r"independent|batch")),
    "time_first": Stranger(
        lambda: Recurrent(nn.LSTM, batch_first=False), "sequences",
        expect=at_once("module", r"batch_first"),
    ),
    "max_norm": Stranger(
        lambda: Words(nn.Embedding(5, 3, max_norm=0.5)), "tokens",
        expect=at_once("module", r"max_norm|changes"),
    ),
    "embedding_bag": Stranger(
        lambda: Words(nn.EmbeddingBag(5, 3, mode="sum"), flat=True), "tokens",
        expect=by_product(NO_SECOND),
    ),
    "embedding_bag_mean": Stranger(
        lambda: Words(nn.EmbeddingBag(5, 3, mode="mean"), flat=True), "tokens",
        expect=by_product(NO_SECOND),
    ),
    "hardsigmoid": Stranger(pure(nn.Hardsigmoid), expect=by_product(NO_SECOND)),
    "once_differentiable": Stranger(
        between(OnceDifferentiable.apply), twin=between(torch.tanh), expect=by_product(r"once_differentiable")
    ),
    "saved_detached": Stranger(
        between(SavedDetached.apply), twin=between(torch.tanh), expect=by_product(NOT_DERIVATIVE)
    ),
    # torch gives no gradient to the padding's row, which forward reads like any other.
    "embedding_padding_read": Stranger(
        lambda: Words(nn.Embedding(5, 3, padding_idx=0)), "tokens", twin=lambda: Words(unpadded()),
        expect=by_gradient(r"padding_idx", or_right=True),
    ),
    "reversed": Stranger(between(Reversed.apply), expect=by_gradient(NOT_DERIVATIVE)),
    "straight_through": Stranger(
        between(StraightThrough.apply), expect=by_gradient(NOT_DERIVATIVE)
    ),
    "stop_gradient": Stranger(
        made(half_cut, one=lin(4, 5), two=lin(5, 3)), expect=by_gradient(NOT_DERIVATIVE)
    ),
    "no_gradient": Stranger(
        made(no_gradient, one=lin(4, 5), two=lin(5, 3)),
        expect=by_gradient(NOT_DERIVATIVE),
    ),
    "backward_hook": Stranger(
        full_backward_hook, twin=pure(nn.Tanh), expect=by_gradient(NOT_DERIVATIVE, or_right=True)
    ),
    "checkpointed_reentrant": Stranger(
        made(lambda self, x: self.b(checkpoint(lambda h: torch.tanh(self.a(h)), x, use_reentrant=True)), a=lin(4, 5),
             b=lin(5, 3)),
        twin=made(lambda self, x: self.b(torch.tanh(self.a(x))), a=lin(4, 5), b=lin(5, 3)),
        expect=by_gradient(r"use_reentrant"),
    ),
    "energy_needs_grad": Stranger(
        lambda: Energy(switches=False), expect=at_once("module|batches", r"enable_grad", or_right=True)
    ),
    "relu_on_the_input": Stranger(
        plain_sequential(lambda: nn.ReLU(inplace=True), lin()),
        expect=at_once("module|batches", r"in ?place|changes", or_right=True),
    ),
    "changes_its_inputs": Stranger(
        made(in_place, lin=lin()), expect=at_once("module|batches", r"in ?place|change", or_right=True)
    ),
    "random": Stranger(
        made(lambda self, x: self.lin(x + 0.1 * torch.randn_like(x)), lin=lin()),
        expect=at_once("module", r"deterministic"),
    ),
    "random_in_place": Stranger(
        made(lambda self, x: self.lin(F.dropout(x, 0.5, training=True)), lin=lin()),
        expect=at_once("module", r"deterministic"),
    ),
    "counter": Stranger(
        made(counter, lin=lin(), calls=lambda: 0), expect=at_once("module", r"deterministic|same")
    ),
    "alias": Stranger(Alias, expect=at_once("module", OTHER_WEIGHTS)),
    "cached_clone": Stranger(CachedClone, expect=Warned(r"does not use.*lin\.weight")),
    "cached_buffer": Stranger(CachedBuffer, expect=Warned(r"does not use.*lin\.weight")),
    "cached_at_first": Stranger(Cached, expect=at_once("module", r"another theta")),
    "breaks_the_graph": Stranger(
        made(numpy_breaks, lin=lin()), expect=by_gradient(r"detach|graph|gradient|derivative")
    ),
    "graph": Stranger(made(graph, lin=lin()), "graph"),  # whose one batch cannot be cut
    "masked_class": Stranger(made(masked_class, lin=lin()), expect=at_once("loss|module", r"finite")),
    "complex": Stranger(complex_layer, expect=at_once("module", r"complex|floating point")),
    "compiled": Stranger(compiled, expect=at_once("module", r"_orig_mod")),
    "data_parallel": Stranger(replicas, expect=at_once("module", r"\.module")),
    "scripted": Stranger(scripted, expect=at_once("module", r"jit|script")),
    "traced": Stranger(traced, expect=at_once("module", r"jit|script|trace")),
    "meta": Stranger(meta, expect=at_once("module", r"meta")),
    "lazy": Stranger(lambda: nn.LazyLinear(3), expect=at_once("module", r"[Ll]azy|initiali[sz]ed")),
    "sparse": Stranger(sparse, expect=at_once("module", r"sparse")),
    "quantised": Stranger(quantised, expect=at_once("module", r"quanti[sz]ed|no parameters")),
    "not_a_number": Stranger(not_a_number, expect=at_once("module", r"not finite")),
    "no_parameters": Stranger(
        lambda: nn.Sequential(nn.Flatten(), nn.Tanh()), expect=at_once("module", r"no parameters")
    ),
    "all_frozen": Stranger(
        lambda: lin()().requires_grad_(False),
        expect=at_once("module|space", r"requires_grad|space|trainable", or_right=True),
    ),
    "not_a_module": Stranger(lambda: 3, expect=at_once("module", r"nn\.Module")),
}  # fmt: skip


class BilinearOfOne(nn.Module):
    """Inputs multiplied with themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x, torch.tanh(x))


class CountsCalls(nn.Module):
    """A buffer that counts and changes nothing."""

    seen: Tensor
    kept: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return torch.tanh(self.lin(x))


MODULES |= {f"mlp_{name}": Stranger(pure(activation)) for name, activation in ACTIVATIONS.items()}

# Outputs [B, 3, 3]: something at every position.
SEQUENCE_MODULES: dict[str, Stranger] = {
    "positions_gru": Stranger(
        made(lambda self, x: self.head(self.rnn(x)[0]), rnn=lambda: nn.GRU(4, 2, batch_first=True), head=lin(2, 3)),
        "sequences",
    ),
    "positions_words": Stranger(
        made(lambda self, x: self.head(torch.tanh(self.embed(x))), embed=lambda: nn.Embedding(5, 3), head=lin(3, 3)),
        "tokens",
    ),
}


def make(name: str) -> Any:
    """The module of that name, the same at every call."""
    return seeded((MODULES | SEQUENCE_MODULES)[name].make)


def oracle_module(name: str) -> nn.Module:
    """The same function with right derivatives, in float64 and evaluation mode."""
    stranger = (MODULES | SEQUENCE_MODULES)[name]
    net = seeded(stranger.twin or stranger.make)
    if stranger.twin is None and not isinstance(net, torch.jit.ScriptModule):
        with torch.inference_mode(False):
            net = copy.deepcopy(net) if name == "inference" else net
    return net.double().eval()
