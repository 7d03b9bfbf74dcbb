"""Losses against their formulas, example by example in float64, and as settings of a run."""

import math

import pytest
import torch
from torch import nn

from composed import plain, trained
from composed import settings as composed
from hw1 import losses
from hw1.landscape import evaluate
from hw1.risk.empirical import EmpiricalRisk
from hw1.settings import ConfigError, RunSettings
from hw1.training import build
from hw1.vectors import ParamSpace

C = 4
WEIGHT = [1.0, 2.0, 0.5, 3.0]


def log_p(z, y):
    return z[y] - math.log(sum(math.exp(one) for one in z))


def smoothed(z, y, s=0.2):
    return -sum((s / C + (1 - s) * (c == y)) * log_p(z, c) for c in range(C))


def focal(z, y):
    p = math.exp(log_p(z, y))
    return -((1 - p) ** 1.5) * math.log(p)


def squared(z, y):
    return sum((z[c] - (c == y)) ** 2 for c in range(C)) / C


def absolute(z, y):
    return sum(abs(z[c] - (c == y)) for c in range(C)) / C


def huber(z, y):
    residuals = [abs(z[c] - (c == y)) for c in range(C)]
    return sum(r**2 / 2 if r <= 0.7 else 0.7 * (r - 0.35) for r in residuals) / C


FORMULAS = {
    "cross_entropy": ({}, lambda z, y: -log_p(z, y)),
    "cross_entropy ": ({"label_smoothing": 0.2}, smoothed),
    "focal": ({"gamma": 1.5}, focal),
    "mse": ({}, squared),
    "mae": ({}, absolute),
    "huber": ({"delta": 0.7}, huber),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("kind", ["classes", "tokens"])
def test_formulas_of_classes(name, kind):
    options, formula = FORMULAS[name]
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(5, 3, C, generator=generator).double(), torch.randint(C, (5, 3), generator=generator)
    y[1, 2] = -100  # is not counted
    outputs = z.movedim(-1, 1) if kind == "classes" else z
    loss = getattr(losses, name.strip())
    each = loss(outputs, y, reduction="none", kind=kind, **options)
    counted = [(i, j) for i in range(5) for j in range(3) if (i, j) != (1, 2)]
    expected = {(i, j): formula(z[i, j].tolist(), y[i, j].item()) for i, j in counted}
    assert each.shape == y.shape and each[1, 2] == 0
    for (i, j), value in expected.items():
        assert each[i, j].item() == pytest.approx(value, rel=1e-9)
    assert loss(outputs, y, kind=kind, **options).item() == pytest.approx(sum(expected.values()) / 14, rel=1e-9)


@pytest.mark.parametrize("kind", ["classes", "tokens"])
def test_class_weights_are_torch_s_weighted_mean_on_the_training_set(kind):
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(50, C, generator=generator).double(), torch.randint(C, (50,), generator=generator)
    counts = torch.tensor([(y == c).sum().item() for c in range(C)])
    for weight in (WEIGHT, [50 / one for one in counts.tolist()]):
        expected = nn.functional.cross_entropy(z, y, torch.tensor(weight).double())
        made = losses.ClassWeights(kind, counts, weight if weight is WEIGHT else "balanced").double()
        outputs, targets = (z, y) if kind == "classes" else (z.reshape(10, 5, C), y.reshape(10, 5))
        assert made(outputs, targets).item() == pytest.approx(expected.item(), rel=1e-6)
        # A mean over targets: parts add up, whatever classes they hold.
        parts = [made(outputs[i : i + 1], targets[i : i + 1]).item() for i in range(len(outputs))]
        assert sum(parts) / len(parts) == pytest.approx(expected.item(), rel=1e-6)


def test_binary_targets_and_values():
    z, y = torch.tensor([[0.3], [-1.2]]).double(), torch.tensor([1, 0])
    p = [1 / (1 + math.exp(-one)) for one in (0.3, -1.2)]
    expected = -(0.95 * math.log(p[0]) + 0.05 * math.log(1 - p[0]) + 0.95 * math.log(1 - p[1]) + 0.05 * math.log(p[1]))
    assert losses.cross_entropy(z, y, kind="binary", label_smoothing=0.1).item() == pytest.approx(expected / 2)
    x, t = torch.tensor([[1.0, 2.0], [0.0, -3.0]]), torch.tensor([[0.0, 2.5], [0.0, 1.0]])
    assert losses.mse(x, t, kind="values").item() == pytest.approx((1 + 0.25 + 16) / 4)
    assert losses.mae(x, t, kind="values").item() == pytest.approx((1 + 0.5 + 4) / 4)
    with pytest.raises(ValueError, match=r"^outputs: got \[2, 2\] for targets \[2\], expected one a target$"):
        losses.mse(x, torch.zeros(2), kind="values")


# As settings of a run

SMALL = (
    *("dataset=digits", "dataset.train_size=100", "dataset.eval_batch_size=33", "model=mlp", "model.hidden=[6]"),
    *("trainer.max_epochs=1", "callbacks=none", "logger=none"),
)


def with_loss(node, *words):
    return RunSettings.check({**plain(*SMALL, *words), "loss": node})


def own(outputs, targets, power=2.0):
    """A user's loss, without a reduction."""
    return (outputs.gather(1, targets[:, None]) - 1).abs().pow(power).mean()


def summed(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="sum")


def silent(outputs, targets, reduction="none"):
    return nn.functional.cross_entropy(outputs, targets, reduction=reduction)


def each(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def coupled(outputs, targets):
    return nn.functional.cross_entropy(outputs - outputs.mean(0), targets)


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs, targets):
        return self.scale * nn.functional.cross_entropy(outputs, targets)


NODES = {
    "focal": {"_target_": "hw1.losses.focal", "gamma": 2.0},
    "class weights": {"_target_": "hw1.losses.ClassWeights", "weight": "balanced"},
    "own": {"_target_": "test_losses.own", "power": 3.0},
    "torch's": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1},
    "silent": {"_target_": "test_losses.silent"},
}
ALWAYS = (("focal", 1), ("class weights", 2), ("own", 2))


