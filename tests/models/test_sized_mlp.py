import logging

import pytest
import torch

from hw1.models import Mlp, mlp_of_budget, mlp_of_size
from hw1.models.sized_mlp import hidden_of_size

torch.set_num_threads(1)


def count(inputs, outputs, hidden):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Mlp((inputs,), outputs, hidden=hidden).parameters())


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (784, 10), (5, 3)])
@pytest.mark.parametrize("depth", range(1, 7))
def test_no_net_with_such_sizes_is_nearer(inputs, outputs, depth):
    sizes = [[w] * (depth - k) + [w + 1] * k for w in range(1, 40) for k in range(depth)]
    counts = [count(inputs, outputs, hidden) for hidden in sizes]
    assert counts == sorted(counts)
    for size in range(counts[0], counts[-depth], (counts[-depth] - counts[0]) // 23):
        hidden = hidden_of_size(inputs, outputs, size, depth)
        assert len(hidden) == depth
        assert hidden == min(zip(sizes, counts, strict=True), key=lambda pair: abs(pair[1] - size))[0]


def test_many_layers_are_refused_before_they_are_listed():
    assert len(hidden_of_size(1, 1, 10**6, 8000)) == 8000  # in a moment
    with pytest.raises(ValueError, match=r"^depth: got more than 20,000 tensors of one model: set HW1_MAX_TENSORS"):
        hidden_of_size(1, 1, 10**9, 10**6)


@pytest.mark.parametrize(
    ("depth", "hidden", "parameters"), [(1, [190], 571), (2, [22, 22], 573), (4, [12] + 3 * [13], 571)]
)
def test_size_of_section_1(depth, hidden, parameters):
    net = mlp_of_size((1,), 1, size=571, depth=depth, activation="tanh", dropout=0.0)
    assert [layer.out_features for layer in net if isinstance(layer, torch.nn.Linear)] == [*hidden, 1]
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert sum(isinstance(layer, torch.nn.Tanh) for layer in net) == depth


def test_runs_of_earlier_versions_name_the_same_net():
    settings = {"depth": 3, "activation": "relu", "dropout": 0.5}
    assert str(mlp_of_budget((1,), 1, budget=571, **settings)) == str(mlp_of_size((1,), 1, size=571, **settings))


def test_the_log_says_how_near_once(caplog):
    caplog.set_level(logging.INFO, "hw1.models.sized_mlp")
    for _ in range(2):
        mlp_of_size((1, 2), 3, size=1000, depth=1, activation="relu", dropout=0.0)
    # (2 + 1) w + (w + 1) 3 = 6 w + 3 = 1000 at w = 166.2
    assert caplog.messages == ["size 1000: 2-166-3 has 999 parameters (-0.10%)"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 0}, "^depth: got 0, expected a positive"),
        ({"size": 7, "depth": 3}, "^size: got 7, expected at least 8"),
    ],
)
def test_what_no_net_can_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        mlp_of_size((1,), 1, **{"size": 571, "depth": 1, "activation": "relu", "dropout": 0.0} | wrong)
