import math

import pytest
import torch
from torch import nn

from hw1.landscape import barrier, evaluate, segment
from hw1.models import Cnn, Mlp
from hw1.vectors import ParamSpace


def theta(net):
    return torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()])


def bits(vector):
    return vector.view(torch.int32 if vector.dtype == torch.float32 else torch.int64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_the_networks_to_the_bit(dtype):
    a, b = (Cnn((1, 8, 8), 3, layers=["c3(4)", "p2", 5]).to(dtype) for _ in range(2))
    with torch.no_grad():
        a[0].bias[0], b[0].bias[0] = -0.0, 1.0
        a[0].bias[1], b[0].bias[1] = 3.0, -0.0
        a[0].bias[2], b[0].bias[2] = 1e-30, 1e30
    start, end = segment(a, b, [0, 1])
    assert torch.equal(bits(start), bits(theta(a))) and torch.equal(bits(end), bits(theta(b)))
    start, end = segment(a, b, [0.0, 1.0])
    assert torch.equal(bits(start), bits(theta(a))) and torch.equal(bits(end), bits(theta(b)))


def test_a_diverged_network_does_not_reach_the_other_end():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        b.weight[0, 0] = float("inf")
    start, middle, end = segment(a, b, [0, 0.5, 1])
    assert torch.equal(start, theta(a)) and torch.equal(end, theta(b))
    assert not middle.isfinite().all()


def test_points_between_and_beyond_are_the_formula():
    a, b = (Mlp((3,), 2, hidden=[4, 5]).double() for _ in range(2))
    alphas = [-1.0, -0.3, 0.25, 0.5, 1.7, 2.0]
    one, two = theta(a), theta(b)
    for alpha, point in zip(alphas, segment(a, b, alphas), strict=True):
        torch.testing.assert_close(point, one + alpha * (two - one), rtol=1e-14, atol=1e-14)
        assert not point.requires_grad


def test_other_architectures_are_refused_before_the_first_point():
    with pytest.raises(
        ValueError, match=r"^networks of different shape: one has 1\.weight \[4, 3\], the other 1\.weigh"
    ):
        segment(Mlp((3,), 2, hidden=[4]), Mlp((3,), 2, hidden=[5]), [0.5])
    with pytest.raises(ValueError, match=r"^networks of different shape: .* no 1\.bias$"):
        segment(nn.Sequential(nn.Tanh(), nn.Linear(3, 2)), nn.Sequential(nn.Tanh(), nn.Linear(3, 2, bias=False)), [0.5])


def test_points_come_one_at_a_time_and_do_not_follow_later_changes():
    a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(a.weight, 1.0), nn.init.constant_(b.weight, 3.0)
    points = segment(a, b, [0, 1])
    first = next(points)
    first.zero_()
    assert a.weight.item() == 1.0 and next(points).item() == 3.0


def test_evaluate_keeps_the_order_and_the_shape():
    points = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])]
    assert evaluate(lambda t: t.sum(), points).tolist() == [3.0, 2.0]
    assert evaluate(lambda t: torch.stack([t.min(), t.max()]), iter(points)).tolist() == [[1.0, 2.0], [-1.0, 3.0]]


def test_the_loss_along_a_line_of_a_linear_model_is_its_parabola():
    net = nn.Linear(3, 1, bias=False).double()
    other = nn.Linear(3, 1, bias=False).double()
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    space = ParamSpace.of(net)

    def risk(point):
        return nn.functional.mse_loss(torch.func.functional_call(net, space.unflatten(point), (x,)), y)

    alphas = [-1, 0, 0.5, 1, 2]
    residual, change = (x @ net.weight.T - y).detach(), (x @ (other.weight - net.weight).T).detach()
    expected = [float((residual + alpha * change).square().mean()) for alpha in alphas]
    found = evaluate(risk, segment(net, other, alphas)).tolist()
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("alphas", "losses", "height"),
    [
        ([0, 1], [1.0, 2.0], 0.0),
        ([0, 0.5, 1], [1.0, 1.0, 1.0], 0.0),
        ([0, 0.5, 1], [1.0, 0.2, 1.0], 0.0),  # a valley is no barrier
        ([0, 0.5, 1], [1.0, 4.0, 1.0], 3.0),
        ([0, 0.5, 1], [1.0, 4.0, 2.0], 2.5),  # the chord, not the higher end
        ([0, 0.25, 1], [0.0, 2.0, 4.0], 1.0),
        ([0, 0.75, 1], [4.0, 2.0, 0.0], 1.0),
        ([-1, 0, 0.5, 1, 2], [90.0, 1.0, 2.0, 1.0, 80.0], 1.0),  # outside [0, 1] nothing counts
        ([2, 1, 0.5, 0, -1], [80.0, 1.0, 2.0, 1.0, 90.0], 1.0),  # in any order
        ([0, 0.5, 1], [1.0, math.inf, 1.0], math.inf),
    ],
)
def test_barriers_of_curves_drawn_by_hand(alphas, losses, height):
    assert barrier(alphas, losses) == pytest.approx(height, abs=1e-15)


def test_the_grid_of_the_study_has_its_ends_in_spite_of_rounding():
    alphas = [-1 + i * 0.1 for i in range(31)]  # 0.1 adds up to 1.1102230246251565e-16 and the like
    assert barrier(alphas, [abs(alpha - 0.5) for alpha in alphas]) == 0
    assert barrier(alphas, [0.25 - (alpha - 0.5) ** 2 for alpha in alphas]) == pytest.approx(0.25)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_loss_that_is_no_number_makes_no_barrier(at):
    losses = [1.0, 2.0, 1.0]
    losses[at] = math.nan
    assert math.isnan(barrier([0, 0.5, 1], losses))


def test_nan_outside_the_segment_does_not_matter():
    assert barrier([-1, 0, 0.5, 1, 2], [math.nan, 1.0, 2.0, 1.0, math.nan]) == 1.0


@pytest.mark.parametrize("alphas", [[0.0, 0.5], [0.5, 1.0], [0.01, 1.0], []])
def test_without_both_ends_there_is_no_chord(alphas):
    with pytest.raises(ValueError, match=r"^alphas: got \[.*\], expected 0 and 1 among them"):
        barrier(alphas, [1.0] * len(alphas))
