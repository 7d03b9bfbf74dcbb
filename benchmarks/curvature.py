"""hw1.curvature against curvlinops and PyHessian on a CNN's loss over 4,096 images: seconds, ratios, agreement.

pip install -e ".[benchmarks]" && OMP_NUM_THREADS=1 python benchmarks/curvature.py [--repeats 3] [--threads 1]

The packages run in a process of their own, as they are installed: without hw1's malloc settings. All see the same
network, images (MNIST where it is at hand, see HW1_DATA, else the bundled digits), float32, and batches of 256;
PyHessian also all 4,096 at once, where it keeps the gradient's graph between products. Everything that a user would
wait for is timed, graphs too. The measures take turns; the medians are wall seconds and, in brackets, CPU seconds of
the process: the figure to trust on a busy machine.
"""

import hw1  # isort: skip  # first: it sets malloc up before torch allocates
import math
import os
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from timing import arguments, data_root

from hw1.curvature import EmpiricalRisk, Hessian, extreme_eigenpairs, hutchinson_trace, spectral_density
from hw1.data import Mnist
from hw1.models import Cnn

LAYERS = ["c3(10)", "p2", "c3(16)", "p2", 32]
IMAGES, BATCH = 4096, 256
TRACE_PROBES = 10
PROBES, STEPS = 2, 10


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


def risk() -> EmpiricalRisk:
    net, x, y, _ = problem()
    return EmpiricalRisk(net, F.cross_entropy, [(x, y)])


@cache
def kept_risk() -> EmpiricalRisk:
    return risk()


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


@cache
def curvlinops_operator() -> object:
    from curvlinops import HessianLinearOperator

    net, x, y, _ = problem()
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    return HessianLinearOperator(net, torch.nn.CrossEntropyLoss(), list(net.parameters()), batches)


def curvlinops_product() -> torch.Tensor:
    return curvlinops_operator() @ direction()


def pyhessian(one_batch: bool) -> object:
    from pyhessian import hessian

    warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")  # its way to gradients
    net, x, y, _ = problem()
    net.zero_grad()
    torch.manual_seed(0)
    batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
    data = {"data": (x, y)} if one_batch else {"dataloader": list(batches)}
    return hessian(net, torch.nn.CrossEntropyLoss(), cuda=False, **data)


def pyhessian_eigenvalue(one_batch: bool, tol: float = 1e-3) -> tuple[float, int]:
    return pyhessian(one_batch).eigenvalues(top_n=1, tol=tol)[0][0], 0


def pyhessian_trace(one_batch: bool) -> tuple[float, float]:
    samples = pyhessian(one_batch).trace(maxIter=TRACE_PROBES, tol=-math.inf)  # else it may stop after fewer probes
    return statistics.mean(samples), statistics.stdev(samples) / math.sqrt(len(samples))


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
        ("Hessian-vector product", product, 1.4, "hw1_product", {"curvlinops": ("curvlinops_product",)}),
        ("largest eigenvalue at an error below 1e-3", eigenvalue, 3, "hw1_eigenvalue",
         {loader: ("pyhessian_eigenvalue", False), whole: ("pyhessian_eigenvalue", True),
          f"{loader}, tol 1e-4": ("pyhessian_eigenvalue", False, 1e-4)}),
        (f"trace, {TRACE_PROBES} probes", trace, 3, "hw1_trace",
         {loader: ("pyhessian_trace", False), whole: ("pyhessian_trace", True)}),
        (f"spectral density, {PROBES} probes x {STEPS} steps", density, 3, "hw1_density",
         {loader: ("pyhessian_density", False), whole: ("pyhessian_density", True)}),
    ]  # fmt: skip
    for title, agreement, target, mine, others in compare:
        ways = {"hw1": (ours, (mine,)), **{name: (theirs, call) for name, call in others.items()}}
        if target == 1.4:  # the graph is kept from the first product on; what follows is the price of one more
            for pool, call in ways.values():
                pool.submit(timed, *call).result()
        runs: dict[str, list[tuple[float, float, object]]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, (pool, call) in ways.items():
                runs[name].append(pool.submit(timed, *call).result())
        wall, cpu = ({name: statistics.median(run[i] for run in many) for name, many in runs.items()} for i in (0, 1))
        print(f"\n{title} (target: {target:g}x)")
        for name, many in runs.items():
            line = f"  {name:<34} {wall[name]:7.2f} ({cpu[name]:.2f}) s"
            if name != "hw1":
                line += f"   hw1 is {wall[name] / wall['hw1']:.2f}x ({cpu[name] / cpu['hw1']:.2f}x) faster"
            print(f"{line};  {agreement(many[0][2])}", flush=True)
    ours.shutdown()
    theirs.shutdown()


if __name__ == "__main__":
    main()
