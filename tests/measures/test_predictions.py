import math

import pytest
import torch
from safetensors.torch import load
from subjects import broken, function, subject_of

from hw1.data import Digits
from hw1.measures import Predictions
from hw1.measures.predictions import TEST
from hw1.models import Mlp


def dead():
    """A net whose hidden units are all below their kink."""
    net = Mlp((1,), 1, hidden=[5])
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.fill_(-1.0)
    return net


def test_errors_constants_and_the_test_set():
    nets = [Mlp((1,), 1, hidden=[6], activation="tanh"), dead()]
    subject = subject_of(nets, function())
    found = Predictions().take(subject, {})
    (x, y), (test_x, test_y) = subject.data.train_tensors, subject.data.test_tensors
    assert found.values["predictions/constant"] == [0.0, 1.0] and set(found.values) == set(Predictions.columns)
    tensors = load(found.files[TEST])
    assert torch.equal(tensors["true"], test_y[:, 0].double()) and torch.equal(tensors["x"], test_x[:, 0].double())
    for member, net in enumerate(nets):
        exact = net.double()
        worst = (exact(x.double()) - y).abs().max().item()
        assert found.values["predictions/train_max_error"][member] == pytest.approx(worst, rel=1e-12)
        predicted = exact(test_x.double())
        mean = (predicted - test_y).abs().mean().item()
        assert found.values["predictions/test_mae"][member] == pytest.approx(mean, rel=1e-12)
        assert torch.allclose(tensors["predicted"][member], predicted[:, 0], rtol=1e-12)


def test_classes_have_no_errors():
    net = Mlp((1, 8, 8), 10, hidden=[4])
    found = Predictions().take(subject_of([net], Digits(), train_size=50), {})
    assert dict(found.values) == {"predictions/constant": [0.0]} and not found.files


def test_a_member_that_diverged_is_no_constant():
    net = broken(Mlp((1,), 1, hidden=[6]), "weights")
    found = Predictions().take(subject_of([dead(), net], function()), {})
    assert found.values["predictions/constant"] == [1.0, 0.0]
    assert math.isnan(found.values["predictions/test_mae"][1]) and not math.isnan(
        found.values["predictions/test_mae"][0]
    )


def test_a_member_whose_loss_overflows_has_no_errors():
    net = broken(Mlp((1,), 1, hidden=[6]), "loss")
    found = Predictions().take(subject_of([dead(), net], function()), {})
    assert found.values["predictions/constant"] == [1.0, 0.0]
    assert [math.isnan(value) for value in found.values["predictions/train_max_error"]] == [False, True]
    assert load(found.files[TEST])["predicted"].isnan().all(1).tolist() == [False, True]
