"""Extra torchmetrics against scikit-learn, on the weights that a run saved."""

from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics
import torch

from composed import plain, trained
from composed import settings as composed
from hw1.settings import ConfigError, RunSettings
from hw1.training import build

SMALL = (
    *("dataset=digits", "dataset.train_size=300", "dataset.eval_batch_size=100", "dataset.val_fraction=0.1"),
    *("model=mlp", "model.hidden=[8]", "trainer.max_epochs=2", "callbacks=none", "logger=none"),
)


def calibration_error(p, y, bins=15):
    """Of the largest probability, in bins of equal width (Guo et al. 2017, eq. 3)."""
    confidence, right = p.max(1), p.argmax(1) == y
    found, edges = 0.0, np.linspace(0, 1, bins + 1)
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            found += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return found


@pytest.mark.parametrize("replicas", [1, 2])
def test_metrics_are_of_whole_sets_and_of_every_member(replicas, tmp_path):
    words = ("metrics=[f1,top5_accuracy,calibration_error,auroc]", f"replicas={replicas}")
    run = trained(composed(*SMALL, *words), tmp_path)
    data, metrics = run.datamodule(), run.result["metrics"]
    for member, net in enumerate(run.nets()):
        for split in ("train", "val", "test"):
            x, y = getattr(data, f"{split}_tensors")
            with torch.no_grad():
                p = net(x).double().softmax(1).numpy()
            y = y.numpy()
            expected = {
                "f1": sklearn.metrics.f1_score(y, p.argmax(1), average="macro"),
                "top5_accuracy": sklearn.metrics.top_k_accuracy_score(y, p, k=5),
                "auroc": sklearn.metrics.roc_auc_score(y, p, multi_class="ovr", average="macro"),
                "calibration_error": calibration_error(p, y),
            }
            for name, value in expected.items():
                found = metrics[f"{split}/{name}"]
                assert (found if replicas == 1 else found[member]) == pytest.approx(value, abs=2e-5), name
    last = run.history().dropna(subset=["test/f1"])
    assert last["test/f1"].iloc[-1] == (metrics["test/f1"] if replicas == 1 else metrics["test/f1"][-1])


def test_metrics_of_numbers(tmp_path):
    words = ("dataset=function", "model=mlp", "model.hidden=[4]", "trainer.max_epochs=1", "metrics=mean_absolute_error")
    run = trained(composed(*words, "callbacks=none", "logger=none"), tmp_path)
    x, y = run.datamodule().test_tensors
    with torch.no_grad():
        expected = (run.net()(x) - y).abs().mean().item()
    assert run.result["metrics"]["test/mean_absolute_error"] == pytest.approx(expected, rel=1e-5)


REFUSED = {
    "metrics.f1": ({"_target_": "torchmetrics.F1Score"}, ["dataset=function"], "which is of classes, with "),
    "metrics.f1 ": ({"_target_": "torchmetrics.F1Score", "averag": "x"}, [], "Unexpected keyword arguments: `averag`"),
    "metrics.f1  ": ({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}, [], "makes a Linear"),
    "metrics.f1   ": (
        {"_target_": "torchmetrics.classification.MulticlassF1Score", "average": None}, [], "gives [10], expected one"
    ),
    "metrics.loss": ({"_target_": "torchmetrics.F1Score"}, [], "got the name loss, expected another than loss, acc"),
}  # fmt: skip


@pytest.mark.parametrize("key", REFUSED)
def test_refused_before_anything_trains(key, tmp_path):
    node, words, said = REFUSED[key]
    words = [word for word in SMALL if not words or not word.startswith("dataset")] + words
    name = key.strip().partition(".")[2]
    with pytest.raises(ConfigError) as caught:
        build.validate(RunSettings.check({**plain(*words), "metrics": {name: node}}), tmp_path)
    assert str(caught.value).startswith(f"metrics.{name}") and said in str(caught.value), str(caught.value)
