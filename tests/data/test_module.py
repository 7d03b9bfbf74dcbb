import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.nn.functional import cross_entropy, mse_loss

import hw1.data
from hw1.data import DataModule
from hw1.data.batches import EpochBatches, generator
from hw1.data.protocol import TrainTest
from hw1.kinds import loss_of

SETTINGS = {
    "batch_size": 8,
    "train_size": None,
    "corruption": 0.0,
    "val_fraction": 0.0,
    "seed": 0,
    "workers": 0,
    "eval_batch_size": 7,
}
CONF = Path(__file__).parents[2] / "conf"
names = itertools.count()


def toy(train=103, test=20, loss=cross_entropy):
    """Examples whose input is their own number, so that a test sees which ones it got."""
    x, y = torch.arange(train + test).float()[:, None], torch.arange(train + test) % 3
    examples = TrainTest(x[:train], y[:train], x[train:], y[train:])
    name, loads = f"toy-{next(names)}", []
    return SimpleNamespace(
        name=name,
        source="made",
        in_shape=(1,),
        out_features=3,
        loss=loss,
        prepare=lambda: None,
        identity=lambda: name,
        load=lambda: loads.append(1) or examples,
        loads=loads,
    )


def module(examples=None, **changes):
    return DataModule(examples or toy(), **SETTINGS | changes)


def order(loader):
    return torch.cat([x for x, _ in loader]).flatten().int().tolist()


@pytest.mark.parametrize(("batch_size", "sizes"), [(8, [8] * 12 + [7]), (103, [103]), (1000, [103]), (None, [103])])
def test_an_epoch_is_every_example_once_with_a_ragged_last_batch(batch_size, sizes):
    data = module(batch_size=batch_size)
    loader = data.train_dataloader()
    batches = list(loader)
    assert [len(x) for x, _ in batches] == sizes and len(loader) == len(sizes)
    assert sorted(order(loader)) == list(range(103))
    for x, y in batches:
        assert torch.equal(y, x.flatten().long() % 3)


def test_the_full_batch_is_the_tensors_themselves():
    data = module(batch_size=None)
    ((x, y),) = data.train_dataloader()
    assert x.data_ptr() == data.train_tensors[0].data_ptr() and y.data_ptr() == data.train_tensors[1].data_ptr()


def test_order_depends_on_seed_and_epoch_alone():
    def drawn(seed, epoch):
        return torch.cat(list(EpochBatches(50, 8, [seed], lambda: epoch))).tolist()

    # Written down once: a change here changes every recorded run.
    assert drawn(0, 0)[:6] == [9, 21, 43, 26, 24, 41]
    drawn_all = {(seed, epoch): drawn(seed, epoch) for seed in range(4) for epoch in range(4)}
    assert len({tuple(value) for value in drawn_all.values()}) == 16
    torch.manual_seed(1)
    assert drawn(3, 2) == drawn_all[3, 2]


def test_streams_of_neighbouring_seeds_and_purposes_differ():
    first = [
        torch.randint(2**62, (), generator=generator(s, p, i)).item() for s in (0, 1) for p in "ab" for i in (0, 1)
    ]
    assert len(set(first)) == 8


def test_order_seed_is_the_seed_until_it_is_set():
    data, other = module(seed=5), module(seed=6)
    assert data.order_seeds == [5]
    expected = order(other.train_dataloader())
    assert order(data.train_dataloader()) != expected
    data.order_seeds = [6]
    assert order(data.train_dataloader()) == expected


