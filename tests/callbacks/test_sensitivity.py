import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hw1.callbacks import Sensitivity
from hw1.data import Digits, Function
from hw1.models import Cnn, Mlp
from hw1.training.fit import fit
from hw1.training.identity import run_key
from made_runs import run_settings
from tiny_fit import Lines, tiny_fit


def metrics_of(trainer):
    """What a run's result.json gets: the metrics after the test that follows the training."""
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False, weights_only=True)
    task = trainer.lightning_module
    return {name: value for name, (value,) in (task.member_metrics | task.measured).items()}


def frobenius(function, x):
    """Norm of the Jacobian at one example x [1, ...]."""
    return torch.autograd.functional.jacobian(function, x).norm().item()


def function():
    return Function("sinc_5pi", [-1, 1], points=30, noise=0.1, noise_seed=0, test_points=10)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*isinstance.treespec, LeafSpec.*")
def test_classes(tmp_path):
    net = Cnn((1, 8, 8), 10, layers=["c3(4)", "bn", "p2", 8, "drop"]).to(memory_format=torch.channels_last)
    lines = Lines()
    metrics = metrics_of(tiny_fit(net, Digits(), tmp_path, [Sensitivity()], logger=lines, data={"train_size": 64}))
    assert {name for name in metrics if name.startswith("sens")} == {
        "sensitivity/loss",
        "sensitivity/softmax",
        "sensitivity/logits",
    }
    net = copy.deepcopy(net).double().eval()
    x, y = tiny_sets(Digits())
    forms = {"loss": [], "softmax": [], "logits": []}
    for image, label in zip(x.double()[:, None], y, strict=True):
        forms["loss"].append(frobenius(lambda z, t=label: F.cross_entropy(net(z), t[None]), image))
        forms["softmax"].append(frobenius(lambda z: net(z).softmax(1), image))
        forms["logits"].append(frobenius(net, image))
    for form, norms in forms.items():
        assert metrics[f"sensitivity/{form}"] == pytest.approx(np.mean(norms), rel=1e-5), form
    assert {"test/loss", "test/accuracy", "train/loss", "train/accuracy"} <= metrics.keys()


def tiny_sets(examples):
    loaded = examples.load()
    return loaded.test_x, loaded.test_y


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*isinstance.treespec, LeafSpec.*")
def test_regression_has_no_softmax(tmp_path):
    net = Mlp((1,), 1, hidden=[6])
    metrics = metrics_of(tiny_fit(net, function(), tmp_path, [Sensitivity()]))
    assert {name for name in metrics if name.startswith("sens")} == {"sensitivity/loss", "sensitivity/outputs"}
    x, y = tiny_sets(function())
    net = net.double()
    slopes = [frobenius(net, one) for one in x.double()[:, None]]
    errors = (net(x.double()) - y).abs()[:, 0].tolist()
    assert metrics["sensitivity/outputs"] == pytest.approx(np.mean(slopes), rel=1e-5)
    expected = np.mean([2 * error * slope for error, slope in zip(errors, slopes, strict=True)])
    assert metrics["sensitivity/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*isinstance.treespec, LeafSpec.*")
def test_measuring_changes_neither_weights_nor_metrics(tmp_path):
    results = []
    for callbacks in ([], [Sensitivity()]):
        torch.manual_seed(0)
        net = Mlp((1,), 1, hidden=[6])
        metrics = metrics_of(tiny_fit(net, function(), tmp_path, callbacks))
        results.append((net.state_dict(), {name: value for name, value in metrics.items() if "sens" not in name}))
    (one, plain), (two, measured) = results
    assert plain == measured and all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_run_that_stopped_behind_its_last_checkpoint_is_measured_all_the_same(tmp_path):
    sharpness = {"_target_": "hw1.callbacks.Sharpness", "examples": 50, "rho": 0.01, "trace_products": 6, "seed": 0}
    callbacks = {"sensitivity": {"_target_": "hw1.callbacks.Sensitivity"}, "sharpness": sharpness}
    settings = run_settings(callbacks=callbacks)
    folder = tmp_path / f"run-{run_key(settings)}"
    first = fit(settings, folder)
    assert first["status"] == "complete" and {"sensitivity/loss", "sharpness/trace"} <= first["metrics"].keys()
    (folder / "result.json").unlink()
    again = fit(settings, folder)
    assert again["metrics"] == first["metrics"] and again["seconds"] >= first["seconds"]
