import math

import pytest
import torch
import torch.nn.functional as F

from hw1.curvature import EmpiricalRisk, minimal_ratio
from hw1.curvature.critical import constant_predictor, find_critical_point, find_critical_points
from hw1.models import Mlp
from hw1.risk.many import FunctionRisk
from hw1.vectors import ParamSpace

torch.set_num_threads(1)
METHODS = ["levenberg_marquardt", "newton"]


def doubles(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def sine_net():
    """The risk of tanh 1-4-1 on sin 3x as a function of theta, and a module to hold it."""
    net = Mlp((1,), 1, hidden=[4], activation="tanh").double()
    space = ParamSpace.of(net)
    x = torch.linspace(-1, 1, 16).double()[:, None]

    def f(theta):
        return F.mse_loss(torch.func.functional_call(net, space.unflatten(theta), (x,)), torch.sin(3 * x))

    return f, space.size


@pytest.mark.parametrize("method", METHODS)
def test_the_origin_of_w1_w2_minus_1_squared_has_index_one_half(method):
    def f(w):
        return (w[0] * w[1] - 1) ** 2

    found = find_critical_points(FunctionRisk(f, 2), doubles([0.1, -0.2], [0.05, 0.1]), method=method)
    assert found.reason == ("converged", "converged") and found.theta.abs().max() < 1e-6
    for theta in found.theta:
        assert minimal_ratio(torch.linalg.eigvalsh(torch.autograd.functional.hessian(f, theta))).negative == 0.5


def test_one_newton_step_solves_a_quadratic_with_an_indefinite_hessian():
    matrix, center = doubles([2, 1, 0], [1, -3, 0.5], [0, 0.5, 1]), doubles(1, -2, 0.5)

    def f(x):
        return 0.5 * (x - center) @ matrix @ (x - center)

    found = find_critical_points(FunctionRisk(f, 3), doubles([3, 3, 3]), method="newton", iterations=1, max_step=100.0)
    assert found.reason == ("converged",) and found.iterations.tolist() == [1]
    torch.testing.assert_close(found.theta[0], center)


@pytest.mark.parametrize("method", METHODS)
def test_the_minimum_of_rosenbrock(method):
    banana = FunctionRisk(lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2, 2)
    found = find_critical_points(banana, doubles([1.3, 1.5]), method=method)  # the start of More, Garbow & Hillstrom
    assert found.reason == ("converged",)
    torch.testing.assert_close(found.theta[0], doubles(1, 1))


@pytest.mark.parametrize("method", METHODS)
def test_found_points_have_no_gradient_by_autograd(method):
    f, size = sine_net()
    starts = torch.randn(20, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = find_critical_points(FunctionRisk(f, size), starts, method=method, iterations=200)
    assert found.reason.count("converged") >= 5
    for r, reason in enumerate(found.reason):
        gradient = torch.autograd.functional.jacobian(f, found.theta[r])
        assert bool(gradient.norm() < 1e-6) == (reason == "converged")
        assert found.gradient_norm[r].item() == pytest.approx(gradient.norm().item(), rel=1e-6, abs=1e-14)
        assert found.loss[r].item() == pytest.approx(f(found.theta[r]).item())


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_in_the_kernel_of_the_hessian_is_flat(method):
    found = find_critical_points(FunctionRisk(lambda x: x[0] + x[1] ** 2, 2), doubles([0.3, 0.1]), method=method)
    assert found.reason == ("flat",) and found.gradient_flatness.item() < 1e-3
    assert found.gradient_norm.item() == pytest.approx(1)


def test_a_flat_place_on_the_way_does_not_end_a_search():
    # Both gradients lie along the soft direction, |Hg| / (|H| |g|) = 1e-4, and one step leads to the minimum.
    valley = FunctionRisk(lambda x: 0.5 * (x[0] ** 2 + 1e-4 * x[1] ** 2), 2)
    found = find_critical_points(valley, doubles([0, 2]), method="newton", max_step=10.0)
    assert found.reason == ("converged",) and found.gradient_flatness.item() == pytest.approx(1e-4)


def test_a_kink_stalls():
    kink = FunctionRisk(lambda x: x.abs().sum() + 0.5 * x.square().sum(), 1)
    found = find_critical_points(kink, doubles([0.3]))
    assert found.reason == ("stalled",) and found.gradient_norm.item() > 0.9


def test_a_step_to_where_the_gradient_is_no_number_is_not_taken():
    # The root's gradient is not defined at x < 0, where the first steps of both methods lead.
    root = FunctionRisk(lambda x: (x.sqrt() + x).sum(), 1)
    for method in METHODS:
        found = find_critical_points(root, doubles([1e-3]), method=method, iterations=30)
        assert found.theta.item() > 0 and found.gradient_norm.isfinite().all() and found.reason != ("converged",)


def test_the_last_iteration_ends_a_search():
    f, size = sine_net()
    found = find_critical_points(
        FunctionRisk(f, size), torch.ones(1, size) * 0.5 + torch.arange(size) / 7, iterations=1
    )
    assert found.reason == ("not converged",) and found.iterations.tolist() == [1]


def test_a_start_that_is_critical_stays():
    found = find_critical_points(FunctionRisk(lambda x: x.square().sum(), 2), doubles([0, 0]))
    assert found.reason == ("converged",) and found.iterations.tolist() == [0] and found.gradient_flatness.isnan().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_search_does_not_depend_on_its_neighbours(method):
    def f(x):  # converges, leaves the batch, wanders: by start
        return (x[0] * x[1] - 1) ** 2 + torch.cos(x[2]) + 0.1 * x[0] ** 3

    starts = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = find_critical_points(FunctionRisk(f, 3), starts, method=method, iterations=40)
    assert len(set(together.iterations.tolist())) > 2
    for r in range(9):
        alone = find_critical_points(FunctionRisk(f, 3), starts[r : r + 1], method=method, iterations=40)[0]
        assert torch.equal(alone.theta, together.theta[r])
        assert (alone.reason, alone.iterations) == (together.reason[r], together.iterations[r])


def test_one_start_of_a_risk():
    x, y = torch.rand(9, 2).double(), torch.rand(9, 1).double()
    net = torch.nn.Linear(2, 1, bias=False).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    found = find_critical_point(risk, risk.theta, "newton")
    assert found.reason == "converged"
    torch.testing.assert_close(found.theta, torch.linalg.lstsq(x, y).solution[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_constant_predictor_is_told_by_its_outputs(scale):
    net = Mlp((1,), 1, hidden=[5, 4]).double()
    alive = Mlp((1,), 1, hidden=[5, 4], activation="tanh").double()
    x = torch.linspace(-1, 1, 50).double()[:, None]
    y = scale * torch.sin(3 * x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(-0.1)  # every ReLU of the last hidden layer is off
        net[-1].bias.fill_(y.mean() + 0.3 * scale)  # not even the best constant
        alive[-1].weight *= 1e-6
        outputs = torch.stack([net(x), alive(x), y.var() * torch.ones_like(x)])
    assert constant_predictor(outputs).tolist() == [True, False, True]
    assert constant_predictor(outputs, relative=1e-3).tolist() == [True, True, True]


def test_bad_input_is_refused():
    bowl = FunctionRisk(lambda x: x.square().sum(), 2)
    with pytest.raises(ValueError, match=r"^starts: got shape \[2\], expected \[R, 2\] with R >= 1 points$"):
        find_critical_points(bowl, torch.zeros(2))
    with pytest.raises(ValueError, match=r"^starts: got 1 of 2 points that are not finite: leave out"):
        find_critical_points(bowl, torch.tensor([[0, 1], [math.nan, 0]]))
    with pytest.raises(ValueError, match=r"^method: got 'lm', expected levenberg_marquardt or newton$"):
        find_critical_points(bowl, torch.zeros(1, 2), method="lm")
    for name, value in (("iterations", 0), ("tolerance", 0.0), ("max_step", -1.0), ("gradient_flatness", 1.0)):
        with pytest.raises(ValueError, match=rf"^{name}: got {value}, expected"):
            find_critical_points(bowl, torch.zeros(1, 2), **{name: value})
    with pytest.raises(ValueError, match=r"^outputs: got shape \[3, 1\], expected \[R, N, C\]"):
        constant_predictor(torch.zeros(3, 1))
