"""hw1.curvature against curvlinops and PyHessian on a CNN's loss over 4,096 images: seconds, ratios, agreement.

pip install -e ".[benchmarks]" && OMP_NUM_THREADS=1 python benchmarks/curvature.py [--repeats 3] [--threads 1]

The packages run in a process of their own, as they are installed: without hw1's malloc settings. All see the same
network, images (MNIST where it is at hand, see HW1_DATA, else the bundled digits), float32, and batches of 256;
PyHessian also all 4,096 at once, where it keeps the gradient's graph between products. Everything that a user would
wait for is timed, graphs too. The measures take turns; the medians are wall seconds and, in brackets, CPU seconds of
the process: the figure to trust on a busy machine.

Trace and density are also compared at equal error. Over 20 seeds on 256 of the images, PyHessian's root mean square
error is measured at its defaults (its trace stops by itself), and the fewest products with which hw1 has no larger one;
both are then timed on all images. The true trace is exact, by formula; the true density is a long run of hw1's, whose
own distance from the truth is shown. About a quarter of an hour in all.
"""

import hw1  # isort: skip  # first: it sets malloc up before torch allocates
import copy
import math
import operator
import os
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from inspect import signature
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from scipy.stats import wasserstein_distance
from timing import arguments, data_root
from torch.func import functional_call, grad, vmap

import hw1.curvature
from hw1.curvature import EmpiricalRisk, Hessian, extreme_eigenpairs, hutchinson_trace, spectral_density
from hw1.data import Mnist
from hw1.models import Cnn

LAYERS = ["c3(10)", "p2", "c3(16)", "p2", 32]
IMAGES, BATCH = 4096, 256
TRACE_PROBES = 10
PROBES, STEPS = 2, 10
SEEDS, FEW = 20, 256  # of the comparison at equal error, and its images
TRACES = [name for name in ("xtrace", "hutchpp_trace") if hasattr(hw1.curvature, name)]
PRODUCTS = (6, 10, 14, 18, 24, 30, 36, 48, 60, 98)
DENSITIES = ((2, 20), (4, 15), (3, 20), (4, 20), (3, 30), (4, 25), (3, 40), (4, 40))  # probes, steps
THEIR_STEPS = 100  # PyHessian's density takes one probe and so many steps
REFERENCE = (12, 60)


@cache
def problem() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor, str]:
    """A network after one epoch of Adam on its images, and these."""
    mnist = Mnist(data_root(), "auto")
    mnist.prepare()
    examples = mnist.load()
    x, y = examples.train_x[:IMAGES], examples.train_y[:IMAGES]
    torch.manual_seed(0)
    net = Cnn((1, 28, 28), 10, layers=LAYERS)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    for inputs, targets in zip(x.split(64), y.split(64), strict=True):
        adam.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()
        adam.step()
    adam.zero_grad()
    return net, x, y, mnist.source


@cache
def direction() -> torch.Tensor:
    return torch.randn(sum(p.numel() for p in problem()[0].parameters()), generator=seeded())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def risk(images: int = IMAGES, **options: bool) -> EmpiricalRisk:
    net, x, y, _ = problem()
    return EmpiricalRisk(net, F.cross_entropy, [(x[:images], y[:images])], **options)


@cache
def kept_risk(images: int = IMAGES) -> EmpiricalRisk:
    return risk(images)


def exact_trace(images: int) -> float:
    """The Hessian's trace in float64, without a product with it.

    With ReLU and maxima the outputs are linear in the parameters of each layer alone, so that the Hessian's diagonal is
    Gauss-Newton's: tr H = 1/N sum_n sum_c |J_n^T s_nc|^2, with s_nc the columns of a root of diag(p) - p p^T.
    """
    net, x, _, _ = problem()
    net = copy.deepcopy(net).double()
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def along(parameters: dict[str, torch.Tensor], image: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return functional_call(net, parameters, (image[None],))[0] @ s

    total = 0.0
    for chunk in x[:images].double().split(128):
        with torch.no_grad():
            p = net(chunk).softmax(1)  # [B, C]
        roots = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None]  # [B, C, C]; columns s
        for s in roots.unbind(2):
            gradients = vmap(grad(along), (None, 0, 0))(parameters, chunk, s)
            total += sum(gradient.square().sum().item() for gradient in gradients.values())
    return total / images


