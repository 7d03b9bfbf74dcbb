"""Three epochs of the 14,718-parameter CNN on MNIST, with loss, accuracy and gradient norm logged, three ways.

- hw1: the real thing, `build` and Lightning, with StepLoss, GradientNorm, exact epoch metrics and metrics.csv
- hand: a loop over tensors in memory that logs the same to a CSV file
- reports: a DataLoader over torchvision's MNIST with ToTensor, `.item()` every step

python benchmarks/epoch.py [--repeats 5] [--threads 2]      needs the full MNIST (HW1_DATA)
"""

import hw1  # isort: skip  # first: it sets malloc up before torch allocates
import csv
import logging
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from interpolation import LAYERS, Plain
from timing import arguments, data_root, interleaved, report

from hw1.callbacks import GradientNorm
from hw1.data import DataModule, Mnist
from hw1.models import Cnn
from hw1.training.metrics_csv import MetricsCsv
from hw1.training.step_loss import StepLoss
from hw1.training.task import Task

EPOCHS = 3  # a fit's fixed cost, 0.3 s, is spread as in a short training


def lightning_epochs(data: DataModule, epochs: int) -> None:
    import lightning

    net = Cnn((1, 28, 28), 10, layers=LAYERS).to(memory_format=torch.channels_last)
    task = Task(net, data.loss, lambda parameters: torch.optim.Adam(parameters, 1e-3, fused=True))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # data lie in memory
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning 2.6 and torch 2.15
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=[MetricsCsv(Path(folder))], enable_progress_bar=False,
            callbacks=[StepLoss(), GradientNorm(1, True)], enable_checkpointing=False, enable_model_summary=False,
            num_sanity_val_steps=0, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(task, datamodule=data)


def hand_epochs(data: DataModule, batch_size: int, epochs: int) -> None:
    net = Cnn((1, 28, 28), 10, layers=LAYERS).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    (x, y), test = data.train_tensors, data.test_tensors
    with tempfile.TemporaryFile("w") as file:
        writer = csv.writer(file)
        for _ in range(epochs):
            net.train()
            losses, norms = [], []
            for batch in torch.randperm(len(x)).split(batch_size):
                loss = F.cross_entropy(net(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                norms.append(torch.stack(torch._foreach_norm([p.grad for p in net.parameters()])))
                optimizer.step()
                losses.append(loss.detach())
            net.eval()
            with torch.no_grad():
                for inputs, targets in ((x, y), test):
                    total = torch.zeros(2, dtype=torch.float64)
                    for a, b in zip(inputs.split(250), targets.split(250), strict=True):
                        outputs = net(a)
                        right = (outputs.argmax(1) == b).sum()
                        total += torch.stack([F.cross_entropy(outputs, b, reduction="sum").double(), right.double()])
                    writer.writerow((total / len(inputs)).tolist())
            for row in zip(torch.stack(losses).tolist(), torch.stack(norms).tolist(), strict=True):
                writer.writerow(row)


def report_epochs(root: Path, batch_size: int, epochs: int) -> None:
    sets = [
        torchvision.datasets.MNIST(root, train=train, transform=torchvision.transforms.ToTensor())
        for train in (True, False)
    ]
    net = Plain()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        net.train()
        for x, y in torch.utils.data.DataLoader(sets[0], batch_size=batch_size, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            sum(p.grad.norm().item() ** 2 for p in net.parameters())
            optimizer.step()
            loss.item()
        net.eval()
        with torch.no_grad():
            for s in sets:
                for x, y in torch.utils.data.DataLoader(s, batch_size=batch_size):
                    outputs = net(x)
                    F.cross_entropy(outputs, y).item(), (outputs.argmax(1) == y).sum().item()


def main() -> None:
    options = arguments(__doc__, repeats=5)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    settings = {"train_size": None, "corruption": 0.0, "val_fraction": 0.0, "seed": 0, "workers": 0}
    for batch_size, target in ((64, "at most 1.15 of it"), (1024, "at most 1.05 of it")):
        data = DataModule(Mnist(data_root(), "full"), batch_size=batch_size, eval_batch_size=250, **settings)
        data.setup()
        ways = {
            "hw1": lambda d=data: lightning_epochs(d, EPOCHS),
            "hand-written loop, the same logged": lambda d=data, b=batch_size: hand_epochs(d, b, EPOCHS),
            "the reports' DataLoader loop": lambda b=batch_size: report_epochs(data_root(), b, EPOCHS),
        }
        medians = interleaved(ways, options.repeats)
        targets = {"hand-written loop, the same logged": target, "the reports' DataLoader loop": "2x"}
        title = f"{EPOCHS} epochs with evaluation, batch {batch_size}, {options.threads} threads, hw1 {hw1.__version__}"
        report(title, medians, "hw1", targets)


if __name__ == "__main__":
    main()
