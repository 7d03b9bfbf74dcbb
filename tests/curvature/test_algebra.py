"""Sums, scales, damping and SciPy's view of operators, and operators of other libraries, against matrices."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, eigsh
from test_operator_contract import OPERATORS, Own, gauss_newton, hessian

import zoo
from hw1.curvature import (
    Algebra,
    Combination,
    Dense,
    GaussNewton,
    Hessian,
    as_operator,
    extreme_eigenpairs,
    hutchinson_trace,
    hutchpp_trace,
    spectral_density,
)
from sampled import sampled

torch.set_num_threads(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def matrix(size=12, dtype=torch.float64, seed=0):
    root = torch.randn(size, size, dtype=dtype, generator=seeded(seed))
    return (root + root.T) / 2


def test_sums_scales_and_damping_are_those_of_the_matrices():
    a, b, c = matrix(seed=1), matrix(seed=2), matrix(seed=3)
    one, two, three = Dense(a), Dense(b), Dense(c)
    identity, v = torch.eye(12).double(), torch.randn(12, 4, dtype=torch.float64, generator=seeded())
    cases = [
        (one + two, a + b),
        (one - two, a - b),
        (-one, -a),
        (2 * one, 2 * a),
        (one * 2.5, 2.5 * a),
        (one / 4, a / 4),
        (torch.tensor(3.0) * one, 3 * a),
        (np.float64(3) * one, 3 * a),
        (one.damped(0.1), a + 0.1 * identity),
        (2 * (one - three).damped(0.5) + two.damped(1), 2 * (a - c + 0.5 * identity) + b + identity),
        (sum([one, two, three]), a + b + c),
        ((one - 0.5 * one).T, a / 2),
    ]
    for op, expected in cases:
        assert isinstance(op, Combination) and op.shape == (12, 12) and op.dtype == torch.float64
        for given in (v, v[:, 0], v[:, :1], torch.zeros_like(v)):
            torch.testing.assert_close(op @ given, expected @ given, rtol=1e-14, atol=1e-13)
            torch.testing.assert_close(op.matvec(given), expected @ given, rtol=1e-14, atol=1e-13)
        torch.testing.assert_close(v.T @ op, v.T @ expected, rtol=1e-14, atol=1e-13)
        torch.testing.assert_close(v[:, 0] @ op, v[:, 0] @ expected, rtol=1e-14, atol=1e-13)


def test_hessian_minus_gauss_newton_is_the_networks_own_curvature():
    case = zoo.case("tanh")
    risk = case.risk()
    op = Hessian(risk, risk.theta.double()) - GaussNewton(risk, risk.theta.double())
    theta = case.theta()

    def outputs(t):
        net = case.net.double().eval()
        return torch.func.functional_call(net, risk.space.unflatten(t), (case.x,))

    # sum_c slope_c d2 f_c, with the loss's slope held: the loss linearised at today's outputs.
    now = outputs(theta).detach().requires_grad_()
    (slope,) = torch.autograd.grad(case.loss(now, case.y), now)
    expected = torch.autograd.functional.hessian(lambda t: (outputs(t) * slope).sum(), theta)
    v = torch.randn(op.size, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(op @ v, expected @ v)
    rows = risk.space.positions(risk.space.subset("5"))
    torch.testing.assert_close(
        op.damped(0.3).block("5") @ v[rows], (expected[rows][:, rows] + 0.3 * torch.eye(len(rows))) @ v[rows]
    )


def test_a_users_own_takes_part_and_gets_the_algebra():
    own, dense = Own(), Dense(matrix(30))
    plain = own.matvec(torch.eye(30).double())
    for op, expected in (
        (dense + own, dense.matrix + plain),
        (own + dense, plain + dense.matrix),
        (own - dense, plain - dense.matrix),
        (as_operator(own).damped(2), plain + 2 * torch.eye(30)),
    ):
        torch.testing.assert_close(op @ torch.eye(30).double(), expected)

    class Inherits(Own, Algebra):
        pass

    torch.testing.assert_close((2 * Inherits()) @ torch.eye(30).double(), 2 * plain)
    with pytest.raises(ValueError, match=r"^block: got Own, which has none, expected operators with block"):
        (dense + own).block("0")


def test_what_does_not_fit_is_refused():
    one = Dense(matrix())
    with pytest.raises(ValueError, match=r"^operators: got sizes 12 and 5, expected one size"):
        one + Dense(matrix(5))
    with pytest.raises(ValueError, match=r"^operators: got torch.float64 on cpu and torch.float32 on cpu, expected"):
        one + Dense(matrix().float())
    with pytest.raises(ValueError, match=r"^v: got shape \[5\], expected \[12\] or \[12, k\]"):
        one @ torch.zeros(5).double()
    with pytest.raises(ValueError, match=r"^v: got shape \[1, 12, 1\], expected \[12\] or \[12, k\]"):
        one.damped(1) @ torch.zeros(1, 12, 1).double()
    with pytest.raises(ValueError, match=r"^v: got torch.float32 on cpu, expected the operator's torch.float64"):
        one @ torch.zeros(12)
    with pytest.raises(TypeError, match=r"^v: got Dense, expected a tensor \[12\] or \[12, k\]: a product of op"):
        one @ one
    with pytest.raises(TypeError, match=r"^v: got ndarray, expected a tensor"):
        one @ np.zeros(12)
    with pytest.raises(ValueError, match=r"^scale: got nan, expected a finite number: was it divided by 0\?$"):
        float("nan") * one
    with pytest.raises(ValueError, match=r"^damping: got inf, expected a finite number: was it divided by 0\?$"):
        one.damped(float("inf"))
    for wrong in (lambda: one + 1, lambda: one * one, lambda: "a" * one, lambda: one / one):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize("name", sampled(OPERATORS, 16, seed=2))
def test_every_operator_with_scipy(name):
    op = as_operator(OPERATORS[name]())
    view = op.to_scipy()
    assert isinstance(view, LinearOperator) and view.shape == op.shape and view.dtype == str(op.dtype)[6:]
    dense = op.matvec(torch.eye(op.size, dtype=op.dtype)).double()
    tolerance = 1e-10 if op.dtype == torch.float64 else 1e-4
    scale = max(dense.abs().max().item(), 1e-300)
    v = torch.randn(op.size, 3, dtype=torch.float64, generator=seeded()).to(op.dtype).numpy()
    assert abs(view @ v - dense.numpy() @ v).max() <= tolerance * scale * op.size
    assert abs(view @ v[:, 0] - dense.numpy() @ v[:, 0]).max() <= tolerance * scale * op.size
    assert abs(view.H @ v - dense.numpy() @ v).max() <= tolerance * scale * op.size
    if op.size >= 8:
        found = eigsh(view, k=1, which="LM", return_eigenvectors=False)
        values = torch.linalg.eigvalsh((dense + dense.T) / 2)
        assert abs(found[0] - values[values.abs().argmax()].item()) <= 10 * tolerance * scale


def test_scipy_solves_with_a_damped_hessian():
    op = gauss_newton("tanh").damped(0.1)
    b = torch.randn(op.size, dtype=torch.float64, generator=seeded())
    x, info = cg(op.to_scipy(), b.numpy(), rtol=1e-12)
    expected = torch.linalg.solve(op @ torch.eye(op.size).double(), b)
    assert info == 0
    np.testing.assert_allclose(x, expected.numpy(), rtol=1e-8)
    single = gauss_newton("tanh", torch.float32).to_scipy(np.float64)
    assert single.dtype == np.float64 and (single @ b.numpy()).dtype == np.float64


def test_matrices_of_every_kind_become_operators():
    a = matrix()
    v = torch.randn(12, 3, dtype=torch.float64, generator=seeded())
    kinds = {
        "tensor": a,
        "array": a.numpy(),
        "list": a.tolist(),
        "sparse": scipy.sparse.csr_array(a.numpy()),
        "linear operator": aslinearoperator(a.numpy()),
        "of matvec alone": LinearOperator((12, 12), matvec=lambda x: a.numpy() @ x, dtype="float64"),
        "own": as_operator(Dense(a)),
    }
    kinds["list"] = np.array(kinds["list"])
    for name, kind in kinds.items():
        op = as_operator(kind)
        assert (op.size, op.dtype, op.device) == (12, torch.float64, torch.device("cpu")), name
        torch.testing.assert_close(op @ v, a @ v, msg=name)
        torch.testing.assert_close(op.damped(1) @ v[:, 0], a @ v[:, 0] + v[:, 0], msg=name)
        found = extreme_eigenpairs(op, 2, tol=1e-9, generator=seeded()).values
        torch.testing.assert_close(found, torch.linalg.eigvalsh(a).flip(0)[:2], msg=name)
    single = as_operator(a.float().numpy())
    assert single.dtype == torch.float32 and (single @ v.float()).dtype == torch.float32


def test_what_is_no_symmetric_operator_is_refused():
    skew = torch.triu(torch.ones(9, 9)).double()
    for kind in (skew.numpy(), scipy.sparse.csr_array(skew.numpy()), aslinearoperator(skew.numpy())):
        with pytest.raises(ValueError, match=r"^op: got u\^T A v and v\^T A u that differ by .*expected a symmetric"):
            as_operator(kind)
        assert as_operator(kind, check=False).size == 9
    with pytest.raises(ValueError, match=r"^matrix: got an asymmetry"):
        as_operator(skew)
    with pytest.raises(ValueError, match=r"^op: got shape \[2, 3\], expected \[P, P\]"):
        as_operator(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^op: got complex128, expected real numbers"):
        as_operator(np.eye(3) * 1j)
    with pytest.raises(TypeError, match=r"^op: got str, expected an operator"):
        as_operator("A")


# --- curvlinops' estimators with our operators, ours with theirs


@pytest.fixture(scope="module")
def curvlinops():
    return pytest.importorskip("curvlinops")


def theirs(curvlinops, kind="HessianLinearOperator"):
    case = zoo.case("tanh")
    net = case.net.double().eval()
    parameters = [p for p in net.parameters() if p.requires_grad]
    return getattr(curvlinops, kind)(
        net, torch.nn.CrossEntropyLoss(), parameters, zoo.ragged(case.x, case.y), check_deterministic=False
    )


@pytest.mark.parametrize("make", [hessian, gauss_newton])
def test_their_estimators_take_our_operators(curvlinops, make):
    op = make("tanh")
    dense = op @ torch.eye(op.size).double()
    values = torch.linalg.eigvalsh(dense)
    trace, norm, diagonal = dense.trace().item(), dense.norm().item(), dense.diagonal()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for which, products in (("hutchinson_trace", 50), ("hutchpp_trace", 48), ("xtrace", 50)):
            found = [getattr(curvlinops, which)(op, products).item() for _ in range(20)]
            assert abs(np.mean(found) - trace) <= 4 * np.std(found) / 20**0.5 + 1e-9, which
        squared = [curvlinops.hutchinson_squared_fro(op, 50).item() for _ in range(20)]
        assert abs(np.mean(squared) - norm**2) <= 4 * np.std(squared) / 20**0.5
        for which in ("hutchinson_diag", "xdiag"):
            found = torch.stack([getattr(curvlinops, which)(op, 50) for _ in range(20)])
            assert (found.mean(0) - diagonal).norm() <= 4 * found.std(0).norm() / 20**0.5, which
        # Their search for the ends by ARPACK gives up on Gauss-Newton's repeated zero.
        ends = None if values[0] < -1e-3 else (0.0, values[-1].item())
        spectrum = curvlinops.LanczosApproximateSpectrumCached(op, 40, boundaries=ends)
        grid, density = spectrum.approximate_spectrum(num_repeats=5, num_points=500)
        assert grid[0] < values[0] and grid[-1] > values[-1]
        mass = density.sum().item() * (grid[1] - grid[0]).item()
        assert mass == pytest.approx(1, rel=0.1)
        if ends is None:
            grid, _ = curvlinops.lanczos_approximate_log_spectrum(op, 40, num_points=100)
            assert len(grid) == 100


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch.func's own use of it
@pytest.mark.parametrize("kind", ["HessianLinearOperator", "GGNLinearOperator"])
def test_our_estimators_take_their_operators(curvlinops, kind):
    own = {"HessianLinearOperator": hessian, "GGNLinearOperator": gauss_newton}[kind]("tanh")
    op = as_operator(theirs(curvlinops, kind))
    dense = own @ torch.eye(own.size).double()
    torch.testing.assert_close(op @ torch.eye(op.size).double(), dense, rtol=1e-8, atol=1e-10)
    values = torch.linalg.eigvalsh(dense)
    pairs = extreme_eigenpairs(op, 3, tol=1e-8, generator=seeded())
    torch.testing.assert_close(pairs.values, values.flip(0)[:3])
    for trace in (hutchinson_trace(op, probes=40, generator=seeded()), hutchpp_trace(op, generator=seeded())):
        assert abs(trace.value - values.sum().item()) <= 4 * trace.standard_error + 1e-9
    density = spectral_density(op, probes=2, steps=30, generator=seeded())
    assert density.nodes.max().item() == pytest.approx(values[-1].item())
    torch.testing.assert_close((op - own) @ torch.ones(own.size).double(), torch.zeros(own.size).double())