# --- the measures; each returns what agreement is judged by


def hw1_product() -> torch.Tensor:
    return kept_risk().hvp(kept_risk().theta, direction())


def hw1_eigenvalue() -> tuple[float, int]:
    one = risk()
    pairs = extreme_eigenpairs(Hessian(one, one.theta), 1, tol=2e-2, generator=seeded())  # an error below 1e-3, printed
    return pairs.values[0].item(), pairs.products


def hw1_trace() -> tuple[float, float]:
    one = risk()
    trace = hutchinson_trace(Hessian(one, one.theta), probes=TRACE_PROBES, generator=seeded())
    return trace.value, trace.standard_error


def hw1_density() -> tuple[float, float]:
    one = risk()
    density = spectral_density(Hessian(one, one.theta), probes=PROBES, steps=STEPS, generator=seeded())
    return density.moment(1).value * density.size, density.nodes.max().item()


def hw1_traces(images: int, name: str, products: int, seeds: range) -> list[float]:
    """The trace from a number of products, for each seed."""
    one = kept_risk(images)
    find = getattr(hw1.curvature, name)
    return [find(Hessian(one, one.theta), products=products, generator=seeded(s)).value for s in seeds]


def hw1_trace_by(name: str, products: int) -> float:
    one = risk()
    return getattr(hw1.curvature, name)(Hessian(one, one.theta), products=products, generator=seeded()).value


Rule = tuple[list[float], list[float]]  # nodes and weights of a density, whatever the number of probes


def hw1_densities(images: int, probes: int, steps: int, seeds: range) -> list[Rule]:
    one = kept_risk(images)
    op = Hessian(one, one.theta)
    found = [spectral_density(op, probes=probes, steps=steps, generator=seeded(seed)) for seed in seeds]
    return [(density.nodes.flatten().tolist(), density.weights.flatten().tolist()) for density in found]


def hw1_density_of(probes: int, steps: int) -> float:
    one = risk()
    density = spectral_density(Hessian(one, one.theta), probes=probes, steps=steps, generator=seeded())
    return density.moment(1).value * density.size


def construction(check: bool) -> None:
    """A risk, its first gradient and its first product, after which it has checked all that it checks."""
    one = risk(check=check)
    one.gradient(one.theta)
    one.hvp(one.theta, direction())


def gradient() -> None:
    kept_risk().gradient(kept_risk().theta)


@cache
def curvlinops_operator() -> object:
    from curvlinops import HessianLinearOperator

    net, x, y, _ = problem()
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    return HessianLinearOperator(net, torch.nn.CrossEntropyLoss(), list(net.parameters()), batches)


def curvlinops_product() -> torch.Tensor:
    return curvlinops_operator() @ direction()


def pyhessian(one_batch: bool, images: int = IMAGES) -> object:
    from pyhessian import hessian

    warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")  # its way to gradients
    net, x, y, _ = problem()
    net.zero_grad()
    torch.manual_seed(0)
    x, y = x[:images], y[:images]
    batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
    data = {"data": (x, y)} if one_batch else {"dataloader": list(batches)}
    return hessian(net, torch.nn.CrossEntropyLoss(), cuda=False, **data)


def pyhessian_eigenvalue(one_batch: bool, tol: float = 1e-3) -> tuple[float, int]:
    return pyhessian(one_batch).eigenvalues(top_n=1, tol=tol)[0][0], 0


def pyhessian_trace(one_batch: bool) -> tuple[float, float]:
    samples = pyhessian(one_batch).trace(maxIter=TRACE_PROBES, tol=-math.inf)  # else it may stop after fewer probes
    return statistics.mean(samples), statistics.stdev(samples) / math.sqrt(len(samples))


