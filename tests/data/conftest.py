"""Small files in the real formats, written by the tests themselves."""

import struct
from pathlib import Path

import numpy as np
import pytest

TRAIN, TEST = 30, 20


def _write_idx(raw: Path, train: int = TRAIN, test: int = TEST) -> dict[str, np.ndarray]:
    """Write the four IDX files of a tiny MNIST; return the arrays by file name."""
    raw.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + labels.tobytes())
        arrays |= {f"{split}-images": images, f"{split}-labels": labels}
    return arrays


@pytest.fixture
def write_idx():
    return _write_idx


@pytest.fixture
def idx_root(tmp_path):
    _write_idx(tmp_path / "MNIST" / "raw")
    return tmp_path


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's data or cache folder."""
    monkeypatch.setenv("HW1_DATA", str(tmp_path / "no-data-here"))
    monkeypatch.setenv("HW1_CACHE", str(tmp_path / "cache"))
