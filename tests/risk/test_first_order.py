"""Gradients of single examples, their norms and variance, against autograd on one example after another."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from strange_parts import StraightThrough, between
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

import zoo
from hw1.risk import first_order
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.first_order import gradient_noise, per_example_gradients
from hw1.risk.jacobian import Jacobian

torch.set_num_threads(1)


def one_by_one(net, loss, x, y):
    """Gradients [N, P] at the net's own parameters, in float64."""
    net = copy.deepcopy(net).double().eval()
    rows = []
    for n in range(len(x)):
        net.zero_grad()
        with sdpa_kernel(SDPBackend.MATH):
            loss(net(x[n : n + 1]), y[n : n + 1]).backward()
        rows.append(torch.cat([p.grad.reshape(-1) for p in net.parameters()]))
    return torch.stack(rows)


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("state", ["fresh", "trained"])
def test_gradients_norms_and_variance(name, state):
    case = zoo.case(name) if state == "fresh" else zoo.trained(zoo.case(name), 30)
    risk = case.risk(chunk_size=7)
    theta = case.theta()
    expected = one_by_one(case.net, case.loss, case.x, case.y)
    found = torch.cat(list(per_example_gradients(risk, theta)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.mean(0), risk.gradient(theta), rtol=1e-9, atol=1e-12)
    noise = gradient_noise(risk, theta)
    torch.testing.assert_close(noise.norms, expected.norm(dim=1))
    variance = expected.var(0, correction=0).sum().item()
    assert noise.variance == pytest.approx(variance, rel=1e-9)
    assert noise.mean_norm == pytest.approx(expected.mean(0).norm().item(), rel=1e-9)
    assert noise.noise_scale == pytest.approx(variance / expected.mean(0).square().sum().item(), rel=1e-8)


def test_the_variance_is_that_of_a_mini_batchs_gradient():
    case = zoo.case("tanh")
    risk, theta = case.risk(), case.theta()
    noise, full = gradient_noise(risk, theta), risk.gradient(theta)
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat(list(per_example_gradients(risk, theta)))
    drawn = torch.randint(0, zoo.N, (4000, 5), generator=generator)  # batches of 5, with replacement
    distances = (rows[drawn].mean(1) - full).square().sum(1)
    error = distances.std().item() / math.sqrt(4000)
    assert abs(distances.mean().item() - noise.variance / 5) <= 4 * error


def test_sums_have_the_same_gradients():
    case = zoo.case("tanh")
    alone = torch.cat(list(per_example_gradients(case.risk(), case.theta())))
    try:
        summed = EmpiricalRisk(
            case.net, nn.CrossEntropyLoss(reduction="sum"), zoo.ragged(case.x, case.y), reduction="sum"
        )
    except TypeError:
        pytest.skip("risks of sums are not there yet")
    torch.testing.assert_close(torch.cat(list(per_example_gradients(summed, case.theta()))), alone)


def test_much_alike_gradients_have_a_small_variance_to_all_digits():
    x = (1e6 + torch.arange(5.0).double())[:, None]
    risk = EmpiricalRisk(
        nn.Linear(1, 1, bias=False).double(), lambda o, y: (o - y).mean(), [(x[:2], x[:2]), (x[2:],) * 2]
    )
    noise = gradient_noise(risk, risk.theta)  # the gradients are x
    assert noise.variance == pytest.approx(2.0, rel=1e-9)
    assert noise.mean_norm == pytest.approx(1e6 + 2)


class Counting(torch.autograd.Function):
    """A square that vmap does not know."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Own(nn.Module):
    def __init__(self, middle):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.middle = nn.Linear(2, 3), nn.Linear(3, 1), middle

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


def branch(x):
    return x.sin() if x.sum().item() > -1e9 else x  # a look at values


@pytest.mark.parametrize("middle", [Counting.apply, branch], ids=["own function", "branch"])
def test_what_vmap_does_not_know_goes_one_by_one(middle, monkeypatch):
    case = zoo.Case(Own(middle), F.mse_loss, *(zoo.case("linear").x, zoo.case("linear").y))
    calls = []
    real = first_order._one_by_one
    monkeypatch.setattr(first_order, "_one_by_one", lambda *words: calls.append(1) or real(*words))
    found = torch.cat(list(per_example_gradients(case.risk(), case.theta())))
    torch.testing.assert_close(found, one_by_one(case.net, case.loss, case.x, case.y))
    assert len(calls) == 3  # one a batch


def test_a_wrong_rule_for_vmap_is_noticed():
    class Wrong(torch.autograd.Function):
        generate_vmap_rule = False

        @staticmethod
        def forward(x):
            return x.square()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])

        @staticmethod
        def backward(ctx, gradient):
            return 2 * ctx.saved_tensors[0] * gradient

        @staticmethod
        def vmap(info, in_dims, x):
            return x.square() + x, in_dims[0]

    case = zoo.Case(Own(Wrong.apply), F.mse_loss, zoo.case("linear").x, zoo.case("linear").y)
    found = torch.cat(list(per_example_gradients(case.risk(), case.theta())))
    torch.testing.assert_close(found, one_by_one(case.net, case.loss, case.x, case.y))


def test_blocks_of_examples_and_what_is_the_callers(monkeypatch):
    monkeypatch.setattr(first_order, "ROWS_NUMBERS", 3 * 55)
    case = zoo.case("tanh")
    loader = DataLoader(TensorDataset(case.x, case.y), batch_size=9)
    risk, theta = EmpiricalRisk(case.net, case.loss, loader), case.theta()
    before = torch.get_rng_state()
    with torch.no_grad():
        sizes = []
        for rows in per_example_gradients(risk, theta):
            sizes.append(len(rows))
            assert not torch.is_grad_enabled() and not rows.requires_grad  # between blocks, as the caller has it
            assert torch.equal(torch.get_rng_state(), before)
            theta += 1  # the caller trains on
    assert sizes == [3, 3, 3] * 2 + [3, 2]
    expected = one_by_one(case.net, case.loss, case.x, case.y)
    torch.testing.assert_close(torch.cat(list(per_example_gradients(risk, case.theta()))), expected)


def test_unused_parameters_have_zeros():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 1), nn.Linear(3, 1)

        def forward(self, x):
            return self.used(x)

    case = zoo.case("linear")
    risk = EmpiricalRisk(Half().double(), F.mse_loss, zoo.ragged(case.x, case.y))
    rows = torch.cat(list(per_example_gradients(risk, risk.theta)))
    assert rows.shape == (zoo.N, 7) and (rows[:, 3:] == 0).all() and (rows[:, :3] != 0).any(1).all()


def test_examples_without_losses_of_their_own_are_refused():
    case = zoo.case("tanh")
    theta = case.theta()
    of_batches = EmpiricalRisk(case.net, batches=[(case.x, case.y)], batch_loss=lambda m, b: m(b[0]).mean())
    counted = case.risk(count=lambda batch: float(len(batch[0])))
    for risk, got in ((of_batches, "a risk with batch_loss"), (counted, "a mean weighted by count")):
        for function in (per_example_gradients, gradient_noise):
            with pytest.raises(ValueError, match=rf"^per_example_gradients: got {got}, expected "):
                function(risk, theta)
    shuffled = EmpiricalRisk(case.net, case.loss, DataLoader(TensorDataset(case.x, case.y), batch_size=9, shuffle=True))
    with pytest.raises(ValueError, match=r"^batches: got the examples in another order"):
        per_example_gradients(shuffled, theta)
    with pytest.raises(ValueError, match=r"^theta: got shape \[3\]"):
        per_example_gradients(case.risk(), theta[:3])


def test_dropped_early_it_leaves_random_states_alone():
    case = zoo.case("tanh")
    own = torch.Generator().manual_seed(7)
    loader = DataLoader(TensorDataset(case.x, case.y), batch_size=9, generator=own)  # draws a seed at every pass
    risk = EmpiricalRisk(case.net, case.loss, loader)
    state = own.get_state()
    rows = per_example_gradients(risk, case.theta())
    next(rows)
    assert torch.equal(own.get_state(), state)
    torch.manual_seed(5)
    torch.rand(3)
    after = torch.get_rng_state()
    del rows
    assert torch.equal(torch.get_rng_state(), after)


def test_a_backward_that_is_not_the_derivative_is_refused():
    x, y = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(9, 3).double()
    torch.manual_seed(0)
    risk = EmpiricalRisk(between(StraightThrough.apply)().double(), F.mse_loss, [(x, y)])
    for function in (per_example_gradients, gradient_noise, Jacobian):
        with pytest.raises(ValueError, match=r"^module: got a slope of .* by its backward"):
            function(risk, risk.theta)
    unchecked = EmpiricalRisk(between(StraightThrough.apply)().double(), F.mse_loss, [(x, y)], check=False)
    assert torch.cat(list(per_example_gradients(unchecked, unchecked.theta))).shape == (9, risk.space.size)


def test_gradients_that_are_not_finite_are_refused():
    net = nn.Linear(2, 1).double()
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    x, y = torch.ones(4, 2).double(), torch.ones(4, 1).double()
    risk = EmpiricalRisk(net, lambda o, t: (o * t).sqrt().mean(), [(x, y)], check=False)
    with pytest.raises(ValueError, match=r"^gradient: got values in weight that are not finite"):
        list(per_example_gradients(risk, torch.zeros(3).double()))
    rooted = EmpiricalRisk(nn.Sequential(net, Root()), F.mse_loss, [(x, y)], check=False)
    j = Jacobian(rooted, torch.zeros(3).double())
    with pytest.raises(ValueError, match=r"^product: got derivatives of outputs that are not finite"):
        j.matvec(torch.ones(3).double())
    with pytest.raises(ValueError, match=r"^product: got values in 0.weight that are not finite"):
        j.rmatvec(torch.ones(4, 1).double())


class Root(nn.Module):
    def forward(self, x):
        return x.sqrt()
