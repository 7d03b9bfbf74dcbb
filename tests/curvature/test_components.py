"""Products, top eigenvalues and traces on the kinds of networks that people bring, against torch.autograd and numpy."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from hw1.curvature import EmpiricalRisk, Hessian, extreme_eigenpairs, hutchinson_trace
from hw1.models import Cnn, Mlp, Rnn

torch.set_num_threads(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def examples(shape=(1, 8, 8), count=15):
    generator = seeded(1)
    x = torch.randn(count, *shape, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, 3, (count,), generator=generator)


def narrow(net, channels=1):
    """A ResNet with `channels` in place of 64, and the others in proportion."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                inputs = child.in_channels if child.in_channels == 3 else child.in_channels * channels // 64
                size, stride, padding = child.kernel_size, child.stride, child.padding
                outputs = child.out_channels * channels // 64
                setattr(module, name, nn.Conv2d(inputs, outputs, size, stride, padding, bias=False))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(child.num_features * channels // 64))
    net.fc = nn.Linear(net.fc.in_features * channels // 64, net.fc.out_features)
    return net


def networks():
    torch.manual_seed(3)
    return {
        "mlp": (Mlp((1, 8, 8), 3, hidden=[5, 4]), (1, 8, 8)),
        "cnn_batch_norm": (Cnn((1, 8, 8), 3, layers=["c3(4)", "bn", "p2", "c3(4)", "bn", 5]), (1, 8, 8)),
        "rnn": (Rnn((1, 8, 8), 3, hidden=8), (1, 8, 8)),
        "resnet": (narrow(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)), (3, 16, 16)),
    }


@pytest.mark.parametrize("name", networks())
def test_products_eigenvalues_and_trace_of_a_small_copy(name):
    net, shape = networks()[name]
    net = net.double().train()
    x, y = examples(shape)
    for seed in range(3):  # batch-norm's running statistics leave 0 and 1
        net(2 * examples(shape)[0] + seed)
    net.eval()
    parameters = dict(net.named_parameters())
    risk = EmpiricalRisk(net, F.cross_entropy, list(zip(x.split(6), y.split(6), strict=True)), chunk_size=4)
    operator = Hessian(risk, risk.theta)

    def loss(*tensors):  # the mean over all examples in one piece
        outputs = torch.func.functional_call(net, dict(zip(parameters, tensors, strict=True)), (x,))
        return F.cross_entropy(outputs, y)

    tensors = tuple(p.detach() for p in parameters.values())
    blocks = torch.autograd.functional.hessian(loss, tensors)
    sizes = [p.numel() for p in tensors]
    dense = torch.cat(
        [torch.cat([blocks[i][j].reshape(rows, columns) for j, columns in enumerate(sizes)], 1)
         for i, rows in enumerate(sizes)]
    )  # fmt: skip
    values, vectors = np.linalg.eigh(((dense + dense.T) / 2).numpy())
    assert values[-1] > 0.1

    v = torch.randn(sum(sizes), dtype=torch.float64, generator=seeded(2))
    parts = tuple(part.view_as(p) for part, p in zip(v.split(sizes), tensors, strict=True))
    _, product = torch.autograd.functional.hvp(loss, tensors, parts)
    expected = torch.cat([part.flatten() for part in product])
    assert (operator.matvec(v) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert (operator.matvec(v) - dense @ v).abs().max() <= 1e-10 * expected.abs().max()

    pairs = extreme_eigenpairs(operator, 5, tol=1e-6, generator=seeded())
    np.testing.assert_allclose(pairs.values.numpy(), values[:-6:-1], rtol=1e-8, atol=1e-9 * values[-1])
    assert pairs.residuals.max() <= 1e-6 * values[-1]
    alignment = np.abs(vectors[:, -1] @ pairs.vectors[:, 0].numpy())
    assert alignment == pytest.approx(1, abs=1e-6)

    trace = hutchinson_trace(operator, probes=60, generator=seeded())
    truth = np.trace(dense.numpy())
    off_diagonal = dense - torch.diag(dense.diagonal())
    stated = (2 * off_diagonal.square().sum().item() / 60) ** 0.5
    assert abs(trace.value - truth) <= 3 * trace.standard_error
    assert trace.standard_error == pytest.approx(stated, rel=0.5)


def test_the_caller_keeps_a_network_in_training_mode():
    net, shape = networks()["resnet"]
    net = net.double().train()
    before = copy.deepcopy(net.state_dict())
    x, y = examples(shape)
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)])
    extreme_eigenpairs(Hessian(risk, risk.theta), 1, tol=1e-2, generator=seeded())
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


RESNET_18 = """
import hw1  # first: it sets malloc up before torch allocates
import json, resource, time
import torch
import torch.nn.functional as F
import torchvision
from hw1.curvature import EmpiricalRisk, Hessian, extreme_eigenpairs, hutchinson_trace
torch.manual_seed(0)
net = torchvision.models.resnet18()
batches = [(torch.randn(32, 3, 64, 64), torch.randint(0, 1000, (32,)))]
risk = EmpiricalRisk(net, F.cross_entropy, batches, chunk_size=8, keep_graph=False)
start = time.perf_counter()
pairs = extreme_eigenpairs(Hessian(risk, risk.theta), 5, tol=1e-3, generator=torch.Generator().manual_seed(0))
trace = hutchinson_trace(Hessian(risk, risk.theta), probes=3, generator=torch.Generator().manual_seed(0))
print(json.dumps({
    "parameters": len(risk.theta),
    "values": pairs.values.tolist(),
    "residuals": pairs.residuals.tolist(),
    "products": pairs.products,
    "trace": [trace.value, trace.standard_error],
    "seconds": time.perf_counter() - start,
    "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
}))
"""


@pytest.mark.slow
def test_resnet_18_at_its_full_size_stays_below_three_gibibytes():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", RESNET_18], env=environment, cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)  # shown by -s: values, residuals, seconds, gigabytes
    assert found["parameters"] == 11_689_512
    assert len(found["values"]) == 5 and found["values"] == sorted(found["values"], reverse=True)
    assert max(found["residuals"]) <= 1e-3 * found["values"][0]
    assert found["gigabytes"] < 3
    assert np.isfinite(found["trace"]).all()
