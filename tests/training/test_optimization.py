"""Optimizers: groups of parameters, what fused does, closures, and steps against formulas."""

import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from composed import plain, trained
from composed import settings as composed
from hw1.models import Mlp, side_by_side
from hw1.optim import Muon, Sam
from hw1.settings import ConfigError, RunSettings
from hw1.training import build, optimization
from hw1.training.optimization import optimizer_of, slots_of

SMALL = (
    *("dataset=digits", "dataset.train_size=60", "dataset.batch_size=20", "model=mlp", "model.hidden=[6]"),
    *("trainer.max_epochs=1", "callbacks=none", "logger=none"),
)


class RMSNorm(nn.Module):  # a user's own
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))


def net():
    layers = [nn.Embedding(3, 4), nn.Linear(4, 4), nn.BatchNorm1d(4), RMSNorm(), nn.LSTM(4, 2)]
    return nn.Sequential(*layers)


def optimizer(*words, of=None):
    of = of or net()
    return optimizer_of(composed(*SMALL, *words), of)(of.parameters())


def groups(made, setting="weight_decay"):
    return {name: group[setting] for group in made.param_groups for name in group["param_names"]}


def test_words_find_norms_biases_and_embeddings():
    found = {slot.name: set(slot.words) for slot in slots_of(net())}
    assert found["0.weight"] == {"embedding"} and found["1.weight"] == set() and found["1.bias"] == {"bias"}
    assert found["2.weight"] == {"norm"} and found["2.bias"] == {"norm", "bias"} and found["3.scale"] == {"norm"}
    assert found["4.bias_ih_l0"] == {"bias"} and found["4.weight_hh_l0"] == set()


def test_no_decay_and_groups_give_parameters_settings_of_their_own():
    words = ("optimizer=adamw", "optimizer.weight_decay=0.3", "optimizer.no_decay=[norm,bias]")
    made = optimizer(*words, "optimizer.groups=[{match: '4.*', lr: 0.5},{match: [embedding], weight_decay: 0.1}]")
    assert groups(made) == {
        "0.weight": 0.1, "1.weight": 0.3, "1.bias": 0.0, "2.weight": 0.0, "2.bias": 0.0, "3.scale": 0.0,
        "4.weight_ih_l0": 0.3, "4.weight_hh_l0": 0.3, "4.bias_ih_l0": 0.0, "4.bias_hh_l0": 0.0,
    }  # fmt: skip
    assert {name for name, lr in groups(made, "lr").items() if lr == 0.5} == {n for n in groups(made) if n[0] == "4"}
    assert made.param_groups[0]["lr"] == 1e-3  # what has no settings of its own comes first
    assert groups(optimizer("optimizer=adamw")) == dict.fromkeys(groups(made), 0.01)


def test_members_are_found_by_the_names_of_one():
    for nets in ([Mlp((2,), 1, hidden=[3]) for _ in range(2)], [Mlp((2,), 1, hidden=[3], dropout=0.1)] * 2):
        made = optimizer("optimizer=adamw", "optimizer.no_decay=[bias]", of=side_by_side(nets))
        for group in made.param_groups:
            shapes = {parameter.shape[-1] for parameter in group["params"]}
            assert shapes == ({3, 1} if group["weight_decay"] == 0 else {2, 3})


REFUSED = {
    "optimizer.no_decay.0": (["optimizer.no_decay=['*ln*']"], "got *ln*, which no parameter is called; expected norm,"),
    "optimizer.no_decay": (["optimizer.no_decay=bias"], "got 'bias', expected a list as [norm,bias,"),
    "optimizer.groups.0.match": (["optimizer.groups=[{match: x, lr: 1}]"], "got x, which no parameter is called"),
    "optimizer.groups.0.rate": (["optimizer.groups=[{match: bias, rate: 1}]"], "no such setting of torch.optim.Adam"),
    "optimizer.groups.0": (["optimizer.groups=[{match: bias, lr: -1}]"], "Invalid learning rate: -1"),
    "optimizer.groups.0 ": (["optimizer.groups=[{match: bias}]"], "expected match and settings"),
    "trainer.accumulate_grad_batches": (
        ["optimizer=sam", "+trainer.accumulate_grad_batches=2"], "got 2 with hw1.optim.Sam, which evaluates a batch",
    ),
    "trainer.precision": (["optimizer=lbfgs", "trainer.precision=16-mixed"], "got 16-mixed with torch.optim.LBFGS"),
    "optimizer": (["optimizer=muon", "replicas=2"], "got Muon with replicas=2, which may tie members"),
}  # fmt: skip


