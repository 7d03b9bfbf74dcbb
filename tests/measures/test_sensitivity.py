import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from subjects import broken, function, subject_of

from hw1.data import Digits
from hw1.measures import Sensitivity
from hw1.models import Cnn, Mlp


def values_of(net, examples, **data):
    """{column: value} of one network, its double, and its test set."""
    subject = subject_of([net], examples, **data)
    found = Sensitivity().take(subject, {})
    assert set(found.values) <= set(Sensitivity.columns)
    return (
        {name: value for name, (value,) in found.values.items()},
        copy.deepcopy(net).double(),
        subject.data.test_tensors,
    )


def frobenius(function, x):
    """Norm of the Jacobian at one example x [1, ...]."""
    return torch.autograd.functional.jacobian(function, x).norm().item()


def test_classes():
    net = Cnn((1, 8, 8), 10, layers=["c3(4)", "bn", "p2", 8, "drop"]).to(memory_format=torch.channels_last)
    net(torch.rand(20, 1, 8, 8))  # statistics of its own
    values, net, (x, y) = values_of(net, Digits(), train_size=64)
    assert set(values) == {"sensitivity/loss", "sensitivity/softmax", "sensitivity/logits"}
    forms = {"loss": [], "softmax": [], "logits": []}
    for image, label in zip(x.double()[:, None], y, strict=True):
        forms["loss"].append(frobenius(lambda z, t=label: F.cross_entropy(net(z), t[None]), image))
        forms["softmax"].append(frobenius(lambda z: net(z).softmax(1), image))
        forms["logits"].append(frobenius(net, image))
    for form, norms in forms.items():
        assert values[f"sensitivity/{form}"] == pytest.approx(np.mean(norms), rel=1e-5), form


def test_regression_has_no_softmax():
    values, net, (x, y) = values_of(Mlp((1,), 1, hidden=[6]), function())
    assert set(values) == {"sensitivity/loss", "sensitivity/outputs"}
    slopes = [frobenius(net, one) for one in x.double()[:, None]]
    errors = (net(x.double()) - y).abs()[:, 0].tolist()
    assert values["sensitivity/outputs"] == pytest.approx(np.mean(slopes), rel=1e-5)
    expected = np.mean([2 * error * slope for error, slope in zip(errors, slopes, strict=True)])
    assert values["sensitivity/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_member_that_diverged_does_not_cost_the_others_theirs():
    nets = [Mlp((1, 8, 8), 10, hidden=[4]) for _ in range(2)]
    without = Sensitivity().take(subject_of(nets[:1], Digits(), train_size=50), {})
    found = Sensitivity().take(subject_of([nets[0], broken(nets[1], "weights")], Digits(), train_size=50), {})
    assert all(found.values[name][0] == value for name, (value,) in without.values.items())
    assert np.isnan(found.values["sensitivity/loss"][1]) and np.isnan(found.values["sensitivity/softmax"][1])
