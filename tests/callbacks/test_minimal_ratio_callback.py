import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hw1.callbacks import MinimalRatio
from hw1.curvature import EmpiricalRisk
from hw1.data import Digits, Function
from hw1.models import Cnn, Mlp, replicate
from hw1.vectors import ParamSpace
from tiny_fit import tiny_fit

SETTINGS = {
    "every_n_epochs": None, "exact_up_to": 500, "probes": 3, "steps": 30, "samples": 200, "radius": 1e-3,
    "search_iterations": 0, "search_method": "levenberg_marquardt", "seed": 0,
}  # fmt: skip
# The examples lie in memory; Lightning 2.6 asks torch 2.15's pytrees in a deprecated way.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec")


def function(points=40):
    return Function("sin_2", [-1, 1], points=points, noise=0.0, noise_seed=0, test_points=10)


def table_of(net, examples, folder, *, epochs=3, task=None, data=None, **changes):
    """(rows of minimal_ratio.csv, the trainer) of a short training that ends with the test."""
    callback = MinimalRatio(**SETTINGS | changes)
    data = {"batch_size": None} | (data or {})
    trainer = tiny_fit(net, examples, folder, [callback], epochs=epochs, data=data, task=task)
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False, weights_only=True)
    return pd.read_csv(folder / "minimal_ratio.csv"), trainer


def by_autograd(net, x, y):
    """(loss, gradient, Hessian) of the mean squared error at the net's weights, in float64."""
    net = net.double()
    space = ParamSpace.of(net)

    def value(theta):
        return F.mse_loss(torch.func.functional_call(net, space.unflatten(theta), (x.double(),)), y.double())

    theta = space.flatten({name: p.detach() for name, p in net.named_parameters()})
    gradient = torch.autograd.functional.jacobian(value, theta)
    return value(theta).item(), gradient, torch.autograd.functional.hessian(value, theta)


def test_a_row_a_member_agrees_with_autograd(tmp_path):
    nets = [Mlp((1,), 1, hidden=[4, 3], activation="tanh") for _ in range(3)]
    together = replicate(nets)
    rows, trainer = table_of(together, function(), tmp_path)
    x, y = trainer.datamodule.train_tensors
    assert list(rows["member"]) == [0, 1, 2] and set(rows["phase"]) == {"training"} and set(rows["epoch"]) == {3}
    for member, row in rows.iterrows():
        loss, gradient, hessian = by_autograd(together.replica(member), x, y)
        values, norm = torch.linalg.eigvalsh(hessian), gradient.norm().item()
        tolerance = max(10 * len(values) * 2.0**-52 * values.abs().max().item(), norm)
        assert row["loss"] == pytest.approx(loss, rel=1e-9) and row["gradient_norm"] == pytest.approx(norm, rel=1e-9)
        assert row["tolerance"] == pytest.approx(tolerance, rel=1e-6)
        assert row["positive"] == (values > tolerance).double().mean().item()
        assert row["negative"] == (values < -tolerance).double().mean().item()
        assert row["positive"] + row["zero"] + row["negative"] == pytest.approx(1)
        assert row["positive@1e-03"] == (values > 1e-3 * values.abs().max()).double().mean().item()
        flatness = ((hessian @ gradient).norm() / (values.abs().max() * norm)).item()
        assert row["flatness"] == pytest.approx(flatness, rel=1e-6)
        assert row["reason"] == "budget" and not row["constant"]
        assert 0 <= row["sampled"] <= 1 and row["sampled_error"] > 0
        assert row["largest"] == pytest.approx(values[-1].item(), rel=1e-9)
    assert trainer.lightning_module.measured["minimal_ratio/positive"] == list(rows["positive"])


@pytest.mark.parametrize("points", [30, 41])
def test_a_dead_net_is_a_constant_predictor_with_one_eigenvalue_2(points, tmp_path):
    """Its output is the mean of y: the gradient is zero there, whatever the variance of y is."""
    net = Mlp((1,), 1, hidden=[5])
    y = function(points).load().train_y
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.fill_(-1.0)
        net[-1].bias.copy_(y.mean())
    rows, _ = table_of(net, function(points), tmp_path, epochs=1)
    (row,) = rows.to_dict("records")
    assert row["constant"] and row["nonzero"] == 1 and row["largest"] == pytest.approx(2, abs=1e-12)
    assert row["positive"] == pytest.approx(1 / 16)
    assert row["loss"] == pytest.approx(y.double().var(correction=0).item(), rel=1e-4)


