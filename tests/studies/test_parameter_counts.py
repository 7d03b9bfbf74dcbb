"""The number of parameters of every network of actual_task, random_labels and params_vs_generalization."""

import itertools

import pytest
import torch
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from hw1.settings import RunSettings
from hw1.training import build
from hydra_plugins.hw1_sweeper.composing import Composer
from test_experiments import CONF, ROOT

COUNTS = {
    "actual_task": [371_581, 228_010],
    "actual_task/small": [9_702, 6_154],
    "actual_task/dropout": [14_680, 85_160],
    "actual_task/filters": [242_062, 428_906, 115_018],
    "actual_task/cifar10": [4_210_090, 2_299_258],
    "random_labels": [269_322],
    "random_labels/cnn": [371_581],
    "random_labels/cnn_002": [371_581],
    "random_labels/deep": [110_826],
    "random_labels/filters": [242_062],
    "random_labels/networks": [109_386, 347_146, 6_666],
    "random_labels/corruption": [269_322] * 5,
    "params_vs_generalization": [
        *(3_270, 6_594, 13_434, 27_882, 59_850),
        *(100_710, 136_074, 220_310, 307_770, 337_674),
    ],
    "params_vs_generalization/dnn": [
        *(1_645, 3_240, 8_280, 16_950, 44_140),
        *(91_830, 160_410, 396_210, 654_310, 952_410),
    ],
    "params_vs_generalization/cnn": [  # nearest to 753, 1,820, 5,865, 14,680, 35,740, 117,460, 583,100, 1,481,770, ...
        *(751, 1_830, 6_129, 14_680, 35_221),
        *(117_138, 577_738, 1_492_171, 3_461_389, 11_231_431),
    ],
    "params_vs_generalization/filters": [
        *(242_062, 152_102, 101_274, 14_014, 61_982),
        *(750, 236, 494, 8_028, 21_098),
    ],
    "params_vs_generalization/depth": [100_180, 99_670, 99_710, 100_171, 99_799, 99_230],
}

# Variants on one of report 003's networks, which sweep what does not change it.
for question in ("flatness_interp", "gradient_norm", "min_ratio", "weight_trajectories"):
    for kind, parameters in (("dense", 109_386), ("cnn", 347_146), ("rnn", 6_666)):
        COUNTS[f"{question}/networks_{kind}"] = [parameters] * {"flatness_interp": 4, "min_ratio": 1}.get(question, 2)
del COUNTS["flatness_interp/networks_cnn"]


def combinations(params):
    """The words of every run of a sweep, but for the seed."""
    words = [f"{key}={values}" for key, values in params.items() if values is not None and key != "seed"]
    parsed = OverridesParser.create().parse_overrides(words)
    each = [
        [f"{word.key_or_group}={value}" for value in word.sweep_string_iterator()]
        if word.is_sweep_override()
        else [word.input_line]
        for word in parsed
    ]
    return [list(run) for run in itertools.product(*each)]


@pytest.fixture
def loader(monkeypatch):
    monkeypatch.setenv("HW1_PROJECT", str(ROOT))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize("name", COUNTS)
def test_every_network_has_the_listed_number_of_parameters(name, loader):
    experiment = loader.load_configuration("train", [f"experiment={name}"], RunMode.MULTIRUN)
    compose = Composer(loader, experiment, OverridesParser.create(config_loader=loader))
    counts = []
    for words in combinations(experiment.hydra.sweeper.params or {}):
        settings = RunSettings.check(compose([f"experiment={name}", *words]))
        with torch.device("meta"):
            net = build.single_network(settings, build.datamodule(settings.dataset))
        counts.append(sum(parameter.numel() for parameter in net.parameters()))
    assert counts == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_values_are_reported_of_networks_that_there_are(name):
    rows = yaml.safe_load((ROOT / "docs" / "reported.yaml").read_text(encoding="utf-8")).get(name, [])
    reported = [row["statistic"].get("where", {}).get("parameters") for row in rows if "statistic" in row]
    assert {parameters for parameters in reported if parameters} <= set(COUNTS[name])


@pytest.mark.parametrize(("option", "batch_size"), [("two_convolutions", 32), ("one_convolution", 256)])
def test_report_000_s_nets_bring_their_batch_size(option, batch_size, loader):
    words = ["experiment=actual_task/dropout", f"model=dropout/{option}"]
    assert loader.load_configuration("train", words, RunMode.RUN).dataset.batch_size == batch_size
