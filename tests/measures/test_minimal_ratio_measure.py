import copy
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load
from subjects import broken, function, subject_of, train

from hw1.curvature import EmpiricalRisk
from hw1.data import Digits
from hw1.measures import MinimalRatio
from hw1.measures.minimal_ratio import POINTS
from hw1.models import Cnn, Mlp
from hw1.settings import RunSettings
from hw1.vectors import ParamSpace
from made_runs import run_settings

SETTINGS = {
    "exact_up_to": 500, "probes": 3, "steps": 30, "samples": 200, "radius": 1e-3, "search_iterations": 0,
    "search_method": "levenberg_marquardt", "seed": None,
}  # fmt: skip


def found_of(subject, **changes):
    return MinimalRatio(**SETTINGS | changes).take(subject, {})


def by_autograd(net, x, y):
    """(loss, gradient, Hessian) of the mean squared error at the net's weights, in float64."""
    net = net.double()
    space = ParamSpace.of(net)

    def value(theta):
        return F.mse_loss(torch.func.functional_call(net, space.unflatten(theta), (x.double(),)), y.double())

    theta = space.flatten({name: p.detach() for name, p in net.named_parameters()})
    gradient = torch.autograd.functional.jacobian(value, theta)
    return value(theta).item(), gradient, torch.autograd.functional.hessian(value, theta)


def test_a_row_a_member_agrees_with_autograd():
    nets = [Mlp((1,), 1, hidden=[4, 3], activation="tanh") for _ in range(3)]
    subject = subject_of(nets, function())
    found = found_of(subject)
    x, y = subject.data.train_tensors
    rows = found.rows
    assert [row["member"] for row in rows] == [0, 1, 2]
    assert {(row["phase"], row["epoch"]) for row in rows} == {("training", 3)}
    for net, row in zip(nets, rows, strict=True):
        loss, gradient, hessian = by_autograd(net, x, y)
        values, norm = torch.linalg.eigvalsh(hessian), gradient.norm().item()
        tolerance = max(10 * len(values) * 2.0**-52 * values.abs().max().item(), norm)
        assert row["loss"] == pytest.approx(loss, rel=1e-9) and row["gradient_norm"] == pytest.approx(norm, rel=1e-9)
        assert row["tolerance"] == pytest.approx(tolerance, rel=1e-6)
        assert row["positive"] == (values > tolerance).double().mean().item()
        assert row["negative"] == (values < -tolerance).double().mean().item()
        assert row["positive"] + row["zero"] + row["negative"] == pytest.approx(1)
        assert row["positive@1e-03"] == (values > 1e-3 * values.abs().max()).double().mean().item()
        flatness = ((hessian @ gradient).norm() / (values.abs().max() * norm)).item()
        assert row["gradient_flatness"] == pytest.approx(flatness, rel=1e-6)
        assert row["reason"] == "not converged" and not row["constant"]
        assert 0 <= row["sampled"] <= 1 and row["sampled_error"] > 0
        assert row["largest"] == pytest.approx(values[-1].item(), rel=1e-9)
    assert found.values["minimal_ratio/positive"] == [row["positive"] for row in rows]
    assert set(found.values) == set(MinimalRatio.columns)


@pytest.mark.parametrize("points", [30, 41])
def test_a_dead_net_is_a_constant_predictor_with_one_eigenvalue_2(points):
    """Its output is the mean of y: the gradient is zero there, whatever the variance of y is."""
    net = Mlp((1,), 1, hidden=[5])
    y = function(points).load().train_y
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.fill_(-1.0)
        net[-1].bias.copy_(y.mean())
    (row,) = found_of(subject_of([net], function(points))).rows
    assert row["constant"] and row["nonzero"] == 1 and row["largest"] == pytest.approx(2, abs=1e-12)
    assert row["positive"] == pytest.approx(1 / 16)
    assert row["loss"] == pytest.approx(y.double().var(correction=0).item(), rel=1e-4)


