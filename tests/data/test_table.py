"""Tables, arrays and images by YAML: what they come to, and what is refused in a line."""

import builtins

import numpy as np
import pandas as pd
import pytest
import torch

from hw1.data import Arrays, DataModule, Table, TorchDataset, TorchvisionSet

USUAL = {"root": None, "features": None, "kind": "classes", "test_file": None, "split_column": None}
USUAL |= {"test_fraction": 0.25, "split_seed": 0, "standardise": False}


@pytest.fixture
def frame(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    made = pd.DataFrame({"a": rng.normal(5, 2, 40), "b": rng.integers(0, 9, 40), "species": ["wolf", "cat"] * 20})
    made["fold"] = ["train"] * 30 + ["test"] * 10
    made.to_csv("table.csv", index=False)
    return made


def table(**changes):
    return Table(**{**USUAL, "file": "table.csv", "target": "species", "features": ["a", "b"], **changes})


def test_rows_of_a_split_column_are_the_table(frame):
    source = table(split_column="fold", features=None)
    assert (source.in_shape, source.out_features, source.name) == ((2,), 2, "table")
    data = source.load()
    assert np.allclose(data.train_x, frame[["a", "b"]][:30]) and np.allclose(data.test_x, frame[["a", "b"]][30:])
    assert data.train_y.tolist() == [1, 0] * 15 and data.test_y.tolist() == [1, 0] * 5  # cat, wolf


def test_a_drawn_split_is_the_same_every_time_and_stratified(frame):
    one, again, other = table().load(), table().load(), table(split_seed=1).load()
    assert torch.equal(one.test_x, again.test_x) and not torch.equal(one.test_x, other.test_x)
    assert len(one.test_y) == 10 and one.test_y.sum() == 5
    both = torch.cat([one.train_x, one.test_x])[:, 0].sort().values
    assert np.allclose(both, np.sort(frame["a"]))


def test_a_second_file_and_several_targets(frame):
    frame["c"] = frame["a"] * 2
    frame.to_csv("table.csv", index=False)
    frame[:7].to_csv("other.csv", index=False)
    data = table(test_file="other.csv", kind="values", target=["b", "c"], features=["a"]).load()
    assert data.train_y.shape == (40, 2) and np.allclose(data.test_y, frame[["b", "c"]][:7])


def test_standardised_by_the_training_rows_alone(frame):
    data = table(split_column="fold", kind="values", target="a", features=["b"], standardise=True).load()
    train = frame[:30]
    assert np.allclose(data.test_x[:, 0], (frame["b"][30:] - train["b"].mean()) / train["b"].std(ddof=0), atol=1e-6)
    assert np.allclose(data.test_y[:, 0], (frame["a"][30:] - train["a"].mean()) / train["a"].std(ddof=0), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "nothing.csv"}, "file: there is no "),
        ({"target": "spezies"}, "target: got 'spezies', expected a column of "),
        ({"features": ["a", "species"]}, "features: got 'species', which is the target"),
        ({"features": ["fold"]}, "features: got 'train' in column 'fold' of "),
        ({"target": "a", "features": ["b"]}, "kind: got classes, and "),
        ({"test_fraction": 1.0}, "test_fraction: got 1.0, expected a fraction between 0 and 1"),
        ({"split_column": "fold", "test_file": "table.csv"}, "split_column: got 'fold' beside test_file"),
        ({"split_column": "species"}, "split_column: got 'cat' in 'species', expected train or test"),
        ({"kind": "binary", "target": "b", "features": ["a"]}, "target: got "),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(frame, changes, message):
    with pytest.raises(ValueError) as caught:
        source = table(**changes)
        source.out_features  # noqa: B018 - it is read
        source.load()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_an_empty_cell_is_named(frame):
    frame.loc[3, "a"] = np.nan
    frame.to_csv("table.csv", index=False)
    with pytest.raises(ValueError, match=r"features: got an empty cell in column 'a' of .* \(row 4; 1 such\)"):
        table().load()


def test_parquet_gives_what_csv_gives(frame):
    pytest.importorskip("pyarrow", reason="reads parquet")
    frame.to_parquet("table.parquet")
    one, other = table(), table(file="table.parquet")
    assert torch.equal(one.load().train_x, other.load().train_x) and one.identity() != other.identity()


def test_parquet_without_pyarrow_says_what_to_install(frame, tmp_path, monkeypatch):
    (tmp_path / "table.parquet").write_bytes(b"")
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="file: reading parquet needs pyarrow, which is not installed: pip install"):
        table(file="table.parquet")


