"""What differs from epoch to epoch is a function of seed, epoch and example alone; a stream gives what memory gives."""

import random

import numpy as np
import pytest
import torch
from test_module import SETTINGS, module, toy
from torch import nn
from torchvision.transforms import v2

from hw1.data import Arrays, DataModule, TorchDataset
from hw1.data.transforms import PaddedCrop
from hw1.measures.predictions import Predictions
from hw1.measures.protocol import Subject, Weights
from hw1.measures.sensitivity import Sensitivity
from hw1.measures.sharpness import Sharpness
from hw1.measures.spectrum import Spectrum
from hw1.risk.empirical import EmpiricalRisk
from hw1.settings import ConfigError, RunSettings
from hw1.settings.identity import run_key
from hw1.training.transform import transform_of
from made_runs import run_settings

CROP = PaddedCrop(2)


def jitter(x):
    """Draws from every generator that there is."""
    return x + torch.rand(1) + np.random.rand() + random.random()


def epoch_of(data, epoch=0):
    data._epoch = lambda: epoch
    return [(x.clone(), y.clone()) for x, y in data.train_dataloader()]


def by_example(batches):
    """Augmented inputs by target, which in `numbered` is the example's number."""
    return {int(label): float(value) for x, y in batches for value, label in zip(x.flatten(), y.flatten(), strict=True)}


def numbered(**changes):
    """Examples 0 to 40, whose target is their number."""
    examples = toy(train=40, test=4)
    held = examples.load()
    object.__setattr__(held, "train_y", torch.arange(40))
    return module(examples, **changes)


def test_an_example_becomes_the_same_in_any_batch_and_any_process():
    data = numbered(batch_size=8)
    data.transform = jitter
    first = epoch_of(data)
    expected = by_example(first)
    assert len(expected) == 40 and all(key < value < key + 3 for key, value in expected.items())
    torch.manual_seed(99)  # what was drawn before does not matter
    for batch_size, workers in ((8, 1), (8, 2), (5, 0), (None, 0)):
        other = numbered(batch_size=batch_size, workers=workers)
        other.transform = jitter
        drawn = epoch_of(other)
        assert by_example(drawn) == expected
        if batch_size == 8:
            assert all(torch.equal(one[0], two[0]) for one, two in zip(first, drawn, strict=True))
    assert by_example(epoch_of(data, 1)) != expected
    data.order_seeds = [1]
    assert by_example(epoch_of(data)) != expected


def test_random_states_are_left_alone():
    data = numbered(batch_size=8)
    data.transform = jitter
    loader = data.train_dataloader()
    iterator = iter(loader)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    next(iterator)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


@pytest.mark.parametrize("batch_size", [8, None])
def test_members_get_what_their_single_runs_get(batch_size):
    several = numbered(batch_size=batch_size)
    several.transform, several.order_seeds = jitter, [3, 4]
    drawn = epoch_of(several)
    for member, seed in enumerate((3, 4)):
        single = numbered(batch_size=batch_size)
        single.transform, single.order_seeds = jitter, [seed]
        for (x, y), (own_x, own_y) in zip(drawn, epoch_of(single), strict=True):
            assert torch.equal(x[member], own_x) and torch.equal(y[member], own_y)


def test_evaluation_and_measures_see_no_transform():
    data = numbered(batch_size=8)
    data.transform = jitter
    plain = torch.arange(40).float()[:, None]
    assert torch.equal(torch.cat([x for x, _ in data.val_dataloader()[0]]), plain)
    assert torch.equal(data.train_tensors[0], plain) and torch.equal(data.batches("train")[0][0], plain)


def test_a_padded_crop_is_a_part_of_the_padded_image():
    x = torch.arange(12.0).reshape(1, 3, 4) + 1
    torch.manual_seed(0)
    made = [CROP(x) for _ in range(200)]
    padded = torch.zeros(1, 7, 8)
    padded[:, 2:5, 2:6] = x
    windows = [padded[:, top : top + 3, left : left + 4] for top in range(5) for left in range(5)]
    found = {next(i for i, window in enumerate(windows) if torch.equal(window, one)) for one in made}
    assert found == set(range(25))


def test_transforms_by_yaml():
    flip = {"_target_": "torchvision.transforms.v2.RandomHorizontalFlip", "p": 1.0}
    crop = {"_target_": "hw1.data.transforms.PaddedCrop", "padding": 1}
    assert transform_of(None) is None and transform_of({"flip": None}) is None
    x = torch.arange(4.0).reshape(1, 1, 4)
    for setting in (flip, {"flip": flip}, [flip], {"crop": None, "flip": flip}):
        assert torch.equal(transform_of(setting)(x), x.flip(-1))
    choice = {"_target_": "torchvision.transforms.v2.RandomChoice", "transforms": [flip, flip]}
    assert isinstance(transform_of(choice).steps[0], v2.RandomChoice)
    assert [type(step).__name__ for step in transform_of({"c": crop, "f": flip}).steps] == [
        "PaddedCrop", "RandomHorizontalFlip",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"transform.crop.padding: got -1, expected a number of pixels"):
        transform_of({"crop": {**crop, "padding": -1}})
    with pytest.raises(ConfigError, match=r"transform\[0\]: got 'flip', expected a node"):
        transform_of(["flip"])


@pytest.mark.parametrize("transform", [lambda x: x[:, :2], lambda x: x.double(), lambda x: x @ torch.zeros(9, 9)])
def test_a_transform_that_does_not_fit_is_refused_before_training(transform):
    data = module()
    data.transform = transform
    with pytest.raises(ValueError, match=r"(expected the same type and shape|RuntimeError|IndexError) ?"):
        data.try_transform()


