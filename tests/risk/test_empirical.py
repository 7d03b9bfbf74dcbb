import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from hw1.curvature import EmpiricalRisk, GaussNewton, Hessian
from hw1.models import Cnn, Mlp
from hw1.vectors import ParamSpace
from zoo import NAMES, N, images, in_one_piece, ragged

torch.set_num_threads(1)


@pytest.mark.parametrize("name", NAMES)
def test_value_gradient_and_products_are_those_of_torch(name):
    one = zoo.case(name)
    risk, function, theta = one.risk(chunk_size=5), one.function(), one.theta()
    assert torch.equal(risk.theta.double(), theta)
    v = torch.randn(len(theta), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(risk(theta), function(theta), rtol=1e-12, atol=0)
    torch.testing.assert_close(risk.gradient(theta), zoo.gradient(function, theta), rtol=1e-10, atol=1e-13)
    expected = zoo.product(function, theta, v)
    found = risk.hvp(theta, v)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert (risk.hvp(theta, v[:, 0]) - expected[:, 0]).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("keep_graph", [True, False])
def test_theta_may_move_and_come_back(keep_graph):
    net = Mlp((1, 8, 8), 3, hidden=[4], activation="tanh").double()
    x, y = images()
    risk = EmpiricalRisk(net, F.cross_entropy, ragged(x, y), keep_graph=keep_graph)
    function = in_one_piece(net, F.cross_entropy, x, y)
    theta, v = risk.theta, torch.randn(risk.space.size, dtype=torch.float64)
    for move in (0.0, 1.0, 0.0):
        theta += move  # in place: what was kept belongs to the old value
        expected = torch.autograd.functional.vhp(function, theta, v)[1]
        torch.testing.assert_close(risk.hvp(theta, v), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(risk.gradient(theta), torch.func.grad(function)(theta), rtol=1e-9, atol=1e-12)


def test_gauss_newton_is_the_definition_and_not_the_hessian():
    net = Mlp((1, 8, 8), 3, hidden=[4], activation="tanh").double()
    x, y = images()
    risk = EmpiricalRisk(net, F.cross_entropy, ragged(x, y), chunk_size=5)
    theta, space = risk.theta, risk.space
    jacobian = torch.func.jacrev(lambda t: torch.func.functional_call(net, space.unflatten(t), (x,)))(
        theta
    )  # [N, C, P]
    p = net(x).softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # d2 cross-entropy / d logits2, [N, C, C]
    expected = torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian) / N
    eye = torch.eye(space.size, dtype=torch.float64)
    found = risk.gauss_newton_vp(theta, eye)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    one = risk.gauss_newton_vp(theta, eye[:, 1])
    assert (one - expected[:, 1]).abs().max() <= 1e-10 * expected.abs().max()
    assert torch.linalg.eigvalsh(found).min() > -1e-12
    assert torch.linalg.eigvalsh(risk.hvp(theta, eye)).min() < -1e-3


def test_gauss_newton_of_a_linear_network_is_its_hessian():
    net = nn.Linear(4, 2).double()
    x, y = torch.randn(11, 4).double(), torch.randn(11, 2).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)], chunk_size=4)
    v = torch.randn(10).double()
    torch.testing.assert_close(risk.gauss_newton_vp(risk.theta, v), risk.hvp(risk.theta, v))


def test_linear_least_squares_in_closed_form():
    x, y = torch.randn(17, 5).double(), torch.randn(17, 1).double()
    net = nn.Linear(5, 1, bias=False).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x[:8], y[:8]), (x[8:], y[8:])], chunk_size=3)
    theta = torch.randn(5).double()
    torch.testing.assert_close(risk.hvp(theta, torch.eye(5).double()), 2 / 17 * x.T @ x)
    torch.testing.assert_close(risk.gradient(theta), 2 / 17 * x.T @ (x @ theta - y[:, 0]))


@pytest.mark.parametrize("chunk_size", [1, 7, 256])
def test_batches_and_chunks_change_nothing(chunk_size):
    net = Mlp((1, 8, 8), 3, hidden=[4]).double()
    x, y = images()
    one = EmpiricalRisk(net, F.cross_entropy, [(x, y)])
    theta, v = one.theta, torch.randn(one.space.size).double()
    for batches in (ragged(x, y), DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)):
        risk = EmpiricalRisk(net, F.cross_entropy, batches, chunk_size=chunk_size)
        assert risk.size == N
        torch.testing.assert_close(risk(theta), one(theta))
        torch.testing.assert_close(risk.hvp(theta, v), one.hvp(theta, v))