@pytest.fixture
def arrays(tmp_path, monkeypatch):
    """make(**changes) -> Arrays of 50 and 20 images."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    made = {"train_x": rng.integers(0, 256, (50, 1, 4, 4), dtype=np.uint8), "train_y": np.arange(50) % 3}
    made |= {"test_x": rng.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8), "test_y": np.arange(20) % 3}
    for name, array in made.items():
        np.save(f"{name}.npy", array)
    np.savez("all.npz", **made, other=made["test_x"])
    usual = {"root": None, **{name: f"{name}.npy" for name in made}, "kind": "classes", "classes": None, "mmap": False}
    return made, lambda **changes: Arrays(**{**usual, **changes})


def test_arrays_in_memory_on_disk_and_in_one_file_are_the_same(arrays):
    made, make = arrays
    source = make()
    assert (source.in_shape, source.out_features) == ((1, 4, 4), 3)
    held = source.load()
    assert np.allclose(held.train_x, made["train_x"] / 255) and held.test_y.tolist() == made["test_y"].tolist()
    packed = make(**{**dict.fromkeys(made, "all.npz"), "test_x": "all.npz:other"}).load()
    rows = make(mmap=True).datasets()[0]
    x, y = rows.gather(torch.tensor([7, 3]))
    for one, other in ((packed.train_x, held.train_x), (packed.test_x, held.test_x), (x, held.train_x[[7, 3]])):
        assert torch.equal(one, other)
    assert y.tolist() == [1, 0] and torch.equal(rows[7][0], held.train_x[7])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_x": "x.npy"}, "train_x: there is no "),
        ({"test_y": "train_y.npy"}, "test_y: got 50 targets of 20 inputs, expected as many"),
        ({"test_x": "all.npz:nothing"}, "test_x: "),
        ({"train_x": "all.npz", "mmap": True}, "train_x: got all.npz, expected a .npy file, which alone can stay"),
        ({"classes": 2}, "classes: got 2, expected at least 3"),
        ({"train_y": "train_x.npy"}, "train_y: got uint8 [50, 1, 4, 4], expected classes as integers >= 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, changes, message):
    with pytest.raises(ValueError) as caught:
        arrays[1](**changes).out_features  # noqa: B018 - it is read
    assert str(caught.value).startswith(message)


class Squares(torch.utils.data.Dataset):
    """Pairs (x, x^2), random by themselves where noise is asked for."""

    def __init__(self, number, noise=0.0):
        self.number, self.noise = number, noise

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return torch.tensor([float(index)]) + self.noise * torch.randn(1), float(index) ** 2


def test_a_torch_dataset_in_memory_and_its_shapes():
    usual = {"kind": "values", "in_shape": None, "out_features": None, "stream": False}
    source = TorchDataset(Squares(6), Squares(3), **usual)
    assert (source.in_shape, source.out_features, source.name) == ((1,), 1, "squares")
    assert source.load().train_y.tolist() == [[0.0], [1.0], [4.0], [9.0], [16.0], [25.0]]
    assert source.identity() != TorchDataset(Squares(7), Squares(3), **usual).identity()
    flat, square = ([(torch.ones(shape), 1.0)] for shape in ((4,), (2, 2)))
    assert TorchDataset(flat, flat, **usual).identity() != TorchDataset(square, square, **usual).identity()
    with pytest.raises(ValueError, match="out_features: got null, expected the number of classes"):
        TorchDataset(Squares(6), Squares(3), **{**usual, "kind": "classes"}).out_features  # noqa: B018 - it is read


def test_pairs_that_are_none_are_refused():
    usual = {"kind": "values", "in_shape": None, "out_features": None, "stream": True}
    with pytest.raises(ValueError, match=r"train: got a Tensor for an example, expected a pair \(input, target\)"):
        TorchDataset(torch.zeros(3, 2), Squares(3), **usual).in_shape  # noqa: B018 - it is read
    with pytest.raises(ValueError, match="train: got an example of str and int, expected tensors"):
        TorchDataset([("word", 1)], Squares(3), **usual).in_shape  # noqa: B018 - it is read


def torchvision_set(root, **changes):
    usual = {"size": None, "channels": None, "classes": None, "train": None, "test": None, "options": {}}
    return TorchvisionSet(**{"root": root, "set": "KMNIST", **usual, "stream": False, **changes})


def test_a_torchvision_set_is_read_by_its_name(tmp_path, write_idx):
    arrays = write_idx(tmp_path / "KMNIST" / "raw")
    source = torchvision_set(tmp_path)
    assert (source.in_shape, source.out_features, source.name) == ((1, 28, 28), 10, "kmnist")
    data = source.load()
    assert np.allclose(data.train_x[:, 0] * 255, arrays["train-images"], atol=1e-4)
    assert data.test_y.tolist() == arrays["t10k-labels"].tolist()
    assert len(source.identity()) == 64
    assert torchvision_set(tmp_path, size=14, channels=3).load().test_x.shape == (20, 3, 14, 14)
    stream = DataModule(
        torchvision_set(tmp_path, stream=True), batch_size=4, train_size=10, corruption=0.0, val_fraction=0.0, seed=0,
        workers=0, eval_batch_size=8,
    )  # fmt: skip
    assert stream.sizes == {"train": 10, "test": 20}
    assert torch.equal(torch.cat([x for x, _ in stream.batches("test")]), data.test_x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"set": "KMNISD", "size": 28, "channels": 1, "classes": 10},
            "set: got KMNISD, expected a class of ",
        ),
        ({"set": "Food101"}, "size: got null for Food101, whose images have many sizes, expected a number"),
        ({"set": "Own"}, "size: got null for Own, of which hw1 does not know it, expected a number"),
        (
            {"set": "FakeData", "size": 8, "channels": 3, "classes": 10},
            "set: got FakeData, expected one with ",
        ),
    ],
)
def test_a_torchvision_set_that_there_is_not(tmp_path, changes, message):
    with pytest.raises(ValueError) as caught:
        torchvision_set(tmp_path, **changes).load()
    assert str(caught.value).startswith(message)
