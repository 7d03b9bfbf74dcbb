"""Decoded images are cached; what the disk makes of the cache is never trained on."""

import numpy as np
import pytest
from PIL import Image

from hw1.data import ImageFolder
from hw1.data.source import sha256


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setenv("HW1_CACHE", str(tmp_path / "cache"))
    values = np.arange(2 * 2 * 4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 4, 3)
    for at, place in enumerate(["train/a", "train/b", "test/a", "test/b"]):
        (tmp_path / "data" / place).mkdir(parents=True)
        Image.fromarray(values[at]).save(tmp_path / "data" / place / "0.png")
    return lambda: ImageFolder(tmp_path, "data", 4, 3)


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "of an earlier version"])
def test_a_damaged_cache_is_decoded_again(images, tmp_path, damage):
    first = images()
    whole, identity = first.load(), first.identity()
    (cache,) = (tmp_path / "cache").glob("images-*.npy")
    content = bytearray(cache.read_bytes())
    assert cache.stem.endswith(f"-{sha256([cache])[:16]}")
    content[-5] ^= 1
    changed = {"flipped": content, "cut": content[:-9], "emptied": b"", "of an earlier version": content}[damage]
    cache.write_bytes(changed)
    if damage == "of an earlier version":
        cache = cache.rename(cache.with_name(f"{cache.stem.rpartition('-')[0]}.npy"))
    again = images()
    assert again.load().train_x.equal(whole.train_x) and again.load().test_x.equal(whole.test_x)
    assert again.identity() == identity == images().identity()
    (kept,) = (tmp_path / "cache").glob("images-*.npy")
    assert kept.stem.endswith(f"-{sha256([kept])[:16]}")
