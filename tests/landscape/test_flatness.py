import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import nn

from hw1.curvature import EmpiricalRisk
from hw1.landscape import adaptive_sharpness, keskar_sharpness, sensitivity
from hw1.models import Cnn, Mlp, Rnn
from hw1.vectors import ParamSpace

torch.set_num_threads(1)
N = 23


def examples(shape=(1, 8, 8), count=N, classes=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *shape, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, classes, (count,), generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- sensitivity


def norm_by_differences(function, x, h=1e-5):
    """Frobenius norm of the derivative of `function` at one example x [1, ...], element by element."""
    total = 0.0
    for index in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=x.dtype)
        step[index] = h
        step = step.reshape(x.shape)
        total += ((function(x + step) - function(x - step)) / (2 * h)).square().sum().item()
    return math.sqrt(total)


NETS = {
    "mlp": lambda: Mlp((1, 8, 8), 3, hidden=[5], activation="tanh"),
    "cnn": lambda: Cnn((1, 8, 8), 3, layers=["c3(4)", "bn", "p2", "drop2d", 6, "drop"], activation="tanh"),
    "rnn": lambda: Rnn((1, 8, 8), 3, hidden=4, activation="tanh"),
}


@pytest.mark.parametrize("name", NETS)
def test_it_agrees_with_finite_differences(name):
    torch.manual_seed(0)
    net = NETS[name]().double().train()
    x, y = examples(count=5)
    with torch.no_grad():
        net(10 * x)  # running statistics that are not those of a new batch-norm
        still = copy.deepcopy(net).eval()
        forms = {"loss": [], "outputs": [], "softmax": []}
        for image, label in zip(x[:, None], y, strict=True):
            forms["loss"].append(norm_by_differences(lambda z, t=label: F.cross_entropy(still(z), t[None]), image))
            forms["outputs"].append(norm_by_differences(still, image))
            forms["softmax"].append(norm_by_differences(lambda z: still(z).exp() / still(z).exp().sum(), image))
    found = sensitivity(net, F.cross_entropy, x, y, batch_size=2)
    for form, norms in forms.items():
        assert getattr(found, form) == pytest.approx(np.mean(norms), rel=1e-6), form


def test_a_linear_classifier_by_its_formula():
    net = nn.Linear(4, 3).double()
    x, y = examples((4,))
    w, b = (parameter.detach().numpy() for parameter in net.parameters())
    losses, softmaxes = [], []
    for row, label in zip(x.numpy(), y.tolist(), strict=True):
        p = np.exp(w @ row + b) / np.exp(w @ row + b).sum()
        losses.append(np.linalg.norm(w.T @ (p - np.eye(3)[label])))
        softmaxes.append(np.linalg.norm((np.diag(p) - np.outer(p, p)) @ w))
    found = sensitivity(net, F.cross_entropy, x, y, batch_size=10)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert found.softmax == pytest.approx(np.mean(softmaxes), rel=1e-12)
    assert found.outputs == pytest.approx(np.linalg.norm(w), rel=1e-12)


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_has_no_softmax(outputs):
    net = nn.Linear(3, outputs).double()
    x = examples((3,))[0]
    y = torch.randn(N, outputs, dtype=torch.float64, generator=seeded())
    w = net.weight.detach()
    residuals = (net(x) - y).detach()  # d/dx mean_c (w_c x + b_c - y_c)^2 = 2/C sum_c r_c w_c
    found = sensitivity(net, F.mse_loss, x, y, batch_size=10)
    assert found.softmax is None
    assert found.loss == pytest.approx((2 / outputs * residuals @ w).norm(dim=1).mean().item(), rel=1e-12)
    assert found.outputs == pytest.approx(w.norm().item(), rel=1e-12)


def test_neither_batch_size_nor_order_matter():
    net = NETS["cnn"]().double()
    x, y = examples()
    whole = sensitivity(net, F.cross_entropy, x, y, batch_size=N)
    order = torch.randperm(N, generator=seeded())
    for batch_size, at in itertools.product([1, 4, 1000], [order, torch.arange(N)]):
        other = sensitivity(net, F.cross_entropy, x[at], y[at], batch_size=batch_size)
        for form in ("loss", "outputs", "softmax"):
            assert getattr(other, form) == pytest.approx(getattr(whole, form), rel=1e-12)