def test_float32_agrees_with_float64_and_follows_theta():
    net = Cnn((1, 8, 8), 3, layers=["c3(3)", "p2", 5], activation="tanh")
    x, y = images()
    risk = EmpiricalRisk(net, F.cross_entropy, ragged(x.float(), y))
    theta = risk.theta
    v = torch.randn_like(theta)
    assert theta.dtype == risk(theta).dtype == risk.hvp(theta, v).dtype == torch.float32
    double = risk.hvp(theta.double(), v.double())
    assert double.dtype == torch.float64
    assert (risk.hvp(theta, v) - double).norm() < 3e-6 * double.norm()
    half = EmpiricalRisk(copy.deepcopy(net).half(), F.cross_entropy, ragged(x, y))
    assert torch.isfinite(half.hvp(theta, v)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_products_on_a_gpu(name):
    risk, theta = zoo.case(name).risk(), zoo.case(name).theta()
    v = torch.randn_like(theta)
    torch.testing.assert_close(risk.hvp(theta.cuda(), v.cuda()).cpu(), risk.hvp(theta, v))


def test_some_layers_alone():
    net = Mlp((1, 8, 8), 3, hidden=[4, 3], activation="tanh").double()
    x, y = images()
    whole = EmpiricalRisk(net, F.cross_entropy, ragged(x, y))
    part = EmpiricalRisk(net, F.cross_entropy, ragged(x, y), ParamSpace.of(net).subset("3", "5.bias"))
    rows = whole.space.positions(part.space)
    hessian = whole.hvp(whole.theta, torch.eye(whole.space.size).double())
    eye = torch.eye(part.space.size).double()
    torch.testing.assert_close(part.theta, whole.theta[rows])
    torch.testing.assert_close(part.hvp(part.theta, eye), hessian[rows][:, rows])
    moved = torch.randn_like(whole.theta)
    for operator in (Hessian(whole, moved), GaussNewton(whole, moved)):
        block = operator.block("3", "5.bias")
        dense = operator.matvec(torch.eye(whole.space.size).double())
        assert (block.size, block.dtype, block.device) == (len(rows), torch.float64, torch.device("cpu"))
        torch.testing.assert_close(block.matvec(eye), dense[rows][:, rows])


def test_a_layer_without_a_vmap_rule_takes_one_vector_after_another():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            return Square.apply(ctx.saved_tensors[0]) * 3 * grad

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            if torch._C._functorch.is_batchedtensor(grad):
                raise RuntimeError("no rule")
            return 2 * x * grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor([1.0, 2.0]).double())

        def forward(self, x):
            return x * Cube.apply(self.a)

    x = torch.ones(3, 2).double()
    risk = EmpiricalRisk(Net(), lambda outputs, y: outputs.sum(1).mean(), [(x, x)])
    expected = torch.diag(6 * risk.theta)  # sum of a^3
    assert torch.equal(risk.hvp(risk.theta, torch.eye(2).double()), expected)
    assert torch.equal(risk.hvp(risk.theta, torch.eye(2).double()), expected)


@pytest.mark.parametrize("loader", [False, True])
def test_the_callers_module_gradients_and_randomness_are_left_alone(loader):
    net = Cnn((1, 8, 8), 3, layers=["c3(4)", "bn", "p2", "drop", 5]).double().train()
    net[-1].eval()  # a mode of its own for one layer
    x, y = images()
    F.cross_entropy(net(x), y).backward()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    modes = [module.training for module in net.modules()]
    randomness = torch.get_rng_state()
    batches = DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True) if loader else ragged(x, y)
    with torch.no_grad():
        risk = EmpiricalRisk(net, F.cross_entropy, batches)
        theta = risk.theta.requires_grad_()
        v = torch.ones_like(theta)
        results = [risk(theta), risk.gradient(theta), risk.hvp(theta, v), risk.gauss_newton_vp(theta, v)]
        assert not torch.is_grad_enabled()
    assert not any(result.requires_grad for result in results)
    assert theta.grad is None
    assert torch.equal(torch.get_rng_state(), randomness)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(net.parameters(), grads, strict=True))
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_under_inference_mode_and_autocast():
    net = Mlp((1, 8, 8), 3, hidden=[4], activation="tanh")
    x, y = images()
    risk = EmpiricalRisk(net, F.cross_entropy, ragged(x, y))
    theta = risk.theta
    v = torch.ones_like(theta)
    expected = risk.hvp(theta, v)
    with torch.inference_mode(), torch.autocast("cpu"):
        torch.testing.assert_close(risk.hvp(theta + 1, v) * 0 + risk.hvp(theta, v), expected)


def test_a_parameter_that_the_loss_does_not_use_has_zero_curvature_said_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x):
            return self.used(x).tanh()

    batches = [(torch.randn(4, 2), torch.randn(4, 1))]
    risk = EmpiricalRisk(Net(), F.mse_loss, batches)
    theta = risk.theta
    message = r"^the loss does not use unused\.weight, unused\.bias: gradient and curvature are zero there"
    with pytest.warns(UserWarning, match=message) as said:
        hessian = risk.hvp(theta, torch.eye(6))
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient = risk.gradient(theta + 1)
        risk.gauss_newton_vp(theta, theta)
    assert (hessian[3:] == 0).all() and (hessian[:, 3:] == 0).all() and (gradient[3:] == 0).all()
    assert (hessian[:3, :3] != 0).any()