def test_the_search_ends_where_the_gradient_is_zero():
    nets = [train(Mlp((1,), 1, hidden=[2], activation="tanh"), function(), steps=60) for _ in range(4)]
    subject = subject_of(nets, function())
    found = found_of(subject, search_iterations=200, search_method="newton")
    trained, searched = found.rows[:4], found.rows[4:]
    assert [row["phase"] for row in found.rows] == ["training"] * 4 + ["search"] * 4
    assert found.values["minimal_ratio/positive"] == [row["positive"] for row in trained]  # of the run's weights
    assert [row["positive"] for row in trained] != [row["positive"] for row in searched]
    thetas = load(found.files[POINTS])["theta"]
    assert thetas.dtype == torch.float64 and thetas.shape == (4, 7)
    risk = EmpiricalRisk(nets[0], F.mse_loss, [subject.data.train_tensors])
    assert "converged" in {row["reason"] for row in searched}
    for theta, row in zip(thetas, searched, strict=True):
        assert risk.gradient(theta).norm().item() == pytest.approx(row["gradient_norm"], rel=1e-3, abs=1e-12)
        assert (row["reason"] == "converged") == (row["gradient_norm"] < 1e-6)


def same(one, two):
    """Whether two rows hold the same, but for whose they are; NaN is NaN."""
    return one.keys() == two.keys() and all(
        name == "member" or value == two[name] or (value != value and two[name] != two[name])
        for name, value in one.items()
    )


@pytest.mark.parametrize("exact_up_to", [500, 0])
@pytest.mark.parametrize("how", ["weights", "loss"])
def test_a_member_that_diverged_does_not_cost_the_others_theirs(how, exact_up_to):
    nets = [train(Mlp((1,), 1, hidden=[2], activation="tanh"), function(), steps=60) for _ in range(2)]
    three = [nets[0], broken(Mlp((1,), 1, hidden=[2], activation="tanh"), how), nets[1]]
    settings = {"samples": 5, "steps": 7, "exact_up_to": exact_up_to, "search_iterations": 5 if exact_up_to else 0}
    without = found_of(subject_of(nets, function()), **settings)
    found = found_of(subject_of(three, function()), **settings)
    assert [row["member"] for row in found.rows] == list(range(3)) * (2 if exact_up_to else 1)
    others = [row for row in found.rows if row["member"] != 1]
    assert len(others) == len(without.rows) and all(map(same, others, without.rows))
    lost = [row for row in found.rows if row["member"] == 1]
    for row, other in zip(lost, others[::2], strict=True):
        assert row.keys() == other.keys() and row["reason"] == "not finite" and row["constant"] is False
        told = {"member", "epoch", "phase", "reason", "estimator", "constant", "iterations"}
        assert row["estimator"] == other["estimator"] and all(math.isnan(row[name]) for name in row.keys() - told)
    assert [math.isnan(value) for value in found.values["minimal_ratio/zero"]] == [False, True, False]
    if exact_up_to:
        assert lost[1]["iterations"] == 0
        points = load(found.files[POINTS])["theta"]
        assert torch.equal(points[[0, 2]], load(without.files[POINTS])["theta"]) and points[1].isnan().all()


def test_where_all_diverged_every_row_says_so():
    nets = [broken(Mlp((1,), 1, hidden=[2]), "weights") for _ in range(2)]
    found = found_of(subject_of(nets, function()), search_iterations=3)
    assert [row["reason"] for row in found.rows] == ["not finite"] * 4
    assert load(found.files[POINTS])["theta"].isnan().all()


def test_members_have_the_running_statistics_of_their_own():
    torch.manual_seed(0)
    x = Digits().load().train_x
    nets = [Cnn((1, 8, 8), 10, layers=["c3(2)", "bn", "p2", 4], activation="tanh") for _ in range(3)]
    for scale, net in enumerate(nets, 1):
        net.train()(scale * x[:200])
    settings = {"samples": 5, "search_iterations": 2}

    def of(*members):
        return found_of(subject_of([copy.deepcopy(net) for net in members], Digits(), train_size=40), **settings)

    together = of(*nets)
    shared = ("sampled", "sampled_error")  # the neighbours of all are drawn one after another
    for member, net in enumerate(nets):
        alone = of(net)
        own = [row for row in together.rows if row["member"] == member]
        assert len(own) == len(alone.rows) == 2
        for one, two in zip(own, alone.rows, strict=True):
            assert same({**one, **dict.fromkeys(shared)}, {**two, **dict.fromkeys(shared)})
        assert torch.equal(load(together.files[POINTS])["theta"][member], load(alone.files[POINTS])["theta"][0])
    for net in nets[1:]:  # what measured them by the first one's statistics gave other numbers
        net.load_state_dict({**net.state_dict(), **{name: value for name, value in nets[0].named_buffers()}})
    assert of(*nets).rows[1]["loss"] != together.rows[1]["loss"]


