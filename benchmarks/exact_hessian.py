"""The exact Hessian of ReLU MLPs in float64, mean squared error at 500 points: one member, and 100 with eigenvalues.

python benchmarks/exact_hessian.py [--repeats 5] [--threads 1]

The baseline is torch.autograd.functional.hessian, for 100 members one after another; there both ways are timed on their
share of a hundred, the baseline on 5 members and hw1 on 20 at once, and multiplied.
"""

import hw1  # isort: skip  # first: it sets malloc up before torch allocates
import torch
import torch.nn.functional as F
from timing import arguments, interleaved, report

from hw1.curvature import EmpiricalRisk, dense_hessian, spectrum
from hw1.models import Mlp
from hw1.vectors import ParamSpace

# P: hidden sizes, target, share of the repeats
NETS = {
    571: ([5, 10, 10, 10, 10, 10, 5], "20x", 1.0),
    1756: ([20, 25, 25, 20], "15x", 0.6),
    5406: ([35, 45, 45, 35], "12x", 0.2),
}
BASELINE = "torch.autograd.functional.hessian"
MEMBERS, LOOPED, TOGETHER = 100, 5, 20


class Case:
    """One network and its points."""

    def __init__(self, hidden: list[int]) -> None:
        self.net = Mlp((1,), 1, hidden=hidden).double()
        self.x = torch.linspace(-1, 1, 500).double()[:, None]
        self.y = torch.sinc(5 * self.x)
        self.space = ParamSpace.of(self.net)
        self.risk = EmpiricalRisk(self.net, F.mse_loss, [(self.x, self.y)])

    def baseline(self, theta: torch.Tensor) -> torch.Tensor:
        """H [P, P] as it is written today."""
        return torch.autograd.functional.hessian(
            lambda t: F.mse_loss(torch.func.functional_call(self.net, self.space.unflatten(t), (self.x,)), self.y),
            theta,
        )


def main() -> None:
    options = arguments(__doc__, repeats=5, threads=1)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for size, (hidden, target, share) in NETS.items():
        case = Case(hidden)
        theta = case.risk.theta
        assert len(theta) == size
        ways = {
            "hw1": lambda c=case, t=theta: dense_hessian(c.risk, t),
            BASELINE: lambda c=case, t=theta: c.baseline(t),
        }
        medians = interleaved(ways, max(1, round(options.repeats * share)))
        report(f"P = {size:,}, {torch.get_num_threads()} threads, hw1 {hw1.__version__}", medians, "hw1",
               {BASELINE: target})  # fmt: skip
        expected = case.baseline(theta)
        difference = (dense_hessian(case.risk, theta) - expected).abs().max() / expected.abs().max()
        print(f"  largest difference, of the largest entry: {difference.item():.1e}   target: 1e-10")

    case = Case(NETS[571][0])
    members = case.risk.theta + 0.1 * torch.randn(TOGETHER, case.space.size, dtype=torch.float64)
    ways = {
        "hw1": lambda: spectrum(dense_hessian(case.risk, members)),
        BASELINE: lambda: [torch.linalg.eigvalsh(case.baseline(member)) for member in members[:LOOPED]],
        "hw1, without eigenvalues": lambda: dense_hessian(case.risk, members),
    }
    medians = interleaved(ways, max(1, options.repeats // 2))
    for name in medians:
        medians[name] *= MEMBERS / (LOOPED if name == BASELINE else TOGETHER)
    report(f"{MEMBERS} members of P = 571 with eigenvalues", medians, "hw1", {BASELINE: "10x"})


if __name__ == "__main__":
    main()