# --- bad input: what was got, what was expected, the remedy

NET = Mlp((2,), 1, hidden=[3])
X, Y = torch.randn(7, 2), torch.randn(7, 1)


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.rand(1)


class Coupled(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 1), nn.BatchNorm1d(1, track_running_stats=False))


def with_value(value):
    net = nn.Linear(2, 1)
    nn.init.constant_(net.bias, value)
    return net


class Integers(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 1, dtype=torch.int64), requires_grad=False)


BAD = {
    "empty": (NET, F.mse_loss, [], r"^batches: got no examples, expected at least one: is the loader empty"),
    "empty_loader": (
        NET, F.mse_loss, DataLoader(TensorDataset(X, Y), batch_size=8, drop_last=True), r"^batches: got no examples"
    ),
    "empty_batch": (NET, F.mse_loss, [(X[:0], Y[:0])], r"^batches: got 0 inputs and 0 targets in a batch"),
    "lengths": (NET, F.mse_loss, [(X, Y[1:])], r"^batches: got 7 inputs and 6 targets in a batch, expected as many"),
    "iterator": (NET, F.mse_loss, iter([(X, Y)]), r"^batches: got an iterator, .* expected a list"),
    "no_targets": (NET, F.mse_loss, [(X,)], r"^batches: got a batch of 1 tuple, expected \(inputs, targets\)"),
    "shapes": (NET, F.mse_loss, [(X[:, :1], Y)], r"^batches: got inputs \[7, 1\], targets \[7, 1\], expected shapes"),
    "broadcast": (NET, F.mse_loss, [(X, Y[:, 0])], r"targets \[7\], outputs \[7, 1\], expected shapes and dtypes that"),
    "classes": (NET, F.cross_entropy, [(X, torch.full((7,), 5))], r"^batches: got inputs \[7, 2\], targets \[7\]"),
    "per_example": (NET, nn.MSELoss(reduction="none"), [(X, Y)], r"^loss: got reduction='none', expected 'mean'"),
    "vector": (NET, lambda o, y: o[:, 0], [(X, Y)], r"^loss: got shape \[7\], expected .* shape \[\]"),
    "number": (NET, lambda o, y: 1.0, [(X, Y)], r"^loss: got float, expected a tensor of shape \[\]"),
    "not a sum": (NET, nn.L1Loss(), [(X, Y)], r"^loss: got values whose parts do not add up", {"reduction": "sum"}),
    "not a mean": (NET, lambda o, y: F.mse_loss(o, y).sqrt(), [(X, Y)], r"^loss: got .* as the weighted mean"),
    "wrong_pairs": (NET, lambda o, y: ((o - y) ** 2).mean(), [(X, Y[:, 0])], r"^loss: got .* expected a mean"),
    "infinite": (NET, lambda o, y: (o.abs() + 1).mean() * torch.inf, [(X, Y)], r"^loss: got inf at the module's"),
    "nan": (with_value(torch.nan), F.mse_loss, [(X, Y)], r"^module: got values in bias that are not finite, expected"),
    "integers": (Integers(), F.mse_loss, [(X, Y)], r"^module: got weight of torch\.int64, expected floating point"),
    "no_parameters": (nn.ReLU(), F.mse_loss, [(X, Y)], r"^module: got no parameters, expected at least one"),
    "noise": (Noisy(2, 1), F.mse_loss, [(X, Y)], r"^module: got other outputs for the same inputs, expected a determ"),
    "coupled": (Coupled(), F.mse_loss, [(X, Y)], r"^module: got other outputs for an example when others left its ba"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    net, loss, batches, message, *options = BAD[case]
    with pytest.raises(ValueError, match=message):
        EmpiricalRisk(net, loss, batches, **(options[0] if options else {}))


WEIGHTS = torch.tensor([1.0, 5.0, 0.1])


def test_class_weights_that_nobody_states_are_refused_wherever_they_show():
    torch.manual_seed(0)
    net = Mlp((2,), 3, hidden=[3], activation="tanh")
    x, y = torch.randn(24, 2), torch.arange(3).repeat_interleave(8)  # ordered by class

    def weighted(outputs, targets):
        return F.cross_entropy(outputs, targets, weight=WEIGHTS)

    for size in (1, 8, 24):  # halves of a batch have one class, or nothing to be cut
        with pytest.raises(ValueError, match=r"^loss: got .* say with count=f\(batch\) what a batch weighs"):
            EmpiricalRisk(net, weighted, list(zip(x.split(size), y.split(size), strict=True)))
    risk = EmpiricalRisk(net, nn.CrossEntropyLoss(WEIGHTS), list(zip(x.split(8), y.split(8), strict=True)))
    assert risk(risk.theta).item() == pytest.approx(weighted(net(x), y).item(), rel=1e-6)


def test_sums_are_sums():
    one = zoo.case("relu")
    function = zoo.in_one_piece(one.net, nn.MSELoss(reduction="sum"), one.x, one.y)
    theta = one.theta()
    stated = EmpiricalRisk(one.net, nn.MSELoss(reduction="sum"), ragged(one.x, one.y), chunk_size=3)
    with pytest.warns(UserWarning, match="^loss: its values add up, so R is taken as the sum over all examples"):
        found = EmpiricalRisk(one.net, lambda o, y: (o - y).square().sum(), ragged(one.x, one.y))
    v = torch.ones_like(theta)
    for risk in (stated, found):
        assert risk.reduction == "sum" and "sum over 23 examples" in repr(risk)
        torch.testing.assert_close(risk(theta), function(theta))
        torch.testing.assert_close(risk.gradient(theta), zoo.gradient(function, theta))
        torch.testing.assert_close(risk.hvp(theta, v), zoo.hessian(function, theta) @ v)
        torch.testing.assert_close(risk.gauss_newton_vp(theta, v), 23 * one.risk().gauss_newton_vp(theta, v))
        assert risk.metrics(theta).item() == pytest.approx(function(theta).item(), rel=1e-5)


def test_a_bad_space_is_refused():
    with pytest.raises(ValueError, match=r"^space: got weight, bias, expected names among 1\.weight, 1\.bias"):
        EmpiricalRisk(NET, F.mse_loss, [(X, Y)], ParamSpace.of(nn.Linear(2, 1)))
    with pytest.raises(ValueError, match=r"^networks of different shape: one has 1\.weight \[3, 2\]"):
        EmpiricalRisk(NET, F.mse_loss, [(X, Y)], ParamSpace.of(Mlp((2,), 1, hidden=[4])))
    with pytest.raises(ValueError, match=r"^chunk_size: got 0, expected a positive integer"):
        EmpiricalRisk(NET, F.mse_loss, [(X, Y)], chunk_size=0)


def test_bad_vectors_are_refused():
    risk = EmpiricalRisk(NET, F.mse_loss, [(X, Y)])
    theta = risk.theta
    for bad in (theta[1:], theta[None].repeat(2, 1)):
        for call in (risk, risk.gradient, lambda t: risk.hvp(t, theta), lambda t: Hessian(risk, t)):
            with pytest.raises(
                ValueError, match=r"^theta: got shape \[.*\], expected \[.*13\]: begin with risk\.theta$"
            ):
                call(bad)
    bad = theta.clone()
    bad[:3] = torch.nan
    with pytest.raises(
        ValueError, match=r"^theta: got 3 of 13 values that are not finite, expected none of them: did training"
    ):
        risk.hvp(bad, theta)
    with pytest.raises(ValueError, match=r"^theta: got torch\.float16, expected float32 or float64: convert it with"):
        risk(theta.half())
    with pytest.raises(
        ValueError, match=r"^v: got shape \[12\], expected \[13\] or \[13, k\]: flatten named tensors with"
    ):
        risk.hvp(theta, theta[1:])
    with pytest.raises(ValueError, match=r"^v: got torch\.float64 on cpu, expected theta's torch\.float32 on cpu: use"):
        risk.hvp(theta, theta.double())


class Augmented(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + torch.rand(()), y


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Augmented(X, Y), batch_size=3),
        DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True, drop_last=True),
    ],
)
def test_other_examples_on_another_pass_are_refused(loader):
    torch.manual_seed(0)
    risk = EmpiricalRisk(NET, F.mse_loss, loader)
    torch.manual_seed(1)
    with pytest.raises(ValueError, match=r"^batches: got other examples on another pass \(\d after \d\), expected the"):
        for _ in range(3):  # the one example that drop_last leaves out may be the same by chance
            risk.gradient(risk.theta)


def test_a_loader_that_shuffles_by_itself_is_left_as_it_was():
    own = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True, generator=own)
    before = own.get_state()
    risk = EmpiricalRisk(NET, F.mse_loss, loader)
    gradients = [risk.gradient(risk.theta) for _ in range(3)]
    for gradient in gradients:
        torch.testing.assert_close(gradient, gradients[0])
    assert torch.equal(own.get_state(), before)


def test_an_operator_stays_at_its_point():
    risk = EmpiricalRisk(NET, F.mse_loss, [(X, Y)])
    theta = risk.theta
    operator = Hessian(risk, theta)
    expected = operator.matvec(theta)
    theta += 1  # the caller trains on
    torch.testing.assert_close(operator.matvec(operator.theta), expected)
