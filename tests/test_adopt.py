"""Weights that were trained elsewhere: read without running code, fitted by name, and runs like any other."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy

from composed import plain
from hw1.adopt import found, of_trainings, words_of
from hw1.data import Digits
from hw1.models import Mlp
from hw1.runs import Sweep
from hw1.settings import ConfigError, run_key
from hw1.training.weights_file import fitted, identity, tensors_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def same(net, fit):
    """Whether what was fitted is the network's own state."""
    state = net.state_dict()
    return set(fit) == set(state) and all(torch.equal(fit[name], state[name]) for name in state)


def under(net, prefix):
    return {prefix + name: value for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda net: net.state_dict(),
        lambda net: {"state_dict": net.state_dict(), "epoch": 3},
        lambda net: {"model_state_dict": net.state_dict(), "optimizer_state_dict": {"state": {}, "param_groups": []}},
        lambda net: {"state_dict": under(net, "net._orig_mod."), "hyper_parameters": {"lr": 0.1}},
        lambda net: {"model": under(net, "module.model.")},
        lambda net: {
            "0._orig_mod." + n.removeprefix("0.") if n[0] == "0" else n: v for n, v in net.state_dict().items()
        },
    ],
)
def test_a_file_of_torch_fits_by_its_names(net, content, tmp_path):
    torch.save(content(net), tmp_path / "a.pt")
    assert same(net, fitted(net, tensors_of(tmp_path / "a.pt"), "a.pt"))


def test_names_fit_a_network_on_no_device_and_one_that_wraps_it(net):
    wrapped = nn.ModuleDict({"inner": net})
    with torch.device("meta"):
        empty = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))})
    assert same(wrapped, fitted(empty, net.state_dict(), "a.pt"))


def test_shards_and_a_single_file_of_a_folder(net, tmp_path):
    state = net.state_dict()
    first = {name: value for name, value in state.items() if name.startswith("0.")}
    second = {name: value for name, value in state.items() if name not in first}
    save_file(first, tmp_path / "model-00001-of-00002.safetensors")
    save_file(second, tmp_path / "model-00002-of-00002.safetensors")
    places = {n: f"model-0000{1 if n in first else 2}-of-00002.safetensors" for n in state}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert same(net, fitted(net, tensors_of(tmp_path), "folder"))
    before = identity(tmp_path)
    save_file({name: value + 1 for name, value in second.items()}, tmp_path / "model-00002-of-00002.safetensors")
    assert identity(tmp_path) != before
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(ConfigError, match=r"whose index names \.\./a\.safetensors, expected a safetensors file in it"):
        tensors_of(tmp_path)
    save_file(state, tmp_path / "model.safetensors")
    assert same(net, fitted(net, tensors_of(tmp_path), "folder"))


def test_a_prefix_picks_a_part_of_what_is_there(net):
    both = under(net, "student.") | under(nn.Linear(3, 2), "teacher.")
    assert same(net, fitted(net, both, "a.ckpt", prefix="student."))
    with pytest.raises(
        ConfigError,
        match=r"prefix: got pupil\., with which no name in a.ckpt begins; expected what its names begin with: student",
    ):
        fitted(net, both, "a.ckpt", prefix="pupil.")


