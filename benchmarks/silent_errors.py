"""What hw1, PyHessian, hessian-eigenthings, curvlinops, Landscaper, loss-landscapes return where the answer is known.

pip install -e ".[benchmarks]" && OMP_NUM_THREADS=1 python benchmarks/silent_errors.py [--output FILE.csv]

About a minute and a half on two cores. One line for each input and tool: what it returned, what is right, and a
verdict: right, wrong (with what it warned of, if it did), refuses (with the message), not offered, or not installed.
Right values come from plain torch in float64, by double backward on the one total loss of all examples; the tools get
float32 and their defaults. Each tool runs in a process of its own, so that one that fails does not stop the table.
A trace's stated error is a standard error, or the relative tolerance that a tool stops at. hessian-eigenthings' result
has a flag, `converged`, which is False where its eigenvalue is wrong; nothing warns. Landscaper scales directions
itself: its losses are compared on its own line.

Only packages that install beside current torch are run. Landscaper's dependencies ask for numpy below 2, hw1 for more;
its own code runs with both: pip install --no-deps landscaper topopy nglpy gudhi treelib coloraide drawsvg pydoe
"""

import argparse
import contextlib
import copy
import csv
import functools
import io
import itertools
import json
import math
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peers import TOOLS, NotOfferedError, Problem, flatten, seeded, unflatten
from torch import Tensor, nn
from torch.func import functional_call

SEEDS = 40
POINTS = 11  # of a line
SMALL = 0.2  # mean square of outputs
PENALTY = 0.05
SECONDS = 120  # that a tool may take
EXPECTED_WARNINGS = ("Using backward", "deprecated")  # PyHessian's way to gradients; nothing about the answer


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    input: str
    tool: str
    returned: str
    right: str
    verdict: str


# --- the problems: small networks, float32, seeded


def mlp(*sizes: int, seed: int = 0) -> nn.Sequential:
    """Linear layers with tanh between them."""
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())][:-1])


def classes(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs [N, 6] and three classes [N] that depend on them."""
    x = torch.randn(count, 6, generator=seeded(seed))
    return x, (x[:, 0] + 0.5 * x[:, 1] ** 2 > 0.5).long() + (x[:, 2] > 0.7).long()


def batched(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


def ragged() -> Problem:
    x, y = classes(67)
    x[64:] *= 4  # the three of the last batch are unlike the others
    return Problem(mlp(6, 12, 3), batched(x, y, 16), nn.CrossEntropyLoss())


def small_mlp() -> Problem:
    return Problem(mlp(6, 12, 3), batched(*classes(64), 16), nn.CrossEntropyLoss())


def downhill() -> Problem:
    """A trace below zero: the targets are on the other side, so that the units have yet to turn."""
    net = mlp(6, 12, 3)
    x, _ = classes(64)
    return Problem(net, batched(x, -50 * net(x).detach(), 16), nn.MSELoss())


def class_weights() -> Problem:
    x, y = classes(67)
    order = y.argsort(stable=True)
    return Problem(mlp(6, 12, 3), batched(x[order], y[order], 16), nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 0.2])))


def squares(tensors: Sequence[Tensor]) -> Tensor:
    return PENALTY * sum(tensor.square().sum() for tensor in tensors)


def closure() -> Problem:
    """Weight decay that the loss takes from the caller's network."""
    problem = small_mlp()
    parameters = list(problem.net.parameters())

    class Decayed(nn.CrossEntropyLoss):
        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().forward(outputs, targets) + squares(parameters)

    return Problem(problem.net, problem.batches, Decayed())


def handed() -> Problem:
    """The same of the module that the loss is handed."""
    problem = small_mlp()

    def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(module(batch[0]), batch[1]) + squares(list(module.parameters()))

    return Problem(problem.net, problem.batches, batch_loss=loss)


def weight_normed() -> Problem:
    net = mlp(6, 12, 3)
    nn.utils.parametrizations.weight_norm(net[0])
    return Problem(net, batched(*classes(64), 16), nn.CrossEntropyLoss())


def layer_normed() -> Problem:
    net = mlp(6, 12, 3)
    net.insert(2, nn.LayerNorm(12))
    return Problem(net, batched(*classes(64), 16), nn.CrossEntropyLoss())


def missing_pixel() -> Problem:
    problem = small_mlp()
    problem.batches[1][0][3, 2] = math.nan
    return problem


def convolutions() -> Problem:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.Tanh(), nn.Conv2d(32, 32, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4608, 10)
    )
    x, y = torch.randn(256, 3, 16, 16, generator=seeded(1)), torch.randint(10, (256,), generator=seeded(2))
    return Problem(net.cuda(), batched(x.cuda(), y.cuda(), 128), nn.CrossEntropyLoss())


