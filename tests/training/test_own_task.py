"""A user's own LightningModule as the task: hw1's data, metrics, callbacks, resume and readers work with it."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from composed import settings, trained
from hw1.settings import ConfigError
from hw1.training import build, fit
from hydra_plugins.hw1_sweeper.checking import check_runs
from hydra_plugins.hw1_sweeper.plan import Job

sys.path.insert(0, str(Path(__file__).parent))  # of my_tasks, as the folder of a user's own
pytestmark = pytest.mark.filterwarnings("ignore:Attribute 'net' is an instance of")  # as a user's module may be written
SMALL = ["model=mlp", "model.hidden=[6]", "dataset=digits", "dataset.train_size=100", "dataset.batch_size=32"]
SMALL += ["trainer.max_epochs=2", "logger=none", "trainer.checkpoint_seconds=0"]


def own(name, *words, **node):
    inside = ",".join([f"_target_:my_tasks.{name}", *(f"{key}:{value}" for key, value in node.items())])
    return settings(*SMALL, f"task={{{inside}}}", *words)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return trained(own("Distilled", "callbacks=[default,gradient_norm]", temperature=2.0), tmp_path_factory.mktemp("d"))


def test_whole_set_metrics_are_those_of_its_network(distilled):
    x, y = distilled.datamodule().test_tensors
    with torch.no_grad():
        outputs = distilled.net()(x)
    metrics = distilled.metrics()
    assert metrics["test/loss"] == pytest.approx(cross_entropy(outputs.double(), y).item(), rel=1e-5)
    assert metrics["test/accuracy"] == pytest.approx((outputs.argmax(1) == y).double().mean().item(), rel=1e-6)
    assert {"train/loss", "train/accuracy"} < set(metrics) and "distilled" not in metrics
    history = distilled.history()
    assert {"train_step/loss", "distilled", "gradient_norm", "test/loss"} < set(history)
    assert len(history["train_step/loss"].dropna()) == 8 and distilled.result["parameters"] == 65 * 6 + 70
    assert sorted(distilled.snapshots().epochs)[-1] == 2


def test_a_run_that_was_killed_between_its_end_and_its_result_is_taken_as_it_is(tmp_path):
    node = own("Distilled", temperature=2.0)
    run = trained(node, tmp_path)
    theta, metrics = run.theta(), run.metrics()
    (run.path / "result.json").unlink()
    again = trained(node, tmp_path)
    assert torch.equal(again.theta(), theta) and again.metrics() == metrics


def test_the_same_training_gives_the_same_bits(tmp_path):
    theta = trained(settings(*SMALL), tmp_path).theta()
    run = trained(own("Plain"), tmp_path)
    assert torch.equal(run.theta(), theta) and run.key != settings(*SMALL).key
    (run.path / "snapshots" / "epoch=000002.safetensors").unlink()  # then the checkpoint is read
    assert torch.equal(run.nets()[0][1].weight.flatten(), theta[: 6 * 64])


def test_a_module_that_is_the_network_resumes_bit_by_bit(tmp_path, monkeypatch):
    node = own("Itself")
    whole = trained(node, tmp_path / "whole")
    stopped = {"epochs": 0}
    flush = fit.StepLoss.on_train_epoch_end

    def interrupt(*args):
        stopped["epochs"] += 1
        if stopped["epochs"] == 2:
            raise KeyboardInterrupt
        flush(*args)

    folder = tmp_path / "parts" / f"run-{node.key}"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit.StepLoss, "on_train_epoch_end", interrupt)
        fit.fit(node, folder)
    again = trained(node, tmp_path / "parts")
    assert stopped["epochs"] == 2 and torch.equal(again.theta(), whole.theta())
    assert again.history().equals(whole.history()[list(again.history())])
    assert {"test/loss", "mine/hits", "test_size"} < set(again.metrics()) and again.metrics()["test_size"] == 360
    assert again.metrics()["mine/hits"] == pytest.approx(again.metrics()["test/accuracy"], abs=1e-6)
    assert "val_hits" in again.history() and "body.1.weight" in dict(again.net().named_parameters())


def test_a_gan_with_two_optimizers(tmp_path, caplog):
    run = trained(own("Gan"), tmp_path)
    assert "no train and test metrics of whole sets: its network does not take the data" in caplog.text
    assert set(run.metrics()) == {"realism"} and run.net()(torch.zeros(1, 4)).shape == (1, 64)
    before, after = run.snapshots().values[[0, -1]]
    assert not torch.equal(before, after)


@pytest.mark.parametrize(
    ("name", "words", "node", "said"),
    [
        ("Plain", ["replicas=2"], {}, r"replicas: got 2 with a task of its own, expected 1"),
        (
            "Plain",
            ["objective.minimise=squared_gradient_norm"],
            {},
            r"objective\.minimise: got squared_gradient_norm with",
        ),
        ("Itself", ["loss=mse"], {}, r"loss: got hw1\.losses\.mse with .*names no `loss`; expected none"),
        ("Elsewhere", [], {}, r"given `net` and does not keep it as self\.net"),
        ("NoStep", [], {}, r"has no training_step; expected a LightningModule with one"),
        ("Plain", [], {"lr": 1}, r"task\.lr: no such setting of my_tasks\.Plain"),
        ("torch", [], {}, r"task: got my_tasks\.torch|which is of type module; expected a class"),
        ("Gan", ["+trainer.gradient_clip_val=1"], {}, r"trainer\.gradient_clip_val: got 1, expected none with manual"),
    ],
)
def test_what_cannot_work_is_refused_before_it_trains(name, words, node, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        build.validate(own(name, *words, **node), tmp_path)


@pytest.mark.parametrize(
    ("name", "word", "said"),
    [
        ("Itself", "optimizer.lr=0.5", None),
        ("Plain", "optimizer=sgd", None),  # asks for it
        ("Gan", "optimizer.lr=0.5", r"^optimizer\.lr: got 0\.5 with my_tasks\.Gan, which has a configure_optimizers"),
        (
            "Gan",
            "++optimizer={_target_:torch.optim.RMSprop}",
            r"^optimizer: got \{_target_:torch\.optim\.RMSprop\} with",
        ),
        ("Itself", "model.hidden=[6]", r"^model\.hidden: got \[6\] with my_tasks\.Itself, which makes its own network"),
        ("Plain", "model.hidden=[6]", None),
    ],
)
def test_what_is_typed_for_a_part_that_the_module_makes_itself_is_refused(name, word, said, tmp_path):
    run = own(name, word)
    if said is None:
        build.validate(run, tmp_path, [word])
        return
    build.validate(run, tmp_path)  # as a default it is nobody's wish
    with pytest.raises(ConfigError, match=said) as caught:
        check_runs([Job([word], run, tmp_path)], [])
    assert "\n" not in str(caught.value)
