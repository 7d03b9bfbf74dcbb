import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw1.kinds import loss_of
from hw1.landscape import token_sensitivity
from hw1.models import Gpt


def test_it_is_the_norm_of_each_sequence_s_own_gradient_by_its_embedding():
    torch.manual_seed(0)
    net = Gpt((4,), 5, blocks=1, heads=1, size=6, tied=False).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    x, y = torch.randint(5, (7, 4)), torch.randint(5, (7, 4))
    y[::2, :2] = -100
    expected = []
    for tokens, targets in zip(x, y, strict=True):

        def value(e, targets=targets):
            logits = net.head(net.norm(net.blocks(e + net.positions.weight)))[0]  # [T, V]
            return F.cross_entropy(logits[targets >= 0], targets[targets >= 0])

        leaf = net.tokens.weight[tokens][None].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(leaf), leaf)
        expected.append(gradient.norm().item())
    for size in (1, 3, 100):
        found = token_sensitivity(net, loss_of("tokens"), x, y, batch_size=size)
        assert found == pytest.approx(sum(expected) / 7, rel=1e-10)


def test_networks_without_an_embedding_of_their_inputs_are_refused():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 2)

        def forward(self, x):
            return self.table(x + 1)

    with pytest.raises(ValueError, match=r"no nn\.Embedding that looks up the inputs"):
        token_sensitivity(Shifted(), loss_of("tokens"), torch.zeros(2, 3).long(), torch.zeros(2, 3).long())
