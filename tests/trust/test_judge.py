"""What a stranger's settings may name: each row is shown to run the naive way, and to be refused by ours, unrun."""

import contextlib
import functools
import pickle
import random
import sys

import pytest

from composed import ROOT, plain
from hw1.settings.construct import call
from hw1.trust import TrustError, judge_measures, judge_settings, judge_study
from hw1.trust.judge import PLACES
from hw1.trust.names import found, lies_in, parts_of

WHOSE = "runs/x is not signed by you; hw1 trust runs/x if it is yours"
usual = functools.cache(plain)


class Planted:
    """A pickle that makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def rows(folder, canary):
    """Nodes by name, each of which makes the canary when it is called."""
    touch, script = f"touch {canary}", folder / "script.py"
    script.write_text(f"open({str(canary)!r}, 'w')\n")
    (folder / "evil_module.py").write_text(f"open({str(canary)!r}, 'w')\nclass Net: pass\n")
    (folder / "hubconf.py").write_text(f"def net():\n    open({str(canary)!r}, 'w')\n")
    (folder / "weights.pt").write_bytes(pickle.dumps(Planted(canary), protocol=2))
    return {
        "os": {"_target_": "os.system", "command": touch},
        "torch.os": {"_target_": "torch.os.system", "command": touch},
        "through modules": {"_target_": "torch.nn.modules.module.torch.os.system", "command": touch},
        "hw1's import": {"_target_": "hw1.runs.run.os.system", "command": touch},
        "colon": {"_target_": "hw1.runs.run:os.system", "command": touch},
        "Popen": {"_target_": "subprocess.run", "args": ["touch", str(canary)]},
        "getoutput": {"_target_": "subprocess.getoutput", "cmd": touch},
        "runpy": {"_target_": "runpy.run_path", "path_name": str(script)},
        "torch.load": {"_target_": "torch.load", "f": str(folder / "weights.pt"), "weights_only": False},
        "hub": {"_target_": "torch.hub.load", "repo_or_dir": str(folder), "model": "net", "source": "local"},
        "rmtree": {"_target_": "shutil.copyfile", "src": str(script), "dst": str(canary)},
        "module": {"_target_": "evil_module.Net"},
        "partial": {"_target_": "functools.partial", "_args_": [{"_target_": "os.system", "_args_": [touch]}]},
    }


def places(node):
    """The settings of a run with a node at many depths."""
    settings = usual()
    yield {**settings, "model": node}
    yield {**settings, "model": {**settings["model"], "layers": [{"a": [node]}]}}
    yield {**settings, "model": {"_target_": "torch.nn.Sequential", "_args_": [node]}}
    yield {**settings, "model": {"_target_": "torch.nn.Sequential", "_partial_": True, "_args_": [[node]]}}
    yield {**settings, "dataset": node}
    yield {**settings, "dataset": {**settings["dataset"], "batch_size": node}}
    yield {**settings, "dataset": {**settings["dataset"], "further": {"x": (node,)}}}
    for key in ("loss", "optimizer", "scheduler", "task", "transform", "seed", "name", "trainer", "later_version"):
        yield {**settings, key: node}
    for key in ("metrics", "callbacks", "logger", "measures"):
        yield {**settings, key: {"mine": node}}
    yield {**settings, "callbacks": {"track": {"_target_": "hw1.callbacks.Track", "measure": {"one": node}}}}


NAMES = ["os", "torch.os", "through modules", "hw1's import", "colon", "Popen", "getoutput", "runpy"]
NAMES += ["torch.load", "hub", "rmtree", "module", "partial"]


@pytest.mark.parametrize("name", NAMES)
def test_what_runs_by_opening_it_naively_is_refused_unrun(name, tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    node = rows(tmp_path, canary)[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    with contextlib.suppress(Exception):  # of what comes of it
        call(node, "model")  # the naive way
    assert canary.exists(), "the row does nothing"
    canary.unlink()
    sys.modules.pop("evil_module", None)
    for settings in places(node):
        with pytest.raises(
            TrustError, match=r"_target_: got .*, expected .*hw1 trust runs/x if it is yours"
        ) as refused:
            judge_settings(settings, (), WHOSE)
        assert "\n" not in str(refused.value)
        assert not canary.exists() and "evil_module" not in sys.modules
    for judge, given in ((judge_study, node), (judge_measures, {"mine": node})):
        with pytest.raises(TrustError, match="_target_"):
            judge(given, (), WHOSE)
    assert not canary.exists() and "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        *("torchevil.nn.Linear", "torch_nn.Linear", "torch.nn", "torch.nn.functional.relu", "torch.nn.Module.apply"),
        *("torch.nn.modules.linear.torch.nn.Linear", "hw1.models.cnn.nn.Linear", "hw1.models.members_of", "hw1.models"),
        *("torchvision.models.get_model", "torchvision.models.resnet.resnet18.x", "torchvision.models.list_models"),
        *("torch.nn.parallel.DistributedDataParallel", "torch.nn.DataParallel", "torch.nn.Embedding.from_pretrained"),
        *("hw1.data.Digits", "torch.optim.Adam", "hw1.studies.MinRatio", "", ".", "torch..nn", None, 3, ["torch"], {}),
    ],
)
def test_only_a_network_stands_for_a_model(name):
    with pytest.raises(TrustError, match=r"^model\._target_: got "):
        judge_settings({**usual(), "model": {"_target_": name}}, (), WHOSE)


@pytest.mark.parametrize(("name", "size"), [("mlp_of_size", "size"), ("mlp_of_budget", "budget")])
def test_nets_of_a_size_are_read_also_from_older_runs(name, size):
    node = {"_target_": f"hw1.models.{name}", size: 571, "depth": 3, "activation": "relu", "dropout": 0.0}
    judge_settings({**usual(), "model": node}, (), WHOSE)


def test_torchvisions_builders_have_no_weights():
    def judged(name="resnet18", **settings):
        judge_settings({**usual(), "model": {"_target_": f"torchvision.models.{name}", **settings}}, (), WHOSE)

    for name in ("resnet18", "resnet.resnet18", "googlenet", "vit_b_16", "segmentation.fcn_resnet50"):
        judged(name, weights=None, weights_backbone=None) if "." in name[6:] else judged(name, num_classes=10)
    for settings in ({"weights": "DEFAULT"}, {"weights": "IMAGENET1K_V1"}, {"pretrained": True}, {"_args_": [True]}):
        with pytest.raises(TrustError, match=r"^model\.(weights|pretrained|_args_): got .*, expected n"):
            judged(**settings)
    with pytest.raises(TrustError, match=r"^model\.weights_backbone: got its default, which downloads some"):
        judged("segmentation.fcn_resnet50")


@pytest.mark.parametrize("sample", [6, pytest.param(58, marks=pytest.mark.slow)])
def test_every_experiment_and_option_of_conf_is_a_strangers_without_a_word(sample):
    experiments = sorted(path.relative_to(ROOT / "conf" / "experiment") for path in (ROOT / "conf").rglob("*.yaml")
                         if path.is_relative_to(ROOT / "conf" / "experiment"))  # fmt: skip
    assert len(experiments) == 58
    draw = random.Random(17)
    for path in draw.sample(experiments, sample):
        settings = plain(f"experiment={path.with_suffix('').as_posix()}")
        judge_settings(settings)
        if settings["study"]:
            judge_study(settings["study"])
    files = {"file": "a.csv", "target": "y", "set": "SVHN", "folder": "x"}
    files |= {part: "x.npy" for part in ("train_x", "train_y", "test_x", "test_y")}
    for group in ("model", "dataset", "optimizer", "scheduler", "loss", "metrics", "callbacks", "logger", "transform"):
        options = sorted((ROOT / "conf" / group).glob("*.yaml"))
        for path in options if sample == 58 else draw.sample(options, 2):
            if path.stem in ("torch_dataset", "none"):  # the first is another's whole
                continue
            needed = [name for name in files if f"\n{name}: ???" in path.read_text()]
            judge_settings(plain(f"{group}={path.stem}", *(f"{group}.{name}={files[name]}" for name in needed)))
    assert {"model", "dataset", "measures", "study"} <= set(PLACES)


def test_what_the_user_trusts_is_what_its_modules_define(tmp_path, monkeypatch):
    (tmp_path / "her_models.py").write_text("import os\nfrom torch import nn\nclass Net(nn.Linear): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {**usual(), "model": {"_target_": "her_models.Net"}}
    with pytest.raises(TrustError, match=r"got 'her_models.Net'.*, or trust=\[her_models\] if you trust that module$"):
        judge_settings(settings, ("her_model", "her_models_too"), WHOSE)
    assert "her_models" not in sys.modules
    judge_settings(settings, ("her_models",), WHOSE)
    for name in ("her_models.os.system", "her_models.nn.Linear", "her_models.None"):
        with pytest.raises(TrustError):
            judge_settings({**usual(), "model": {"_target_": name}}, ("her_models",), WHOSE)


def test_names_are_compared_part_by_part():
    assert lies_in("a.b.c", ["a.b"]) and not lies_in("a.bc", ["a.b"]) and not lies_in("a", ["a.b"])
    assert parts_of("a.b") == ("a", "b") and not parts_of("a.b:c") and not parts_of("a-b") and not parts_of("a.")
    assert found("torch.nn.Linear", ["torch.nn"]).__name__ == "Linear"
    assert found("torch.nn.modules", ["torch.nn"]) is None and found("torch.optim.Adam", ["torch.nn"]) is None
