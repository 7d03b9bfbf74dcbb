import math

import pytest
import torch
import torch.nn.functional as F

from hw1.curvature import (
    Dense,
    EmpiricalRisk,
    GaussNewton,
    Hessian,
    Ratio,
    batched,
    ladder,
    minimal_ratio,
    quadrature_ratio,
    sampled_ratio,
)
from hw1.models import Mlp
from hw1.vectors import ParamSpace


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_diag_1_1_minus_1_has_two_thirds():
    ratio = minimal_ratio(doubles(1, 1, -1))
    assert (ratio.positive, ratio.zero, ratio.negative) == (2 / 3, 0, 1 / 3)
    assert ratio.tolerance == 10 * 3 * 2.0**-52 and ratio.critical


def test_the_tolerance_is_rounding_or_the_gradient():
    values = doubles(4, 1e-3, -1e-3, 4e-14, -1)  # 10 P eps max = 4.4e-14
    assert minimal_ratio(values) == Ratio(0.4, 0.2, 0.4, 10 * 5 * 2.0**-52 * 4)
    assert minimal_ratio(values, 1e-7) == Ratio(0.4, 0.2, 0.4, 1e-7)
    assert minimal_ratio(values, 1e-6) == Ratio(0.4, 0.2, 0.4, 1e-6, critical=False)
    assert minimal_ratio(values, 1e-3, c=2) == Ratio(0.2, 0.6, 0.2, 2e-3, critical=False)
    assert minimal_ratio(values, 1e-3) == Ratio(0.2, 0.6, 0.2, 1e-3, critical=False)  # at the tolerance is zero
    assert minimal_ratio(values.float()).tolerance == pytest.approx(10 * 5 * 2.0**-23 * 4)


def test_a_collapsed_net_is_one_over_p_and_a_flat_point_is_zero():
    assert minimal_ratio(doubles(2, *[0] * 570)).positive == 1 / 571
    assert minimal_ratio(doubles(0, 0)) == Ratio(0, 1, 0, 0)


def test_the_ladder():
    steps = [10.0**-n for n in (13, 11, 8, 5, 2.5, 1)]
    found = ladder(doubles(-10, *(10 * step for step in steps), *(-10 * step for step in steps)))
    assert [ratio.tolerance for ratio in found] == pytest.approx([1e-11, 1e-8, 1e-5, 1e-2, 1e-1])
    assert [ratio.positive for ratio in found] == pytest.approx([n / 13 for n in (5, 4, 3, 2, 1)])
    assert [ratio.negative for ratio in found] == pytest.approx([n / 13 for n in (6, 5, 4, 3, 2)])
    assert all(ratio.positive + ratio.zero + ratio.negative == pytest.approx(1) for ratio in found)


def test_the_origin_of_w1_w2_minus_1_squared_has_index_one_half():
    hessian = torch.autograd.functional.hessian(lambda w: (w[0] * w[1] - 1) ** 2, torch.zeros(2).double())
    assert minimal_ratio(torch.linalg.eigvalsh(hessian)).negative == 0.5


def test_sampled_neighbours_of_diag_1_1_minus_1():
    def saddle(x):
        return x[:, 0] ** 2 + x[:, 1] ** 2 - x[:, 2] ** 2

    share = sampled_ratio(saddle, torch.zeros(3).double(), 0.1, 20_000, seeded())
    assert share.value == pytest.approx(math.sqrt(0.5), abs=0.015)
    assert share.standard_error == pytest.approx(math.sqrt(share.value * (1 - share.value) / 20_000), rel=1e-3)


def test_sampled_errors_cover_the_truth():
    within = 0
    for seed in range(200):
        share = sampled_ratio(
            lambda x: x.square() @ torch.tensor([1.0, 1.0, -1.0]), torch.zeros(3), 0.1, 60, seeded(seed)
        )
        within += abs(share.value - math.sqrt(0.5)) <= 1.96 * share.standard_error
    assert 0.90 <= within / 200 <= 0.99


