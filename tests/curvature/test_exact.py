import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from hw1.curvature import Dense, EmpiricalRisk, dense_hessian, spectrum
from hw1.models import Cnn, Mlp
from hw1.vectors import ParamSpace


@pytest.mark.parametrize("name", ["relu", "tanh", "cnn_batch_norm", "rnn", "tied"])
@pytest.mark.parametrize("columns", [7, 64])
def test_against_autograd(name, columns):
    one = zoo.case(name)
    risk = one.risk(chunk_size=8)
    found = dense_hessian(risk, risk.theta, columns=columns)  # a float32 network: float64 all the same
    expected = one.hessian()
    assert found.dtype == torch.float64 and torch.equal(found, found.T)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    values = spectrum(found)
    assert values.tolist() == pytest.approx(list(scipy.linalg.eigvalsh(expected.numpy())), abs=1e-10)
    assert values.sum().item() == pytest.approx(found.trace().item(), rel=1e-10)


def test_at_a_trained_point():
    torch.manual_seed(0)
    net, x = Mlp((1,), 1, hidden=[6, 6], activation="tanh").double(), torch.linspace(-1, 1, 40).double()[:, None]
    y = torch.sin(3 * x)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(net(x), y).backward()
        optimizer.step()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    expected = zoo.Case(net, F.mse_loss, x, y).hessian()
    assert (dense_hessian(risk, risk.theta) - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_collapsed_net_has_one_eigenvalue_and_it_is_2():
    net = Mlp((1,), 1, hidden=[5, 10, 10]).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(-0.1)  # every ReLU is off
        net[-1].bias.fill_(0.3)
    x = torch.rand(50, 1).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, torch.full((50, 1), 0.3).double())])
    values = spectrum(dense_hessian(risk, risk.theta))
    assert values[-1].item() == pytest.approx(2, abs=1e-12) and (values[:-1] == 0).all()


def test_linear_least_squares_in_closed_form():
    x, y = torch.randn(17, 5).double(), torch.randn(17, 1).double()
    risk = EmpiricalRisk(nn.Linear(5, 1, bias=False).double(), F.mse_loss, [(x, y)])
    torch.testing.assert_close(dense_hessian(risk, risk.theta), 2 / 17 * x.T @ x)


def test_a_dense_operator_and_its_blocks():
    net = Mlp((2,), 1, hidden=[3], activation="tanh").double()
    risk = EmpiricalRisk(net, F.mse_loss, [(torch.randn(9, 2), torch.randn(9, 1))])
    matrix = dense_hessian(risk, risk.theta)
    op = Dense(matrix, risk.space)
    assert (op.size, op.dtype, op.device) == (13, torch.float64, torch.device("cpu"))
    assert torch.equal(op.matvec(torch.eye(13).double()), matrix)
    torch.testing.assert_close(op.block("3").matrix, matrix[9:, 9:])
    assert op.block("3").block("3.bias").size == 1
    with pytest.raises(
        ValueError, match=r"^block: got a matrix without parameter names, expected Dense\(matrix, space"
    ):
        Dense(matrix).block("3")
    with pytest.raises(ValueError, match=r"^space: got 3 parameters, expected 13, the size of the matrix$"):
        Dense(matrix, ParamSpace.of(nn.Linear(2, 1)))


def test_several_members_and_several_matrices():
    torch.manual_seed(0)
    net, x, y = Cnn((1, 6, 6), 3, layers=["c3(2)", "p2"]), torch.randn(9, 1, 6, 6), torch.randint(0, 3, (9,))
    risk = EmpiricalRisk(net, F.cross_entropy, [(x, y)])
    members = torch.stack([risk.theta, risk.theta + 0.1])
    hessians = dense_hessian(risk, members)  # not fully connected: one after another
    assert torch.equal(hessians, torch.stack([dense_hessian(risk, member) for member in members]))
    expected = [scipy.linalg.eigvalsh(hessian.numpy()).tolist() for hessian in hessians]
    assert spectrum(hessians).tolist() == [pytest.approx(values, abs=1e-12) for values in expected]
    with pytest.raises(ValueError, match=rf"^theta: got shape \[7\], expected \[{len(risk.theta)}\] or \[R, "):
        dense_hessian(risk, torch.zeros(7))
    with pytest.raises(ValueError, match=r"^matrix: got an asymmetry"):
        spectrum(torch.stack([torch.eye(2), torch.tensor([[0.0, 1.0], [0.0, 0.0]])]))


def test_bad_matrices_are_refused():
    with pytest.raises(ValueError, match=r"^matrix: got shape \[2, 3\], expected \[P, P\]$"):
        spectrum(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"^matrix: got shape \[4, 2, 2\], expected \[P, P\]$"):
        Dense(torch.zeros(4, 2, 2))
    with pytest.raises(ValueError, match=r"^matrix: got values that are not finite"):
        spectrum(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match=r"^matrix: got an asymmetry of 1\.0e\+00 .* symmetrise it with"):
        Dense(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
