"""A typed `_target_` makes a group that class's, whatever option or experiment had set for another one."""

import os
from unittest import mock

import pytest

from composed import CONF, ROOT, plain
from hw1.command import with_budget
from hw1.replaced import leftovers, settable
from hw1.settings import ConfigError

RESNET = "model={_target_: torchvision.models.resnet18, num_classes: 10}"
NET = "made_networks.Plain"


def composed(*words):
    """The settings that a run of these words has, as `--cfg job` shows them."""
    with mock.patch.dict(os.environ, HW1_CHECKOUT=str(ROOT)):
        _, _, *words = with_budget(["--cfg", "job", *words], CONF)
    return plain(*words)


@pytest.mark.parametrize("experiment", [[], ["experiment=flatness_interp/mlp"]])  # which sets model.hidden itself
def test_a_typed_node_is_all_of_its_group(experiment):
    model = composed(*experiment, RESNET)["model"]
    assert model == {"_target_": "torchvision.models.resnet18", "num_classes": 10}


def test_a_data_set_keeps_the_settings_of_its_batches():
    dataset = composed("dataset={_target_: made_images.MadeImages, size: 16}", "dataset.batch_size=8")["dataset"]
    before = plain()["dataset"]
    shared = {name: before[name] for name in ("train_size", "corruption", "val_fraction", "seed", "workers")}
    assert dataset == {
        "_target_": "made_images.MadeImages", "size": 16, "batch_size": 8, **shared,
        "eval_batch_size": before["eval_batch_size"],
    }  # fmt: skip


def test_of_another_class_the_values_stay_that_it_takes():
    optimizer = composed("optimizer._target_=torch.optim.RMSprop", "optimizer.alpha=0.9", "optimizer.lr=0.1")
    taken = {"_target_": "torch.optim.RMSprop", "lr": 0.1, "weight_decay": 0.0, "alpha": 0.9}
    taken |= {"no_decay": None, "groups": None}  # of conf/optimizer/base, whatever the class
    assert optimizer["optimizer"] == taken
    model = composed(f"model._target_={NET}", "model.depth=2")["model"]
    assert model == {"_target_": NET, "width": 1, "depth": 2}  # it takes width, and neither layers nor activation


def test_what_is_typed_is_never_dropped():
    settings = {"model": {"_target_": NET, "layers": [1], "width": 2}}
    words = [f"model._target_={NET}", "++model.layers=[1]"]
    assert leftovers(settings, words, lambda group: ()) == []
    assert leftovers(settings, words[:1], lambda group: ()) == ["model.layers"]
    assert leftovers(settings, ["model.width=2"], lambda group: ()) == []
    nested = {"model": {"_target_": NET, "part": {"_target_": NET, "layers": 3, "width": 1}}}
    assert leftovers(nested, [f"model.part={{_target_: {NET}, width: 1}}"], lambda group: ()) == ["model.part.layers"]


def test_only_settings_of_such_groups_may_be_new():
    assert settable([RESNET, "optimizer.lr=1"]) == [f"++{RESNET}", "optimizer.lr=1"]
    assert settable(["model=mlp", "model.width=2", "trainer={_target_: x}"]) == [
        "model=mlp", "model.width=2", "trainer={_target_: x}",
    ]  # fmt: skip
    task = "task={_target_: mine.Task}"
    assert settable([task, "task.alpha=1,2"]) == [f"++{task}", "++task.alpha=1,2"]
    swept = "model={_target_: a.A},{_target_: b.B}"
    assert settable([swept, "-m"]) == [f"++{swept}", "-m"]


def test_settings_of_an_own_task_are_typed_as_those_of_a_model():
    words = ["task={_target_: made_tasks.Distilled, teacher: null}", "task.temperature=4"]
    assert composed(*words)["task"] == {"_target_": "made_tasks.Distilled", "teacher": None, "temperature": 4}


def test_a_class_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"optimizer\._target_: got torch\.optim\.Rmsprop, which cannot be imported"):
        composed("optimizer._target_=torch.optim.Rmsprop")
