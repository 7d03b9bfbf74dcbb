import numpy as np
import pytest
import torch

from hw1.data import DataModule, MnistMean

torch.set_num_threads(1)


def made(root, target="mean", noise=0.0, noise_seed=0, test_size=None, source="full"):
    return MnistMean(root, source, target, noise, noise_seed, test_size)


@pytest.mark.parametrize("target", ["mean", "sigmoid_mean"])
def test_targets_are_means_of_pixels(tmp_path, write_idx, target):
    arrays = write_idx(tmp_path / "MNIST" / "raw")
    loaded = made(tmp_path, target).load()
    for x, y, split in ((loaded.train_x, loaded.train_y, "train"), (loaded.test_x, loaded.test_y, "t10k")):
        pixels = arrays[f"{split}-images"] / 255
        expected = pixels.mean(axis=(1, 2))
        if target == "sigmoid_mean":
            expected = 1 / (1 + np.exp(-expected))
        assert y.shape == (len(pixels), 1) and y.dtype == torch.float32
        np.testing.assert_allclose(y[:, 0].numpy(), expected, rtol=1e-6)
        np.testing.assert_allclose(x[:, 0].numpy(), pixels, rtol=1e-6)


def test_noise_is_on_both_sets_and_has_its_seed(tmp_path, write_idx):
    write_idx(tmp_path / "MNIST" / "raw", train=3000, test=2000)
    clean, noisy, again, other = (
        made(tmp_path, noise=noise, noise_seed=seed).load() for noise, seed in ((0, 1), (0.05, 1), (0.05, 1), (0.05, 2))
    )
    residuals = [(noisy.train_y - clean.train_y).numpy(), (noisy.test_y - clean.test_y).numpy()]
    for residual in residuals:
        assert residual.std() == pytest.approx(0.05, rel=4 / np.sqrt(2 * len(residual)))  # 4 standard errors
        assert abs(residual.mean()) < 4 * 0.05 / np.sqrt(len(residual))
    correlation = np.corrcoef(residuals[0][:2000, 0], residuals[1][:, 0])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(2000)
    assert torch.equal(noisy.train_y, again.train_y) and not torch.equal(noisy.train_y, other.train_y)


def test_the_test_set_is_a_fixed_stratified_part(tmp_path, write_idx):
    write_idx(tmp_path / "MNIST" / "raw", test=200)  # label i % 10
    whole, part = made(tmp_path).load(), made(tmp_path, test_size=50, noise_seed=5).load()
    rows = {row.tobytes(): i for i, row in enumerate(whole.test_x.numpy())}
    picked = [rows[row.tobytes()] for row in part.test_x.numpy()]
    assert len(set(picked)) == 50 and np.bincount(np.array(picked) % 10).tolist() == [5] * 10
    assert torch.equal(part.test_y, whole.test_y[picked])
    with pytest.raises(ValueError, match=r"^test_size: got 201, expected at most 200$"):
        made(tmp_path, test_size=201).load()


def test_identity_changes_with_what_changes_the_examples_alone(idx_root):
    base = made(idx_root).identity()
    assert base == made(idx_root, noise_seed=5).identity()  # without noise the seed is without effect
    changes = ({"target": "sigmoid_mean"}, {"noise": 0.1}, {"test_size": 10}, {"noise": 0.1, "noise_seed": 1})
    assert len({base, *(made(idx_root, **change).identity() for change in changes)}) == 5


def test_in_a_datamodule_it_is_a_regression():
    data = DataModule(
        made(None, source="bundled", noise=0.05, test_size=1000),
        batch_size=64, train_size=2000, corruption=0.0, val_fraction=0.0, seed=0, workers=0, eval_batch_size=250,
    )  # fmt: skip
    assert data.sizes == {"train": 2000, "test": 1000} and data.source == "bundled" and data.name == "mnist_mean"
    assert data.loss(torch.tensor([[2.0]]), torch.tensor([[0.0]])) == 4


@pytest.mark.parametrize("wrong", [{"target": "median"}, {"noise": -1}, {"test_size": 0}, {"source": "none"}])
def test_errors_begin_with_the_name(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: got "):
        made(None, **wrong)
