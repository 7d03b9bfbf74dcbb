"""Loss and accuracy at points between two networks, 70,000 images each: hw1 against a DataLoader loop.

python benchmarks/interpolation.py [--repeats 5] [--threads 2]      needs the full MNIST (HW1_DATA)
"""

import hw1  # isort: skip  # first: it sets malloc up before torch allocates
import torch
import torch.nn.functional as F
import torchvision
from timing import arguments, data_root, interleaved, report

from hw1.curvature import EmpiricalRisk
from hw1.landscape import evaluate, segment
from hw1.models import Cnn
from hw1.vectors import ParamSpace

LAYERS = ["c3(10)", "p2", "c3(16)", "p2", 32]


class Plain(torch.nn.Sequential):
    """The same network as anyone writes it."""

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Conv2d(1, 10, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(10, 16, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Flatten(), torch.nn.Linear(400, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10),
        )  # fmt: skip


def main() -> None:
    options = arguments(__doc__, repeats=5)
    torch.set_num_threads(options.threads)
    sets = [
        torchvision.datasets.MNIST(data_root(), train=train, transform=torchvision.transforms.ToTensor())
        for train in (True, False)
    ]
    ends = [Cnn((1, 28, 28), 10, layers=LAYERS).to(memory_format=torch.channels_last) for _ in range(2)]
    alphas = [0.5]
    risks = [
        EmpiricalRisk(ends[0], F.cross_entropy, [(s.data[:, None] / 255, s.targets)], kind="classes", chunk_size=250)
        for s in sets
    ]
    found = {}

    def ours() -> None:
        found["ours"] = torch.cat([evaluate(risk.metrics, segment(*ends, alphas)) for risk in risks])

    def usual() -> None:
        net, space = Plain(), ParamSpace.of(ends[0])
        theta = next(iter(segment(*ends, alphas)))
        torch.nn.utils.vector_to_parameters(theta, net.parameters())
        assert ParamSpace.of(net).shapes == space.shapes
        net.eval()
        rows = []
        with torch.no_grad():
            for s in sets:
                loss, right = 0.0, 0
                for x, y in torch.utils.data.DataLoader(s, batch_size=256):
                    outputs = net(x)
                    loss += F.cross_entropy(outputs, y, reduction="sum").item()
                    right += (outputs.argmax(1) == y).sum().item()
                rows.append([loss / len(s), right / len(s)])
        found["usual"] = torch.tensor(rows, dtype=torch.float64)

    medians = interleaved({"hw1": ours, "DataLoader + ToTensor loop": usual}, options.repeats)
    report(f"one point, 70,000 images, {torch.get_num_threads()} threads, hw1 {hw1.__version__}", medians, "hw1",
           {"DataLoader + ToTensor loop": "3.5x"})  # fmt: skip
    print(f"  largest difference in loss or accuracy: {(found['ours'] - found['usual']).abs().max():.1e}")


if __name__ == "__main__":
    main()