class Ran:
    """Says that it was unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_a_file_that_runs_code_is_refused(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": net.state_dict(), "extra": Ran()}, "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Ran(), protocol=2))
    torch.save(net, "c.pt")
    for name in ("a.pt", "b.pt", "c.pt"):
        with pytest.raises(ConfigError, match=r"which holds more than tensors .* expected a state_dict: torch.save"):
            tensors_of(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "d.pt").write_bytes(b"nothing")
    (tmp_path / "e.safetensors").write_bytes(b"nothing")
    torch.save({"a": 1}, "f.pt")
    for name, said in (("d.pt", "expected a state_dict"), ("e.safetensors", "no whole"), ("f.pt", "the entries a")):
        with pytest.raises(ConfigError, match=said):
            tensors_of(tmp_path / name)


def test_what_does_not_fit_is_listed_in_one_line_each(net):
    state = net.state_dict()
    state["2.weight"] = state["2.weight"][:, :3]
    state["head"] = state.pop("0.bias")
    del state["1.num_batches_tracked"]  # of an old version
    with pytest.raises(ConfigError) as refused:
        fitted(net, state, "a.pt")
    assert str(refused.value).splitlines() == [
        "weights: got a.pt, which does not fit the model: missing are 0.bias [4]; unexpected are head [4]; "
        "another shape have 2.weight [2, 3] instead of [2, 4]; expected its own",
    ]
    bad = net.state_dict() | {"0.bias": torch.full((4,), torch.nan), "2.weight": torch.ones(2, 4, dtype=torch.int8)}
    with pytest.raises(ConfigError, match=r"other numbers hold 2\.weight \(torch\.int8\)"):
        fitted(net, bad, "a.pt")
    with pytest.raises(ConfigError, match=r"not finite are 0\.bias"):
        fitted(net, bad | {"2.weight": torch.ones(2, 4)}, "a.pt")


def test_of_tied_weights_one_name_is_enough():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    fit = fitted(net, {"1.weight": torch.eye(3)}, "a.safetensors")
    net.load_state_dict(fit, strict=False)
    assert torch.equal(net[0].weight, torch.eye(3))


def test_tied_weights_that_differ_in_the_file_are_refused():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    both = {"0.weight": torch.eye(3), "1.weight": torch.eye(3)}
    assert set(fitted(net, both, "a.pt")) == set(both)
    with pytest.raises(ConfigError, match=r"tied there, and different in the file, are 0\.weight and 1\.weight"):
        fitted(net, both | {"1.weight": torch.zeros(3, 3)}, "a.pt")


def test_words_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("seed10/net.pt", "seed2/net.pt"):
        (tmp_path / name).parent.mkdir()
        torch.save({"a": torch.zeros(1)}, name)
    made = words_of(["weights=seed*/net.pt", "model=mlp", "study=flatness_interp"], ROOT / "conf")
    assert (
        made[1] == "model=mlp"
        and made[0].startswith("study={_target_:'hw1.studies")
        and "adopted.file='seed2/net.pt','seed10/net.pt'" in made
    )
    assert "name=adopted" in made and "study.pair_by=adopted.file" in made and "seed=0" not in made
    made = words_of(["weights=seed2/net.pt,seed10/net.pt", "experiment=flatness_interp", "seed=3"], ROOT / "conf")
    assert {"hydra.sweeper.params=null", "replicas=1", "study.pair_by=adopted.file"} < set(
        made
    ) and "seed=0" not in made
    for words, said in (
        (["model=mlp"], "weights: got none"),
        (
            ["weights=seed2/net.pt", "seed10/net.pt", "model=mlp"],
            r"got seed10/net\.pt as words .*weights=seed2/net\.pt,seed10/net\.pt, or quotes around a pattern",
        ),
        (["weights=seed3/*.pt"], "names no weights here"),
        (["weights=seed2"], "a folder without model.safetensors"),
        (["weights=seed2/net.pt", "study=flatness_interp"], "alone, expected two or more"),
        (["weights=seed2/net.pt", "study=flatness"], r"^study: got flatness, .*did you mean flatness_interp"),
    ):
        with pytest.raises(ConfigError, match=said):
            words_of(words, ROOT / "conf")
    assert [path.parent.name for path in found("**/*.pt")] == ["seed2", "seed10"]


def test_settings_of_a_training_are_said_to_be_a_record():
    assert of_trainings(["weights=a.pt", "model=mlp", "trainer.precision=64-true", "loss=mse"]) == ""
    said = of_trainings(["weights=a.pt", "scheduler=cosine", "+trainer.max_steps=3", "transform=flip"])
    assert said.startswith("scheduler, trainer.max_steps, transform: nothing is trained here; they are recorded, and")


def test_where_the_weights_lay_is_no_part_of_a_key():
    node = {"folder": "/a", "file": "a.pt", "sha256": "0", "prefix": None}
    own = plain("dataset=digits", "model=mlp")
    keys = [
        run_key(own | {"adopted": value}) for value in (None, node, node | {"folder": "/b"}, node | {"sha256": "1"})
    ]
    assert keys[1] == keys[2] and len(set(keys)) == 3


TRAINED = ["model=mlp", "model.hidden=[12]", "dataset=digits"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Three nets that were trained in a plain loop, and their files in three formats."""
    folder, nets = tmp_path_factory.mktemp("elsewhere"), []
    data = Digits().load()
    for seed in range(3):
        torch.manual_seed(seed)
        net = Mlp((1, 8, 8), 10, hidden=[12])
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            cross_entropy(net(data.train_x), data.train_y).backward()
            optimizer.step()
        nets.append(net)
    torch.save(nets[0].state_dict(), folder / "a.pt")
    torch.save({"state_dict": under(nets[1], "net."), "epoch": 40}, folder / "b.ckpt")
    save_file(nets[2].state_dict(), folder / "c.safetensors")
    return folder, nets