# --- right values, in float64


def total(problem: Problem, parameters: Sequence[Tensor]) -> Tensor:
    """The loss of all examples at once; where the criterion holds more than that, it is written out here."""
    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    names = [name for name, _ in problem.net.named_parameters()]
    named = dict(zip(names, parameters, strict=True))
    x = x.double()
    if "0.parametrizations.weight.original0" in named:  # by elementary operations, not by torch's fused one
        g, v = named["0.parametrizations.weight.original0"], named["0.parametrizations.weight.original1"]
        outputs = F.linear(x, g * v / v.square().sum(1, keepdim=True).sqrt(), named["0.bias"]).tanh()
        outputs = F.linear(outputs, named["2.weight"], named["2.bias"])
    else:
        outputs = functional_call(copy.deepcopy(problem.net).double(), named, (x,))
    if type(problem.loss) in (nn.CrossEntropyLoss, nn.MSELoss):
        return copy.deepcopy(problem.loss).double()(outputs, y.double() if y.is_floating_point() else y)
    return F.cross_entropy(outputs, y) + squares(parameters)


def exact_product(problem: Problem, v: Tensor) -> Tensor:
    leaves = [p.detach().double().requires_grad_() for p in problem.net.parameters()]
    gradient = torch.autograd.grad(total(problem, leaves), leaves, create_graph=True)
    return flatten(torch.autograd.grad(gradient, leaves, unflatten(v.double(), leaves)))


def exact_hessian(problem: Problem) -> Tensor:
    size = len(flatten(list(problem.net.parameters())))
    return torch.stack([exact_product(problem, unit) for unit in torch.eye(size).double()])


def direction(problem: Problem) -> Tensor:
    """Of length 1, [P]."""
    v = torch.randn(len(flatten(list(problem.net.parameters()))), generator=seeded(6))
    return (v / v.norm()).to(problem.device)


# --- what is asked; each answer is compared with the right one by a rule of the case


def along(tool: str, make: Callable[[], Problem]) -> float:
    """v^T H v."""
    problem = make()
    v = direction(problem)
    return (v @ TOOLS[tool](problem).product(v).to(v)).item()


def along_exactly(make: Callable[[], Problem]) -> float:
    problem = make()
    v = direction(problem)
    return (v.double() @ exact_product(problem, v)).item()


def eigenvalue(tool: str, make: Callable[[], Problem]) -> float:
    return TOOLS[tool](make()).largest(0)


def eigenvalue_exactly(make: Callable[[], Problem]) -> float:
    return torch.linalg.eigvalsh(exact_hessian(make()))[-1].item()


def traces(tool: str, make: Callable[[], Problem]) -> list[Any]:
    """Mean over seeds, spread, and the root mean square of the error that the tool states, or of its tolerance."""
    one = TOOLS[tool](make())
    values, errors = zip(*(one.trace(seed) for seed in range(SEEDS)), strict=True)
    stated = None if None in errors else math.sqrt(np.mean(np.square(errors)))
    return [float(np.mean(values)), float(np.std(values, ddof=1)), stated, TOOLS[tool].states]


def trace_exactly(make: Callable[[], Problem]) -> float:
    return exact_hessian(make()).trace().item()


def touched(tool: str, _: object) -> str:
    """What of the caller's is another after a call that any user of the tool makes."""
    problem = small_mlp()
    problem.net.train()
    for p in problem.net.parameters():
        p.grad = torch.ones_like(p)

    def state() -> dict[str, Any]:
        parameters = list(problem.net.parameters())
        return {
            "parameters": flatten(parameters).detach().tolist(),
            ".grad": None if parameters[0].grad is None else flatten([p.grad for p in parameters]).tolist(),
            "mode": problem.net.training,
            "requires_grad": [p.requires_grad for p in parameters],
            "random state": [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()],
        }

    before = state()
    if tool == "loss-landscapes":
        lossy_line(problem, mlp(6, 12, 3, seed=5), problem.loss)
    else:
        TOOLS[tool](problem).largest(0)
    after = state()
    return ", ".join(name for name in before if before[name] != after[name]) or "nothing"


