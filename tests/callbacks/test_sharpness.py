import pytest
import torch
import torch.nn.functional as F

from hw1.callbacks import Sharpness
from hw1.data import DataModule, Digits, Function
from hw1.models import Mlp
from hw1.vectors import ParamSpace
from tiny_fit import DATA, tiny_fit

SETTINGS = {"examples": None, "rho": 0.004, "trace_products": 30, "seed": 0}
NAMES = {
    "sharpness/keskar_1e-3",
    "sharpness/keskar_5e-4",
    "sharpness/adaptive",
    "sharpness/largest_eigenvalue",
    "sharpness/trace",
    "sharpness/trace_standard_error",
}


def function():
    return Function("sinc_5pi", [-1, 1], points=30, noise=0.1, noise_seed=0, test_points=10)


def dense_hessian(net, loss, x, y):
    space = ParamSpace.of(net)
    theta = space.flatten({name: p.detach() for name, p in net.named_parameters()})
    return torch.autograd.functional.hessian(
        lambda t: loss(torch.func.functional_call(net, space.unflatten(t), (x,)), y), theta
    )


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*isinstance.treespec, LeafSpec.*")
def test_the_metrics_of_a_run(tmp_path):
    net = Mlp((1,), 1, hidden=[6], activation="tanh")
    trainer = tiny_fit(net, function(), tmp_path, [Sharpness(**SETTINGS)], epochs=3)
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False, weights_only=True)
    metrics = {name: value for name, (value,) in trainer.lightning_module.measured.items()}
    assert {name for name in metrics if name.startswith("sharpness")} == NAMES
    x, y = trainer.datamodule.train_tensors
    hessian = dense_hessian(net.double(), F.mse_loss, x.double(), y.double())
    largest = torch.linalg.eigvalsh(hessian)[-1].item()
    assert metrics["sharpness/largest_eigenvalue"] == pytest.approx(largest, rel=1e-3)
    assert metrics["sharpness/trace"] == pytest.approx(
        hessian.trace().item(), abs=5 * metrics["sharpness/trace_standard_error"] + 1e-5
    )
    # The best of many points in each box, and the first two terms of Taylor's series, hold it from below and above.
    theta = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    space, loss = ParamSpace.of(net), F.mse_loss(net(x.double()), y.double())
    (gradient,) = torch.autograd.grad(value_at(net, space, theta.requires_grad_(), x, y), theta)
    theta = theta.detach()
    for name, box, unit in (
        ("keskar_1e-3", 1e-3 * (theta.abs() + 1), 100 / (1 + loss.item())),
        ("keskar_5e-4", 5e-4 * (theta.abs() + 1), 100 / (1 + loss.item())),
        ("adaptive", 0.004 * theta.abs(), 1),
    ):
        corner = value_at(net, space, theta + box * gradient.sign(), x, y) - loss
        above = box @ gradient.abs() + box @ hessian.abs() @ box / 2
        found = metrics[f"sharpness/{name}"]
        assert 0.99 * unit * corner.item() <= found <= 1.01 * unit * above.item(), name


def value_at(net, space, theta, x, y):
    return F.mse_loss(torch.func.functional_call(net, space.unflatten(theta), (x.double(),)), y.double())


def test_a_part_of_the_training_set_is_the_seeds():
    data = DataModule(Digits(), **DATA | {"train_size": 100})
    torch.manual_seed(0)
    net = Mlp((1, 8, 8), 10, hidden=[4])
    x, y = data.train_tensors
    whole = Sharpness(**SETTINGS).measure(net, data.loss, data)
    assert Sharpness(**SETTINGS | {"examples": 100}).measure(net, data.loss, data) == whole
    assert Sharpness(**SETTINGS | {"examples": 1000}).measure(net, data.loss, data) == whole
    parts = [Sharpness(**SETTINGS | {"examples": 30, "seed": seed}).measure(net, data.loss, data) for seed in (0, 0, 1)]
    assert parts[0] == parts[1]
    assert all(parts[0][name] != parts[2][name] and parts[0][name] != whole[name] for name in NAMES)
    hessian = dense_hessian(net.double(), F.cross_entropy, x.double(), y)
    assert whole["sharpness/largest_eigenvalue"] == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-3)


BAD = {
    "examples": (0, r"^examples: got 0, expected a positive integer or null \(all\)$"),
    "rho": (-0.1, r"^rho: got -0\.1, expected a positive number$"),
    "trace_products": (5, r"^trace_products: got 5, expected at least 6$"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused(name):
    value, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        Sharpness(**SETTINGS | {name: value})
