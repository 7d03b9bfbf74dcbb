"""Small networks with data and losses, by name, and an oracle that shares no code with hw1: for all numerical tests.

`case("relu")` makes a new one, always the same. Its function of theta is the mean loss over all examples in one piece;
`hessian` differentiates it twice with torch.autograd.
"""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hw1.models import Cnn, Mlp, Rnn
from hw1.risk.empirical import EmpiricalRisk
from hw1.vectors import ParamSpace

N = 23


@dataclass(frozen=True)
class Case:
    """A network, its loss, and N examples x [N, ...], y [N, ...] in float64 or integers."""

    net: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    y: Tensor

    def risk(self, **options: Any) -> EmpiricalRisk:
        """The risk, of ragged batches."""
        return EmpiricalRisk(self.net, self.loss, ragged(self.x, self.y), **options)

    def function(self) -> Callable[[Tensor], Tensor]:
        """Theta [P] -> the mean loss, []."""
        return in_one_piece(self.net, self.loss, self.x, self.y)

    def theta(self) -> Tensor:
        """The network's own theta [P], float64."""
        return torch.cat([p.detach().double().reshape(-1) for p in self.net.parameters()])

    def hessian(self, theta: Tensor | None = None) -> Tensor:
        """H [P, P] at theta, or the network's own."""
        return hessian(self.function(), self.theta() if theta is None else theta)