class Watched:
    """Mean squared error that is NaN where outputs are small, and remembers what it returned."""

    reduction = "mean"

    def __init__(self, nan: bool) -> None:
        self.nan = nan
        self.seen: list[float] = []

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch, []."""
        value = (outputs - targets).square().mean()
        if self.nan:
            value = value + 0 * (outputs.square().mean() - SMALL).sqrt()
        self.seen.append(value.item())
        return value


def lossy_line(problem: Problem, end: nn.Module, loss: Any) -> list[float]:
    """Losses from the network to `end` by loss-landscapes, with its defaults."""
    from loss_landscapes import linear_interpolation
    from loss_landscapes.metrics import Loss

    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    return linear_interpolation(problem.net, end, Loss(loss, x, y), steps=POINTS).tolist()


def line(tool: str, nan: bool) -> tuple[list[float], list[float]]:
    """Losses along a line as the tool returns them, and as they were on that line."""
    x, _ = classes(64)
    problem = Problem(mlp(6, 12, 3, seed=2), [(x, torch.ones(64, 3))])
    with torch.no_grad():
        problem.net[2].weight.mul_(4)
    end, loss = mlp(6, 12, 3, seed=2), Watched(nan)
    with torch.no_grad():
        end[2].weight.mul_(-1)
        end[2].bias.mul_(-1)
    if tool == "loss-landscapes":
        ends = copy.deepcopy(problem.net), copy.deepcopy(end)
        values = lossy_line(problem, end, loss)
    elif tool == "Landscaper":
        from landscaper.compute import compute_loss_landscape

        way = [[b.detach() - a.detach() for a, b in zip(problem.net.parameters(), end.parameters(), strict=True)]]
        values, _ = compute_loss_landscape(
            problem.net, problem.batches, way, lambda net, data: loss(net(data[0][0]), data[0][1]).item(),
            steps=POINTS, distance=1.0, dim=1, device="cpu",
        )  # fmt: skip
        return values.tolist(), loss.seen  # its own line, whose ends it does not say
    elif tool == "hw1":
        from hw1.curvature import EmpiricalRisk
        from hw1.landscape import evaluate, segment

        ends = problem.net, end
        risk = EmpiricalRisk(problem.net, loss, problem.batches)
        values = evaluate(risk.metrics, segment(*ends, np.linspace(0, 1, POINTS)))[:, 0].tolist()
    else:
        raise NotOfferedError("no lines")
    right = Watched(nan)
    for alpha in np.linspace(0, 1, POINTS):
        with torch.no_grad():
            mixed = {n: (1 - alpha) * p.double() + alpha * dict(ends[1].named_parameters())[n].double()
                     for n, p in ends[0].named_parameters()}  # fmt: skip
            right(functional_call(copy.deepcopy(end).double(), mixed, (x.double(),)), torch.ones(64, 3).double())
    return values, right.seen


def largest_difference(tool: str, nan: bool) -> float:
    values, right = line(tool, nan)
    return max(abs(a - b) for a, b in zip(values, right, strict=True))


def nans_kept(tool: str, nan: bool) -> str:
    values, right = line(tool, nan)
    return f"{sum(map(math.isnan, values))} of {sum(map(math.isnan, right))} NaN"


# --- the table


@dataclass(frozen=True)
class Case:
    """An input: how a tool is asked, what is right, and when an answer is."""

    ask: Callable[[str, Any], Any]
    about: Any
    right: Callable[[Any], Any]
    judge: Callable[[Any, Any], str]


def within(share: float) -> Callable[[float, float], str]:
    return lambda value, right: "right" if abs(value - right) <= share * abs(right) else "wrong"


def unbiased(found: list[Any], right: float) -> str:
    """The mean is within three standard errors over the seeds, and the measured error at most twice the stated one."""
    mean, spread, stated, kind = found
    if abs(mean - right) > 3 * spread / math.sqrt(SEEDS):
        return f"wrong: biased by {mean - right:.2g}"
    if stated is None:
        return "right: states no error"
    error = math.hypot(spread, mean - right)
    return "right" if error <= 2 * stated else f"wrong: off by {error / stated:.0f} times its {kind}"


def no_number(value: float, _: object) -> str:
    return "right" if math.isnan(value) else "wrong"


def the_same(value: str, right: str) -> str:
    return "right" if value == right else "wrong"


def rounding(difference: float, _: object) -> str:
    return "right" if difference < 1e-5 else "wrong"


def all_kept(kept: str, _: object) -> str:
    few, _, many, _ = kept.split()
    return "right" if few == many != "0" else "wrong"


def said(what: str) -> Callable[[Any], str]:
    return lambda _: what


CASES = {
    "ragged last batch: v'Hv": Case(along, ragged, along_exactly, within(1e-3)),
    "small MLP: largest eigenvalue, k = 1": Case(eigenvalue, small_mlp, eigenvalue_exactly, within(1e-2)),
    f"small MLP: trace, {SEEDS} seeds": Case(traces, small_mlp, trace_exactly, unbiased),
    f"a trace below zero, {SEEDS} seeds": Case(traces, downhill, trace_exactly, unbiased),
    "untouched caller: what is changed": Case(touched, None, said("nothing"), the_same),
    "NaN in one input: v'Hv": Case(along, missing_pixel, said("nan, or refused"), no_number),
    "NaN losses on a line": Case(nans_kept, True, said("all kept"), all_kept),
    f"losses at {POINTS} points from one net to another: largest difference": Case(
        largest_difference, False, said("0"), rounding
    ),
    "class weights, data in order of class, ragged: v'Hv": Case(along, class_weights, along_exactly, within(1e-3)),
    "penalty, by closure over the caller's net: v'Hv": Case(along, closure, along_exactly, within(1e-3)),
    "penalty, of the module handed to the loss: v'Hv": Case(along, handed, along_exactly, within(1e-3)),
    "weight_norm: v'Hv": Case(along, weight_normed, along_exactly, within(1e-3)),
    "LayerNorm: v'Hv": Case(along, layer_normed, along_exactly, within(1e-3)),
    "TF32 convolutions on a GPU: v'Hv": Case(along, convolutions, along_exactly, within(1e-3)),
}  # fmt: skip


def shown(value: Any) -> str:
    if isinstance(value, list):
        mean, spread, stated, kind = value
        return f"{mean:.4g}, spread {spread:.2g}, {kind}" + ("" if stated is None else f" {stated:.2g}") + " stated"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def first_line(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:160]}".replace("|", "/")


def answer(tool: str, name: str) -> Line:
    """One row, whatever the tool does."""
    case = CASES[name]
    if name.startswith("TF32") and not torch.cuda.is_available():
        return Line(name, tool, "-", "-", "no GPU")
    right = case.right(case.about)
    line = functools.partial(Line, name, tool, right=shown(right))
    silence = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(silence):
        warnings.simplefilter("always")
        try:
            value = case.ask(tool, case.about)
        except NotOfferedError as error:
            return line("-", verdict=f"not offered: {error}")
        except ImportError as error:
            return line("-", verdict=f"not installed: {error}")
        except Exception as error:
            # A refusal of a NaN is as right as a NaN; a traceback from inside is a refusal too, and reads like one.
            return line("-", verdict=f"refuses: {first_line(error)}")
    verdict = case.judge(value, right)
    messages = [str(warning.message).splitlines()[0] for warning in caught]
    told = [message for message in messages if not any(map(message.__contains__, EXPECTED_WARNINGS))]
    if verdict.startswith("wrong") and told:
        verdict += f", but warns: {told[0][:120]}"
    return line(shown(value), verdict=verdict)


def lines_of(tool: str) -> list[Line]:
    """All rows of a tool, by a process of its own; a new one goes on after a row that ended the last."""
    left, lines = list(CASES), []
    while left:
        command = [sys.executable, __file__, "--tool", tool, "--first", str(len(CASES) - len(left))]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            out, end = run.stdout, (run.stderr.strip().splitlines() or ["?"])[-1][:120]
        except subprocess.TimeoutExpired as error:
            out, end = (error.stdout or b"").decode(), f"not done after {SECONDS} s"
        found = [Line(**json.loads(row)) for row in out.splitlines() if row.startswith("{")]
        lines += found
        left = left[len(found) :]
        if left:
            lines.append(Line(left.pop(0), tool, "-", "-", f"its process ended: {end}"))
    return lines


def title(tool: str) -> str:
    try:
        return f"{tool} {version(TOOLS[tool].package)}"
    except PackageNotFoundError:
        return f"{tool} (not installed)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the table to this CSV file")
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)  # this process is one tool's
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tool:
        for name in list(CASES)[options.first :]:
            print(json.dumps(asdict(answer(options.tool, name))), flush=True)
        return
    lines = [line for tool in TOOLS for line in lines_of(tool)]
    print(f"torch {torch.__version__}; " + ", ".join(map(title, TOOLS)) + "\n")
    print("| input | tool | returned | right | verdict |\n|---|---|---|---|---|")
    for name in CASES:
        for line in lines:
            if line.input == name:
                print("| " + " | ".join(asdict(line).values()) + " |")
    print()
    for tool in TOOLS:
        verdicts = [line.verdict.replace(",", ":").split(":")[0] for line in lines if line.tool == tool]
        print(f"{tool}: " + ", ".join(f"{verdicts.count(word)} {word}" for word in sorted(set(verdicts))))
    if options.output:
        with options.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["input", "tool", "returned", "right", "verdict"])
            writer.writeheader()
            writer.writerows(map(asdict, lines))


if __name__ == "__main__":
    main()
