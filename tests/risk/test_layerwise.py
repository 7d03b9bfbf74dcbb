import copy
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrize import register_parametrization
from torch.utils.data import DataLoader, TensorDataset

import zoo
from hw1.curvature import EmpiricalRisk, dense_hessian, spectrum
from hw1.models import Cnn, Mlp
from hw1.risk import layerwise
from hw1.risk.agreement import Schedule
from hw1.risk.layerwise import LayerwiseRisk
from hw1.risk.many import OneByOne, batched
from zoo import CHAINS, N, in_one_piece

torch.set_num_threads(1)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("where", ["random", "trained"])
def test_against_autograd(name, where):
    one = zoo.case(name) if where == "random" else zoo.trained(zoo.case(name))
    net, x, function, risk = one.net, one.x, one.function(), one.risk()
    many = LayerwiseRisk.of(risk)
    assert many is not None and many.size == risk.space.size
    theta = risk.theta  # float32 where the network is: taken in float64 all the same
    found, expected = many.hessian(theta), zoo.hessian(function, theta.double())
    assert found.dtype == torch.float64 and torch.equal(found, found.T)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert torch.equal(dense_hessian(risk, theta), found)
    gradient = torch.autograd.functional.jacobian(function, theta.double())
    torch.testing.assert_close(many(theta), function(theta.double()), rtol=1e-12, atol=0)
    torch.testing.assert_close(many.gradient(theta), gradient, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(many.outputs(theta), copy.deepcopy(net).double().eval()(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 2000, None])
def test_members_together_are_members_alone(chunk, monkeypatch):
    if chunk is not None:  # a few examples, members and rows at a time
        monkeypatch.setattr(layerwise, "CHUNK", chunk)
        monkeypatch.setattr(layerwise, "FEWEST", 5)
        monkeypatch.setattr(layerwise, "TILE", 7)
    one = zoo.case("tanh")
    many, function = LayerwiseRisk.of(one.risk()), one.function()
    members = torch.randn(4, many.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values, gradients, hessians, outputs = (
        many(members),
        many.gradient(members),
        many.hessian(members),
        many.outputs(members),
    )
    assert (values.shape, gradients.shape, outputs.shape) == ((4,), members.shape, (4, N, 3))
    assert torch.equal(hessians, hessians.mT)
    for member, value, gradient, hessian, own in zip(members, values, gradients, hessians, outputs, strict=True):
        expected = torch.autograd.functional.hessian(function, member)
        assert (hessian - expected).abs().max() <= 1e-10 * expected.abs().max()
        torch.testing.assert_close(value, function(member), rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(function, member))
        torch.testing.assert_close(own, many.outputs(member))
    assert many.hessian(members[:0]).shape == (0, many.size, many.size) and many(members[:0]).shape == (0,)


def test_the_net_of_571_parameters():
    torch.manual_seed(0)
    net = Mlp((1,), 1, hidden=[5, 10, 10, 10, 10, 10, 5]).double()
    x = torch.linspace(-1, 1, 100).double()[:, None]
    y = torch.sinc(5 * x)
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    assert LayerwiseRisk.of(risk) is LayerwiseRisk.of(risk)  # recognised once
    expected = torch.autograd.functional.hessian(in_one_piece(net, F.mse_loss, x, y), risk.theta)
    assert (dense_hessian(risk, risk.theta) - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_dead_net_has_one_eigenvalue_and_it_is_2():
    net = Mlp((1,), 1, hidden=[5, 10, 10]).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(-0.1)  # every ReLU is off
    x, y = torch.rand(50, 1).double(), torch.randn(50, 1).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    assert LayerwiseRisk.of(risk) is not None
    values = spectrum(dense_hessian(risk, risk.theta[None]))[0]
    assert values[-1].item() == pytest.approx(2, abs=1e-12) and (values[:-1] == 0).all()


def test_least_squares_in_closed_form():
    torch.manual_seed(0)
    x, y = torch.randn(17, 30).double(), torch.randn(17, 2).double()
    risk = EmpiricalRisk(nn.Linear(30, 2, bias=False).double(), F.mse_loss, [(x, y)])
    gram = x.T @ x / 17  # a mean over 17 * 2 squares, and a factor of 2
    torch.testing.assert_close(LayerwiseRisk.of(risk).hessian(risk.theta), torch.block_diag(gram, gram))


def test_a_loader_float32_examples_and_a_callers_switches():
    one = zoo.case("dropout")
    net, loss, x, y = one.net, one.loss, one.x, one.y
    loader = DataLoader(TensorDataset(x.float(), y), batch_size=5, shuffle=True)
    randomness, mode = torch.get_rng_state(), net.training
    with torch.inference_mode(), torch.autocast("cpu"):
        risk = EmpiricalRisk(net, loss, loader)
        many, theta = LayerwiseRisk.of(risk), risk.theta
        found, gradient = many.hessian(theta), many.gradient(theta)
    assert torch.equal(torch.get_rng_state(), randomness) and net.training == mode
    function = in_one_piece(net, loss, x.float(), y)
    expected = torch.autograd.functional.hessian(function, risk.theta.double())
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    torch.testing.assert_close(gradient, many.gradient(risk.theta))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    risk = zoo.case("mixed").risk()
    found = LayerwiseRisk.of(risk).hessian(risk.theta.cuda())
    torch.testing.assert_close(found.cpu(), LayerwiseRisk.of(risk).hessian(risk.theta))


# --- what is something else is left to the general routine


class Doubled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


class Residual(nn.Sequential):
    def forward(self, x):
        return x[:, :1] + super().forward(x)  # not seen where the last layer is zero


class Stopped(nn.Sequential):
    def forward(self, x):
        hidden = self[1](self[0](x))
        return self[2](hidden.detach())  # the same value, another gradient


class Clipped(nn.Sequential):
    def forward(self, x):
        return super().forward(x).clamp(-5, 5)  # the same function at small theta


class Backwards(nn.Sequential):
    def __iter__(self):
        return reversed(list(super().__iter__()))


class Called(nn.Sequential):
    def __call__(self, x):
        return super().__call__(x).clamp(-5, 5)


class Mixed(Mlp, Clipped):
    """Mlp's forward calls the next one."""


class Transposed(nn.Linear):
    @property
    def weight(self):
        return super().__getattr__("weight").clamp(-1, 1)


class Scaled(nn.Linear):
    def forward(self, x):
        return super().forward(x) * self.weight.norm()


def plain():
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def with_forward_of_its_own():
    net = plain()
    net.forward = types.MethodType(lambda self, x: nn.Sequential.forward(self, x).clamp(-5, 5), net)
    return net


def with_hook(register, hook, part=None):
    net = plain()
    getattr(net if part is None else net[part], register)(hook)
    return net


def tied():
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.Linear(2, 1))
    net[2].weight = net[0].weight
    return net


def twice():
    shared = nn.Linear(2, 2)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(2, 1))


def flat_at_first(kind):
    net = kind(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    return net


OTHERS = {
    "forward": lambda: Doubled(nn.Linear(2, 1)),
    "residual": lambda: flat_at_first(Residual),
    "linear_of_its_own": lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), Scaled(3, 1)),
    "hook": lambda: with_hook("register_forward_hook", lambda module, x, outputs: outputs + 1, 0),
    "tied": tied,
    "twice": twice,
    "parametrized": lambda: register_parametrization(nn.Linear(2, 1), "weight", nn.Tanh()),
    "layer_norm": lambda: nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 1)),
    "norm_without_parameters": lambda: nn.Sequential(
        nn.Linear(2, 3), nn.LayerNorm(3, elementwise_affine=False), nn.Linear(3, 1)
    ),
    "softmax": lambda: nn.Sequential(nn.Linear(2, 3), nn.Softmax(1), nn.Linear(3, 1)),
    "clipped": lambda: Clipped(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)),
    "called": lambda: Called(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)),
    "backwards": lambda: Backwards(nn.Linear(3, 1), nn.Tanh(), nn.Linear(2, 3)),
    "mixed_in": lambda: Mixed((2,), 1, hidden=[3], activation="tanh"),
    "inside": lambda: nn.Sequential(nn.Linear(2, 3), Clipped(nn.Tanh(), nn.Linear(3, 1))),
    "property": lambda: nn.Sequential(Transposed(2, 3), nn.Tanh(), nn.Linear(3, 1)),
    "own_forward": with_forward_of_its_own,
    "clipping_hook": lambda: with_hook("register_forward_hook", lambda module, x, outputs: outputs.clamp(-5, 5)),
    "clipping_pre_hook": lambda: with_hook("register_forward_pre_hook", lambda module, x: (x[0].clamp(-1, 1),), 2),
    "backward_hook": lambda: with_hook("register_full_backward_hook", lambda module, own, grads: None, 2),
    "learnt_slope": lambda: nn.Sequential(nn.Linear(2, 3), nn.PReLU(), nn.Linear(3, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_function_is_not_misread(name):
    torch.manual_seed(0)
    net, x, y = OTHERS[name](), torch.randn(N, 2).double(), torch.randn(N, 1).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    assert LayerwiseRisk.of(risk) is None
    expected = torch.autograd.functional.hessian(in_one_piece(net, F.mse_loss, x, y), risk.theta.double())
    assert (dense_hessian(risk, risk.theta) - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", ["clipped", "called", "mixed_in", "inside", "own_forward", "clipping_hook"])
def test_nor_where_it_differs_at_large_weights_alone(name):
    torch.manual_seed(0)
    net, x, y = OTHERS[name](), torch.randn(N, 2).double(), torch.randn(N, 1).double()
    risk, straight = EmpiricalRisk(net, F.mse_loss, [(x, y)]), in_one_piece(plain(), F.mse_loss, x, y)
    function, far = in_one_piece(net, F.mse_loss, x, y), 30 * risk.theta.double()
    expected = zoo.hessian(function, far)
    assert abs(expected.trace() - zoo.hessian(straight, far).trace()) > 1  # it does differ there
    assert (dense_hessian(risk, far) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert batched(risk)(far[None]).item() == pytest.approx(function(far).item(), rel=1e-12)


def test_hooks_on_all_modules_are_noticed_when_they_come_and_go():
    risk = EmpiricalRisk(plain(), F.mse_loss, [(torch.randn(5, 2), torch.randn(5, 1))])
    assert LayerwiseRisk.of(risk) is not None
    handle = nn.modules.module.register_module_forward_hook(lambda module, x, outputs: outputs)
    try:
        assert LayerwiseRisk.of(risk) is None
    finally:
        handle.remove()
    assert LayerwiseRisk.of(risk) is not None


class Named(Mlp):
    def __init__(self):
        super().__init__((2,), 1, hidden=[3], activation="tanh")

    def reset(self):
        pass


class OwnLinear(nn.Linear):
    def reset_parameters(self):
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)


@pytest.mark.parametrize("make", [Named, lambda: nn.Sequential(OwnLinear(2, 3), nn.Tanh(), nn.Linear(3, 1))])
def test_classes_that_leave_calls_alone_are_recognised(make):
    torch.manual_seed(0)
    net, x, y = make(), torch.randn(N, 2).double(), torch.randn(N, 1).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    assert LayerwiseRisk.of(risk) is not None
    expected = zoo.hessian(in_one_piece(net, F.mse_loss, x, y), risk.theta.double())
    assert (dense_hessian(risk, risk.theta) - expected).abs().max() <= 1e-10 * expected.abs().max()


# --- the thetas that are asked for


def mean_of_small_errors(outputs, y):
    """A mean over examples where it is small, and no mean elsewhere."""
    error = (outputs - y).square().mean()
    return torch.where(error < 10, error, 10 * (error.clamp_min(10) - 9).sqrt())


def test_a_loss_that_is_no_mean_at_some_of_the_thetas():
    torch.manual_seed(0)
    net, x, y = plain().double(), torch.randn(N, 2).double(), torch.randn(N, 1).double()
    risk, function = EmpiricalRisk(net, mean_of_small_errors, [(x, y)]), in_one_piece(net, mean_of_small_errors, x, y)
    scales = torch.tensor([1.0, 0.5, 40.0, 0.7, 50.0]).double()
    thetas = scales[:, None] * risk.theta
    assert [function(theta).item() > 10 for theta in thetas] == [False, False, True, False, True]
    many = batched(risk)
    assert not isinstance(many, OneByOne)
    for hessians in (dense_hessian(risk, thetas), many.hessian(thetas)):
        for theta, found in zip(thetas, hessians, strict=True):
            expected = zoo.hessian(function, theta)
            assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    for theta, value, gradient in zip(thetas, many(thetas), many.gradient(thetas), strict=True):
        torch.testing.assert_close(value, function(theta), rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, zoo.gradient(function, theta), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("what", ["_add_half", "_outputs"])
def test_a_form_that_says_something_else_is_not_believed(what, monkeypatch):
    one = zoo.case("tanh")
    risk = one.risk()
    own = getattr(LayerwiseRisk, what)
    wrong = {
        "_add_half": lambda self, total, *rest: (own(self, total, *rest), total.mul_(1.001))[0],
        "_outputs": lambda self, *rest: 1.001 * own(self, *rest),
    }
    monkeypatch.setattr(LayerwiseRisk, what, wrong[what])
    expected = one.hessian()
    for _ in range(3):
        assert (dense_hessian(risk, one.theta()) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert batched(risk)(one.theta()[None]).item() == pytest.approx(one.function()(one.theta()).item(), rel=1e-12)


def test_sums_and_weights_are_left_to_the_general_routine():
    one = zoo.case("relu")
    assert LayerwiseRisk.of(one.risk(count=lambda batch: len(batch[0]))) is None
    total = nn.MSELoss(reduction="sum")
    risk = EmpiricalRisk(one.net, total, [(one.x, one.y)])
    assert risk.reduction == "sum" and LayerwiseRisk.of(risk) is None
    expected = zoo.hessian(in_one_piece(one.net, total, one.x, one.y), one.theta())
    assert (dense_hessian(risk, one.theta()) - expected).abs().max() <= 1e-10 * expected.abs().max()
    named = zoo.case("dropout")
    for loss in (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), nn.CrossEntropyLoss(ignore_index=1)):
        risk = EmpiricalRisk(named.net, loss, zoo.ragged(named.x, named.y))
        assert LayerwiseRisk.of(risk) is None
        expected = zoo.hessian(in_one_piece(named.net, copy.deepcopy(loss).double(), named.x, named.y), named.theta())
        assert (dense_hessian(risk, named.theta()) - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_at_an_interpolating_minimum_and_where_outputs_overflow():
    x = torch.randn(N, 2).double()
    net = plain().double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, net(x).detach())])  # value and gradient are rounding
    expected = zoo.hessian(in_one_piece(net, F.mse_loss, x, net(x).detach()), risk.theta)
    assert (dense_hessian(risk, risk.theta) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert not LayerwiseRisk.of(risk).standing.doubted
    assert not dense_hessian(risk, 1e300 * risk.theta).isfinite().all()


def test_dear_comparisons_get_rare_and_follow_a_failure():
    schedule = Schedule()
    due = []
    for number in range(1, 20):
        if schedule.ask():
            due.append(number)
            if number not in (4, 5):
                schedule.passed()
    assert due == [1, 2, 4, 5, 6, 12]


def test_the_products_that_a_risk_keeps_stay_and_its_inputs_too():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1)).double()
    x, y = torch.randn(N, 2).double(), torch.randn(N, 1).double()
    before = x.clone()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    v = torch.randn_like(risk.theta)
    product, kept = risk.hvp(risk.theta, v), risk._kept
    dense_hessian(risk, 0.9 * risk.theta)
    assert risk._kept is kept and kept
    torch.testing.assert_close(risk.hvp(risk.theta, v), product)
    assert torch.equal(x, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_a_callers_switches_change_nothing(mode):
    one = zoo.case("tanh")
    members = torch.stack([one.theta(), 2 * one.theta()])
    expected = dense_hessian(one.risk(), members)
    with mode():
        risk = one.risk()
        assert torch.equal(dense_hessian(risk, 1 * members), expected)
        assert not LayerwiseRisk.of(risk).standing.doubted


def test_the_same_value_with_another_gradient_is_not_misread():
    torch.manual_seed(0)
    net = Stopped(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    assert LayerwiseRisk.of(EmpiricalRisk(net, F.mse_loss, [(torch.randn(5, 2), torch.randn(5, 1))])) is None


def test_some_parameters_a_sequence_and_a_cnn_are_left_to_the_general_routine():
    torch.manual_seed(0)
    net, x, y = Mlp((2,), 1, hidden=[3], activation="tanh").double(), torch.randn(N, 2), torch.randn(N, 1)
    whole = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    hessian = dense_hessian(whole, whole.theta)
    part, theta = whole.restricted(whole.theta, "3")
    assert LayerwiseRisk.of(whole) is not None and LayerwiseRisk.of(part) is None
    torch.testing.assert_close(dense_hessian(part, theta), hessian[9:, 9:])
    sequence = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    assert LayerwiseRisk.of(EmpiricalRisk(sequence, F.mse_loss, [(torch.randn(5, 4, 2), torch.randn(5, 4, 1))])) is None
    cnn = Cnn((1, 6, 6), 3, layers=["c3(2)", "p2"])
    batches = [(torch.randn(5, 1, 6, 6), torch.randint(0, 3, (5,)))]
    assert LayerwiseRisk.of(EmpiricalRisk(cnn, F.cross_entropy, batches)) is None


def test_bad_members_are_refused():
    many = LayerwiseRisk.of(EmpiricalRisk(nn.Linear(2, 1), F.mse_loss, [(torch.randn(5, 2), torch.randn(5, 1))]))
    for call in (many, many.gradient, many.hessian, many.outputs):
        with pytest.raises(ValueError, match=r"^theta: got shape \[4, 2\], expected \[3\] or \[R, 3\]$"):
            call(torch.zeros(4, 2))
        with pytest.raises(ValueError, match=r"^theta: got 2 of 6 values that are not finite, expected none of them$"):
            call(torch.tensor([[0.0, 1.0, torch.nan], [0.0, torch.inf, 1.0]]))
