import json
import re

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import save_model
from torch import nn

from hw1.records import DamagedError
from hw1.runs import Ask, Run, Sweep, find_run, is_complete, read_measured, slug_of
from hw1.runs.measured import Measured, beside, write_measured
from hw1.settings import ConfigError, RunSettings
from made_runs import make_members, make_run, make_sweep, run_settings


def theta(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_a_run_tells_its_settings(tmp_path):
    folder, _ = make_run(tmp_path, 32, 5)
    run = Run(str(folder))
    assert isinstance(run.config, DictConfig) and run.config.dataset.batch_size == 32
    assert isinstance(run.settings, RunSettings) and run.settings.dataset["batch_size"] == 32
    assert run.key == run.settings.key and run.slug == "batch_size=32_seed=5_lr=0.001"
    assert run.value("dataset.batch_size") == 32 and run.value("seed") == 5 and run.value("no.such") is None
    assert run.status == "complete" and run.result["parameters"] == sum(p.numel() for p in run.net().parameters())
    assert repr(run).startswith(f"Run({str(folder)!r}): complete\n")


def test_a_run_that_has_not_ended(tmp_path):
    folder, _ = make_run(tmp_path)
    (folder / "result.json").unlink()
    assert Run(folder).result == {} and Run(folder).status == "unfinished"
    assert Run(make_run(tmp_path, 32, status="failed")[0]).status == "failed"


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not the folder of a run: it has no config\.yaml$"):
        Run(tmp_path)


def test_history(tmp_path):
    folder, _ = make_run(tmp_path)
    (folder / "metrics.csv").write_text("epoch,step,train_step/loss,test/loss\n0,0,1.5,\n0,1,1.25,0.5\n")
    history = Run(folder).history()
    assert history["train_step/loss"].tolist() == [1.5, 1.25] and history["test/loss"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    "read", [lambda sweep: sweep.runs[0].history(), lambda sweep: next(iter(sweep.members())).history()]
)
def test_a_lost_history_is_named_with_the_remedy(read, tmp_path):
    folder, _ = make_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"files": {"metrics.csv": [12, "0" * 64]}}))
    sweep = Sweep.read(make_sweep(tmp_path, [folder], ["seed"]))
    with pytest.raises(
        DamagedError, match=r"metrics\.csv is missing; delete the run's folder and run its command again$"
    ):
        read(sweep)


def test_weights_are_those_of_the_last_snapshot(tmp_path):
    folder, nets = make_run(tmp_path, epochs=(0, 2, 3))
    run = Run(folder)
    assert run.weights_file.name == "epoch=000003.safetensors"
    assert torch.equal(run.theta(), theta(nets[3]))
    net = run.net()
    assert not net.training and torch.equal(theta(net), theta(nets[3]))
    run.weights_file.unlink()  # an earlier snapshot is never taken for the end
    with pytest.raises(FileNotFoundError, match="no snapshot of its end"):
        run.theta()
    checkpoint(folder, nets[3])
    assert torch.equal(run.theta(), theta(nets[3]))


@pytest.mark.parametrize("precision", ["64-true", "64", 64])
def test_weights_in_double_precision_stay_so(precision, tmp_path):
    trainer = run_settings()["trainer"] | {"precision": precision}
    folder, nets = make_run(tmp_path, trainer=trainer)
    exact = nets[3].double()
    with torch.no_grad():
        exact[1].weight += 1e-12
    save_model(exact, str(Run(folder).weights_file))
    assert Run(folder).theta().dtype == torch.float64 and torch.equal(Run(folder).theta(), theta(exact))


def test_other_data_than_the_run_was_trained_on_are_refused(tmp_path):
    folder, _ = make_run(tmp_path)
    assert len(Run(folder).datamodule().train_tensors[0]) == 1437
    result = json.loads((folder / "result.json").read_text())
    result["dataset"]["sha256"] = "0" * 64
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match="the data have changed since this run was trained"):
        Run(folder).datamodule()


