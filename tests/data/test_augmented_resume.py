"""Augmentation, and random data read by worker processes, go on after an interruption as if there had been none."""

import pytest
import torch

from hw1.training.fit import fit
from hw1.training.task import Task
from made_runs import checked, run_settings

NODES = {
    "shift": {"_target_": "torchvision.transforms.v2.RandomAffine", "degrees": 0, "translate": [0.2, 0.2]},
    "noise": {"_target_": "torchvision.transforms.v2.GaussianNoise", "mean": 0.0, "sigma": 0.1, "clip": False},
}


def settings(workers, replicas=1):
    plain = run_settings()
    trainer = {**plain["trainer"], "checkpoint_seconds": 0, "max_epochs": 3, "progress": False}
    dataset = {**plain["dataset"], "train_size": 100, "workers": workers}
    return checked(trainer=trainer, dataset=dataset, transform=NODES, replicas=replicas)


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def trained(folder, own):
    folder = folder / f"run-{own.key}"
    result = fit(own, folder)
    assert result["status"] == "complete", result.get("error")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return weights(trained(tmp_path_factory.mktemp("whole"), settings(0)))


def test_interrupted_and_read_by_another_number_of_workers(whole, tmp_path, monkeypatch):
    start = Task.on_train_batch_start

    def stop(task, batch, batch_idx):
        if task.current_epoch == 1 and batch_idx == 1:
            raise KeyboardInterrupt
        return start(task, batch, batch_idx)

    own = settings(0)
    with monkeypatch.context() as patched:
        patched.setattr(Task, "on_train_batch_start", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, own)
    assert settings(1).key == own.key
    found = weights(trained(tmp_path, settings(1)))
    assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_a_transform_changes_the_weights(whole, tmp_path):
    plain = settings(0)
    bare = checked(**{**plain.plain, "transform": None})
    found = weights(trained(tmp_path, bare))
    assert not all(torch.equal(found[name], value) for name, value in whole.items())
