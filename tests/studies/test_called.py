import math

import pandas as pd
import pytest

from hw1.studies.called import called, rho, series_in_words, with_layers
from hw1.studies.headlines import Headline
from hw1.words import NETWORK

ONE, TWO = "one dense layer, 310 weights", "two dense layers, 571 weights"


def rows(network):
    return pd.DataFrame({NETWORK: [network]})


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([({}, ONE)], [ONE]),
        ([({"model.hidden": "[4]"}, ONE), ({"model.hidden": "[5]"}, TWO)], [ONE, TWO]),
        ([({"optimizer.lr": 0.1}, ONE), ({"optimizer.lr": 1.0}, ONE)], ["learning rate 0.1", "learning rate 1"]),
        (
            [({"model": "a/relu", "optimizer": "sgd"}, ONE), ({"model": "a/tanh", "optimizer": "sgd"}, ONE)],
            [f"{ONE}; optimizer sgd, model=a/relu", f"{ONE}; optimizer sgd, model=a/tanh"],
        ),
    ],
)
def test_parts_are_called_by_what_tells_them_apart(groups, names):
    assert called([(values, rows(network)) for values, network in groups]) == names


def test_the_series_of_classifiers_keep_their_order_and_get_words():
    table = pd.DataFrame(
        {
            "model.hidden": ["[5]", "[4]", "[5]"],
            "seed": [0, 0, 1],
            "series": ["5 (385 parameters)", "4 (310 parameters)", "5 (385 parameters)"],
            NETWORK: ["one dense layer, 385 weights", ONE, "one dense layer, 385 weights"],
        }
    )
    found = series_in_words(table, ["model.hidden", "seed"])
    assert list(found["series"]) == ["one dense layer, 385 weights", ONE, "one dense layer, 385 weights"]


def test_a_correlation_is_written_only_where_there_is_one():
    found = [Headline("spearman_rho a", 0.5, math.nan, math.nan, 4), Headline("spearman_rho b", math.nan, 0, 1, 3)]
    assert rho(found, "spearman_rho a") == "ρ = 0.50, n = 4"
    assert rho(found, "spearman_rho b") == rho(found, "spearman_rho c") == ""


def test_layers_and_weights_are_called_by_name():
    model = {"_target_": "hw1.models.Cnn", "layers": ["c3(8)", "p2", "c3(4)", 9]}
    weights = with_layers(pd.DataFrame({"weights": ["3.weight", "all"]}), model)
    assert list(weights["called"]) == ["weights of the second convolution", "all weights"]
    layers = with_layers(pd.DataFrame({"layer": ["0.weight"], "weights": ["all"]}), model)
    assert list(layers["called"]) == ["weights of the first convolution"]