def in_one_piece(
    net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> Callable[[Tensor], Tensor]:
    """Theta [P] -> the mean loss over all examples in one batch, in float64 and evaluation mode."""
    net = copy.deepcopy(net).double().eval()
    space = ParamSpace.of(net)
    x, y = x.double() if x.is_floating_point() else x, y.double() if y.is_floating_point() else y
    return lambda theta: loss(torch.func.functional_call(net, space.unflatten(theta), (x,)), y)


def gradient(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """Gradient [P] by torch.autograd."""
    return torch.autograd.functional.jacobian(function, theta)


def hessian(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """H [P, P] by double backward, row by row."""
    with sdpa_kernel(SDPBackend.MATH):  # the fast kernels have no second derivative
        return torch.autograd.functional.hessian(function, theta)


def product(function: Callable[[Tensor], Tensor], theta: Tensor, v: Tensor) -> Tensor:
    """H v [P] or, of a block, [P, k] by double backward, one vector after another."""
    with sdpa_kernel(SDPBackend.MATH):
        columns = [torch.autograd.functional.vhp(function, theta, one)[1] for one in v.reshape(len(v), -1).T]
    return torch.stack(columns, 1).reshape(v.shape)


def gauss_newton(outputs: Callable[[Tensor], Tensor], loss: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """J^T L'' J [P, P], of outputs(theta) [n] and loss(outputs) [], both of all examples in one piece."""
    jacobian = torch.autograd.functional.jacobian(outputs, theta)
    return jacobian.T @ torch.autograd.functional.hessian(loss, outputs(theta).detach()) @ jacobian


def difference(function: Callable[[Tensor], Tensor], theta: Tensor, v: Tensor, step: float = 1e-4) -> Tensor:
    """Derivative of the function along v by four evaluations, to fourth order in the step."""
    near = function(theta + step * v) - function(theta - step * v)
    far = function(theta + 2 * step * v) - function(theta - 2 * step * v)
    return (8 * near - far) / (12 * step)


def ragged(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """N examples in batches of 9, 10 and 4."""
    return list(zip(x.split([9, 10, 4]), y.split([9, 10, 4]), strict=True))


def images(count: int = N, seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Noise [count, 1, 8, 8], float64, and a class each."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, classes, (count,), generator=generator)


def with_statistics(net: nn.Module) -> nn.Module:
    """Batch-norm whose running statistics are not the initial 0 and 1."""
    net.train()
    for seed in range(3):
        net(images(seed=seed)[0] * 2 + 1)
    return net


def trained(case: Case, steps: int = 200) -> Case:
    """The same case after so many full-batch steps of Adam."""
    net = copy.deepcopy(case.net).double().train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        case.loss(net(case.x), case.y).backward()
        optimizer.step()
    return Case(net, case.loss, case.x, case.y)


def chain(sizes: list[int], activation: Callable[[], nn.Module], bias: bool = True) -> nn.Sequential:
    """Linear layers of these sizes with an activation between them."""
    parts: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        parts += [nn.Linear(fan_in, fan_out, bias=bias), activation()]
    return nn.Sequential(*parts[:-1])


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 3, bias=False)
        self.middle = nn.Linear(3, 3)
        self.decode = nn.Linear(3, 3)
        self.decode.weight = self.middle.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.middle(torch.tanh(self.encode(x.flatten(1))))))


class Words(nn.Module):
    """Logits [B, T, V] of the next token."""

    def __init__(self, vocabulary: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 3)
        self.rnn = nn.GRU(3, 3, batch_first=True)
        self.head = nn.Linear(3, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the positions of sequences."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


# What the layer-by-layer Hessian knows: linear layers and elementwise activations.
CHAINS: dict[str, Callable[[], tuple[nn.Module, Any, str, str]]] = {
    "linear": lambda: (nn.Linear(2, 1), F.mse_loss, "points", "one"),
    "no_hidden": lambda: (Mlp((2,), 3, hidden=[]), F.mse_loss, "points", "three"),
    "relu": lambda: (Mlp((2,), 1, hidden=[5, 4]), nn.MSELoss(), "points", "one"),
    "relu_deep": lambda: (Mlp((2,), 1, hidden=[3, 4, 4, 4, 4, 4, 3]), F.mse_loss, "points", "one"),
    "leaky": lambda: (chain([2, 4, 3, 3], lambda: nn.LeakyReLU(0.2, inplace=True)), F.mse_loss, "points", "three"),
    "tanh": lambda: (Mlp((1, 2, 3), 3, hidden=[4, 3], activation="tanh"), F.cross_entropy, "small", "classes"),
    "dropout": lambda: (Mlp((2,), 3, hidden=[4, 4], dropout=0.5), nn.CrossEntropyLoss(), "points", "classes"),
    "smoothed": lambda: (chain([2, 4, 3], nn.SiLU), nn.CrossEntropyLoss(label_smoothing=0.1), "points", "classes"),
    "gelu": lambda: (chain([2, 4, 4, 3], lambda: nn.GELU(approximate="tanh")), F.mse_loss, "points", "three"),
    "softplus": lambda: (chain([2, 4, 4, 1], lambda: nn.Softplus(beta=3)), F.mse_loss, "points", "one"),
    "no_bias": lambda: (chain([2, 4, 4, 4, 1], nn.Sigmoid, bias=False), F.huber_loss, "points", "one"),
    "relu_no_bias": lambda: (chain([2, 4, 4, 3], nn.ReLU, bias=False), F.mse_loss, "points", "three"),
    "mixed": lambda: (
        nn.Sequential(
            nn.Hardtanh(), nn.Linear(2, 4), nn.Linear(4, 3, bias=False), nn.ELU(), nn.Tanh(),
            nn.Sequential(nn.Linear(3, 4), nn.Identity()), nn.Mish(), nn.Linear(4, 3), nn.Softplus(),
        ), F.mse_loss, "points", "three",
    ),
    "log_softmax": lambda: (
        nn.Sequential(nn.Linear(2, 4), nn.CELU(), nn.Linear(4, 3), nn.LogSoftmax(1)), F.nll_loss, "points", "classes"
    ),
    "squeezed": lambda: (
        nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0)), F.mse_loss, "points", "numbers"
    ),
}  # fmt: skip

OTHERS: dict[str, Callable[[], tuple[nn.Module, Any, str, str]]] = {
    "cnn_batch_norm": lambda: (
        with_statistics(Cnn((1, 8, 8), 3, layers=["c3(3)", "bn", "p2", "drop", 4]).double()),
        F.cross_entropy, "images", "classes",
    ),
    "channels_last": lambda: (
        Cnn((1, 8, 8), 3, layers=["c3(3)", "p2", "c3(4)"], activation="tanh").to(memory_format=torch.channels_last),
        F.cross_entropy, "images", "classes",
    ),
    "rnn": lambda: (Rnn((1, 8, 8), 3, hidden=4, activation="tanh"), F.cross_entropy, "images", "classes"),
    "tied": lambda: (Tied(), F.cross_entropy, "images", "classes"),
    "layer_norm": lambda: (
        nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 3)),
        F.cross_entropy, "images", "classes",
    ),
    "attention": lambda: (
        nn.Sequential(
            nn.Flatten(2), nn.Linear(64, 4), nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), nn.Flatten(),
            nn.Linear(4, 3),
        ), F.cross_entropy, "images", "classes",
    ),
    "tokens": lambda: (Words(), token_loss, "tokens", "tokens"),
}  # fmt: skip

NAMES = (*CHAINS, *OTHERS)


def case(name: str) -> Case:
    """A new case, the same at every call; the caller's random state is left alone."""
    generator = torch.Generator().manual_seed(1)
    x, classes = images()
    data = {
        "points": torch.randn(N, 2, dtype=torch.float64, generator=generator),
        "images": x,
        "small": x[:, :, :2, :3],
        "one": torch.randn(N, 1, dtype=torch.float64, generator=generator),
        "three": torch.randn(N, 3, dtype=torch.float64, generator=generator),
        "numbers": torch.randn(N, dtype=torch.float64, generator=generator),
        "classes": classes,
        "tokens": torch.randint(0, 5, (N, 4), generator=generator),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, loss, inputs, targets = {**CHAINS, **OTHERS}[name]()
    return Case(net, loss, data[inputs], data[targets].roll(1, -1) if targets == "tokens" else data[targets])
