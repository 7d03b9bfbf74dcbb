"""The best constant prediction under losses whose minimum has a closed form, or is found by scipy."""

import functools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, huber_loss, l1_loss

from hw1.data.constant import constant_loss

CLASSES = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
SHARES = np.array([0.5, 0.3, 0.2])


def test_classes_smoothed_and_weighted():
    smoothed = functools.partial(cross_entropy, label_smoothing=0.2)
    shares = 0.8 * SHARES + 0.2 / 3  # what the outputs' probabilities are then
    assert constant_loss(smoothed, "classes", CLASSES, 3) == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-4)

    def focal(outputs, targets):
        own = cross_entropy(outputs, targets, reduction="none")
        return ((1 - (-own).exp()) ** 2 * own).mean()

    def by_scipy(outputs):
        logs = log_softmax(outputs)
        return -(SHARES * (1 - np.exp(logs)) ** 2 * logs).sum()

    assert constant_loss(focal, "classes", CLASSES, 3) == pytest.approx(minimize(by_scipy, np.zeros(3)).fun, rel=1e-4)


def test_numbers_tokens_and_bits():
    values = torch.tensor([[0.0, 1.0], [1.0, 3.0], [5.0, 2.0]])
    apart = [np.abs(column - np.median(column)).mean() for column in values.numpy().T]
    assert constant_loss(l1_loss, "values", values, 2) == pytest.approx(np.mean(apart), rel=1e-2)  # it has corners
    assert constant_loss(functools.partial(huber_loss, delta=10.0), "values", values, 2) == pytest.approx(
        values.numpy().var(0).mean() / 2, rel=1e-4
    )
    tokens, entropy = CLASSES.reshape(10, 10), -(SHARES * np.log(SHARES)).sum()

    def of_tokens(outputs, targets):
        return cross_entropy(outputs.flatten(0, 1), targets.flatten())

    assert constant_loss(of_tokens, "tokens", tokens, 3) == pytest.approx(entropy, rel=1e-4)
    bits, entropy = torch.tensor([1.0, 0.0, 0.0, 0.0]), -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert constant_loss(binary_cross_entropy_with_logits, "binary", bits, 1) == pytest.approx(entropy, rel=1e-4)


def test_what_has_none():
    assert constant_loss(lambda z, y: -z.mean(), "values", torch.zeros(4, 1), 1) is None  # as low as one likes
    assert constant_loss(lambda z, y: (z @ y).mean(), "classes", CLASSES, 3) is None  # shapes that do not go together
    assert constant_loss(lambda z, y: z.square().mean() - 1, "values", torch.zeros(4, 1), 1) is None