@pytest.mark.parametrize(
    ("name", "replicas"),
    [
        pytest.param(name, replicas, marks=() if (name, replicas) in ALWAYS else pytest.mark.slow)
        for name in NODES
        for replicas in (1, 2)
    ],
)
def test_the_recorded_loss_is_that_of_the_saved_weights_and_the_risk_s(name, replicas, tmp_path):
    run = trained(with_loss(NODES[name], f"replicas={replicas}"), tmp_path)
    data = run.datamodule()
    for member, net in enumerate(run.nets()):
        x, y = data.test_tensors
        with torch.no_grad():
            expected = [data.loss(net(x[i : i + 1]), y[i : i + 1]).item() for i in range(len(x))]
        recorded = run.result["metrics"]["test/loss"]
        value = recorded if replicas == 1 else recorded[member]
        assert value == pytest.approx(sum(expected) / len(expected), rel=1e-5)
        risk = EmpiricalRisk(net.double(), data.loss, [(x.double(), y)], ParamSpace.of(net), kind="classes")
        found = evaluate(risk.metrics, risk.theta[None])[0]
        assert found[0].item() == pytest.approx(value, rel=1e-5)
    assert "loss" not in run.constant() and "accuracy" in run.constant()


REFUSED = {
    "hw1.losses.focal": (["dataset=function", "model.hidden=[4]"], "which is for classes, tokens, binary, with "),
    "test_losses.summed": ([], "as the mean of its parts, expected a mean over examples"),
    "test_losses.each": ([], "gives shape [8] on outputs [8, 10] and targets [8], as classes have"),
    "test_losses.coupled": ([], "as the mean of its parts"),
    "test_losses.Learned": ([], "which has parameters of its own"),
    "torch.nn.MSELoss": ([], "which fails on outputs [8, 10] and targets [8], as classes have: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_trains(name, tmp_path):
    words, said = REFUSED[name]
    words = [word for word in SMALL if not words or not word.startswith("dataset")] + words
    settings = RunSettings.check({**plain(*words), "loss": {"_target_": name}})
    with pytest.raises(ConfigError) as caught:
        build.validate(settings, tmp_path)
    assert str(caught.value).startswith(f"loss: got {name}, ") and said in str(caught.value), str(caught.value)


def test_an_unknown_setting_and_one_that_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^loss\.gama: no such setting of test_losses\.own; expected one of: power$"):
        build.validate(with_loss({"_target_": "test_losses.own", "gama": 1}), tmp_path)
    with pytest.raises(ConfigError, match=r"^loss\.weight: got \[1\], expected 10 numbers of at least 0, one a class"):
        build.validate(with_loss({"_target_": "hw1.losses.ClassWeights", "weight": [1]}), tmp_path)


def test_no_loss_changes_neither_key_nor_seed():
    settings, focal = composed(*SMALL), composed(*SMALL, "loss=focal")
    older = {name: value for name, value in settings.plain.items() if name not in ("loss", "metrics")}
    older["optimizer"] = {k: v for k, v in older["optimizer"].items() if k not in ("no_decay", "groups")}
    assert RunSettings.check(older).key == settings.key != focal.key
    assert RunSettings.check(older).member_seeds == settings.member_seeds != focal.member_seeds
    measured = composed(*SMALL, "metrics=[f1]")
    assert measured.key != settings.key and measured.member_seeds == settings.member_seeds