class Recorder(lightning.LightningModule):
    """Writes down the examples of every training step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch):
        self.seen.append((self.current_epoch, batch[0].flatten().int().tolist()))
        return (self.weight - batch[0].mean()) ** 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


# The examples lie in memory, and two workers a loader are what one of these tests is about.
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_training_sees_the_order_it_would_have_seen(tmp_path, workers):
    def fit(epochs, ckpt_path=None):
        task = Recorder()
        keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=True)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[keep],
            logger=False,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(task, datamodule=module(toy(train=20), workers=workers), ckpt_path=ckpt_path)
        return task.seen

    resumed = fit(2) + fit(4, ckpt_path=tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt").unlink()
    straight = fit(4)
    assert resumed == straight
    epochs = [[i for e, batch in straight if e == epoch for i in batch] for epoch in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4 and all(sorted(epoch) == list(range(20)) for epoch in epochs)


@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
def test_evaluation_is_of_whole_sets_in_order(val_fraction):
    data = module(val_fraction=val_fraction)
    assert data.eval_names == (("train", "val", "test") if val_fraction else ("train", "test"))
    for loaders in (data.val_dataloader(), data.test_dataloader()):
        assert len(loaders) == len(data.eval_names)
        for name, loader in zip(data.eval_names, loaders, strict=True):
            x, y = getattr(data, f"{name}_tensors")
            assert order(loader) == x.flatten().int().tolist()
            assert torch.equal(torch.cat([target for _, target in loader]), y)
            assert [len(batch) for batch, _ in loader][:-1] == [7] * ((len(x) - 1) // 7)
            assert data.sizes[name] == len(x)


def test_validation_is_carved_off_before_size_and_corruption():
    data = module(val_fraction=0.2, train_size=60, corruption=1.0)
    assert data.sizes == {"train": 60, "val": 21, "test": 20}
    train, val = (set(x.flatten().int().tolist()) for x, _ in (data.train_tensors, data.val_tensors))
    assert not train & val and train | val <= set(range(103))
    x, y = data.val_tensors
    assert torch.equal(y, x.flatten().long() % 3)  # true labels
    assert data.test_tensors[0].flatten().tolist() == list(range(103, 123))
    x, y = data.train_tensors
    true = x.flatten().long() % 3
    assert Counter(y.tolist()) == Counter(true.tolist()) == {0: 20, 1: 20, 2: 20}
    assert 20 < (y != true).sum() < 60
    same = module(val_fraction=0.2, seed=0)
    assert torch.equal(same.val_tensors[0], data.val_tensors[0])
    assert not torch.equal(module(val_fraction=0.2, seed=1).val_tensors[0], data.val_tensors[0])


def test_attributes_are_known_without_loading_and_loading_happens_once():
    examples = toy()
    data = module(examples)
    assert (data.in_shape, data.out_features, data.loss, data.name) == ((1,), 3, cross_entropy, examples.name)
    assert data.source == "made" and data.val_tensors is None and examples.loads == []
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    second = module(examples)
    second.setup()
    assert len(examples.loads) == 1
    assert second.train_tensors[0].data_ptr() == data.train_tensors[0].data_ptr()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": -1}, "batch_size: got -1, expected a positive integer or null (the full batch)"),
        ({"batch_size": True}, "batch_size: got True, expected a positive integer or null (the full batch)"),
        ({"train_size": 0.5}, "train_size: got 0.5, expected a positive integer or null (all)"),
        ({"corruption": 1.5}, "corruption: got 1.5, expected a fraction from 0 to 1"),
        ({"corruption": None}, "corruption: got None, expected a fraction from 0 to 1"),
        ({"val_fraction": 1.0}, "val_fraction: got 1.0, expected a fraction from 0 to less than 1"),
        ({"seed": -1}, "seed: got -1, expected an integer of at least 0"),
        ({"workers": -1}, "workers: got -1, expected an integer of at least 0"),
        ({"eval_batch_size": 0}, "eval_batch_size: got 0, expected a positive integer"),
    ],
)
def test_values_are_checked_in_the_constructor(changes, message):
    with pytest.raises(ValueError) as caught:
        module(**changes)
    assert str(caught.value) == message


def test_values_that_depend_on_the_examples():
    with pytest.raises(ValueError, match=r"^corruption: got 0.5, expected 0: toy-.* has no classes$"):
        module(toy(loss=mse_loss), corruption=0.5)
    with pytest.raises(ValueError, match=r"^train_size: got 104, expected at most 103$"):
        module(train_size=104).setup()
    with pytest.raises(ValueError, match=r"^train_size: got 103, expected at most 82$"):
        module(train_size=103, val_fraction=0.2).setup()
    with pytest.raises(ValueError, match=r"^val_fraction: got 0\.001, expected some but not all of 103 examples$"):
        module(val_fraction=0.001).setup()


def label_smoothing(outputs, targets, reduction="mean"):
    return cross_entropy(outputs, targets, reduction=reduction, label_smoothing=0.1)


@pytest.mark.parametrize(
    ("attributes", "kind", "loss"),
    [
        ({"loss": cross_entropy}, "classes", cross_entropy),
        ({"loss": mse_loss}, "values", mse_loss),
        ({"kind": "classes"}, "classes", cross_entropy),
        ({"kind": "values"}, "values", mse_loss),
        ({"kind": "tokens"}, "tokens", loss_of("tokens")),
        ({"kind": "classes", "loss": label_smoothing}, "classes", label_smoothing),
    ],
)
def test_the_kind_of_task_is_its_source_s(attributes, kind, loss):
    examples = toy()
    del examples.loss
    vars(examples).update(attributes)
    data = module(examples)
    assert (data.kind, data.loss, data.has_classes) == (kind, loss, kind == "classes")


def test_an_unknown_kind_is_refused():
    examples = toy()
    examples.kind = "images"
    with pytest.raises(
        ValueError, match=r"^kind: got 'images', expected one of classes, values, tokens, binary, counts$"
    ):
        module(examples)


def test_what_planning_reads_of_a_source_is_on_its_class():
    large = {name for name in hw1.data.__all__ if getattr(getattr(hw1.data, name), "large", False)}
    assert large == {"Cifar10", "FashionMnist", "Mnist", "MnistMean", "TorchvisionSet"}
    auto = {name for name in hw1.data.__all__ if hasattr(getattr(hw1.data, name), "choose_source")}
    assert auto == {"Mnist", "MnistMean"}
    assert all(getattr(hw1.data, name).choose_source(None, "bundled") == "bundled" for name in auto)
    kinds = {name: getattr(getattr(hw1.data, name), "kind", None) for name in hw1.data.__all__ if name != "DataModule"}
    settings = {name for name, kind in kinds.items() if kind is None}  # of which it is a setting
    assert settings == {"Arrays", "HuggingFace", "Table", "TorchDataset"}
    kinds = {name: kind for name, kind in kinds.items() if kind is not None}
    assert {name for name, kind in kinds.items() if kind == "values"} == {"Function", "MnistMean"}
    assert set(kinds.values()) == {"values", "classes", "tokens"}


def test_sources_are_read_without_torch():
    code = (
        "import sys, hw1.data as d\n"
        "made = [getattr(d, name) for name in d.__all__ if name != 'DataModule']\n"
        "d.Function('sin_2', [-1, 1], points=3, noise=0.0, noise_seed=0, test_points=2).identity()\n"
        "print({'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


DATASETS = {
    "mnist": ("Mnist", {"root", "source"}),
    "fashion_mnist": ("FashionMnist", {"root"}),
    "cifar10": ("Cifar10", {"root"}),
    "digits": ("Digits", set()),
    "image_folder": ("ImageFolder", {"root", "folder", "size", "channels"}),
    "function": ("Function", {"function", "domain", "points", "noise", "noise_seed", "test_points"}),
}


@pytest.mark.parametrize("name", DATASETS)
def test_each_yaml_composes_to_flat_keys_that_build(name, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=["+seed=3", f"+dataset={name}"]).dataset
    kind, keys = DATASETS[name]
    assert set(config) == {"_target_", *SETTINGS, *keys}
    assert config._target_ == f"hw1.data.{kind}" and config.seed == 3
    assert config.batch_size == (None if name == "function" else 64)
    if name == "image_folder":
        for split in ("train", "test"):
            (tmp_path / split / "a").mkdir(parents=True)
        config.root, config.folder = str(tmp_path.parent), tmp_path.name
    examples = getattr(hw1.data, kind)(**{key: config[key] for key in keys})
    data = DataModule(examples, **{key: config[key] for key in SETTINGS})
    assert len(data.in_shape) in (1, 3) and data.out_features >= 1
    if name in ("function", "digits"):
        assert data.sizes == ({"train": 500, "test": 1000} if name == "function" else {"train": 1437, "test": 360})