def test_it_is_computed_in_the_modules_dtype():
    net = NETS["mlp"]()
    x, y = examples()
    single = sensitivity(net, F.cross_entropy, x, y)
    double = sensitivity(net.double(), F.cross_entropy, x.float(), y)
    assert single.loss == pytest.approx(double.loss, rel=1e-5) and single.loss != double.loss


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_the_callers_module_inputs_and_context_are_left_alone(context):
    net = NETS["cnn"]().train()
    net[-1].eval()  # a mode of its own for one layer
    net[0].requires_grad_(False)
    x, y = examples(count=9)
    x = x.float()
    state = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    expected = sensitivity(net, F.cross_entropy, x, y, batch_size=4)
    randomness = torch.get_rng_state()
    with context():
        enabled = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        assert sensitivity(net, F.cross_entropy, x, y, batch_size=4) == expected
        now = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        assert now == enabled
    assert torch.equal(torch.get_rng_state(), randomness)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [parameter.requires_grad for parameter in net.parameters()][:3] == [False, False, True]
    assert not x.requires_grad


def test_bad_input_of_sensitivity_is_refused():
    net = NETS["mlp"]().double()
    x, y = examples()
    with pytest.raises(
        ValueError, match=r"^inputs and targets: got 0 and 0 examples, expected as many, > 0: give each input a target$"
    ):
        sensitivity(net, F.cross_entropy, x[:0], y[:0])
    with pytest.raises(ValueError, match=r"^inputs and targets: got 23 and 22 examples"):
        sensitivity(net, F.cross_entropy, x, y[1:])
    with pytest.raises(ValueError, match=r"^inputs: got torch\.int64, expected floating point: sensitivity is a deriv"):
        sensitivity(net, F.cross_entropy, y, y)
    with pytest.raises(ValueError, match=r"^loss: got shape \[2\], expected \[\]: the mean over examples$"):
        sensitivity(net, nn.CrossEntropyLoss(reduction="none"), x, y)
    with pytest.raises(
        ValueError, match=r"^module: got outputs \[23, 3, 8, 3\], expected logits \[B, C\] for classes: flatten"
    ):
        sensitivity(
            nn.Conv2d(1, 3, (1, 6)).double(), F.cross_entropy, x, y[:, None, None].repeat(1, 8, 3), kind="classes"
        )
    with pytest.raises(
        ValueError, match=r"^inputs and targets: got inputs .* shapes and dtypes that the module and the"
    ):
        sensitivity(nn.Linear(8, 3).double(), F.cross_entropy, x, y)


# --- what a loss, or a network, must be


def weighted(weight=(1.0, 5.0, 2.0)):
    return nn.CrossEntropyLoss(weight=torch.tensor(weight).double())


ODD_LOSSES = {
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weights": weighted(),
    "weights in float32": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 2.0])),
    "ignored": nn.CrossEntropyLoss(ignore_index=1),
    "root": lambda outputs, y: F.cross_entropy(outputs, y).sqrt(),
    "largest": lambda outputs, y: F.cross_entropy(outputs, y, reduction="none").max(),
    "over the batch": lambda outputs, y: F.cross_entropy(outputs - outputs.mean(0), y),
}


@pytest.mark.parametrize("batch_size", [1, 7, N])
@pytest.mark.parametrize("order", ["as they come", "by class"])
@pytest.mark.parametrize("name", ODD_LOSSES)
def test_a_loss_that_is_no_mean_over_examples_is_refused(name, order, batch_size):
    net, (x, y) = NETS["mlp"](), examples()
    net = net if name == "weights in float32" else net.double()
    if order == "by class":
        x, y = x[y.argsort()], y.sort().values
    with pytest.raises(
        ValueError, match=r"^loss: got .*, expected the mean over examples: use reduction='mean', and no"
    ):
        sensitivity(net, ODD_LOSSES[name], x, y, batch_size=batch_size)


