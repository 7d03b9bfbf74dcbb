"""Products with the Hessian of a CNN's loss over 4,096 images, and its largest eigenvalue.

python benchmarks/hvp.py [--repeats 5] [--threads 2]

The baselines are ours, in the shape of the packages: curvlinops builds the graph anew for each product; PyHessian runs
power iteration (up to 100 products, relative change 1e-3) on such products. Images are random: the time is the same.
"""

import hw1  # isort: skip  # first: it sets malloc up before torch allocates
import torch
import torch.nn.functional as F
from timing import arguments, interleaved, report

from hw1.curvature import EmpiricalRisk, Hessian, extreme_eigenpairs
from hw1.models import Cnn

LAYERS = ["c3(10)", "p2", "c3(16)", "p2", 32]


class Recomputed:
    """The Hessian as an operator that builds the gradient's graph for every product, 256 examples at a time."""

    def __init__(self, net: torch.nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.net, self.batches = net, batches
        self.parameters = list(net.parameters())
        self.count = sum(len(y) for _, y in batches)
        self.products = 0

    def matvec(self, v: torch.Tensor) -> torch.Tensor:
        """H v, [P] -> [P]."""
        self.products += 1
        total = torch.zeros_like(v)
        sizes = [p.numel() for p in self.parameters]
        parts = [part.view_as(p) for part, p in zip(v.split(sizes), self.parameters, strict=True)]
        for x, y in self.batches:
            loss = F.cross_entropy(self.net(x), y) * (len(y) / self.count)
            gradients = torch.autograd.grad(loss, self.parameters, create_graph=True)
            products = torch.autograd.grad(gradients, self.parameters, parts)
            total += torch.cat([product.flatten() for product in products])
        return total


def power_iteration(op: Recomputed, size: int, tol: float = 1e-3, most: int = 100) -> float:
    """PyHessian's loop: the Rayleigh quotient when it changes by less than tol."""
    v = torch.randn(size, generator=torch.Generator().manual_seed(0))
    v /= v.norm()
    value = None
    for _ in range(most):
        product = op.matvec(v)
        previous, value = value, (product @ v).item()
        v = product / product.norm()
        if previous is not None and abs(previous - value) / (abs(previous) + 1e-6) < tol:
            break
    return value


def main() -> None:
    options = arguments(__doc__, repeats=5)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    net = Cnn((1, 28, 28), 10, layers=LAYERS)
    x, y = torch.rand(4096, 1, 28, 28), torch.randint(0, 10, (4096,))
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)])
    theta = risk.theta
    v = torch.randn_like(theta)
    usual = Recomputed(net, list(zip(x.split(256), y.split(256), strict=True)))
    found = {}

    def kept() -> None:
        found["hw1"] = risk.hvp(theta, v)

    def recomputed() -> None:
        found["usual"] = usual.matvec(v)

    ways = {"hw1": kept, "graph built anew": recomputed, "one gradient": lambda: risk.gradient(theta)}
    report(f"one product, P = {len(theta)}, {torch.get_num_threads()} threads, hw1 {hw1.__version__}",
           interleaved(ways, options.repeats), "hw1", {"graph built anew": "1.4x"})  # fmt: skip
    exact = risk.hvp(theta.double(), v.double())
    for name, product in found.items():
        print(f"  {name}: relative difference to float64 {((product - exact).norm() / exact.norm()).item():.1e}")

    def lanczos() -> None:
        risk.hvp(theta + 1, v[:, None].expand(-1, 0))  # forget the graph: its cost is part of the time
        pairs = extreme_eigenpairs(Hessian(risk, theta), 1, tol=1e-2, generator=torch.Generator().manual_seed(0))
        found["hw1"], found["hw1 products"] = pairs.values[0].item(), pairs.products

    def power() -> None:
        usual.products = 0
        found["usual"], found["usual products"] = power_iteration(usual, len(theta)), usual.products

    repeats = max(1, options.repeats // 2)
    ways = {"hw1": lanczos, "power iteration, graph built anew": power}
    report("largest eigenvalue", interleaved(ways, repeats), "hw1", {"power iteration, graph built anew": "3x"})
    double = Hessian(risk, theta.double())
    truth = extreme_eigenpairs(double, 1, tol=1e-8, generator=torch.Generator().manual_seed(1)).values[0].item()
    for name in ("hw1", "usual"):
        error = abs(found[name] - truth) / truth
        print(f"  {name}: {found[f'{name} products']} products, relative error {error:.1e} (float64: {truth:.6f})")


if __name__ == "__main__":
    main()