def test_epochs_are_ordered_as_numbers_and_other_files_are_not_read(tmp_path):
    folder, _ = make_run(tmp_path, epochs=(9, 1_000_000, 999_999))
    for name in ("epoch=2000000.safetensors.part", ".epoch=3000000.safetensors.1.part", "best.safetensors"):
        (folder / "snapshots" / name).write_bytes(b"half")
    run = Run(folder)
    assert run.snapshots("1.weight").epochs == [9, 999_999, 1_000_000]


def checkpoint(folder, net):
    (folder / "checkpoints").mkdir(exist_ok=True)
    state = {f"net.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 2}, folder / "checkpoints" / "last.ckpt")


def test_without_snapshots_the_checkpoint_is_read(tmp_path):
    folder, nets = make_run(tmp_path, epochs=(0, 3))
    checkpoint(folder, nets[0])
    assert Run(folder).weights_file.suffix == ".safetensors"  # a snapshot comes first
    for file in (folder / "snapshots").iterdir():
        file.unlink()
    run = Run(folder)
    assert run.weights_file == folder / "checkpoints" / "last.ckpt"
    assert torch.equal(run.theta(), theta(nets[0]))
    (folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights: .* delete the folder and run its command again$"):
        Run(folder).theta()


def test_the_digest_follows_the_weights(tmp_path):
    folder, nets = make_run(tmp_path)
    before = Run(folder).weights_digest()
    assert len(before) == 64 and Run(folder).weights_digest() == before
    checkpoint(folder, nets[0])
    assert Run(folder).weights_digest() == before  # not what theta reads
    file = Run(folder).weights_file
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert Run(folder).weights_digest() != before


def test_snapshots_whole_and_by_layer(tmp_path):
    folder, nets = make_run(tmp_path, epochs=(0, 2, 3))
    run = Run(folder)
    whole = run.snapshots()
    assert whole.epochs == [0, 2, 3] and torch.equal(whole.values, torch.stack([theta(net) for net in nets.values()]))
    for name, parameter in nets[0].named_parameters():
        layer = run.snapshots(name)
        assert layer.epochs == [0, 2, 3] and layer.values.shape == (3, *parameter.shape)
        assert torch.equal(layer.values, torch.stack([net.get_parameter(name).detach() for net in nets.values()]))
    with pytest.raises(KeyError, match=r"has no tensor '1\.wieght'; it has .*1\.weight"):
        run.snapshots("1.wieght")


def test_a_run_without_snapshots_says_how_to_take_them(tmp_path):
    folder, _ = make_run(tmp_path, epochs=())
    with pytest.raises(FileNotFoundError, match=r"has no snapshots: add callbacks=weight_snapshots$"):
        Run(folder).snapshots()


READERS = {
    "net": lambda run: run.net(),
    "theta": lambda run: run.theta(),
    "snapshots": lambda run: run.snapshots(),
    "one layer": lambda run: run.snapshots("1.weight"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", [lambda old: old[:100], lambda old: b"", lambda old: b"\xff" * len(old)])
def test_a_damaged_snapshot_is_named_with_the_remedy(damage, reader, tmp_path):
    folder, _ = make_run(tmp_path)
    file = folder / "snapshots" / "epoch=000003.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ConfigError) as caught:
        READERS[reader](Run(folder))
    message = str(caught.value)
    assert message.startswith(f"{file} cannot be read as this run's weights (") and "\n" not in message
    assert message.endswith("delete the run's folder and train it again")


def test_a_damaged_checkpoint_and_weights_of_another_network(tmp_path):
    folder, nets = make_run(tmp_path)
    for file in (folder / "snapshots").iterdir():
        file.unlink()
    checkpoint(folder, nets[0])
    file = folder / "checkpoints" / "last.ckpt"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(str(file))} cannot be read as this run's weights .* delete the run's"
    ):
        Run(folder).net()
    checkpoint(folder, nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"cannot be read as this run's weights .* delete the run's folder"):
        Run(folder).net()


def test_the_data_of_a_run(tmp_path):
    folder, _ = make_run(tmp_path)
    data = Run(folder).datamodule()
    assert data.sizes == {"train": 1437, "test": 360} and data.batch_size == 64


def test_reading_a_sweep(tmp_path):
    folders = [make_run(tmp_path, size, seed)[0] for size in (64, 16) for seed in (0, 1)]
    older = make_sweep(tmp_path, folders[:1], [], time="2026-01-01_00-00-00")
    latest = make_sweep(tmp_path, folders, ["dataset.batch_size", "seed"], time="2026-01-02_00-00-00")
    for path in (latest, latest / "sweep.json", tmp_path / "hand", str(latest)):
        sweep = Sweep.read(path)
        assert sweep.path == latest and [run.path for run in sweep.runs] == folders  # in the command's order
    assert len(Sweep.read(older).runs) == 1
    assert sweep.keys == ["dataset.batch_size", "seed"]
    with pytest.raises(FileNotFoundError, match=r"^no sweep\.json in .*; hw1 list PATH says which sweeps there are$"):
        Sweep.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"; did you mean .*/hand\?$"):
        Sweep.read(tmp_path / "hamd")


def test_a_sweep_by_its_name_alone_is_looked_for_in_multirun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_sweep(tmp_path / "multirun", [make_run(tmp_path / "multirun", 16, 0)[0]], [])
    with pytest.raises(FileNotFoundError, match=r"did you mean multirun/hand\?$"):
        Sweep.read("hand")


def test_selecting_runs(tmp_path):
    folders = [make_run(tmp_path, size, seed)[0] for size in (64, 16) for seed in (0, 1)]
    sweep = Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size", "seed"]))
    assert [run.path for run in sweep.select(seed=1).runs] == [folders[1], folders[3]]
    assert [run.path for run in sweep.select(**{"dataset.batch_size": 16}, seed=0).runs] == [folders[2]]
    assert [run.path for run in sweep.select({"dataset.batch_size": 16}, seed=0).runs] == [folders[2]]
    assert sweep.select().runs == sweep.runs
    assert sweep.select(seed=1).record == sweep.record


def test_what_no_run_has_is_not_selected(tmp_path):
    folders = [make_run(tmp_path, size, seed)[0] for size, seed in ((64, 0), (64, 1), (16, 0))]
    sweep = Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size", "seed"]))
    for key, hint in (
        ("batch_size", "; did you mean dataset.batch_size?"),
        ("optimizer.lrr", "; did you mean optimizer.lr?"),
        ("zzz", "; swept are dataset.batch_size, seed"),
    ):
        with pytest.raises(ConfigError, match=f"^{key}: got a setting that none of these runs has{re.escape(hint)}$"):
            sweep.select({key: 1})
    with pytest.raises(ConfigError, match=r"^seed: got 7, expected what a run has: 0, 1$"):
        sweep.select(seed=7)
    of_those = "of those with dataset.batch_size=16 "
    with pytest.raises(ConfigError, match=f"^seed: got 1, expected what a run {of_those}has: 0$"):
        sweep.select({"dataset.batch_size": 16}, seed=1)
    assert sweep.complete().select(scheduler=None).runs == sweep.runs  # what has no value is selected by that
    assert Sweep(sweep.path, sweep.record, []).select(seed=7).runs == []


def test_a_seed_selects_the_run_that_has_such_a_member(tmp_path):
    several = make_members(tmp_path, [make_run(tmp_path, 16, seed) for seed in range(3)])
    single, _ = make_run(tmp_path, 64, 7)
    sweep = Sweep.read(make_sweep(tmp_path, [several, single], ["seed"]))
    assert [run.path for run in sweep.select(seed=2).runs] == [several]
    with pytest.raises(ConfigError, match=r"has: 0, 1, 2, 7$"):
        sweep.select(seed=3)


def test_runs_that_did_not_end_or_never_started(tmp_path):
    good, bad, unfinished, gone = (
        make_run(tmp_path, 64, s, status="failed" if s == 1 else "complete")[0] for s in range(4)
    )
    sweep_folder = make_sweep(tmp_path, [good, bad, unfinished, gone], ["seed"])
    (unfinished / "result.json").unlink()
    (gone / "config.yaml").unlink()
    sweep = Sweep.read(sweep_folder)
    assert [run.status for run in sweep.runs] == ["complete", "failed", "unfinished"]
    assert [run.path for run in sweep.complete().runs] == [good]
    table = sweep.table()
    assert table["status"].tolist() == ["complete", "failed", "unfinished"]
    assert table["test/loss"].isna().tolist() == [False, True, True]


def test_the_table_of_a_sweep(tmp_path):
    folders = [make_run(tmp_path, size, seed)[0] for size in (64, 16) for seed in (0, 1)]
    sweep = Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size"]))
    table = sweep.table("test/loss")
    assert table["dataset.batch_size"].tolist() == [64, 64, 16, 16] and table["seed"].tolist() == [0, 1, 0, 1]
    assert table["test/loss"].tolist() == [0.25, 1.25, 0.25, 1.25] and "test/accuracy" not in table
    assert table["run"].tolist() == [folder.name for folder in folders]
    assert set(table["parameters"]) == {65 * 4 + 50} and set(table["source"]) == {"scikit-learn"}
    assert {"train/loss", "test/loss", "test/accuracy"} <= set(sweep.table())
    with pytest.raises(ValueError, match=r"^metrics: got no/such, expected some of test/accuracy, test/loss"):
        sweep.table("no/such")


def measure(folder, ask, values, files=None, **more):
    """A measurement by hand."""
    columns = {name: {"label": f"the {name}", "unit": "", "error": ""} for name in values}
    return write_measured(ask.file(folder), Measured(ask.name, "key", columns, values, **more), files or {})


def test_members_are_what_a_reader_iterates_over(tmp_path):
    singles = [make_run(tmp_path, 16, seed) for seed in range(2)]
    several = make_members(tmp_path, singles)
    single, nets = make_run(tmp_path, 64)
    failed, _ = make_run(tmp_path, 128, status="failed")
    ask = Ask("flat", {"_target_": "mine.Flat", "examples": 8})
    more = Ask("flat", {"_target_": "mine.Flat", "examples": 16}, {"examples": 16})
    measure(several, ask, {"flat/height": [0.5, 0.25]})
    measure(single, ask, {"flat/height": [0.75]})
    measure(single, more, {"flat/height": [0.125]})
    path = make_sweep(tmp_path, [several, single, failed], ["dataset.batch_size", "seed"])
    record = json.loads((path / "sweep.json").read_text())
    record |= {"measures": [ask.record()], "measured_later": [more.record()]}
    (path / "sweep.json").write_text(json.dumps(record))
    (several / "metrics.csv").write_text("epoch,step,member,test/loss\n0,0,0,1.5\n0,0,1,2.5\n")
    sweep = Sweep.read(path)
    members = list(sweep.members())
    assert [(member.run.path, member.number) for member in members] == [(several, 0), (several, 1), (single, 0)]
    assert [member.seed for member in members] == [0, 1, 0]
    assert [dict(member.cells) for member in members] == [
        {"dataset.batch_size": 64, "seed": 0}, {"dataset.batch_size": 64, "seed": 1},
        {"dataset.batch_size": 64, "seed": 0},
    ]  # fmt: skip
    assert [member.metrics["flat/height"] for member in members] == [0.5, 0.25, 0.75]
    assert members[2].metrics["flat/height[examples=16]"] == 0.125 and members[1].metrics["test/loss"] == 1.25
    assert members[1].history()["test/loss"].tolist() == [2.5] and "member" not in members[1].history()
    assert torch.equal(members[1].theta(), theta(singles[1][1][3])) and torch.equal(
        theta(members[2].net()), theta(nets[3])
    )
    table = sweep.table("flat/height")
    assert table["flat/height"].tolist()[:3] == [0.5, 0.25, 0.75] and table["flat/height"].isna().tolist()[3]
    assert sweep.columns()["flat/height[examples=16]"]["label"] == "the flat/height [examples=16]"


@pytest.mark.parametrize("damage", ["cut", "digit", "empty", "file cut"])
def test_a_damaged_measurement_is_none(damage, tmp_path):
    folder, _ = make_run(tmp_path)
    ask = Ask("flat", {"_target_": "mine.Flat"})
    written = measure(folder, ask, {"flat/height": [0.5]}, {"more.bin": b"12345"}, rows=[{"member": 0, "at": 1.5}])
    file = ask.file(folder)
    assert read_measured(file) == written and written.rows == [{"member": 0, "at": 1.5}]
    assert beside(file, "more.bin").read_bytes() == b"12345"
    text = file.read_text()
    if damage == "file cut":
        beside(file, "more.bin").write_bytes(b"1234")
    else:
        file.write_text({"cut": text[:-30], "digit": text.replace("0.5", "0.6"), "empty": ""}[damage])
    assert read_measured(file) is None and Run(folder).measured(ask) is None


def test_finding_a_run_by_its_key(tmp_path):
    folder, _ = make_run(tmp_path)
    key = folder.name.rpartition("-")[2]
    assert find_run(folder.parent, key) == folder
    renamed = folder.rename(folder.with_name(f"another-slug-{key}"))
    assert find_run(folder.parent, key) == renamed
    assert find_run(folder.parent, key[1:]) is None and find_run(folder.parent, "0" * 10) is None
    assert find_run(tmp_path / "nowhere", key) is None
    (folder.parent / "file-abcdef0123").write_text("no folder")
    assert find_run(folder.parent, "abcdef0123") is None


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        (
            '{"status": "complete", "metrics": {}, "parameters": 1,'
            ' "dataset": {"name": "a", "source": "b", "train": 1}}',
            True,
        ),
        ('{"status": "complete"}', False),
        ('{"status": "failed"}', False),
        ('{"status": "comp', False),
        ("", False),
        ("{}", False),
        ("[]", False),
        ("null", False),
        ("\x00\x00", False),
        (None, False),
    ],
)
def test_is_complete(text, complete, tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    assert is_complete(tmp_path) is complete


def test_is_complete_where_the_bytes_are_no_text(tmp_path):
    (tmp_path / "result.json").write_bytes(b"\xff\xfe{}")
    assert is_complete(tmp_path) is False


def test_a_broken_result_is_named(tmp_path):
    folder, _ = make_run(tmp_path)
    (folder / "result.json").write_text(json.dumps({"status": "complete"})[:-4])
    with pytest.raises(ValueError, match=r"result\.json is not valid JSON .*; delete it and run the command again$"):
        _ = Run(folder).result


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        ([], "defaults"),
        (["dataset.batch_size=64", "optimizer.lr=0.001"], "batch_size=64_lr=0.001"),
        (["model=mlp", "dataset=digits", "optimizer=sgd"], "mlp_digits_sgd"),
        (["+trainer.gradient_clip_val=1", "~logger"], "gradient_clip_val=1_logger="),
        (["model.layers=[c3(10),p2,32]"], "layers=c3-10-p2-32"),
        (["callbacks=[default,gradient_norm]"], "callbacks=default-gradient_norm"),
        (["dataset.root='/a b/c:d'"], "root=a-b-c-d"),
        (["dataset.domain=[-1,1]"], "domain=-1-1"),
    ],
)
def test_slugs(words, slug):
    assert slug_of(words) == slug


def test_slugs_are_safe_names_for_folders():
    for words in (["x=../../etc"], ["x=" + "y" * 500], ["a/b=c,d:e\\f\n"], ["x=."], ["=-"], ["x=" + "ü" * 500]):
        slug = slug_of(words)
        assert slug and len(slug) <= 80 and not set(slug) & set(",:/\\ \n") and not slug.startswith((".", "-"))
        assert len(f"{slug}-0123456789".encode()) <= 255
