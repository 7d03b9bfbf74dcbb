import math

import pytest
import torch

from hw1.kinds import has_accuracy, hits, kind_of, loss_of


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


@pytest.mark.parametrize("dtype", [torch.long, torch.float32, torch.float64, torch.bool])
@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_binary_targets_are_hit_on_their_side_of_0(dtype, shape):
    logits = torch.tensor([2.0, -1.0, 0.5, -3.0, 0.1]).double()
    targets = torch.tensor([1, 1, 0, 0, 1]).to(dtype)
    each = [math.log1p(math.exp(-z if t else z)) for z, t in zip(logits.tolist(), targets.tolist(), strict=True)]
    outputs = logits.reshape(shape)
    assert loss_of("binary")(outputs, targets).item() == pytest.approx(sum(each) / 5, rel=1e-12)
    assert loss_of("binary")(outputs, targets, reduction="none").tolist() == pytest.approx(each, rel=1e-12)
    assert hits("binary", outputs, targets).tolist() == [True, False, False, True, True]


def test_counts_are_of_poisson_and_not_hit():
    rates, targets = torch.tensor([0.5, 2.0, 3.0]).double(), torch.tensor([0, 1, 7])
    expected = [rate - count * math.log(rate) for rate, count in zip(rates.tolist(), targets.tolist(), strict=True)]
    assert loss_of("counts")(rates.log()[:, None], targets).item() == pytest.approx(sum(expected) / 3, rel=1e-12)
    assert loss_of("counts")(rates.log(), targets, reduction="sum").item() == pytest.approx(sum(expected), rel=1e-12)
    assert hits("counts", rates, targets) is None


@pytest.mark.parametrize(
    ("outputs", "targets", "kind"),
    [
        ((4, 3), (4,), "classes"), ((4, 2), (4,), "classes"), ((4, 3, 5, 6), (4, 5, 6), "classes"),
        ((4, 5, 3), (4, 5), "tokens"), ((4, 3, 5), (4, 5), "classes"), ((4, 5, 6, 3), (4, 5, 6), "tokens"),
        ((4, 5, 5), (4, 5), None),  # T = V: either
        ((4,), (4,), None), ((4, 1), (4,), None), ((4, 1), (4, 1), None), ((4, 3), (4, 3), None), ((4, 3), (5,), None),
    ],
)  # fmt: skip
def test_what_shapes_leave_no_doubt_about(outputs, targets, kind):
    assert kind_of(torch.zeros(outputs), torch.zeros(targets).long()) == kind
    assert kind_of(torch.zeros(outputs), torch.zeros(targets)) is None
    assert kind_of(torch.zeros(outputs), torch.zeros(targets).bool()) is None
    assert not has_accuracy(None) and has_accuracy("binary") and not has_accuracy("counts")


@pytest.mark.parametrize(
    ("kind", "outputs", "targets"),
    [
        ("classes", (4, 1), (4,)), ("classes", (4,), (4,)), ("classes", (4, 3, 2), (4,)), ("classes", (4, 3), (4, 3)),
        ("tokens", (4, 3, 5), (4, 5)), ("tokens", (4, 5, 1), (4, 5)),
        ("binary", (4, 2), (4,)), ("binary", (4, 1), (1, 4)),
    ],
)  # fmt: skip
def test_outputs_of_another_kind_are_refused(kind, outputs, targets):
    with pytest.raises(
        ValueError, match=r"^outputs: got \[4.* for targets \[.*, expected (several logits|one output) a"
    ):
        hits(kind, torch.zeros(outputs), torch.zeros(targets).long())


def test_values_have_no_hits():
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    assert hits("values", outputs, targets) is None
    assert loss_of("values")(outputs, targets).item() == 2.5


def test_an_unknown_kind_is_refused():
    with pytest.raises(
        ValueError, match=r"^kind: got 'class', expected one of classes, values, tokens, binary, counts$"
    ):
        loss_of("class")