def test_it_asks_for_the_weights_where_the_objective_changes():
    after = {"minimise": "squared_gradient_norm", "after": 2}
    measure = MinimalRatio(**SETTINGS)
    assert list(measure.epochs(RunSettings.check(run_settings(objective=after)))) == [2]
    assert list(measure.epochs(RunSettings.check(run_settings()))) == []
    nets = [[Mlp((1,), 1, hidden=[3], activation="tanh")] for _ in range(2)]
    subject = subject_of(nets[1], function(), epoch=7, phase="gradient_norm", earlier=[(4, "training", nets[0])])
    found = found_of(subject, samples=5)
    assert [(row["epoch"], row["phase"]) for row in found.rows] == [(4, "training"), (7, "gradient_norm")]
    assert found.values["minimal_ratio/zero"] == [found.rows[-1]["zero"]]


def test_quadrature_beyond_the_limit_agrees_with_all_eigenvalues():
    torch.manual_seed(0)
    net = Cnn((1, 8, 8), 10, layers=["c3(2)", "p2", 4], activation="tanh")
    subject = subject_of([net], Digits(), train_size=40)
    (estimated,) = found_of(subject, exact_up_to=10, probes=20, steps=60).rows
    (exact,) = found_of(subject).rows
    assert (estimated["estimator"], exact["estimator"]) == ("quadrature", "eigenvalues")
    assert exact["loss"] == pytest.approx(estimated["loss"], rel=1e-12)
    for sign in ("positive", "negative"):
        for step in ("1e-02", "1e-03"):
            error = estimated[f"{sign}_error@{step}"]
            assert abs(estimated[f"{sign}@{step}"] - exact[f"{sign}@{step}"]) < 3 * error + 0.01
    assert estimated["positive"] == estimated["positive@1e-02"]
    assert math.isclose(estimated["positive"] + estimated["zero"] + estimated["negative"], 1, abs_tol=1e-5)


def test_another_seed_has_other_start_vectors_and_neighbours():
    torch.manual_seed(0)
    net = Mlp((1,), 1, hidden=[20, 10], activation="tanh")

    def shares(seed=None, of_run=0):
        (row,) = found_of(subject_of([net], function(), seed=of_run), exact_up_to=0, seed=seed).rows
        return row["loss"], row["positive"], row["sampled"]

    first, again, other, of_run = shares(), shares(), shares(seed=1), shares(of_run=1)
    assert first == again and other == of_run and first[0] == other[0]
    assert first[1] != other[1] and first[2] != other[2]


def test_a_search_without_exact_hessians_is_refused():
    measure = MinimalRatio(**SETTINGS | {"exact_up_to": 9, "search_iterations": 5})
    message = r"^search_iterations: got 5 with 10 parameters, expected 0 above exact_up_to=9"
    with pytest.raises(ValueError, match=message):
        measure.check(RunSettings.check(run_settings()), 10)
    measure.check(RunSettings.check(run_settings()), 9)


def test_a_search_while_training_is_refused():
    with pytest.raises(ValueError, match=r"^search_iterations: got 3, expected 0 while training$"):
        MinimalRatio(**SETTINGS | {"search_iterations": 3}).check_tracked()
    MinimalRatio(**SETTINGS).check_tracked()


@pytest.mark.parametrize(("name", "value"), [("exact_up_to", -1), ("probes", 1), ("samples", 0), ("radius", 1.5)])
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: got {value}, expected"):
        MinimalRatio(**SETTINGS | {name: value})