@pytest.mark.parametrize("number", [0, 11, N - 1])
def test_a_single_ignored_target_is_enough(number):
    net, (x, y) = NETS["mlp"](), examples()  # float32
    y[number] = -100
    with pytest.raises(ValueError, match=r"^loss: got .*, expected the mean over examples"):
        sensitivity(net, F.cross_entropy, x, y)


def test_class_weights_are_seen_where_all_losses_are_alike():
    net, (x, y) = NETS["mlp"]().double(), examples()
    nn.init.zeros_(net[-1].weight), nn.init.zeros_(net[-1].bias)
    with pytest.raises(ValueError, match=r"^loss: got another gradient for an example in 23 than in a part of them"):
        sensitivity(net, weighted(), x, y)


MEANS = {
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.1),
    "alike weights": weighted((2.0, 2.0, 2.0)),
    "nobody ignored": nn.CrossEntropyLoss(ignore_index=7),
    "margin": nn.MultiMarginLoss(),
    "constant added": lambda outputs, y: F.cross_entropy(outputs, y) + 1,
    "own mean": lambda outputs, y: -outputs.log_softmax(1).gather(1, y[:, None]).mean(),
}


@pytest.mark.parametrize("batch_size", [1, 4, N])
@pytest.mark.parametrize("name", MEANS)
def test_whatever_is_a_mean_is_taken(name, batch_size):
    net, (x, y) = NETS["mlp"]().double(), examples(count=9)
    found = sensitivity(net, MEANS[name], x, y, batch_size=batch_size)
    alone = [sensitivity(net, MEANS[name], x[i : i + 1], y[i : i + 1]).loss for i in range(9)]
    assert found.loss == pytest.approx(np.mean(alone), rel=1e-9)


class Centred(nn.Module):
    def forward(self, x):
        return (x - x.mean(0)).flatten(1)[:, :3]


class Noisy(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] + torch.randn(3)


@pytest.mark.parametrize("make", [Centred, Noisy])
def test_examples_that_influence_each_other_and_chance_are_refused(make):
    with pytest.raises(ValueError, match=r"^module: got other outputs for an example when others left its batch"):
        sensitivity(make(), F.cross_entropy, *examples())


def test_a_first_layer_that_works_in_place_leaves_the_inputs_alone():
    linear, (x, y) = nn.Linear(64, 3).double(), examples()
    before = x.clone()
    randomness, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = sensitivity(
        nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), linear), F.cross_entropy, x, y, batch_size=10
    )
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), randomness)
    assert (np.random.get_state()[1] == numpys).all()
    assert found == sensitivity(nn.Sequential(nn.ReLU(), nn.Flatten(), linear), F.cross_entropy, x, y, batch_size=10)
    w, on = linear.weight.detach(), (x > 0).flatten(1)
    assert found.outputs == pytest.approx(np.mean([(w * row).norm().item() for row in on]), rel=1e-12)


# --- kinds of targets


def binary_loss(outputs, y):
    return F.binary_cross_entropy_with_logits(outputs.flatten(), y.to(outputs))


@pytest.mark.parametrize("dtype", [torch.long, torch.float64, torch.bool])
@pytest.mark.parametrize("squeezed", [False, True])
def test_one_logit_is_two_classes(dtype, squeezed):
    linear = nn.Linear(4, 1).double()
    net = nn.Sequential(linear, nn.Flatten(0)) if squeezed else linear
    x, y = examples((4,), classes=2)
    w = linear.weight.detach().norm().item()
    p = linear(x).sigmoid().flatten().detach()
    found = sensitivity(net, binary_loss, x, y.to(dtype), batch_size=10, kind="binary")
    assert found.outputs == pytest.approx(w, rel=1e-12)
    assert found.loss == pytest.approx(w * (p - y).abs().mean().item(), rel=1e-12)
    assert found.softmax == pytest.approx(w * 2**0.5 * (p * (1 - p)).mean().item(), rel=1e-12)
    two = nn.Linear(4, 2).double()  # the same classifier with two logits
    with torch.no_grad():
        two.weight.copy_(torch.cat([0 * linear.weight, linear.weight]))
        two.bias.copy_(torch.cat([0 * linear.bias, linear.bias]))
    assert sensitivity(two, F.cross_entropy, x, y).softmax == pytest.approx(found.softmax, rel=1e-12)
    unsaid = sensitivity(net, binary_loss, x, y.to(dtype), batch_size=10)  # a logit, or a count?
    assert unsaid.softmax is None and unsaid.loss == found.loss


