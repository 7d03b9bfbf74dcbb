import math

import pytest
import torch

from hw1.kinds import hits, loss_of


def test_classes_are_in_the_second_dimension_and_tokens_in_the_last():
    outputs = torch.randn(5, 3, 4, dtype=torch.float64)
    dense, tokens = torch.randint(3, (5, 4)), torch.randint(4, (5, 3))
    of_dense = [
        -math.log(outputs[b, dense[b, t], t].exp() / outputs[b, :, t].exp().sum()) for b in range(5) for t in range(4)
    ]
    of_tokens = [
        -math.log(outputs[b, t, tokens[b, t]].exp() / outputs[b, t].exp().sum()) for b in range(5) for t in range(3)
    ]
    assert loss_of("classes")(outputs, dense).item() == pytest.approx(sum(of_dense) / 20, rel=1e-12)
    assert loss_of("tokens")(outputs, tokens).item() == pytest.approx(sum(of_tokens) / 15, rel=1e-12)
    for kind, targets, each in (("classes", dense, of_dense), ("tokens", tokens, of_tokens)):
        assert loss_of(kind)(outputs, targets, reduction="none").flatten().tolist() == pytest.approx(each, rel=1e-12)
        assert loss_of(kind)(outputs, targets, reduction="sum").item() == pytest.approx(sum(each), rel=1e-12)
    for b in range(5):
        for t in range(4):
            assert hits("classes", outputs, dense)[b, t] == (outputs[b, dense[b, t], t] == max(outputs[b, :, t]))
        for t in range(3):
            assert hits("tokens", outputs, tokens)[b, t] == (outputs[b, t, tokens[b, t]] == max(outputs[b, t]))


def test_values_have_no_hits():
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    assert hits("values", outputs, targets) is None
    assert loss_of("values")(outputs, targets).item() == 2.5


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"^kind: got 'class', expected one of classes, values, tokens$"):
        loss_of("class")