def test_sampled_neighbours_of_a_minimum_and_of_a_plane():
    share = sampled_ratio(lambda x: x.square().sum(1), torch.zeros(4).double(), 1e-3, 50, seeded())
    assert share.value == 1 and 0 < share.standard_error < 0.05
    assert sampled_ratio(lambda x: x.sum(1) * 0, torch.zeros(4), 1e-3, 50, seeded()).value == 0  # level is not higher


def test_the_radius_is_the_distance():
    def outside(x):
        return (x.norm(dim=1) > 0.3).double()

    theta = torch.zeros(5).double()
    assert sampled_ratio(outside, theta, 0.29999, 20, seeded()).value == 0
    assert sampled_ratio(outside, theta, 0.30001, 20, seeded()).value == 1


def test_quadrature_agrees_with_the_exact_shares():
    generator = seeded(3)
    values = torch.cat([0.03 * torch.randn(1470, generator=generator), 10 * torch.rand(20, generator=generator),
                        -1 - torch.rand(10, generator=generator)]).double()  # fmt: skip
    q, _ = torch.linalg.qr(torch.randn(1500, 1500, dtype=torch.float64, generator=generator))
    matrix = q @ torch.diag(values) @ q.T
    op = Dense((matrix + matrix.T) / 2)
    for found, step in zip(
        quadrature_ratio(op, probes=10, steps=120, most_steps=120, generator=seeded()), (1e-1, 1e-2, 1e-3), strict=True
    ):
        tau = step * values.abs().max()
        exact = [(values > tau), (values.abs() <= tau), (values < -tau)]
        assert found.tolerance == pytest.approx(tau.item(), rel=1e-6)
        for share, mask in zip((found.positive, found.zero, found.negative), exact, strict=True):
            assert abs(share.value - mask.double().mean().item()) <= 2 * share.standard_error + 2e-3


def test_a_gauss_newton_operator_is_refused():
    net = Mlp((2,), 1, hidden=[3]).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(torch.randn(9, 2), torch.randn(9, 1))])
    message = r"^op: got a Gauss-Newton operator, expected a Hessian: .* use Hessian\(risk, theta\)$"
    operator = GaussNewton(risk, risk.theta)
    for op in (operator, operator.block("1")):
        with pytest.raises(ValueError, match=message):
            quadrature_ratio(op, generator=seeded())
    quadrature_ratio(Hessian(risk, risk.theta), probes=2, generator=seeded())


def test_a_networks_minimum_has_no_lower_neighbours():
    net = torch.nn.Linear(3, 1).double()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 1).double()
    risk = EmpiricalRisk(net, F.mse_loss, [(x, y)])
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(20, 1).double()], 1), y).solution[:, 0]
    assert ParamSpace.of(net).size == 4
    assert sampled_ratio(batched(risk), solution, 1e-2, 30, seeded()).value == 1


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError, match=r"^eigenvalues: got torch\.float64 of shape \[2, 2\], expected all eigenvalues"
    ):
        minimal_ratio(torch.eye(2).double())
    with pytest.raises(ValueError, match=r"^eigenvalues: got torch\.int64 of shape \[2\]"):
        ladder(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"^eigenvalues: got some that are not finite"):
        ladder(doubles(1, math.nan))
    for name, arguments in (("gradient_norm", (math.nan,)), ("gradient_norm", (-1,))):
        with pytest.raises(ValueError, match=rf"^{name}: got"):
            minimal_ratio(doubles(1), *arguments)
    with pytest.raises(ValueError, match=r"^c: got -1, expected a finite number"):
        minimal_ratio(doubles(1), c=-1)
    with pytest.raises(ValueError, match=r"^radius: got 0, expected a positive number"):
        sampled_ratio(torch.sum, torch.zeros(2), 0, 3, seeded())
    with pytest.raises(ValueError, match=r"^samples: got 0, expected at least 1"):
        sampled_ratio(torch.sum, torch.zeros(2), 1, 0, seeded())