def test_a_transform_is_part_of_the_key_and_none_is_not():
    settings = run_settings()
    flip = {"flip": {"_target_": "torchvision.transforms.v2.RandomHorizontalFlip", "p": 0.5}}
    key = run_key(settings)
    assert RunSettings.check({**settings, "transform": None}).key == key
    assert RunSettings.check({**settings, "transform": {}}).key == key
    assert RunSettings.check({**settings, "transform": flip}).key != key


# Streams


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """make(mmap, **settings) -> data of 120 and 40 small images, in memory or on disk."""
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    for split, number in (("train", 120), ("test", 41)):
        np.save(folder / f"{split}_x.npy", rng.integers(0, 256, (number, 1, 3, 3), dtype=np.uint8))
        np.save(folder / f"{split}_y.npy", rng.integers(0, 3, number))
    names = {name: str(folder / f"{name}.npy") for name in ("train_x", "train_y", "test_x", "test_y")}

    def make(mmap, kind="classes", **settings):
        source = Arrays(None, **names, kind=kind, classes=None, mmap=mmap)
        return DataModule(source, **{**SETTINGS, "eval_batch_size": 16, **settings})

    return make


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_batches_of_memory(files, workers):
    settings = {"val_fraction": 0.1, "train_size": 50, "corruption": 0.5}
    held, stream = files(False, **settings), files(True, workers=workers, **settings)
    assert held.sizes == stream.sizes and stream.streamed and not held.streamed
    pairs = [(held.train_dataloader(), stream.train_dataloader())]
    pairs += list(zip(held.val_dataloader(), stream.val_dataloader(), strict=True))
    for one, other in pairs:
        for (x, y), (own_x, own_y) in zip(one, other, strict=True):
            assert torch.equal(x, own_x) and torch.equal(y, own_y)
    for split in ("train", "val", "test"):
        x, y = held.examples_of(split)
        assert torch.equal(torch.cat([x for x, _ in stream.batches(split)]), x)
        assert torch.equal(stream.targets(split), y) and torch.equal(torch.cat(list(stream.inputs(split))), x)
        assert torch.equal(stream.examples_of(split, first=3)[0], x[:3])
    assert held.constant_metrics() == stream.constant_metrics()
    with pytest.raises(ValueError, match="first: got None for train_x, which is streamed, expected a number"):
        _ = stream.train_tensors


def net_of(seed=0, norm=False):
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(5)] if norm else []
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 5), *middle, nn.Tanh(), nn.Linear(5, 3)).eval()


def finding(measure, data):
    return measure.take(Subject([Weights(1, "training", [net_of()])], data.loss, data, 0), {})


@pytest.mark.parametrize(
    "measure",
    [
        Sharpness(examples=None, rho=0.1, trace_products=6, seed=None),
        Sharpness(examples=64, rho=0.1, trace_products=6, seed=None),
        Spectrum(examples=None, probes=2, steps=5, seed=None),
        Sensitivity(),
        Predictions(),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_measure_of_a_stream_is_that_of_memory(files, measure):
    one, other = (finding(measure, files(mmap)).values for mmap in (False, True))
    assert one.keys() == other.keys()
    for name, values in one.items():
        # Keskar's and the adaptive box are climbed in float32, where batches are added up in another order.
        assert other[name] == pytest.approx(values, rel=1e-3, abs=1e-6), name


def test_batch_norm_is_recomputed_on_a_stream(files):
    values = []
    for mmap in (False, True):
        data = files(mmap)
        risk = EmpiricalRisk(
            net_of(norm=True), data.loss, data.batches("test"), kind=data.kind, chunk_size=16,
            statistics_inputs=data.inputs("train"),
        )  # fmt: skip
        values.append(risk.metrics(risk.theta * 1.5))
    # A variance of batches of 15 is unbiased each, so that means over equal batches differ in the sixth digit at most.
    assert torch.allclose(*values, rtol=2e-2)


class Noisy(torch.utils.data.Dataset):
    """Random by itself, and without targets at hand."""

    def __init__(self, number):
        self.number = number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return index + torch.rand(1) + np.random.rand(), index % 3


class Renamed(torch.utils.data.Dataset):
    """One that says the classes of its files, and gives one of them as another."""

    targets = tuple(number % 5 for number in range(40))

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, number):
        return torch.zeros(3), 2 if self.targets[number] == 3 else self.targets[number]


def test_targets_of_a_stream_are_those_that_it_gives():
    source = TorchDataset(Renamed(), Renamed(), kind="classes", in_shape=None, out_features=5, stream=True)
    assert DataModule(source, **SETTINGS).targets("train").bincount().tolist() == [8, 8, 16, 0, 8]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_random_data_set_is_the_same_whatever_the_workers(workers):
    def data(workers):
        source = TorchDataset(Noisy(30), Noisy(8), kind="classes", in_shape=None, out_features=3, stream=True)
        return DataModule(source, **{**SETTINGS, "workers": workers, "train_size": 24})

    one, other = data(0), data(workers)
    for epoch in (0, 1):
        for (x, y), (own_x, own_y) in zip(epoch_of(one, epoch), epoch_of(other, epoch), strict=True):
            assert torch.equal(x, own_x) and torch.equal(y, own_y)
    assert not torch.equal(epoch_of(one, 0)[0][0], epoch_of(one, 1)[0][0])
    for _ in range(2):  # evaluations see one and the same
        for (x, _), (own_x, _) in zip(one.batches("test"), other.batches("test"), strict=True):
            assert torch.equal(x, own_x)
    assert (
        sorted(one.targets("train").tolist()) == sorted(other.targets("train").tolist()) == [0] * 8 + [1] * 8 + [2] * 8
    )