def test_counts_have_no_softmax():
    net, (x, y) = nn.Linear(4, 1).double(), examples((4,), classes=6)
    for kind in (None, "counts"):
        found = sensitivity(net, lambda o, t: F.poisson_nll_loss(o[:, 0], t.to(o)), x, y, kind=kind)
        assert found.softmax is None
        rate = net(x).exp()[:, 0].detach()
        expected = (rate - y).abs().mean().item() * net.weight.detach().norm().item()
        assert found.loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", [None, "tokens"])
def test_the_softmax_of_tokens(kind):
    net, x = nn.Linear(4, 5).double(), examples((3, 4))[0]
    y = torch.randint(0, 5, (N, 3), generator=seeded())
    found = sensitivity(net, lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()), x, y, batch_size=10, kind=kind)
    norms = [torch.autograd.functional.jacobian(lambda z: net(z).softmax(-1), one[None]).norm().item() for one in x]
    assert found.softmax == pytest.approx(np.mean(norms), rel=1e-12)


def test_outputs_that_are_not_what_the_kind_says_are_refused():
    x, y = examples((4,), classes=2)
    with pytest.raises(
        ValueError, match=r"^outputs: got \[23, 1\] for targets \[23\], expected several logits .* 'binary'"
    ):
        sensitivity(nn.Linear(4, 1).double(), binary_loss, x, y, kind="classes")
    with pytest.raises(ValueError, match=r"^outputs: got \[23, 2\] for targets \[23\], expected one output a target"):
        sensitivity(nn.Linear(4, 2).double(), F.cross_entropy, x, y, kind="binary")


# --- sharpness


class Quadratic:
    """1/2 (theta - centre)^T H (theta - centre) + bottom."""

    def __init__(self, hessian, centre=None, bottom=0.0):
        self.hessian = torch.as_tensor(hessian, dtype=torch.float64)
        self.centre = torch.zeros(len(self.hessian), dtype=torch.float64) if centre is None else centre
        self.bottom = bottom
        self.gradients = 0

    def __call__(self, theta):
        return (theta - self.centre) @ self.hessian @ (theta - self.centre) / 2 + self.bottom

    def gradient(self, theta):
        self.gradients += 1
        return self.hessian @ (theta - self.centre)


H = torch.tensor([3.0, 1.0, 0.2, 0.01, 5.0]).double()


@pytest.mark.parametrize("epsilon", [1e-3, 5e-4])
def test_the_maximum_of_a_quadratic_at_its_minimum(epsilon):
    theta = torch.zeros(5, dtype=torch.float64)
    found = keskar_sharpness(Quadratic(torch.diag(H), bottom=0.5), theta, epsilon, generator=seeded())
    assert found.loss == 0.5
    assert found.rises == pytest.approx([epsilon**2 / 2 * H.sum().item()] * 3, rel=1e-9)
    assert found.value == pytest.approx(100 * epsilon**2 / 2 * H.sum().item() / 1.5, rel=1e-9)


def test_directions_of_negative_curvature_stay_in_the_middle():
    signed = H * torch.tensor([1, -1, 1, -1, 1])
    found = keskar_sharpness(Quadratic(torch.diag(signed)), torch.zeros(5).double(), 1e-3, generator=seeded())
    assert max(found.rises) == pytest.approx(1e-6 / 2 * signed.clamp_min(0).sum().item(), rel=0.01)