def pyhessian_traces(images: int, seeds: int) -> list[tuple[float, int]]:
    """The trace by its defaults, and the probes that it took, for each seed."""
    one, found = pyhessian(True, images), []
    for seed in range(seeds):
        torch.manual_seed(seed)
        samples = one.trace()
        found.append((statistics.mean(samples), len(samples)))
    return found


def pyhessian_trace_of(one_batch: bool, probes: int) -> float:
    return statistics.mean(pyhessian(one_batch).trace(maxIter=probes, tol=-math.inf))


def pyhessian_densities(images: int, seeds: int) -> list[Rule]:
    """The density by its defaults, for each seed."""
    one, found = pyhessian(True, images), []
    for seed in range(seeds):
        torch.manual_seed(seed)
        nodes, weights = one.density()
        found.append(([float(node) for node in nodes[0]], [float(weight) for weight in weights[0]]))
    return found


def pyhessian_density_of(one_batch: bool) -> float:
    nodes, weights = pyhessian(one_batch).density()
    return (torch.tensor(nodes).double() * torch.tensor(weights).double()).sum().item() * len(direction())


def pyhessian_density(one_batch: bool) -> tuple[float, float]:
    nodes, weights = pyhessian(one_batch).density(iter=STEPS, n_v=PROBES)
    nodes, weights = torch.tensor(nodes).double(), torch.tensor(weights).double()
    return (nodes * weights).sum(1).mean().item() * len(direction()), nodes.max().item()


def pyhessian_density_as_installed() -> str:
    try:
        pyhessian(False).density(iter=1)
    except Exception as error:
        torch.eig = eig  # the one call that current torch lacks, from here on
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "works"


