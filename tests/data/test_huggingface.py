"""HuggingFace data sets on disk."""

import numpy as np
import pytest
import torch
from PIL import Image

from hw1.data import HuggingFace

datasets = pytest.importorskip("datasets", reason="reads HuggingFace data sets")
USUAL = {"root": None, "folder": None, "train": "train", "test": "test", "train_file": None, "test_file": None}
USUAL |= {"inputs": "image", "target": "label", "kind": "classes", "size": None, "channels": 1, "stream": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("hf")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 4, 4), dtype=np.uint8)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"]), "v": datasets.Value("float32")}
    )
    columns = {"image": [Image.fromarray(one) for one in pixels], "label": [i % 3 for i in range(12)]}
    whole = datasets.Dataset.from_dict(columns | {"v": [i / 2 for i in range(12)]}, features=features)
    parts = datasets.DatasetDict({"train": whole.select(range(9)), "test": whole.select(range(9, 12))})
    parts.save_to_disk(str(where / "mine"))
    for name, part in parts.items():
        part.remove_columns("image").to_parquet(str(where / f"{name}.parquet"))
    return where, pixels


def test_images_and_classes(folder):
    where, pixels = folder
    source = HuggingFace(**USUAL | {"root": where, "folder": "mine"})
    assert (source.in_shape, source.out_features, source.name) == ((1, 4, 4), 3, "mine")
    data = source.load()
    assert np.allclose(data.train_x[:, 0] * 255, pixels[:9], atol=1e-4) and data.test_y.tolist() == [0, 1, 2]
    x, y = source.datasets()[1][2]
    assert torch.equal(x, data.test_x[2]) and y == 2 and len(source.identity()) == 64


def test_numbers_of_parquet(folder):
    files = {"root": folder[0], "train_file": "train.parquet", "test_file": "test.parquet"}
    source = HuggingFace(**USUAL | files | {"inputs": "v", "target": "v", "kind": "values"})
    assert source.in_shape == (1,) and source.load().train_y[:, 0].tolist() == [i / 2 for i in range(9)]
    with pytest.raises(ValueError, match="inputs: got 'w', expected a column of train_file: "):
        HuggingFace(**USUAL | files | {"inputs": "w"}).load()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train").touch()
    with pytest.raises(ValueError, match=r"^folder: got .*train, which is no folder, expected one"):
        HuggingFace(**USUAL | {"root": tmp_path, "folder": "mine"})


def test_a_folder_or_two_files(folder):
    with pytest.raises(ValueError, match="folder: got None, expected a folder, or train_file and test_file instead"):
        HuggingFace(**USUAL)
