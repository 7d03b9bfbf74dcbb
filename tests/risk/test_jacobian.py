"""Products with the Jacobian against torch.func.jacrev on the whole set."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

import zoo
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.jacobian import Jacobian
from hw1.vectors import ParamSpace

torch.set_num_threads(1)
NAMES = ("linear", "relu", "tanh", "mixed", "squeezed", "cnn_batch_norm", "rnn", "tied", "attention", "tokens")


def dense(net, x, theta):
    """J [N, C..., P] on the whole set."""
    net = net.double().eval()
    space = ParamSpace.of(net)

    def outputs(t):
        return torch.func.functional_call(net, space.unflatten(t), (x,))

    with sdpa_kernel(SDPBackend.MATH):
        return torch.func.jacrev(outputs, chunk_size=1)(theta)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def agree(j, expected):
    size = expected.shape[-1]
    for v in (normal(size), normal(size, 3), normal(size, 1)):
        torch.testing.assert_close(j.matvec(v), expected @ v, rtol=1e-9, atol=1e-11)
    flat = expected.reshape(-1, size)
    for u in (normal(*expected.shape[:-1]), normal(*expected.shape[:-1], 3), normal(*expected.shape[:-1], 1)):
        rows = u.reshape(len(flat), -1)
        product = flat.T @ rows
        found = j.rmatvec(u)
        assert found.shape == (size, *u.shape[expected.ndim - 1 :])
        torch.testing.assert_close(found.reshape(size, -1), product, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep_graph", [True, False])
def test_both_products(name, keep_graph):
    case = zoo.case(name)
    risk = case.risk(chunk_size=7, keep_graph=keep_graph)
    theta = case.theta() + 0.1 * normal(risk.space.size)  # not the module's own
    j = Jacobian(risk, theta)
    expected = dense(case.net, case.x, theta)
    agree(j, expected)
    agree(j, expected)  # on what was kept
    theta += 1  # the caller trains on
    torch.testing.assert_close(j.matvec(normal(risk.space.size)), expected @ normal(risk.space.size))


def test_layers_whose_backward_has_no_derivative_go_by_forward_mode():
    torch.manual_seed(0)
    x, y = normal(zoo.N, 3), torch.randint(0, 2, (zoo.N,))
    net = nn.Sequential(nn.Linear(3, 5), nn.Hardsigmoid(), nn.Linear(5, 2)).double()
    j = Jacobian(EmpiricalRisk(net, F.cross_entropy, zoo.ragged(x, y)), ParamSpace.of(net).flatten(net.state_dict()))

    class Clamped(nn.Module):
        def forward(self, x):
            return (x / 6 + 0.5).clamp(0, 1)

    plain = nn.Sequential(net[0], Clamped(), net[2])
    expected = dense(plain, x, j.theta)
    v = normal(j.risk.space.size, 3)
    torch.testing.assert_close(j.matvec(v), expected @ v)


def test_a_loader_in_one_order_and_a_shuffled_one():
    case = zoo.case("tanh")
    data = TensorDataset(case.x, case.y)
    fixed = EmpiricalRisk(case.net, case.loss, DataLoader(data, batch_size=9))
    before = torch.get_rng_state()
    agree(Jacobian(fixed, case.theta()), dense(case.net, case.x, case.theta()))
    assert torch.equal(torch.get_rng_state(), before)
    shuffled = EmpiricalRisk(case.net, case.loss, DataLoader(data, batch_size=9, shuffle=True))
    with pytest.raises(ValueError, match=r"^batches: got the examples in another order on another pass, expected the "):
        Jacobian(shuffled, case.theta())


def test_unused_parameters_and_constant_outputs_are_zero():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 1), nn.Linear(3, 1)

        def forward(self, x):
            return self.used(x)

    class Constant(Half):
        def forward(self, x):
            return x[:, :1]

    x, y = normal(5, 2), normal(5, 1)
    risk = EmpiricalRisk(Half().double(), F.mse_loss, [(x, y)])
    j = Jacobian(risk, risk.theta)
    assert (j.rmatvec(normal(5, 1))[3:] == 0).all()
    torch.testing.assert_close(j.matvec(torch.ones(7).double())[:, 0], x.sum(1) + 1)
    nothing = EmpiricalRisk(Constant().double(), F.mse_loss, [(x, y)], check=False)  # refused otherwise
    constant = Jacobian(nothing, risk.theta)
    assert (constant.matvec(torch.ones(7).double()) == 0).all() and (constant.rmatvec(normal(5, 1)) == 0).all()


def test_what_does_not_fit_is_refused():
    case = zoo.case("tanh")
    j = Jacobian(case.risk(), case.theta())
    with pytest.raises(ValueError, match=r"^v: got shape \[3\], expected \[55\] or \[55, k\]"):
        j.matvec(torch.zeros(3).double())
    for u in (normal(zoo.N, 4), normal(zoo.N), normal(zoo.N, 3).float(), normal(zoo.N, 3, 2, 2)):
        with pytest.raises(
            ValueError, match=r"^u: got torch.float\d\d of shape .*, expected torch.float64 of \[N, 3\]"
        ):
            j.rmatvec(u)
    with pytest.raises(ValueError, match=r"^u: got 30 rows, expected 23, one an example: give u for all examples$"):
        j.rmatvec(normal(30, 3))
    with pytest.raises(ValueError, match=r"^theta: got shape \[3\]"):
        Jacobian(case.risk(), torch.zeros(3).double())
    of_batches = EmpiricalRisk(case.net, batches=[(case.x, case.y)], batch_loss=lambda m, b: m(b[0]).mean())
    with pytest.raises(ValueError, match=r"^Jacobian: got a risk with batch_loss, expected loss\(outputs, targets\)"):
        Jacobian(of_batches, case.theta())
