import math

import pytest
import torch
import torch.nn.functional as F

from hw1.curvature import EmpiricalRisk
from hw1.kinds import loss_of
from hw1.models import Gpt
from hw1.vectors import ParamSpace

SMALL = {"blocks": 2, "heads": 2, "size": 4}


def small(**changed):
    torch.manual_seed(0)
    return Gpt((5,), 7, **{**SMALL, **changed}).eval()


def by_hand(net, x):
    """Logits of one sequence [T], position by position in plain numbers of torch, without attention kernels."""
    h = net.tokens.weight[x] + net.positions.weight[: len(x)]  # [T, E]
    for block in net.blocks:
        n = F.layer_norm(h, h.shape[-1:], block.norm_1.weight, block.norm_1.bias)
        q, k, v = (n @ block.attention.inputs.weight.T + block.attention.inputs.bias).chunk(3, dim=1)
        rows = []
        for t in range(len(x)):
            heads = []
            for own in torch.arange(h.shape[1]).chunk(block.attention.heads):
                scores = torch.stack([q[t, own] @ k[s, own] for s in range(t + 1)]) / math.sqrt(len(own))
                heads.append(scores.softmax(0) @ v[: t + 1, own])
            rows.append(torch.cat(heads))
        h = h + torch.stack(rows) @ block.attention.output.weight.T + block.attention.output.bias
        n = F.layer_norm(h, h.shape[-1:], block.norm_2.weight, block.norm_2.bias)
        up = n @ block.up.weight.T + block.up.bias
        h = h + (up * (1 + torch.erf(up / math.sqrt(2))) / 2) @ block.down.weight.T + block.down.bias
    return F.layer_norm(h, h.shape[-1:], net.norm.weight, net.norm.bias) @ net.head.weight.T


def test_logits_are_those_of_the_formula():
    net = small().double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randint(7, (3, 5))
    assert torch.allclose(net(x), torch.stack([by_hand(net, row) for row in x]), rtol=1e-10, atol=1e-10)
    assert torch.equal(net(x[:, :2]), net(x)[:, :2]) or torch.allclose(net(x[:, :2]), net(x)[:, :2])  # causal


def test_a_tied_head_is_the_embedding_and_counted_once():
    tied, free = small(), small(tied=False)
    assert tied.head.weight is tied.tokens.weight
    assert ParamSpace.of(free).size - ParamSpace.of(tied).size == 7 * 4


def test_second_derivatives_are_those_of_the_loss():
    net = small(blocks=1).double()
    x, y = torch.randint(7, (4, 5)), torch.randint(7, (4, 5))
    y[:2, 1:3] = -100
    risk = EmpiricalRisk(net, loss_of("tokens"), [(x[:1], y[:1]), (x[1:], y[1:])], ParamSpace.of(net))
    theta = risk.theta
    space = ParamSpace.of(net)

    def value(theta):
        z = torch.func.functional_call(net, space.unflatten(theta), (x,), tie_weights=True).log_softmax(-1)
        chosen = [z[b, t, y[b, t]] for b in range(4) for t in range(5) if y[b, t] >= 0]
        return -torch.stack(chosen).mean()

    assert len(space.names) == len(dict(net.named_parameters()))
    assert torch.allclose(risk(theta), value(theta), rtol=1e-10)
    v = torch.randn_like(theta)
    _, expected = torch.autograd.functional.vhp(value, theta, v)
    assert torch.allclose(risk.hvp(theta, v), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"in_shape": (1, 8, 8)}, r"in_shape: got \(1, 8, 8\), expected sequences"),
        ({"heads": 3}, "size: got 4, expected a multiple of heads=3"), ({"blocks": 0}, "blocks: got 0"),
        ({"dropout": 1}, "dropout: got 1"), ({"width": -1}, "width: got -1"),
    ],
)  # fmt: skip
def test_refusals(changed, said):
    with pytest.raises(ValueError, match=said):
        Gpt(**{"in_shape": (5,), "out_features": 7, **SMALL, **changed})


def test_width_keeps_whole_heads():
    assert small(width=1.6).positions.weight.shape == (5, 6)  # 2 heads of 2 become 2 of 3
