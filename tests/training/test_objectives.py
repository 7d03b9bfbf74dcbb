import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.nn.utils.parametrizations import weight_norm

from hw1.callbacks import GradientNorm
from hw1.data import Function
from hw1.models import Cnn, Mlp, Rnn, side_by_side
from hw1.training import Task
from hw1.training.objectives import member_losses, squared_gradient_norms
from tiny_fit import Lines, tiny_fit

EXAMPLES = Function("sin_2", [-1, 1], points=30, noise=0.0, noise_seed=0, test_points=10)
NETS = {
    "mlp": (lambda: Mlp((1, 6, 6), 3, hidden=[5], activation="tanh"), F.cross_entropy),
    "cnn": (lambda: Cnn((1, 6, 6), 3, layers=["c3(2)", "p2"], activation="tanh"), F.cross_entropy),
    "rnn": (lambda: Rnn((1, 6, 6), 3, hidden=4), F.cross_entropy),
    "regression": (lambda: Mlp((1, 6, 6), 2, hidden=[4, 4]), F.mse_loss),
}


def batch(loss, members=()):
    x = torch.randn(*members, 7, 1, 6, 6, dtype=torch.float64)
    y = torch.randn(*members, 7, 2).double() if loss is F.mse_loss else torch.randint(3, (*members, 7))
    return x, y


def test_member_losses_are_those_of_the_members():
    for make, loss in NETS.values():
        nets = [make().double() for _ in range(3)]
        together = side_by_side(nets)
        x, y = batch(loss, (3,))
        own = [loss(net(a), b).item() for net, a, b in zip(nets, x, y, strict=True)]
        assert member_losses(together, loss, together(x), y).tolist() == pytest.approx(own, rel=1e-12)
        shared = [loss(net(x[0]), y[0]).item() for net in nets]
        assert member_losses(together, loss, together(x[:1]), y[:1]).tolist() == pytest.approx(shared, rel=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_of_the_squared_norm_is_twice_hessian_times_gradient(name):
    """d|g|^2 / d theta = 2 H g, with the dense Hessian of torch.autograd.functional."""
    make, loss = NETS[name]
    net = make().double()
    x, y = batch(loss)
    named = {key: value.detach() for key, value in net.named_parameters()}
    sizes = [value.numel() for value in named.values()]

    def value(theta):
        parts = [part.view(own.shape) for part, own in zip(theta.split(sizes), named.values(), strict=True)]
        return loss(torch.func.functional_call(net, dict(zip(named, parts, strict=True)), (x,)), y)

    theta = torch.cat([value.flatten() for value in named.values()])
    gradient = torch.autograd.functional.jacobian(value, theta)
    expected = 2 * torch.autograd.functional.hessian(value, theta) @ gradient
    squares = squared_gradient_norms(net, member_losses(net, loss, net(x), y))
    assert squares.sum().item() == pytest.approx(gradient.square().sum().item(), rel=1e-12)
    squares.sum().backward()
    found = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert (found - expected).norm() < 1e-10 * expected.norm()


def test_members_have_squared_norms_of_their_own():
    for make, loss in NETS.values():
        nets = [make().double() for _ in range(2)]
        x, y = batch(loss)
        alone = [squared_gradient_norms(net, loss(net(x), y).reshape(1))[0] for net in nets]
        together = side_by_side(nets)
        losses = member_losses(together, loss, together(x[None]), y[None])
        torch.testing.assert_close(squared_gradient_norms(together, losses), torch.stack(alone), rtol=1e-10, atol=1e-15)


def test_a_parameter_that_the_loss_does_not_use_has_norm_zero():
    net = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    squares = squared_gradient_norms(net, net["used"](torch.tensor([[3.0, 4.0]])).sum().reshape(1))
    assert squares.tolist() == [[25.0, 1.0, 0.0, 0.0]]


def test_the_ordinary_task_lowers_the_gradient_norm_after_n_epochs(tmp_path):
    """Until epoch 30 training is as without the switch, bit for bit; afterwards the gradient norm falls."""
    torch.manual_seed(0)
    start = Mlp((1,), 1, hidden=[8], activation="tanh").double()
    lines, nets = {}, {}
    for after in (30, 130):
        lines[after], nets[after] = Lines(), copy.deepcopy(start)
        tiny_fit(
            nets[after], EXAMPLES, tmp_path / str(after), [GradientNorm(every_n_steps=1, per_layer=False)],
            logger=lines[after], epochs=130, data={"batch_size": None}, precision="64-true",
            optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-3),
            task={"objective": "squared_gradient_norm", "objective_after": after},
        )  # fmt: skip
    norms = {after: lines[after].of("gradient_norm") for after in lines}
    assert [norms[30][step] for step in range(31)] == [norms[130][step] for step in range(31)]
    assert norms[30][129] < 0.5 * norms[30][30] and norms[30][129] < norms[130][129]
    x, y = (tensor.double() for tensor in (EXAMPLES.load().train_x, EXAMPLES.load().train_y))
    gradient = torch.autograd.grad(F.mse_loss(nets[30](x), y), list(nets[30].parameters()))
    end = torch.cat([part.flatten() for part in gradient]).norm().item()
    assert end == pytest.approx(norms[30][129], rel=0.2)  # what is logged is the loss's gradient, one step earlier


def test_a_step_through_weight_normalisation(tmp_path):
    """Torch's own second derivative takes |v| for a constant; the oracle is a difference of first derivatives."""
    torch.manual_seed(0)
    net = nn.Sequential(weight_norm(nn.Linear(1, 5)), nn.Tanh(), nn.Linear(5, 1)).double()
    x, y = (tensor.double() for tensor in (EXAMPLES.load().train_x, EXAMPLES.load().train_y))
    start = parameters_to_vector(net.parameters()).detach()

    def gradient(theta):
        there = copy.deepcopy(net)
        vector_to_parameters(theta, there.parameters())
        return parameters_to_vector(torch.autograd.grad(F.mse_loss(there(x), y), list(there.parameters())))

    slope = gradient(start)
    expected = (gradient(start + 1e-5 * slope) - gradient(start - 1e-5 * slope)) / 1e-5  # 2 H g
    tiny_fit(
        net, EXAMPLES, tmp_path, data={"batch_size": None}, precision="64-true",
        optimizer=lambda parameters: torch.optim.SGD(parameters, 1.0), task={"objective": "squared_gradient_norm"},
    )  # fmt: skip
    step = parameters_to_vector(net.parameters()).detach() - start
    assert (step + expected).norm() < 1e-7 * expected.norm()


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match=r"^objective: got 'loss2', expected loss or squared_gradient_norm$"):
        Task(nn.Linear(1, 1), F.mse_loss, torch.optim.Adam, objective="loss2")
