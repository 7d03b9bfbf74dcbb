"""100 trainings of the 571-parameter net: the reports' loop over networks, and one run with 100 members.

python benchmarks/replicas.py [--repeats 5] [--threads 1]

Both train on the full batch of 500 points with Adam. hw1 is timed twice: its steps alone, and a whole run with
Lightning, metrics.csv and the evaluation at the end. The loop is timed on 4 networks and multiplied. CPU seconds are
the figure to trust on a busy machine. The last line is the whole of min_ratio but its search: trainings, exact Hessians
and all eigenvalues, against the loop with torch.autograd.functional.hessian.
"""

import hw1  # isort: skip  # first: it sets malloc up before torch allocates
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import arguments

from hw1.curvature import EmpiricalRisk, dense_hessian, spectrum
from hw1.models import Mlp, side_by_side
from hw1.settings import RunSettings
from hw1.training.fit import fit
from hw1.training.objectives import member_losses
from hw1.vectors import ParamSpace

HIDDEN, MEMBERS, LOOPED = [5, 10, 10, 10, 10, 10, 5], 100, 4


def loop(nets: list[Mlp], x: torch.Tensor, y: torch.Tensor, epochs: int) -> list[float]:
    """The reports' way: one network after another."""
    ends = []
    for net in nets:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(epochs):
            optimizer.zero_grad()
            loss = F.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
        ends.append(F.mse_loss(net(x), y).item())
    return ends


def together(nets: list[Mlp], x: torch.Tensor, y: torch.Tensor, epochs: int) -> list[float]:
    """The steps of one run with members."""
    net = side_by_side(nets)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    for _ in range(epochs):
        optimizer.zero_grad()
        member_losses(net, F.mse_loss, net(x[None]), y[None]).sum().backward()
        optimizer.step()
    return member_losses(net, F.mse_loss, net(x[None]), y[None]).tolist()


def spectra_one_by_one(nets: list[Mlp], x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    """Eigenvalues as they are taken today."""
    found = []
    for net in nets:
        double, space = copy.deepcopy(net).double(), ParamSpace.of(net)
        theta = space.flatten({name: value.detach() for name, value in double.named_parameters()})

        def value(t: torch.Tensor, net: Mlp = double, space: ParamSpace = space) -> torch.Tensor:
            return F.mse_loss(torch.func.functional_call(net, space.unflatten(t), (x.double(),)), y.double())

        found.append(torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, theta)))
    return found


def spectra(nets: list[Mlp], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of all members, [R, P], ten at a time as the measure takes them."""
    risk = EmpiricalRisk(nets[0], F.mse_loss, [(x, y)])
    return torch.cat([spectrum(dense_hessian(risk, few)) for few in side_by_side(nets).theta().double().split(10)])


def settings(epochs: int, threads: int) -> RunSettings:
    """The run's resolved settings, as `python train.py` composes them."""
    return RunSettings.check({
        "name": "benchmark", "output": "", "seed": 0, "init": "shared", "replicas": MEMBERS, "scheduler": None,
        "objective": {"minimise": "loss", "after": 0}, "study": None, "sweep": None, "callbacks": {}, "logger": {},
        "trainer": {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 1, "max_epochs": epochs,
                    "check_val_every_n_epoch": epochs, "threads": threads, "checkpoint_seconds": 1e9,
                    "progress": False},
        "dataset": {"_target_": "hw1.data.Function", "function": "sinc_5pi", "domain": [-5, 5], "points": 500,
                    "noise": 0.0, "noise_seed": 0, "test_points": 1000, "batch_size": None, "train_size": None,
                    "corruption": 0.0, "val_fraction": 0.0, "seed": 0, "workers": 0, "eval_batch_size": 1000},
        "model": {"_target_": "hw1.models.Mlp", "hidden": HIDDEN, "width": 1, "activation": "relu", "dropout": 0.0},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3, "fused": True},
    })  # fmt: skip


def main() -> None:
    options = arguments(__doc__, repeats=5, threads=1)
    epochs = 1000
    torch.set_num_threads(options.threads)
    x = torch.linspace(-5, 5, 500, dtype=torch.float64)[:, None]
    x, y = x.float(), torch.sinc(5 * x).float()
    torch.manual_seed(0)
    nets = [Mlp((1,), 1, hidden=HIDDEN) for _ in range(MEMBERS)]

    def whole_run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            own = settings(epochs, options.threads)
            result = fit(own, Path(folder) / f"run-{own.key}")
            assert result["status"] == "complete", result

    ways = {
        "the reports' loop": (lambda: loop(copy.deepcopy(nets[:LOOPED]), x, y, epochs), MEMBERS / LOOPED),
        "hw1, steps": (lambda: together(nets, x, y, epochs), 1),
        "hw1, a whole run": (whole_run, 1),
        "Hessians one by one": (lambda: spectra_one_by_one(nets[:LOOPED], x, y), MEMBERS / LOOPED),
        "hw1, Hessians": (lambda: spectra(nets, x, y), 1),
    }
    for way, _ in ways.values():
        way()
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, (way, share) in ways.items():
            start = time.perf_counter(), time.process_time()
            way()
            wall[name].append((time.perf_counter() - start[0]) * share)
            cpu[name].append((time.process_time() - start[1]) * share)
    middle = {name: [statistics.median(seconds[name]) for seconds in (wall, cpu)] for name in ways}
    loop_of = {"Hessians one by one": "Hessians one by one", "hw1, Hessians": "Hessians one by one"}
    print(f"\n{MEMBERS} members x {epochs} epochs, {options.threads} threads, hw1 {hw1.__version__}")
    for name, own in middle.items():
        base = middle[loop_of.get(name, "the reports' loop")]
        ratios = f"{base[0] / own[0]:.1f}x wall, {base[1] / own[1]:.1f}x CPU"
        print(f"  {name:<20} {own[0]:8.2f} s wall {own[1]:8.2f} s CPU   {ratios}")
    print("  targets: 8x CPU on one thread, 15x wall on two (--threads 2)")
    both = [
        (middle["the reports' loop"][i] + middle["Hessians one by one"][i])
        / (middle["hw1, a whole run"][i] + middle["hw1, Hessians"][i])
        for i in (0, 1)
    ]
    print(f"  min_ratio, trainings and eigenvalues: {both[0]:.1f}x wall, {both[1]:.1f}x CPU   target: 10x")
    short = 20
    one, other = loop(copy.deepcopy(nets[:LOOPED]), x, y, short), together(nets, x, y, short)[:LOOPED]
    difference = max(abs(a - b) / a for a, b in zip(one, other, strict=True))
    print(f"  largest relative difference of the losses after {short} epochs: {difference:.1e}")


if __name__ == "__main__":
    main()
