"""hw1 and its peers on a GPU: time, peak memory and error, on ResNet-18 (4,096 images) and GPT-2 124M (8,192 tokens).

pip install -e ".[benchmarks]" && python benchmarks/gpu.py [--tiny] [--seconds 220]

Under four minutes on an H100; what would start after --seconds is left out by name. --tiny: small sizes, for a CPU too.
Both networks have had a few steps of training on random inputs with labels that can be learned: without, the gradients
of examples cancel, and every error looks large.

A row is a tool and a precision: "ieee" (float32 as it is), "tf32" (torch's default for cuDNN's convolutions; here for
matrix products too), "bfloat16" (autocast). Its error is that of a product against plain torch's in float64, over its
norm. A cell is wall seconds and the peak of allocated memory in GiB (- without a GPU). "by hand" is double backward
on the graph of the gradient that is kept, the best of two chunks. The top pair stops at each tool's own tolerance of
1e-2, hw1's and PyHessian's at 40 products at most; the trace has 10 probes, the density 2 probes x 10 steps. hw1's
construction includes its checks and the choice of its chunk. PyHessian gets all examples as one batch, where it keeps
its graph, too. Below a row: what was found (the density's is the trace), and what a tool warned of or refused.
"""

import hw1  # isort: skip  # first: it sets malloc up before torch allocates
import argparse
import contextlib
import copy
import inspect
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from peers import Curvlinops, Hw1, NotOfferedError, Problem, PyHessian, flatten, seeded, unflatten
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, resnet18

from hw1.curvature import EmpiricalRisk

PRECISIONS = ("ieee", "tf32", "bfloat16")
MEASURES = (
    "construction", "value", "gradient", "first product", "product", "top pair", "trace", "density",
)  # fmt: skip


EXPECTED = ("Using backward() with create_graph=True", "`torch.jit.script`")  # PyHessian's way; curvlinops' imports


# --- networks and data


class Block(nn.Module):
    """A pre-norm block with causal attention, written out: fused kernels have no second derivative."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        length = x.shape[1]
        q, k, v = self.qkv(self.ln_1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, T, D / H]
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(later, float("-inf")).softmax(3) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    """GPT-2 (Radford et al. 2019), its head tied to the embedding: tokens [B, T] -> logits [B, V, T]."""

    def __init__(self, vocabulary: int, context: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.ln = nn.LayerNorm(width)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits with classes in dimension 1, as nn.CrossEntropyLoss takes them."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        return F.linear(self.ln(self.blocks(x)), self.wte.weight).transpose(1, 2)


@dataclass(frozen=True)
class Effort:
    """Probes of the trace, steps of the density; the top pair's tolerance, most products, and ARPACK's basis."""

    probes: int = 10
    steps: int = 10
    tol: float = 1e-2
    most: int = 40
    basis: int = 20


@dataclass(frozen=True)
class Case:
    """A problem, the batch sizes that by hand and curvlinops get, and what is spent."""

    name: str
    problem: Problem
    chunks: tuple[int, int]
    effort: Effort


def resnet(device: torch.device, tiny: bool) -> Case:
    torch.manual_seed(0)
    count, batch = (8, 4) if tiny else (4096, 1024)
    if tiny:
        stem, head = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4, 10)
        net = nn.Sequential(stem, BasicBlock(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).to(device)
    else:
        net = resnet18(num_classes=10).to(device)
    x = torch.randn(count, 3, 32, 32, generator=seeded(1)).to(device)
    y = (x.flatten(1) @ torch.randn(3072, 10, generator=seeded(2)).to(device)).argmax(1)
    fit(net, x, y, batch // 2)
    name = f"{'a residual block' if tiny else 'ResNet-18'}, {count:,} images of 32 x 32"
    return Case(name, problem_of(net, x, y, batch), (batch, count), effort(tiny))


def gpt2(device: torch.device, tiny: bool) -> Case:
    torch.manual_seed(0)
    vocabulary, context, width, heads, layers, count = (97, 16, 32, 2, 2, 4) if tiny else (50257, 1024, 768, 12, 12, 8)
    net = Gpt2(vocabulary, context, width, heads, layers).to(device)
    x = torch.randint(vocabulary, (count, context), generator=seeded(1)).to(device)
    y = (5 * x + 3) % vocabulary
    fit(net, x, y, max(1, count // 4))
    size = sum(p.numel() for p in net.parameters())
    name = f"GPT-2 of {size / 1e6:.3g}M parameters, {count * context:,} tokens"
    return Case(name, problem_of(net, x, y, max(1, count // 4)), (max(1, count // 4), count), effort(tiny))


def effort(tiny: bool) -> Effort:
    return Effort(2, 2, 0.9, 3, 4) if tiny else Effort()


def fit(net: nn.Module, x: Tensor, y: Tensor, batch: int, steps: int = 20) -> None:
    adam = torch.optim.Adam(net.parameters(), 3e-4)
    for step in range(steps):
        rows = torch.arange(step * batch, (step + 1) * batch, device=x.device) % len(x)
        adam.zero_grad(set_to_none=True)
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        adam.step()
    adam.zero_grad(set_to_none=True)
    net.eval()


def problem_of(net: nn.Module, x: Tensor, y: Tensor, batch: int) -> Problem:
    return Problem(net, list(zip(x.split(batch), y.split(batch), strict=True)), nn.CrossEntropyLoss())


# --- by hand


class ByHand:
    """Plain torch: double backward on a graph that is kept for all examples, `chunk` at a time."""

    def __init__(self, problem: Problem, chunk: int, keep: bool = True) -> None:
        x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
        self.net, self.loss, self.keep = problem.net, problem.loss, keep
        self.parameters = list(problem.net.parameters())
        self.chunks = [(a, b, len(a) / len(x)) for a, b in zip(x.split(chunk), y.split(chunk), strict=True)]
        self.kept: list[tuple[Tensor, ...]] = []

    def value(self) -> float:
        """R."""
        with torch.no_grad():
            return sum(self.loss(self.net(x), y) * share for x, y, share in self.chunks).item()

    def gradients(self, create_graph: bool) -> Iterator[tuple[Tensor, ...]]:
        """Of each chunk's part of R."""
        for x, y, share in self.chunks:
            value = self.loss(self.net(x), y) * share
            yield torch.autograd.grad(value, self.parameters, create_graph=create_graph)

    def gradient(self) -> Tensor:
        """[P]."""
        return sum(flatten(gradients) for gradients in self.gradients(False))

    def product(self, v: Tensor) -> Tensor:
        """H v, [P]."""
        parts = unflatten(v, self.parameters)
        if self.keep and not self.kept:
            self.kept = list(self.gradients(True))
        total = torch.zeros_like(v)
        for gradients in self.kept or self.gradients(True):
            total += flatten(torch.autograd.grad(gradients, self.parameters, parts, retain_graph=self.keep))
        return total


