"""Whole runs of networks as they are: batch-norm and tokens, members, resumption, and lines between solutions."""

import math

import pytest
import torch

from composed import plain, trained
from hw1.metrics import RECOMPUTED, STATISTICS
from hw1.settings import RunSettings
from hw1.studies.between import Part, values_of
from hw1.training.task import Task

torch.set_num_threads(1)

QUICK = ("trainer.progress=false", "logger=none", "trainer.checkpoint_seconds=0", "callbacks=none")
RESNET = (
    *QUICK, "dataset=digits", "dataset.train_size=60", "dataset.batch_size=25", "model=resnet", "model.blocks=[1,1]",
    "model.channels=4", "trainer.max_epochs=2",
)  # fmt: skip
GPT = (
    *QUICK, "dataset=modular", "dataset.p=7", "dataset.batch_size=9", "model=gpt", "model.size=8", "model.heads=2",
    "model.blocks=1", "model.dropout=0.2", "trainer.max_epochs=3", "optimizer.lr=1e-2",
)  # fmt: skip


def settings_of(*words, **groups):
    return RunSettings.check({**plain(*words), **groups})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("own_models")


@pytest.fixture(scope="module")
def gpt(folder):
    return trained(settings_of(*GPT), folder)


@pytest.mark.parametrize("words", [RESNET, GPT], ids=["resnet", "gpt"])
def test_a_member_is_the_single_run_with_its_seed_to_the_bit(words, folder):
    together = trained(settings_of(*words, "replicas=2", "seed=3"), folder)
    for member in range(2):
        alone = trained(settings_of(*words, f"seed={3 + member}", "dataset.seed=3"), folder)
        state = together.net(member).state_dict()
        for name, value in alone.net().state_dict().items():  # running statistics among them
            assert torch.equal(state[name], value), name
        single = alone.metrics()
        assert together.metrics(member) == pytest.approx(single, rel=1e-6)
    assert any("running_mean" in name for name in state) == (words is RESNET)


def test_means_are_over_the_tokens_that_count(gpt):
    """By the definition, sequence by sequence, from the saved weights."""
    data, net, metrics = gpt.datamodule(), gpt.net(), gpt.metrics()
    for name, (x, y) in (("train", data.train_tensors), ("test", data.test_tensors)):
        with torch.no_grad():
            shares = net(x).softmax(-1)[:, -1]  # only the last target counts
        losses = [-math.log(row[target]) for row, target in zip(shares.tolist(), y[:, -1].tolist(), strict=True)]
        right = [row.argmax().item() == target for row, target in zip(shares, y[:, -1].tolist(), strict=True)]
        assert metrics[f"{name}/loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        assert metrics[f"{name}/accuracy"] == pytest.approx(sum(right) / len(right), rel=1e-6)
        assert metrics[f"{name}/perplexity"] == pytest.approx(math.exp(metrics[f"{name}/loss"]), rel=1e-12)
    counts = data.train_tensors[1][:, -1].bincount().double()
    shares = counts[counts > 0] / counts.sum()
    expected = {"loss": -(shares * shares.log()).sum().item(), "accuracy": shares.max().item()}
    assert gpt.constant() == pytest.approx(expected)


@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_stopped_training_ends_at_the_same_bits(step, gpt, folder, tmp_path, monkeypatch):
    training_step = Task.training_step

    def stopping(task, batch, batch_idx):
        if task.global_step == step:
            raise KeyboardInterrupt
        return training_step(task, batch, batch_idx)

    settings = settings_of(*GPT)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Task, "training_step", stopping)
        trained(settings, tmp_path)
    again = trained(settings, tmp_path)
    assert torch.equal(again.theta(), gpt.theta()) and again.metrics() == gpt.metrics()


def ends(folder, *words, **groups):
    """Two runs that differ in their learning rate."""
    return [
        trained(settings_of(*words, "init=shared", f"optimizer.lr={rate}", **groups), folder) for rate in (1e-2, 3e-2)
    ]


def test_between_two_solutions_of_tokens_lies_their_loss(folder):
    one, two = ends(folder, *GPT)
    table = values_of(Part(0, (one.path, two.path), 0, "test", [0.0, 0.5, 1.0]))
    losses = [one.metrics()["test/loss"], two.metrics()["test/loss"]]
    assert table["loss"].tolist()[::2] == pytest.approx(losses, rel=1e-5)
    middle = one.net()
    with torch.no_grad():
        for parameter, other in zip(middle.parameters(), two.net().parameters(), strict=True):
            parameter.lerp_(other, 0.5)
        x, y = one.datamodule().test_tensors
        expected = torch.nn.functional.cross_entropy(middle(x)[:, -1], y[:, -1])
    assert table["loss"][1] == pytest.approx(expected.item(), rel=1e-5) and STATISTICS not in table


BATCH_NORM = {
    "_target_": "torch.nn.Sequential",
    "_args_": [
        {"_target_": "torch.nn.Flatten"},
        {"_target_": "torch.nn.Linear", "in_features": 192, "out_features": 5},
        {"_target_": "torch.nn.BatchNorm1d", "num_features": 5, "momentum": None},
        {"_target_": "torch.nn.Linear", "in_features": 5, "out_features": 3},
    ],
}


def _check_recomputed(one, two):
    """The middle has the statistics of the training set, at its own weights; so have both ends."""
    alphas = [0.0, 0.5, 1.0]
    table = values_of(Part(0, (one.path, two.path), 0, "test", alphas))
    assert set(table[STATISTICS]) == {RECOMPUTED}
    (x, _), (test_x, test_y) = one.datamodule().train_tensors, one.datamodule().test_tensors
    for alpha, loss in zip(alphas, table["loss"], strict=True):
        net = one.net()
        with torch.no_grad():
            for parameter, other in zip(net.parameters(), two.net().parameters(), strict=True):
                parameter.lerp_(other, alpha)
            for layer in net.modules():
                if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                    layer.reset_running_stats()
                    layer.momentum = 1.0  # what one batch of everything says
            net.train()(x)
            expected = torch.nn.functional.cross_entropy(net.eval()(test_x), test_y)
        assert loss == pytest.approx(expected.item(), rel=1e-4)


def made(words):
    base = plain(*words)["dataset"]
    return {**base, "_target_": "made_images.MadeImages", "size": 8, "classes": 3}


def test_batch_norm_has_the_statistics_of_the_training_set_everywhere(folder):
    words = (*QUICK, "dataset=digits", "dataset.batch_size=10", "trainer.max_epochs=2")
    _check_recomputed(*ends(folder, *words, model=BATCH_NORM, dataset=made(words)))


@pytest.mark.slow
def test_a_resnet_of_torchvision_trains_and_is_interpolated_unwrapped(folder):
    words = (*QUICK, "dataset=digits", "dataset.batch_size=12", "trainer.max_epochs=1")
    model = {"_target_": "torchvision.models.resnet18", "num_classes": 3}
    _check_recomputed(*ends(folder, *words, model=model, dataset=made(words)))
