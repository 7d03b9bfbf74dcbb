import ast
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)

README = Path(__file__).parents[1] / "README.md"


def block(heading):
    """The Python of a section of the README."""
    _, found, section = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found
    return re.search(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)[1]


def test_curvature_of_your_own_module(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 3))
    x, y = torch.randn(90, 1, 4, 4), torch.randint(0, 3, (90,))
    exec(block("Curvature of your own module"), {"net": net, "batches": DataLoader(TensorDataset(x, y), 40)})
    eigenvalues, trace = capsys.readouterr().out.splitlines()

    net.eval().double()
    space = [p.numel() for p in net.parameters()]
    names = [name for name, _ in net.named_parameters()]

    def loss(theta):
        parts = (part.view_as(p) for part, p in zip(theta.split(space), net.parameters(), strict=True))
        return F.cross_entropy(torch.func.functional_call(net, dict(zip(names, parts, strict=True)), (x.double(),)), y)

    theta = torch.cat([p.detach().flatten() for p in net.parameters()])
    spectrum = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, theta))
    found = re.fullmatch(r"eigenvalues (\[.*\]) residuals (\[.*\])", eigenvalues)
    assert ast.literal_eval(found[1]) == pytest.approx(spectrum.flip(0)[:5].tolist(), rel=1e-4)
    assert max(ast.literal_eval(found[2])) <= 1e-4 * spectrum.abs().max()
    value, error = (float(number) for number in trace.removeprefix("trace ").split(" +- "))
    assert abs(value - spectrum.sum().item()) <= 3 * error and 0 < error < 0.2 * value
    assert (tmp_path / "density.png").read_bytes().startswith(b"\x89PNG")


def test_every_block_of_the_readme_is_python():
    for code in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(code)
