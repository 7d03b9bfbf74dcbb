"""What a network gives is compared with the data before anything trains."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from composed import plain
from hw1.settings import ConfigError, RunSettings
from hw1.training import build

MINE = "made_networks"
LINEAR = {"_target_": f"{MINE}.Linear", "in_features": 192}
BATCH_NORM = {"_target_": "torch.nn.BatchNorm1d", "num_features": 192}


@pytest.fixture(scope="module")
def base():
    settings = plain("dataset=digits")
    settings["dataset"] |= {"_target_": "made_images.MadeImages", "size": 8, "classes": 3}
    return settings


@pytest.fixture
def validate(base, tmp_path):
    def check(**model):
        build.validate(RunSettings.check({**base, "model": model}), tmp_path)

    return check


def sequential(*layers, out=3, **settings):
    last = {"_target_": "torch.nn.Linear", "in_features": 192, "out_features": out}
    return {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.Flatten"}, *layers, last], **settings}


def test_anything_that_makes_a_network_is_a_model(validate):
    validate(_target_="torchvision.models.resnet18", num_classes=3)
    validate(_target_=f"{MINE}.factory", hidden=5)
    validate(**LINEAR, giving="logits")
    validate(**sequential(BATCH_NORM))
    validate(_target_=f"{MINE}.WithNumbers", in_features=192)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            {"_target_": "torchvision.models.resnet18"},
            r"model: got torchvision\.models\.resnet18 with outputs \[B, 1000\], expected \[B, 3\] for the classes of "
            r"made_images: give it num_classes=3, or what it calls its number of outputs",
        ),
        (
            {"_target_": f"{MINE}.fixed"},
            r"made_networks\.fixed with outputs \[B, 5\].*its number of outputs is fixed, let it take out_features",
        ),
        ({"_target_": f"{MINE}.counted", "n_classes": 5}, r"outputs \[B, 5\].*made_images: give it n_classes=3$"),
        (
            {"_target_": "torchvision.models.resnet18", "num_clases": 3},
            r"^model\.num_clases: no such setting of ResNet; .*\(did you mean num_classes\?\)$",
        ),
        (sequential(out=2), r"got torch\.nn\.Sequential with outputs \[B, 2\], expected \[B, 3\]"),
        ({"_target_": "torch.nn.Identity"}, r"outputs \[B, 3, 8, 8\], expected \[B, 3\].*choose a model for them"),
        (
            {"_target_": "torch.nn.Linear", "in_features": 7},
            r"model: got torch\.nn\.Linear, which does not take inputs \[B, 3, 8, 8\] of torch\.float32: .*7x3",
        ),
        ({**LINEAR, "giving": "tuple"}, r"made_networks\.Linear: got outputs of type tuple, expected a tensor.*wrap"),
        ({"_target_": "torch.nn.LSTM", "input_size": 8, "hidden_size": 3}, "model: got torch.nn.LSTM"),
        ({"_target_": "fractions.Fraction"}, r"got fractions\.Fraction, which makes a Fraction; expected an nn"),
        ({**LINEAR, "out_features": 3}, r"model\.out_features: got 3, but hw1 sets it itself; remove it"),
        (
            sequential({**BATCH_NORM, "track_running_stats": False}),
            r"whose batch-norm 1 keeps no running statistics.*expected track_running_stats=True",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_data_is_refused(validate, model, said):
    with pytest.raises(ConfigError, match=said) as caught:
        validate(**model)
    assert "\n" not in str(caught.value)


def test_images_of_other_channels_are_said_to_be(tmp_path):
    model = {"_target_": "torchvision.models.resnet18", "num_classes": 10}
    with pytest.raises(ConfigError, match=r"takes images of 3 channels, with digits of 1; expected a first layer"):
        build.validate(RunSettings.check({**plain("dataset=digits"), "model": model}), tmp_path)


def test_no_random_state_is_touched(validate):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    validate(_target_=f"{MINE}.factory")
    validate(_target_=f"{MINE}.WithNumbers", in_features=192)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_logits_are_taken_where_a_network_gives_more_and_names_stay(base):
    settings = RunSettings.check({**base, "model": {**LINEAR, "giving": "logits"}})
    data = build.datamodule(settings.dataset)
    net = build.network(settings, data)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(net(x), net.layer(x.flatten(1)))
    assert list(net.state_dict()) == ["layer.weight", "layer.bias"]
    assert type(net).__name__ == "Linear"


def test_a_network_of_hw1_or_torch_is_left_as_it_is(base):
    for model in ({"_target_": "hw1.models.Mlp", "hidden": [3]}, sequential()):
        settings = RunSettings.check({**base, "model": model})
        net = build.network(settings, build.datamodule(settings.dataset))
        assert isinstance(net, nn.Sequential) and not net._forward_hooks


@pytest.mark.parametrize(
    ("function", "size"), [("resnet18", 32), ("googlenet", 64), ("vit_b_16", 32), ("mobilenet_v3_small", 32)]
)
@pytest.mark.slow
def test_networks_of_torchvision_are_taken_as_they_are(base, tmp_path, function, size):
    model = {"_target_": f"torchvision.models.{function}", "num_classes": 3}
    model |= {"image_size": size} if function == "vit_b_16" else {}
    settings = RunSettings.check({**base, "model": model, "dataset": {**base["dataset"], "size": size}})
    build.validate(settings, tmp_path)
    data = build.datamodule(settings.dataset)
    net = build.network(settings, data)
    assert net.train()(torch.rand(2, 3, size, size)).shape == (2, 3)  # GoogLeNet gives more while it trains


def test_tokens_are_looked_up_in_earnest(tmp_path):
    small = {**plain("dataset=modular", "dataset.p=7"), "model": {"_target_": "torch.nn.Embedding"}}
    small["model"] |= {"num_embeddings": 8, "embedding_dim": 8}
    build.validate(RunSettings.check(small), tmp_path)
    small["model"]["num_embeddings"] = 5
    with pytest.raises(ConfigError, match=r"Embedding, which does not take inputs \[B, 3\] of torch.int64: index out"):
        build.validate(RunSettings.check(small), tmp_path)
    with pytest.raises(ConfigError, match=r"Mlp, which does not take inputs \[B, 3\] of torch\.int64.*model=gpt"):
        build.validate(RunSettings.check(plain("dataset=modular", "model=mlp")), tmp_path)