def test_the_search_ends_where_the_gradient_is_zero(tmp_path):
    nets = [Mlp((1,), 1, hidden=[2], activation="tanh") for _ in range(4)]
    rows, trainer = table_of(
        replicate(nets), function(), tmp_path, epochs=60, search_iterations=200, search_method="newton"
    )
    assert list(rows["phase"]) == ["training"] * 4 + ["search"] * 4
    trained = rows[rows["phase"] == "training"]  # the run's other metrics are of these weights too
    assert trainer.lightning_module.measured["minimal_ratio/positive"] == list(trained["positive"])
    searched = rows[rows["phase"] == "search"].reset_index(drop=True)
    assert list(trained["positive"]) != list(searched["positive"])
    thetas = load_file(tmp_path / "critical_points.safetensors")["theta"]
    assert thetas.dtype == torch.float64 and thetas.shape == (4, 7)
    risk = EmpiricalRisk(nets[0], F.mse_loss, [trainer.datamodule.train_tensors])
    assert "converged" in set(searched["reason"])
    for theta, (_, row) in zip(thetas, searched.iterrows(), strict=True):
        assert risk.gradient(theta).norm().item() == pytest.approx(row["gradient_norm"], rel=1e-3, abs=1e-12)
        assert (row["reason"] == "converged") == (row["gradient_norm"] < 1e-6)


def test_phases_where_the_objective_changes_and_every_n_epochs(tmp_path):
    task = {"objective": "squared_gradient_norm", "objective_after": 4}
    net = Mlp((1,), 1, hidden=[3], activation="tanh")
    rows, _ = table_of(net, function(), tmp_path, epochs=7, task=task, every_n_epochs=3, samples=5)
    assert list(zip(rows["epoch"], rows["phase"], strict=True)) == [
        (3, "training"), (4, "training"), (6, "gradient_norm"), (7, "gradient_norm")
    ]  # fmt: skip


def test_quadrature_beyond_the_limit_agrees_with_all_eigenvalues(tmp_path):
    data = {"batch_size": 16, "train_size": 40}
    shapes = {"layers": ["c3(2)", "p2", 4], "activation": "tanh"}
    torch.manual_seed(0)
    net = Cnn((1, 8, 8), 10, **shapes)
    rows, _ = table_of(net, Digits(), tmp_path / "q", data=data, exact_up_to=10, probes=20, steps=60)
    (estimated,) = rows.to_dict("records")
    assert estimated["estimator"] == "quadrature"
    torch.manual_seed(0)
    rows, _ = table_of(Cnn((1, 8, 8), 10, **shapes), Digits(), tmp_path / "e", data=data)
    (exact,) = rows.to_dict("records")
    assert exact["estimator"] == "eigenvalues" and exact["loss"] == pytest.approx(estimated["loss"], rel=1e-12)
    for sign in ("positive", "negative"):
        for step in ("1e-02", "1e-03"):
            error = estimated[f"{sign}_error@{step}"]
            assert abs(estimated[f"{sign}@{step}"] - exact[f"{sign}@{step}"]) < 3 * error + 0.01
    assert estimated["positive"] == estimated["positive@1e-02"]
    assert math.isclose(estimated["positive"] + estimated["zero"] + estimated["negative"], 1, abs_tol=1e-5)


def test_another_seed_has_other_start_vectors_and_neighbours(tmp_path):
    def shares(name, **changes):
        torch.manual_seed(0)
        net = Mlp((1,), 1, hidden=[20, 10], activation="tanh")
        (row,) = table_of(net, function(), tmp_path / name, exact_up_to=0, **changes)[0].to_dict("records")
        return row["loss"], row["positive"], row["sampled"]

    first, again, other = shares("first"), shares("again"), shares("other", seed=1)
    assert first == again and first[0] == other[0]
    assert first[1] != other[1] and first[2] != other[2]


def test_a_search_without_exact_hessians_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"search_iterations: got 5 with 10 parameters, expected 0 above exact_up_to=9"
    ):
        table_of(Mlp((1,), 1, hidden=[3]), function(), tmp_path, exact_up_to=9, search_iterations=5)


@pytest.mark.parametrize(("name", "value"), [("every_n_epochs", 0), ("probes", 1), ("samples", 0), ("radius", 1.5)])
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: got {value}, expected"):
        MinimalRatio(**SETTINGS | {name: value})
