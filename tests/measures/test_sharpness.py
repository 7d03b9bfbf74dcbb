import json
import math

import pytest
import torch
import torch.nn.functional as F
from subjects import broken, subject_of, train

import hw1.curvature
from hw1.data import Digits, Function
from hw1.measures import Sharpness
from hw1.models import Mlp
from hw1.vectors import ParamSpace

SETTINGS = {"examples": None, "rho": 0.004, "trace_products": 30, "seed": None}
NAMES = set(Sharpness.columns)


def values_of(subject, memory=None, **changes):
    """({column: the first member's value}, what was found)."""
    found = Sharpness(**SETTINGS | changes).take(subject, memory or {})
    return {name: values[0] for name, values in found.values.items()}, found


def function():
    return Function("sinc_5pi", [-1, 1], points=30, noise=0.1, noise_seed=0, test_points=10)


def dense_hessian(net, loss, x, y):
    space = ParamSpace.of(net)
    theta = space.flatten({name: p.detach() for name, p in net.named_parameters()})
    return torch.autograd.functional.hessian(
        lambda t: loss(torch.func.functional_call(net, space.unflatten(t), (x,)), y), theta
    )


def test_the_columns_of_a_network():
    net = train(Mlp((1,), 1, hidden=[6], activation="tanh"), function(), steps=20)
    subject = subject_of([net], function())
    metrics, finding = values_of(subject)
    assert set(metrics) == NAMES
    (precision,) = json.loads(finding.files["precision.json"])
    assert precision["precision"] == "ieee" and precision["dtype"] == "float32" and precision["examples"] <= 30
    assert 0 < precision["relative_product"] < 1e-5
    x, y = subject.data.train_tensors
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
    torch.manual_seed(0)
    net = Mlp((1, 8, 8), 10, hidden=[4])

    def values(seed=0, **changes):
        return values_of(subject_of([net], Digits(), train_size=100, seed=seed), **changes)[0]

    whole = values()
    assert values(examples=100) == whole and values(examples=1000) == whole
    parts = [values(examples=30), values(examples=30), values(examples=30, seed=1)]
    assert parts[0] == parts[1]
    assert all(parts[0][name] != parts[2][name] and parts[0][name] != whole[name] for name in NAMES)
    assert values_of(subject_of([net], Digits(), train_size=100), examples=30)[0] == parts[0]
    x, y = subject_of([net], Digits(), train_size=100).data.train_tensors
    hessian = dense_hessian(net.double(), F.cross_entropy, x.double(), y)
    assert whole["sharpness/largest_eigenvalue"] == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-3)


def test_members_are_measured_as_if_alone():
    nets = [train(Mlp((1,), 1, hidden=[6], activation="tanh"), function(), steps=20) for _ in range(2)]
    first, found = values_of(subject_of(nets, function()))
    alone = [values_of(subject_of([net], function()))[0] for net in nets]
    assert [{n: v[i] for n, v in found.values.items()} for i in range(2)] == alone and first == alone[0]
    assert found.memory["eigenvectors"].shape == (2, 19)


@pytest.mark.parametrize("how", ["weights", "loss"])
def test_a_member_that_diverged_does_not_cost_the_others_theirs(how):
    nets = [train(Mlp((1,), 1, hidden=[6], activation="tanh"), function(), steps=20) for _ in range(2)]
    _, without = values_of(subject_of(nets, function()))
    three = [nets[0], broken(Mlp((1,), 1, hidden=[6], activation="tanh"), how), nets[1]]
    _, found = values_of(subject_of(three, function()))
    for name, values in found.values.items():
        assert [values[0], values[2]] == without.values[name] and math.isnan(values[1]), name
    memory = found.memory["eigenvectors"]
    assert torch.equal(memory[[0, 2]], without.memory["eigenvectors"]) and not memory[1].any()
    whole = [nets[0], Mlp((1,), 1, hidden=[6], activation="tanh"), nets[1]]  # where there was no start, none is taken
    _, again = values_of(subject_of(whole, function()), found.memory)
    _, cold = values_of(subject_of([whole[1]], function()))
    assert [values[1] for values in again.values.values()] == [value for (value,) in cold.values.values()]


def test_while_training_the_eigenvector_is_searched_from_the_last_one(monkeypatch):
    torch.manual_seed(0)
    net, sets, products = Mlp((1, 8, 8), 10, hidden=[32, 16]), Digits().load(), []
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    pairs_of = hw1.curvature.extreme_eigenpairs

    def counting(*args, **kwargs):
        pairs = pairs_of(*args, **kwargs)
        products.append(pairs.products)
        return pairs

    monkeypatch.setattr(hw1.curvature, "extreme_eigenpairs", counting)
    memory = {}
    for _ in range(4):
        for _ in range(20):
            optimizer.zero_grad()
            F.cross_entropy(net(sets.train_x), sets.train_y).backward()
            optimizer.step()
        subject = subject_of([net], Digits())
        cold, _ = values_of(subject, examples=200, trace_products=6)
        warm, found = values_of(subject, memory, examples=200, trace_products=6)
        assert warm["sharpness/largest_eigenvalue"] == pytest.approx(cold["sharpness/largest_eigenvalue"], rel=1e-3)
        memory = found.memory
        net.train()
    assert sum(products[3::2]) < sum(products[2::2])


def test_the_adaptive_one_has_the_unit_of_the_loss():
    assert {name for name, column in Sharpness.columns.items() if column.unit} == {"sharpness/adaptive"}


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