@pytest.fixture(scope="module")
def adopted(weights, hw1, tmp_path_factory):
    """(what the command said, the sweep's folder, its words)."""
    folder = tmp_path_factory.mktemp("adopted")
    shutil.copytree(weights[0], folder / "w")
    words = ["name=mine", *TRAINED, f"weights={folder / 'w'}/*", "study=flatness_interp", "study.points=7"]
    words += [f"output={folder / 'out'}", "hydra/launcher=basic"]
    return hw1("adopt", *words), folder, words


def test_adopted_weights_are_finished_runs(adopted, weights, hw1):
    done, folder, _ = adopted
    assert done.returncode == 0, done.stderr
    sweep = Sweep.read(folder / "out" / "mine")
    assert sweep.keys == ["adopted.file"] and sweep.status == "complete"
    assert [sweep.cell(run, "adopted.file") for run in sweep.runs] == ["a.pt", "b.ckpt", "c.safetensors"]
    data = Digits().load()
    for run, net in zip(sweep.runs, weights[1], strict=True):
        loss = cross_entropy(net.double()(data.test_x.double()), data.test_y).item()
        assert run.metrics()["test/loss"] == pytest.approx(loss, rel=1e-5) and run.result["epochs"] == 0
        assert torch.allclose(run.net()(data.test_x).double(), net(data.test_x.double()), atol=1e-4)
        assert run.value("adopted.sha256") == identity(folder / "w" / run.value("adopted.file"))
    pairs = (sweep.path / "barriers.csv").read_text().splitlines()
    assert len(pairs) == 1 + 2 * 2 and "a.pt,c.safetensors" in pairs[-1]
    assert "Between a.pt and b.ckpt" in done.stdout and (sweep.path / "report.html").stat().st_size > 10_000


def test_they_are_read_once_measured_and_vouched_for(adopted, hw1):
    _, folder, words = adopted
    assert "nothing to do: 3 runs complete" in hw1("adopt", *words).stdout
    done = hw1("measure", folder / "out" / "mine", "sharpness", "hydra/launcher=basic", "sharpness.examples=64")
    assert done.returncode == 0 and "3 to measure" in done.stdout, done.stderr
    assert Sweep.read(folder / "out" / "mine").table("sharpness/trace[examples=64]").notna().all(axis=None)
    assert "runs 3, sweeps 1: sound" in hw1("verify", folder / "out").stdout
    assert "3 runs: 3 complete" in hw1("list", folder / "out" / "mine").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.hidden=[13]"], "a.pt, which does not fit the model: another shape have 1.weight [12, 64] instead of"),
        (["replicas=2"], "replicas: got 2, expected 1"),
        (["callbacks=gradient_norm"], "callbacks: got gradient_norm, expected none"),
    ],
)
def test_nothing_is_made_of_what_does_not_fit(words, said, weights, hw1, tmp_path):
    given = [word for word in TRAINED if word.partition("=")[0] not in {w.partition("=")[0] for w in words}]
    done = hw1("adopt", "name=mine", *given, *words, f"weights={weights[0]}/*", f"output={tmp_path}")
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("result.json")) and not (tmp_path / "mine" / "sweeps").exists()