def test_the_box_grows_with_the_weights():
    theta, centre = torch.tensor([0.0, -2.0, 3.0, 10.0, -0.5]).double(), torch.tensor([1.0, 0, 2, 30, -0.5]).double()
    risk = Quadratic(torch.diag(H), centre)
    for function, box in ((keskar_sharpness, 1e-3 * (theta.abs() + 1)), (adaptive_sharpness, 1e-3 * theta.abs())):
        rise = (H / 2 * (((theta - centre).abs() + box) ** 2 - (theta - centre) ** 2)).sum().item()
        found = function(risk, theta, 1e-3, generator=seeded())
        assert max(found.rises) == pytest.approx(rise, rel=1e-9)
        scale = 100 / (1 + risk(theta).item()) if function is keskar_sharpness else 1
        assert found.value == pytest.approx(scale * rise, rel=1e-9)


def test_a_full_quadratic_against_all_corners():
    a = torch.randn(8, 8, dtype=torch.float64, generator=seeded())
    risk = Quadratic(a @ a.T, bottom=1.0)
    corners = 1e-3 * torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8))).double()
    best = max(risk(corner).item() for corner in corners) - 1
    theta = torch.zeros(8).double()
    found = keskar_sharpness(risk, theta, 1e-3, starts=10, generator=seeded())
    assert max(found.rises) == pytest.approx(best, rel=0.01)
    assert all(rise <= best * (1 + 1e-9) for rise in found.rises)


def network(seed=0):
    torch.manual_seed(seed)
    net = Mlp((2,), 3, hidden=[4, 3]).double()
    x = torch.randn(40, 2, dtype=torch.float64)
    y = torch.randint(0, 3, (40,))
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, x, y


def scipy_rise(net, x, y, box):
    """The highest of 10 converged runs of SciPy's L-BFGS-B in units of the box [P]."""
    space = ParamSpace.of(net)
    theta = space.flatten({name: p.detach() for name, p in net.named_parameters()})
    start = F.cross_entropy(net(x), y).item()

    def function(u):
        point = torch.tensor(u, requires_grad=True)
        outputs = torch.func.functional_call(net, space.unflatten(theta + box * point), (x,))
        scale = 1 / box.mean().item()  # L-BFGS-B's stopping rules are absolute
        value = -scale * (F.cross_entropy(outputs, y) - start)
        value.backward()
        return value.item(), point.grad.numpy()

    starts = np.random.default_rng(0).uniform(-1, 1, (10, len(theta)))
    found = [minimize(function, u, jac=True, method="L-BFGS-B", bounds=[(-1, 1)] * len(theta)) for u in starts]
    return max(-result.fun for result in found) * box.mean().item()


@pytest.mark.parametrize(("function", "width"), [(keskar_sharpness, 1e-3), (adaptive_sharpness, 0.05)])
def test_a_network_against_scipy(function, width):
    net, x, y = network()
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)])
    box = width * (risk.theta.abs() + (function is keskar_sharpness))
    found = function(risk, risk.theta, width, starts=40, generator=seeded())  # a wide box has several maxima
    assert max(found.rises) == pytest.approx(scipy_rise(net, x, y, box), rel=0.01)
    assert found.loss == pytest.approx(F.cross_entropy(net(x), y).item(), rel=1e-12)


def largest_eigenvalue(net, x, y):
    space = ParamSpace.of(net)
    theta = space.flatten({name: p.detach() for name, p in net.named_parameters()})
    hessian = torch.autograd.functional.hessian(
        lambda t: F.cross_entropy(torch.func.functional_call(net, space.unflatten(t), (x,)), y), theta
    )
    return torch.linalg.eigvalsh(hessian)[-1].item()


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_rescaling_a_relu_network_moves_all_but_the_adaptive_measure(factor):
    net, x, y = network()
    other = copy.deepcopy(net)
    first, second = (layer for layer in list(other)[1:4] if isinstance(layer, nn.Linear))
    with torch.no_grad():
        first.weight *= factor
        first.bias *= factor
        second.weight /= factor
    torch.testing.assert_close(net(x), other(x))
    eigenvalues = [largest_eigenvalue(one, x, y) for one in (net, other)]
    assert max(eigenvalues) > 3 * min(eigenvalues)
    values = {keskar_sharpness: [], adaptive_sharpness: []}
    for one, (function, found) in itertools.product((net, other), values.items()):
        risk = EmpiricalRisk(one, F.cross_entropy, [(x, y)])
        found.append(function(risk, risk.theta, 1e-2, generator=seeded()).value)
    assert values[adaptive_sharpness][0] == pytest.approx(values[adaptive_sharpness][1], rel=0.01)
    assert max(values[keskar_sharpness]) > 1.1 * min(values[keskar_sharpness])


