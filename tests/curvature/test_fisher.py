"""Fisher matrices against sums over single examples, and against Gauss-Newton in the mean over draws."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from hw1.curvature import EmpiricalFisher, EmpiricalRisk, GaussNewton, McFisher, exact_diagonal
from sampled import sampled

torch.set_num_threads(1)
CASES = ("linear", "relu", "tanh", "cnn_batch_norm", "rnn", "tied", "tokens", "binary")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def binary():
    x, y = zoo.case("linear").x, torch.randint(0, 2, (zoo.N, 1), generator=seeded()).double()
    torch.manual_seed(0)
    return zoo.Case(zoo.chain([2, 4, 1], nn.Tanh), F.binary_cross_entropy_with_logits, x, y)


def case_of(name):
    return binary() if name == "binary" else zoo.case(name)


def gradients(case, pairs, loss=None):
    """One gradient [P] a pair (x [1, ...], y), by autograd."""
    net = copy.deepcopy(case.net).double().eval()
    rows = []
    for x, y in pairs:
        net.zero_grad()
        (case.loss if loss is None else loss)(net(x), y).backward()
        rows.append(torch.cat([p.grad.reshape(-1) for p in net.parameters()]))
    return torch.stack(rows)


def examples(x, y):
    return [(x[n : n + 1], y[n : n + 1]) for n in range(len(x))]


def dense(op):
    return op @ torch.eye(op.size, dtype=op.dtype)


@pytest.mark.parametrize(("name", "keep_graph"), sampled(itertools.product(CASES, (True, False)), 6, seed=0))
def test_the_empirical_fisher(name, keep_graph):
    case = case_of(name)
    risk = case.risk(chunk_size=7, keep_graph=keep_graph)
    op = EmpiricalFisher(risk, case.theta())
    rows = gradients(case, examples(case.x, case.y))
    expected = rows.T @ rows / zoo.N
    torch.testing.assert_close(dense(op), expected, rtol=1e-9, atol=1e-12)
    v = torch.randn(op.size, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(op @ v, expected @ v, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(op.diagonal(), expected.diagonal(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(exact_diagonal(op), expected.diagonal(), rtol=1e-9, atol=1e-12)
    part = risk.space.names[-1]
    kept = risk.space.positions(risk.space.subset(part))
    torch.testing.assert_close(dense(op.block(part)), expected[kept][:, kept], rtol=1e-9, atol=1e-12)


MC = {
    **dict.fromkeys(["tanh", "cnn_batch_norm", "log_softmax"], "classes"),
    **dict.fromkeys(["relu", "gelu", "squeezed"], "values"),
    **dict.fromkeys(["smoothed", "no_bias"]),  # no likelihood: label smoothing, Huber's loss
    "tokens": "tokens",
    "binary": "binary",
}


def terms(case, targets, likelihood):
    """One gradient a term (example, or token, or number), of the negative logarithm at the drawn targets."""
    net = copy.deepcopy(case.net).double().eval()
    rows = []
    for sample in targets:  # [samples, N, ...]
        for n in range(len(case.x)):
            outputs = net(case.x[n : n + 1])[0]
            target = sample[n]
            if likelihood == "classes":
                losses = [-outputs.log_softmax(0)[target]]
            elif likelihood == "tokens":
                losses = [-outputs[t].log_softmax(0)[target[t]] for t in range(len(outputs))]
            elif likelihood == "values":
                losses = list((outputs - target).square().reshape(-1))
            else:
                p = outputs.sigmoid().reshape(-1)
                losses = list(-(target.reshape(-1) * p.log() + (1 - target.reshape(-1)) * (1 - p).log()))
            for loss in losses:
                own = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
                rows.append(torch.cat([g.reshape(-1) for g in own]))
    return torch.stack(rows)


@pytest.mark.parametrize("name", [name for name, likelihood in MC.items() if likelihood])
def test_the_fisher_of_drawn_targets(name):
    case = case_of(name)
    risk = case.risk(chunk_size=7)
    op = McFisher(risk, case.theta(), samples=2, generator=seeded())
    assert op.likelihood == MC[name]
    rows = terms(case, torch.cat(op.targets, 1), op.likelihood)
    expected = rows.T @ rows / len(rows)
    torch.testing.assert_close(dense(op), expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(dense(op), dense(op))  # one matrix
    part = risk.space.names[-1]
    kept = risk.space.positions(risk.space.subset(part))
    torch.testing.assert_close(dense(op.block(part)), expected[kept][:, kept], rtol=1e-9, atol=1e-12)
    again = McFisher(case.risk(chunk_size=7), case.theta(), samples=2, generator=seeded())
    assert torch.equal(dense(again), dense(op))


# Not "log_softmax": its loss is linear in the outputs, so that Gauss-Newton, not the Fisher matrix, is zero.
@pytest.mark.parametrize("name", [name for name, likelihood in MC.items() if likelihood and name != "log_softmax"])
def test_its_mean_over_draws_is_gauss_newton(name):
    case = case_of(name)
    risk = case.risk()
    draws = torch.stack([
        dense(McFisher(risk, case.theta(), samples=4, generator=seeded(seed))) for seed in range(60)
    ])  # fmt: skip
    expected = dense(GaussNewton(risk, case.theta()))
    difference = draws.mean(0) - expected
    error = draws.std(0) / 60**0.5
    # The squared distance against the variance of the draws: chi^2 of few degrees, as entries go up and down together.
    assert difference.square().sum() <= 6 * error.square().sum()
    z = (difference.diagonal() / error.diagonal().clamp_min(1e-12))[error.diagonal() > 1e-9]
    assert z.abs().max() <= 5
    assert 0 < error.norm() / expected.norm() < 0.15


@pytest.mark.parametrize("name", [name for name, likelihood in MC.items() if not likelihood])
def test_a_loss_that_is_no_known_likelihood_is_refused(name):
    case = zoo.case(name)
    with pytest.raises(ValueError, match=r"^loss: got .*, expected cross-entropy of classes or tokens, binary "):
        McFisher(case.risk(), case.theta(), generator=seeded())


def test_what_has_no_examples_is_refused():
    case = zoo.case("tanh")
    counted = case.risk(count=lambda batch: float(len(batch[0])))
    with pytest.raises(ValueError, match=r"^McFisher: got a mean weighted by count, expected one over examples"):
        McFisher(counted, case.theta(), generator=seeded())
    with pytest.raises(ValueError, match=r"^EmpiricalFisher: got a mean weighted by count"):
        EmpiricalFisher(counted, case.theta())
    with pytest.raises(ValueError, match=r"^samples: got 0, expected at least 1: give targets drawn for each example$"):
        McFisher(case.risk(), case.theta(), samples=0, generator=seeded())


def test_sums_are_sums():
    case = zoo.case("tanh")
    try:
        risk = EmpiricalRisk(
            case.net, nn.CrossEntropyLoss(reduction="sum"), zoo.ragged(case.x, case.y), reduction="sum"
        )
    except TypeError:
        pytest.skip("risks of sums are not there yet")
    rows = gradients(case, examples(case.x, case.y))
    op = EmpiricalFisher(risk, case.theta())
    torch.testing.assert_close(dense(op), rows.T @ rows)
    torch.testing.assert_close(op.diagonal(), (rows.T @ rows).diagonal())
    drawn = McFisher(risk, case.theta(), generator=seeded())
    mean = McFisher(case.risk(), case.theta(), generator=seeded())
    torch.testing.assert_close(dense(drawn), zoo.N * dense(mean))


def test_a_loss_that_holds_float32_at_a_theta_of_float64():
    case = zoo.case("tanh")
    net = copy.deepcopy(case.net).float()
    classes = net(case.x.float()[:1]).shape[1]
    held = nn.CrossEntropyLoss(weight=torch.ones(classes))
    risk = EmpiricalRisk(net, held, [(case.x.float(), case.y)])
    plain = EmpiricalRisk(net, nn.CrossEntropyLoss(), [(case.x.float(), case.y)])
    theta = risk.theta.double()
    torch.testing.assert_close(dense(EmpiricalFisher(risk, theta)), dense(EmpiricalFisher(plain, theta)))
    one, other = (McFisher(which, theta, samples=3, generator=seeded()) for which in (risk, plain))
    assert one.likelihood == "classes"
    torch.testing.assert_close(dense(one), dense(other))


def test_a_loss_that_computes_in_float32_is_known_by_its_values():
    case = zoo.case("tanh")

    def narrow(outputs, targets):
        return F.cross_entropy(outputs.float(), targets)

    with pytest.warns(UserWarning, match="float32"):
        risk = EmpiricalRisk(copy.deepcopy(case.net).double(), narrow, [(case.x, case.y)], check=False)
        risk._ways.loss_float32 = True
        op = McFisher(risk, case.theta(), generator=seeded())
    assert op.likelihood == "classes"


class Reversed(torch.autograd.Function):
    """The identity, with the gradient reversed (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Reversing(nn.Linear):
    def forward(self, x):
        return Reversed.apply(super().forward(x))


@pytest.mark.parametrize("kind", [EmpiricalFisher, lambda *at: McFisher(*at, generator=seeded())])
def test_a_backward_that_is_not_the_derivative_is_refused(kind):
    torch.manual_seed(0)
    x, y = torch.randn(9, 4).double(), torch.zeros(9, 3).double()
    risk = EmpiricalRisk(Reversing(4, 3).double(), F.mse_loss, [(x, y)])
    with pytest.raises(ValueError, match=r"^module: got a slope of .* by its backward"):
        kind(risk, risk.theta)