def in_double(case: Case, v: Tensor) -> Tensor:
    """H v in float64, in small chunks."""
    problem = case.problem
    batches = [(x.double() if x.is_floating_point() else x, y) for x, y in problem.batches]
    double = Problem(copy.deepcopy(problem.net).double(), batches, problem.loss)
    return ByHand(double, max(1, case.chunks[0] // 4), keep=False).product(v.double())


# --- what is measured


@dataclass
class Row:
    """A tool at a precision: seconds and GiB of each measure, or why it has none."""

    tool: str
    precision: str
    cells: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    chunk: str = ""
    error: str = ""
    found: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Clock:
    """Times calls, and says when time is up."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.end = device, time.perf_counter() + seconds

    def measure(self, row: Row, name: str, call: Callable[[], object], repeats: int = 1) -> object:
        """What `call` returns, its time and memory in the row; a refusal becomes a note."""
        if time.perf_counter() > self.end:
            row.cells[name] = "no time"
            return None
        gpu = self.device.type == "cuda"
        try:
            if gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught:
                for _ in range(repeats):
                    result = call()
            if gpu:
                torch.cuda.synchronize()
            seconds = (time.perf_counter() - start) / repeats
            peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if gpu else "-"
            row.cells[name], row.seconds[name] = f"{seconds:.3g} s, {peak}", seconds
            told = {str(warning.message).splitlines()[0] for warning in caught}
            row.notes += [f"{name}: {text}" for text in sorted(told) if not text.startswith(EXPECTED)]
            if isinstance(result, float | tuple):
                row.found[name] = result if isinstance(result, float) else result[0]
            return result
        except NotOfferedError:
            row.cells[name] = "not offered"
        except ImportError as error:
            row.cells[name] = "not installed"
            row.notes.append(str(error))
        except Exception as error:
            row.cells[name] = "refuses"
            row.notes.append(f"{name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}")
        return None


@contextlib.contextmanager
def multiplied(precision: str) -> Iterator[None]:
    """float32's products by hand and by peers; TF32 is a GPU's."""
    leaves = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]
    before = [leaf.fp32_precision for leaf in leaves]
    try:
        for leaf in leaves:
            leaf.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for leaf, was in zip(leaves, before, strict=True):
            leaf.fp32_precision = was


def off(product: object, exact: Tensor) -> str:
    if not isinstance(product, Tensor):
        return ""
    return f"{((product.double() - exact).norm() / exact.norm()).item():.1e}"


def row_by_hand(case: Case, precision: str, chunk: int, v: Tensor, exact: Tensor, clock: Clock) -> Row:
    row = Row("by hand", precision, chunk=f"{chunk:,}")
    tool = ByHand(case.problem, chunk)
    tool.gradient()  # warm-up
    clock.measure(row, "value", tool.value)
    clock.measure(row, "gradient", tool.gradient)
    row.error = off(clock.measure(row, "first product", lambda: tool.product(v)), exact)
    clock.measure(row, "product", lambda: tool.product(v), 3)
    return row


def row_of_hw1(case: Case, precision: str, v: Tensor, exact: Tensor, clock: Clock) -> Row:
    row = Row("hw1", precision)
    options = {"precision": precision, "chunk_size": "auto"}
    if "precision" not in inspect.signature(EmpiricalRisk).parameters:
        row.notes.append("this version's EmpiricalRisk has no precision=" + ("" if precision == "bfloat16" else
                         "; the process's is set"))  # fmt: skip
        options = {}
        if precision == "bfloat16":
            return row
    tool = clock.measure(row, "construction", lambda: Hw1(case.problem, **options))
    if not isinstance(tool, Hw1):
        return row
    risk, theta = tool.risk, tool.risk.theta
    clock.measure(row, "value", lambda: risk(theta))
    risk.gradient(theta)  # it checks
    clock.measure(row, "gradient", lambda: risk.gradient(theta))
    row.error = off(clock.measure(row, "first product", lambda: tool.product(v)), exact)
    clock.measure(row, "product", lambda: tool.product(v), 3)
    # By hand and peers say what more precisions cost; the estimates are products and little else.
    if precision == "tf32":
        clock.measure(row, "top pair", lambda: tool.largest(0, tol=case.effort.tol, max_products=case.effort.most))
        clock.measure(row, "trace", lambda: tool.trace(0, case.effort.probes))
        clock.measure(row, "density", lambda: tool.density(0, 2, case.effort.steps))
    row.chunk = str(getattr(risk, "chunk_size", "256"))
    if hasattr(risk, "precision_error"):
        error = clock.measure(row, "precision_error", lambda: risk.precision_error(theta, generator=seeded()))
        if error is not None:
            row.notes.append(str(error))
    return row


@dataclass(frozen=True)
class Peer:
    """How it is made, how its largest eigenvalue is asked for, and the examples at a time."""

    name: str
    make: Callable[[Problem], PyHessian | Curvlinops]
    largest: dict[str, float]
    chunk: int


def row_of_peer(case: Case, peer: Peer, v: Tensor, exact: Tensor, clock: Clock) -> Row:
    row = Row(peer.name, "tf32", chunk=f"{peer.chunk:,}")
    for measure in ("value", "gradient"):
        row.cells[measure] = "not offered"
    tool = clock.measure(row, "construction", lambda: peer.make(case.problem))
    if tool is None:
        return row
    row.error = off(clock.measure(row, "first product", lambda: tool.product(v)), exact)
    clock.measure(row, "product", lambda: tool.product(v), 3)
    clock.measure(row, "top pair", lambda: tool.largest(0, **peer.largest))
    clock.measure(row, "trace", lambda: tool.trace(0, case.effort.probes))
    clock.measure(row, "density", lambda: tool.density(0, 2, case.effort.steps))
    return row


def rows(case: Case, clock: Clock) -> Iterator[Row]:
    size = sum(p.numel() for p in case.problem.net.parameters())
    v = torch.randn(size, generator=seeded()).to(case.problem.device)
    v /= v.norm()
    exact = in_double(case, v)
    peers = [
        Peer("PyHessian", lambda problem: PyHessian(problem, one_batch=True),
             {"maxIter": case.effort.most, "tol": case.effort.tol}, case.chunks[1]),
        Peer("curvlinops", Curvlinops, {"tol": case.effort.tol, "ncv": case.effort.basis}, case.chunks[0]),
    ]  # fmt: skip
    for precision in PRECISIONS:
        with multiplied(precision):
            yield row_of_hw1(case, precision, v, exact, clock)
            if precision != "bfloat16":
                tried = [row_by_hand(case, precision, chunk, v, exact, clock) for chunk in case.chunks]
                yield min(tried, key=lambda row: row.seconds.get("product", math.inf))
            if precision == "tf32":
                yield from (row_of_peer(case, peer, v, exact, clock) for peer in peers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small sizes, which a CPU manages in seconds")
    parser.add_argument("--seconds", type=float, default=220, help="nothing more is begun after so many")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not options.tiny:
        parser.error("no GPU: add --tiny, which a CPU manages")
    clock = Clock(device, options.seconds)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, hw1 {hw1.__version__}; a cell is seconds, peak GiB")
    for make in (resnet, gpt2):
        case = make(device, options.tiny)
        print(f"\n{case.name}\n\n| tool | precision | product's error | chunk | " + " | ".join(MEASURES) + " |")
        print("|" + "---|" * (4 + len(MEASURES)))
        for row in rows(case, clock):
            cells = [row.cells.get(measure, "") for measure in MEASURES]
            print("| " + " | ".join([row.tool, row.precision, row.error, row.chunk, *cells]) + " |", flush=True)
            if row.found:
                print(f"  {row.tool}, {row.precision}: " + ", ".join(f"{k} {v:.5g}" for k, v in row.found.items()))
            for note in row.notes:
                print(f"  {row.tool}, {row.precision}: {note}")


if __name__ == "__main__":
    main()