def test_the_generator_decides_and_more_starts_are_never_lower():
    net, x, y = network(1)
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)])
    one, same, more = (
        keskar_sharpness(risk, risk.theta, 0.3, starts=starts, generator=seeded()) for starts in (1, 1, 6)
    )
    assert one == same
    assert more.rises[0] == one.rises[0] and more.value >= one.value and len(more.rises) == 6


def test_steps_bound_the_gradients():
    a = torch.randn(30, 30, dtype=torch.float64, generator=seeded())
    risk = Quadratic(a @ a.T)
    few = keskar_sharpness(risk, torch.zeros(30).double(), 1e-3, starts=3, steps=1, generator=seeded())
    assert risk.gradients == 3
    more = keskar_sharpness(risk, torch.zeros(30).double(), 1e-3, starts=3, steps=20, generator=seeded())
    assert all(b > a for a, b in zip(few.rises, more.rises, strict=True))


@pytest.mark.parametrize("far", [math.inf, math.nan])
def test_a_loss_that_overflows_in_the_box_is_no_number(far):
    class Cliff(Quadratic):
        def __call__(self, theta):
            return super().__call__(theta) if theta.abs().max() == 0 else torch.tensor(far)

    found = keskar_sharpness(Cliff(torch.diag(H)), torch.zeros(5).double(), 1e-3, generator=seeded())
    assert found.value == far or (math.isnan(far) and math.isnan(found.value))


@pytest.mark.parametrize("loss", [-1.0, -2.5])
def test_a_measure_relative_to_a_negative_loss_is_refused(loss):
    risk, theta = Quadratic(torch.diag(H), bottom=loss), torch.zeros(5).double()
    with pytest.raises(
        ValueError, match=rf"^risk: got a loss of {loss:g} at theta, expected one above -1: .* use adaptive"
    ):
        keskar_sharpness(risk, theta, 1e-3, generator=seeded())
    assert adaptive_sharpness(risk, theta + 1, 1e-3, generator=seeded()).value > 0  # is not relative


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("function", [keskar_sharpness, adaptive_sharpness])
def test_a_rise_above_no_number_is_refused(function, loss):
    with pytest.raises(
        ValueError, match=rf"^risk: got a loss of {loss} at theta, expected a finite number: did training"
    ):
        function(Quadratic(torch.diag(H), bottom=loss), torch.zeros(5).double(), 1e-3, generator=seeded())


@pytest.mark.parametrize("bad", [0.0, -1e-3, math.nan, math.inf])
def test_bad_widths_are_refused(bad):
    risk, theta = Quadratic(torch.diag(H)), torch.zeros(5).double()
    with pytest.raises(
        ValueError, match=rf"^epsilon: got {bad}, expected a positive number: give a finite one above 0$"
    ):
        keskar_sharpness(risk, theta, bad, generator=seeded())
    with pytest.raises(ValueError, match=rf"^rho: got {bad}, expected a positive number: give a finite one above 0$"):
        adaptive_sharpness(risk, theta, bad, generator=seeded())


@pytest.mark.parametrize("name", ["starts", "steps"])
def test_bad_counts_are_refused(name):
    with pytest.raises(ValueError, match=rf"^{name}: got 0, expected a positive number: give a finite one above 0$"):
        keskar_sharpness(Quadratic(torch.diag(H)), torch.zeros(5).double(), 1e-3, generator=seeded(), **{name: 0})
