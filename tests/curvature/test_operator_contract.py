"""What every operator does, a user's own too."""

import pytest
import torch

import zoo
from hw1.curvature import (
    Dense,
    EmpiricalFisher,
    GaussNewton,
    Hessian,
    McFisher,
    as_operator,
    extreme_eigenpairs,
    hutchinson_trace,
    spectral_density,
)

torch.set_num_threads(1)


class Own:
    """A user's own: diag(1, ..., P) + u u^T, never as a matrix."""

    def __init__(self, size=30, dtype=torch.float64):
        self.size, self.dtype, self.device = size, dtype, torch.device("cpu")
        self.diagonal, self.u = torch.arange(1, size + 1).to(dtype), torch.linspace(-1, 1, size).to(dtype)

    def matvec(self, v):
        block = v.reshape(self.size, -1)
        return (self.diagonal[:, None] * block + self.u[:, None] * (self.u @ block)).reshape(v.shape)


def hessian(name, dtype=torch.float64):
    risk = zoo.case(name).risk(chunk_size=7)
    return Hessian(risk, risk.theta.to(dtype))


def gauss_newton(name, dtype=torch.float64):
    risk = zoo.case(name).risk(chunk_size=7)
    return GaussNewton(risk, risk.theta.to(dtype))


def fisher(name, kind=EmpiricalFisher, **options):
    risk = zoo.case(name).risk(chunk_size=7)
    return kind(risk, risk.theta.double(), **options)


def mc_fisher(name):
    return fisher(name, McFisher, samples=2, generator=torch.Generator().manual_seed(0))


def dense():
    one = zoo.case("tanh")
    matrix = one.hessian()
    return Dense((matrix + matrix.T) / 2, one.risk().space)


def of_batch_loss():
    one = zoo.case("rnn")
    batches = [{"x": x, "y": y} for x, y in zoo.ragged(one.x, one.y)]
    risk = zoo.EmpiricalRisk(one.net, batches=batches, batch_loss=lambda m, b: one.loss(m(b["x"]), b["y"]))
    return Hessian(risk, one.theta())


OPERATORS = {
    **{f"hessian of {name}": (lambda name=name: hessian(name)) for name in zoo.NAMES},
    **{
        f"gauss-newton of {name}": (lambda name=name: gauss_newton(name))
        for name in ("relu", "tanh", "cnn_batch_norm", "rnn", "tied", "attention", "tokens")
    },
    **{f"empirical fisher of {name}": (lambda name=name: fisher(name)) for name in ("relu", "rnn", "tokens")},
    **{f"fisher of {name}": (lambda name=name: mc_fisher(name)) for name in ("relu", "cnn_batch_norm", "tokens")},
    "block of a fisher": lambda: mc_fisher("tanh").block("3", "5.bias"),
    "sum": lambda: 2 * hessian("tanh") - gauss_newton("tanh").damped(0.3),
    "block of a sum": lambda: (hessian("tanh") + dense()).damped(0.1).block("5"),
    "another library's": lambda: as_operator(dense().to_scipy()),
    "hessian, kept in float32": lambda: hessian("tanh", torch.float32),
    "hessian of a batch loss": of_batch_loss,
    "block of a hessian": lambda: hessian("tanh").block("3", "5.bias"),
    "block of a gauss-newton": lambda: gauss_newton("tanh").block("3", "5.bias"),
    "dense": dense,
    "block of a dense": lambda: dense().block("3", "5.bias"),
    "block of a block": lambda: hessian("tanh").block("3", "5").block("5"),
    "a user's own": Own,
    "a user's own in float32": lambda: Own(dtype=torch.float32),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_contract(name):
    op = OPERATORS[name]()
    tolerance = 1e-11 if op.dtype == torch.float64 else 1e-5
    generator = torch.Generator().manual_seed(0)

    def vectors(*shape):
        return torch.randn(op.size, *shape, dtype=op.dtype, generator=generator)

    assert isinstance(op.size, int) and op.dtype.is_floating_point and op.device == torch.device("cpu")
    u, v, block = vectors(), vectors(), vectors(5)
    before, block_before = v.clone(), block.clone()
    product, products = op.matvec(v), op.matvec(block)
    assert torch.equal(v, before) and torch.equal(block, block_before)  # the input is as it was
    for found, given in ((product, v), (products, block)):
        assert found.shape == given.shape and found.dtype == op.dtype and found.device == op.device
        assert not found.requires_grad and found.isfinite().all()
    largest = products.abs().max() + product.abs().max()
    columns = torch.stack([op.matvec(column) for column in block.T], 1)
    assert (products - columns).abs().max() <= tolerance * largest
    assert op.matvec(block[:, :1]).shape == (op.size, 1)
    scale = product.norm() * u.norm()
    assert abs(u @ product - op.matvec(u) @ v) <= tolerance * scale  # symmetric
    combined = op.matvec(2 * u - 3 * v)
    assert (combined - (2 * op.matvec(u) - 3 * product)).norm() <= tolerance * scale  # linear
    assert (op.matvec(torch.zeros_like(v)) == 0).all()
    expected = product.clone()
    product.zero_()  # what was returned is the caller's
    assert (op.matvec(v) - expected).abs().max() <= tolerance * largest


@pytest.mark.parametrize("name", ["tanh", "cnn_batch_norm"])
@pytest.mark.parametrize("make", [Hessian, GaussNewton])
def test_the_callers_theta_is_his_own(make, name):
    risk = zoo.case(name).risk()
    theta = risk.theta.double()
    op = make(risk, theta)
    block = op.block(risk.space.names[0])
    expected, of_block = op.matvec(torch.ones_like(theta)), block.matvec(torch.ones(block.size).double())
    theta += 1  # the caller trains on
    assert torch.equal(op.matvec(torch.ones_like(theta)), expected)
    assert torch.equal(block.matvec(torch.ones(block.size).double()), of_block)
    assert op.theta.data_ptr() != theta.data_ptr()


def test_the_algorithms_take_a_users_own():
    op = Own()
    matrix = op.matvec(torch.eye(op.size).double())
    values = torch.linalg.eigvalsh(matrix)
    pairs = extreme_eigenpairs(op, 3, tol=1e-9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pairs.values, values.flip(0)[:3])
    trace = hutchinson_trace(op, probes=200, generator=torch.Generator().manual_seed(0))
    assert abs(trace.value - values.sum().item()) < 4 * trace.standard_error
    density = spectral_density(op, probes=2, steps=30, generator=torch.Generator().manual_seed(0))
    assert density.nodes.max().item() == pytest.approx(values[-1].item())