@pytest.mark.parametrize("key", REFUSED)
def test_refused_before_anything_trains(key, tmp_path):
    words, said = REFUSED[key]
    with pytest.raises(ConfigError) as caught:
        build.validate(composed(*SMALL, *words), tmp_path)
    assert str(caught.value).startswith(key.strip() + ":") and said in str(caught.value), str(caught.value)


# One kernel for all parameters


def test_fused_is_as_before_where_it_works_and_turned_off_once_where_not(caplog, monkeypatch):
    monkeypatch.setattr(optimization, "_said", set())
    caplog.set_level(logging.INFO)
    assert optimizer().defaults["fused"] is True and not caplog.records
    clipped = ("trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=1")
    assert optimizer("optimizer=sgd", *clipped).defaults["fused"] is False
    assert optimizer("optimizer=sgd", *clipped).defaults["fused"] is False
    rms = RunSettings.check(
        {**plain(*SMALL), "optimizer": {**plain(*SMALL)["optimizer"], "_target_": "torch.optim.RMSprop"}}
    )
    of = net()
    assert isinstance(optimizer_of(rms, of)(of.parameters()), torch.optim.RMSprop)
    assert [record.getMessage() for record in caplog.records] == [
        "optimizer.fused: true is taken as false: with trainer.precision=bf16-mixed gradients are clipped between "
        "steps",
        "optimizer.fused: true is taken as false: RMSprop has no such setting",
    ]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_clipping_with_mixed_precision_trains(precision, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fp16 is not supported on CPU.*")  # Lightning takes bf16
        trained(composed(*SMALL, f"trainer.precision={precision}", "+trainer.gradient_clip_val=1"), tmp_path)


# Steps


def problem():
    torch.manual_seed(0)
    x, y = torch.randn(6, 3).double(), torch.randn(6, 1).double()
    return x, y, torch.randn(3, 1).double()


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_is_sgd_with_the_gradient_at_the_worst_nearby_point(adaptive):
    x, y, start = problem()
    w = nn.Parameter(start.clone())
    sam = Sam([w], lr=0.1, rho=0.3, momentum=0.9, weight_decay=0.01, adaptive=adaptive)
    expected, velocity = start.clone(), torch.zeros_like(start)

    def gradient(at):
        return 2 / 6 * x.T @ (x @ at - y)

    for step in range(3):

        def closure():
            sam.zero_grad()
            loss = F.mse_loss(x @ w, y)
            loss.backward()
            return loss

        before = F.mse_loss(x @ expected, y).item()
        assert sam.step(closure).item() == pytest.approx(before)
        g = gradient(expected)
        e = 0.3 * g / g.norm() if not adaptive else 0.3 * expected**2 * g / (expected * g).norm()
        g = gradient(expected + e) + 0.01 * expected
        velocity = g if step == 0 else 0.9 * velocity + g
        expected = expected - 0.1 * velocity
        torch.testing.assert_close(w.detach(), expected, rtol=1e-10, atol=1e-12)


def test_muon_gives_matrices_orthogonal_steps_and_the_rest_to_adamw():
    torch.manual_seed(0)
    head = nn.Linear(6, 5)
    other = nn.Linear(6, 5)
    both = nn.ModuleList([head, other])
    groups = [
        {"params": [(n, p) for n, p in both.named_parameters() if n != "1.weight"]},
        {"params": [("1.weight", other.weight)], "muon": False},
    ]
    made = Muon(groups, lr=0.1, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in both.named_parameters()}
    g = {name: torch.randn_like(p) for name, p in both.named_parameters()}
    for name, p in both.named_parameters():
        p.grad = g[name]
    made.step()
    moved = {name: p.detach() - before[name] for name, p in both.named_parameters()}
    # Jordan's polynomial brings singular values near 1, in bfloat16; the step has AdamW's root mean square, 0.2.
    values = torch.linalg.svdvals(moved["0.weight"]) / (0.1 * 0.2 * 6**0.5)
    assert bool(((values > 0.6) & (values < 1.3)).all())
    for name in ("0.bias", "1.weight", "1.bias"):  # AdamW's first step is the sign of the gradient
        torch.testing.assert_close(moved[name], -0.1 * g[name].sign(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("words", [("optimizer=sam",), ("optimizer=lbfgs", "dataset.batch_size=null")])
def test_what_is_logged_of_a_step_with_several_evaluations_is_its_start(words, tmp_path):
    words = ("trainer.max_epochs=3", *words)
    if "optimizer=sam" in words:
        words = (*words, "dataset.batch_size=null")
    history = trained(composed(*SMALL, *words), tmp_path).history()
    steps, ends = history["train_step/loss"].dropna().tolist(), history["train/loss"].dropna().tolist()
    assert steps[1:] == pytest.approx(ends[:-1], rel=1e-5) and ends[-1] < steps[0]
