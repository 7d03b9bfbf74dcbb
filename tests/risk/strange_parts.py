"""What strange modules are made of: networks, forwards, hooks and backwards as people write them."""

from __future__ import annotations

import collections
import copy
import functools
import types
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

N = 11


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
