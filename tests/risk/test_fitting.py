"""A risk made to fit: graph dropped, chunks smaller, products the same."""

import pytest
import torch
from torch import nn

from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.fitting import fit
from hw1.risk.memory import held_by

N = 96


def made(**more):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    x, y = torch.randn(N, 10).double(), torch.randint(3, (N,))
    return EmpiricalRisk(net, nn.functional.cross_entropy, [(x, y)], chunk_size=32, **more)


def product(risk):
    v = torch.randn(risk.space.size, generator=torch.Generator().manual_seed(1)).double()
    return risk.hvp(risk.theta, v)


def test_with_room_nothing_changes_bit_by_bit():
    risk, other = made(), made()
    found = fit(risk, N, 2.0**30)
    assert not found.bounded and found.keep_graph and found.chunk_size == 32 and found.seconds > 0
    assert torch.equal(product(risk), product(other)) and risk._kept


def test_a_graph_that_does_not_fit_is_made_anew_to_the_same_bits():
    risk, other = made(), made()
    whole = fit(made(), N, 300_000.0).graph
    found = fit(risk, N, 1.9 * whole)  # half of it is for graphs
    assert found.dropped and not found.keep_graph and found.chunk_size == 32
    assert torch.equal(product(risk), product(other)) and not risk._kept


def test_chunks_shrink_to_one_example_at_most():
    sizes, usual = [], product(made())
    for space in (60_000, 1):
        risk = made()
        found = fit(risk, N, float(space))
        sizes.append(risk.chunk_size)
        assert found.chunk_size == risk.chunk_size
        assert torch.allclose(product(risk), usual, rtol=1e-10)
    assert sizes == [16, 1]


def test_a_graph_is_not_asked_for_where_none_was_to_be_kept():
    assert not fit(made(keep_graph=False), N, 2.0**30).keep_graph


def test_batches_that_are_taken_whole_stay_whole():
    x = torch.randn(8, 10).double()

    def loss(module, batch):
        return module(batch["x"]).square().mean()

    net = nn.Linear(10, 1).double()
    risk = EmpiricalRisk(net, batches=[{"x": x}], batch_loss=loss)
    before = product(risk)
    found = fit(risk, 8, 1.0)
    assert not found.keep_graph and found.chunk_size == found.wanted and torch.equal(product(risk), before)


@pytest.mark.parametrize("examples", [3, 40])
def test_what_a_result_holds_is_told_from_what_making_it_took(examples):
    held = held_by(lambda size: (torch.ones(size, 100) + torch.ones(size, 100)).sum(1), examples)
    assert held.fixed + examples * held.each == 4 * examples