def eig(matrix: torch.Tensor, eigenvectors: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What torch.eig returned for a symmetric matrix: values [n, 2] (real, imaginary) and vectors [n, n]."""
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], 1), vectors


def timed(name: str, *options: object) -> tuple[float, float, object]:
    """Wall seconds, CPU seconds and result of a measure."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = globals()[name](*options)
    return time.perf_counter() - wall, time.process_time() - cpu, result


# --- at equal error, on a few images


def rms(numbers: list[float]) -> float:
    return math.sqrt(statistics.mean(number**2 for number in numbers))


def own_seeds(number: int) -> range:
    """Each choice has its own, so that a run of bad luck is not in all of them."""
    return range(number * SEEDS, (number + 1) * SEEDS)


def equal_traces(ours: ProcessPoolExecutor, theirs: ProcessPoolExecutor) -> list[tuple[int, str, int]]:
    """(PyHessian's probes, hw1's estimator and products) at which errors are equal: by its defaults, and at 100."""
    true = exact_trace(FEW)
    found = theirs.submit(pyhessian_traces, FEW, SEEDS).result()
    probes = statistics.mean(count for _, count in found)
    error = rms([value / true - 1 for value, _ in found])
    # The deviation of one probe says what 100 of them give, all that it takes at most.
    at_most = statistics.stdev(theirs.submit(pyhessian_samples, FEW, 400).result()) / true / 10
    print(f"\ntrace on {FEW} images, exact {true:.3f}; root mean square errors over {SEEDS} seeds (known to a fifth)")
    print(f"  PyHessian: by its defaults {error:.1%}, after {probes:.0f} probes on average; 100 probes {at_most:.1%}")
    equal, goals = [], [(round(probes), error), (100, at_most)]
    for name in TRACES:
        for number, products in enumerate(PRODUCTS):
            values = ours.submit(hw1_traces, FEW, name, products, own_seeds(number)).result()
            mine = rms([value / true - 1 for value in values])
            print(f"  hw1 {name}, {products} products: {mine:.1%}", flush=True)
            equal += [(probes, name, products) for probes, goal in goals if mine <= goal]
            if mine <= at_most:
                break
    reached = sorted({probes for probes, _, _ in equal})  # a goal that no choice reaches is not timed
    return [min((e for e in equal if e[0] == probes), key=lambda e: e[2]) for probes in reached]


def pyhessian_samples(images: int, probes: int) -> list[float]:
    return pyhessian(True, images).trace(maxIter=probes, tol=-math.inf)


def equal_densities(ours: ProcessPoolExecutor, theirs: ProcessPoolExecutor) -> list[tuple[int, int]]:
    """The one (probes, steps) of hw1's at which its error is PyHessian's by its defaults, if there is one."""
    runs = [ours.submit(hw1_densities, FEW, *REFERENCE, range(seed, seed + 1)).result()[0] for seed in (1000, 1001)]
    true = tuple(nodes + more for nodes, more in zip(*runs, strict=True))
    scale = sum(abs(node) * weight for node, weight in zip(*true, strict=True)) / sum(true[1])
    mean = exact_trace(FEW) / len(direction())

    def errors(rules: list[Rule]) -> tuple[float, float]:
        means = [sum(map(operator.mul, *rule)) / sum(rule[1]) for rule in rules]
        return rms([distance(rule, true) / scale for rule in rules]), rms([found / mean - 1 for found in means])

    print(f"\nspectral density on {FEW} images: Wasserstein-1 distance over the mean |eigenvalue|, error of the mean: "
          f"root mean squares over {SEEDS} seeds\n  reference, {2 * REFERENCE[0]} probes x {REFERENCE[1]} steps: "
          f"its halves differ by {distance(*runs) / scale:.1%}, so it is off by about half of that")  # fmt: skip
    goal, theirs_mean = errors(theirs.submit(pyhessian_densities, FEW, SEEDS).result())
    print(f"  PyHessian, 1 probe x {THEIR_STEPS} steps: {goal:.1%}, {theirs_mean:.1%}")
    for number, (probes, steps) in enumerate(DENSITIES):
        mine, of_mean = errors(ours.submit(hw1_densities, FEW, probes, steps, own_seeds(number)).result())
        print(f"  hw1, {probes} probes x {steps} steps: {mine:.1%}, {of_mean:.1%}", flush=True)
        if mine <= goal:
            return [(probes, steps)]
    return []


def distance(a: Rule, b: Rule) -> float:
    return wasserstein_distance(a[0], b[0], a[1], b[1])


# --- the comparison


def process(threads: int, malloc: str) -> ProcessPoolExecutor:
    os.environ["HW1_MALLOC"] = malloc
    pool = ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,))
    pool.submit(direction).result()  # it starts here, with this environment
    return pool


