"""What networks and their layers are called, against the networks themselves."""

import pytest
from torch import nn

from hw1.models import Cnn, Mlp, Rnn, mlp_of_size
from hw1.words import ends_in_words, layers_in_words, model_in_words, parameter_in_words, setting_in_words

CNN = ["c3(8)", "bn", "p2", "drop2d", "c5s(6)", "drop.5", "c3(4)", 18, "bn", "drop", 9]
NETS = [
    (Cnn, {"layers": CNN}),
    (Cnn, {"layers": ["c3(2)", "p2"]}),
    (Cnn, {"layers": [20]}),
    (Mlp, {"hidden": [5, 10, 10, 10, 10, 10, 5]}),
    (Mlp, {"hidden": [7, 6], "dropout": 0.5}),
    (Mlp, {"hidden": []}),
    (Rnn, {"hidden": 6, "layers": 1}),
    (Rnn, {"hidden": 6, "layers": 2}),
    (mlp_of_size, {"size": 3000, "depth": 3, "activation": "relu", "dropout": 0.0}),
]
KINDS = {nn.Conv2d: "convolution", nn.Linear: "dense layer", nn.RNN: "recurrent layer"}


@pytest.mark.parametrize(("make", "settings"), NETS)
def test_every_module_with_parameters_has_a_name_of_its_kind(make, settings):
    net = make((1, 16, 16), 3, **settings)
    model = {"_target_": f"hw1.models.{make.__name__}", **settings}
    modules = {path: part for path, part in net.named_modules() if any(True for _ in part.parameters(recurse=False))}
    names = layers_in_words(model)
    assert set(names) == set(modules) and len(set(names.values())) == len(names)
    *_, last = modules
    for path, module in modules.items():
        if path == last:
            assert names[path] == "output layer"
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert names[path].startswith("normalisation of the ")
        else:
            assert KINDS[type(module)] in names[path]
    hidden = [path for path in modules if isinstance(modules[path], nn.Linear)][:-1]
    ordinals = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"]
    if len(hidden) > 1:
        assert [names[path] for path in hidden] == [f"{word} dense layer" for word in ordinals[: len(hidden)]]


def test_what_comes_before_a_layer_gives_its_name():
    names = layers_in_words({"_target_": "hw1.models.Cnn", "layers": CNN})
    assert names["0"] == "first convolution" and names["1"] == "normalisation of the first convolution"
    assert list(names.values())[-3:] == [
        "normalisation of the first dense layer",
        "second dense layer",
        "output layer",
    ]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"_target_": "hw1.models.Cnn", "layers": CNN}, "three convolutions with dropout and batch norm"),
        ({"_target_": "hw1.models.Cnn", "layers": [20, 10]}, "two dense layers"),
        ({"_target_": "hw1.models.Mlp", "hidden": []}, "no hidden layer"),
        ({"_target_": "hw1.models.Mlp", "hidden": [3] * 13}, "13 dense layers"),
        ({"_target_": "hw1.models.Rnn", "hidden": 3, "layers": 2}, "two recurrent layers"),
        ({"_target_": "hw1.models.ours.New"}, "New"),
        ({}, "network"),
    ],
)
def test_networks_by_their_layers(model, words):
    assert model_in_words(model) == words and model_in_words(model, 12_345) == f"{words}, 12,345 weights"


def test_a_network_of_ones_own_keeps_the_names_that_it_has():
    assert layers_in_words({"_target_": "mine.Net", "layers": 3, "hidden": [4]}) == {}
    assert parameter_in_words("stem.0.bias", {"_target_": "mine.Net"}) == "biases of stem.0"
    assert parameter_in_words("scale", {"_target_": "mine.Net"}) == "scale"
    assert parameter_in_words("recurrent.weight_hh_l0", {"_target_": "hw1.models.Rnn", "hidden": 2}) == (
        "state-to-state weights of the recurrent layer"
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optimizer.lr", 1e-05, "learning rate 1e-05"),
        ("optimizer", "adam_1e-4", "optimizer adam_1e-4"),
        ("dataset.batch_size", 64, "batch size 64"),
        ("init", "independent", "independent starts"),
        ("dataset.corruption", "1.0", "100% of the labels shuffled"),
        ("dataset.root", "a/b", "root a/b"),
        ("seed", 3, "seed 3"),
    ],
)
def test_settings(key, value, words):
    assert setting_in_words(key, value) == words


def test_ends_that_are_no_numbers_are_called_by_their_setting():
    assert ends_in_words("init", "shared", ["independent"]) == ("shared start", "independent starts")
    assert ends_in_words("dataset.batch_size", 16, [64, 256]) == ("small batch 16", "large batch 64, 256")