def main() -> None:
    options = arguments(__doc__, repeats=3, threads=1)
    torch.set_num_threads(options.threads)
    ours, theirs = process(options.threads, "1"), process(options.threads, "0")
    _, x, _, source = problem()
    print(f"{len(x):,} images of MNIST ({source}), P = {len(direction()):,}, {options.threads} threads, torch "
          f"{torch.__version__}, hw1 {hw1.__version__}; wall (CPU) seconds, medians of {options.repeats}")  # fmt: skip

    double = Hessian(kept_risk(), kept_risk().theta.double())
    exact = double.matvec(direction().double())
    largest = extreme_eigenpairs(double, 1, tol=1e-8, generator=seeded(1)).values[0].item()
    print(f"float64: largest eigenvalue {largest:.7f}")

    def product(found: torch.Tensor) -> str:
        return f"relative difference to float64 {((found - exact).norm() / exact.norm()).item():.0e}"

    def eigenvalue(found: tuple[float, int]) -> str:
        return f"relative error {abs(found[0] - largest) / largest:.0e}"

    def trace(found: tuple[float, float]) -> str:
        return f"{found[0]:.1f} +- {found[1]:.1f}"

    def density(found: tuple[float, float]) -> str:
        return f"trace {found[0]:.1f}, largest node {found[1]:.5f}"

    print("PyHessian's density as installed:", theirs.submit(pyhessian_density_as_installed).result())
    print("  so torch.eig is patched in its process (symmetric eigensolver) to time the rest")
    loader, whole = f"PyHessian, batches of {BATCH}", "PyHessian, one batch"
    compare = [
        ("Hessian-vector product", product, 1.4, ("hw1_product",), {"curvlinops": ("curvlinops_product",)}),
        ("largest eigenvalue at an error below 1e-3", eigenvalue, 3, ("hw1_eigenvalue",),
         {loader: ("pyhessian_eigenvalue", False), whole: ("pyhessian_eigenvalue", True),
          f"{loader}, tol 1e-4": ("pyhessian_eigenvalue", False, 1e-4)}),
        (f"trace, {TRACE_PROBES} probes", trace, 3, ("hw1_trace",),
         {loader: ("pyhessian_trace", False), whole: ("pyhessian_trace", True)}),
        (f"spectral density, {PROBES} probes x {STEPS} steps", density, 3, ("hw1_density",),
         {loader: ("pyhessian_density", False), whole: ("pyhessian_density", True)}),
    ]  # fmt: skip
    true = exact_trace(IMAGES)
    once: list[tuple[object, ...]] = []  # longer runs, timed once

    def against(found: float) -> str:
        return f"{found:.1f}, {abs(found / true - 1):.1%} from the exact trace"

    for probes, name, products in equal_traces(ours, theirs):
        once.append(
            (f"trace at equal error: {products} products by {name}, {probes} of PyHessian's probes", against, 3,
             ("hw1_trace_by", name, products),
             {loader: ("pyhessian_trace_of", False, probes), whole: ("pyhessian_trace_of", True, probes)})
        )  # fmt: skip
    for probes, steps in equal_densities(ours, theirs):
        once.append(
            (f"density at equal error: {probes} probes x {steps} steps, 1 x {THEIR_STEPS} of PyHessian's", against, 3,
             ("hw1_density_of", probes, steps),
             {loader: ("pyhessian_density_of", False), whole: ("pyhessian_density_of", True)})
        )  # fmt: skip
    for title, agreement, target, mine, others in compare + once:
        repeats = options.repeats if title in [row[0] for row in compare] else 1
        ways = {"hw1": (ours, mine), **{name: (theirs, call) for name, call in others.items()}}
        if target == 1.4:  # the graph is kept from the first product on; what follows is the price of one more
            for pool, call in ways.values():
                pool.submit(timed, *call).result()
        runs: dict[str, list[tuple[float, float, object]]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, (pool, call) in ways.items():
                runs[name].append(pool.submit(timed, *call).result())
        wall, cpu = ({name: statistics.median(run[i] for run in many) for name, many in runs.items()} for i in (0, 1))
        print(f"\n{title} (target: {target:g}x)")
        for name, many in runs.items():
            line = f"  {name:<34} {wall[name]:7.2f} ({cpu[name]:.2f}) s"
            if name != "hw1":
                line += f"   hw1 is {wall[name] / wall['hw1']:.2f}x ({cpu[name] / cpu['hw1']:.2f}x) faster"
            print(f"{line};  {agreement(many[0][2])}", flush=True)
    construction_row(ours, options.repeats)
    ours.shutdown()
    theirs.shutdown()


def construction_row(ours: ProcessPoolExecutor, repeats: int) -> None:
    """What the risk's checks of itself cost, where they can be switched off."""
    print("\nconstruction, first gradient and first product")
    if "check" not in signature(EmpiricalRisk).parameters:
        print("  left out: this version's EmpiricalRisk has no check=")
        return
    ways = {"with checks": ("construction", True), "without (check=False)": ("construction", False),
            "one gradient": ("gradient",)}  # fmt: skip
    runs = {name: [ours.submit(timed, *call).result()[1] for _ in range(repeats)] for name, call in ways.items()}
    seconds = {name: statistics.median(many) for name, many in runs.items()}
    for name, cpu in seconds.items():
        print(f"  {name:<34} {cpu:7.2f} CPU s, {cpu / seconds['one gradient']:.1f} gradients")


if __name__ == "__main__":
    main()
