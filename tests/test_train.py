"""The command as a user meets it: results, reuse, widening, contained failures, refusals and exit codes."""

import hashlib
import json
import os
import re
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hw1.records import rewrite_record, sums
from hw1.runs import Sweep

SMALL = (
    "experiment=flatness_interp",
    "dataset.source=bundled",
    "dataset.train_size=300",
    "dataset.batch_size=32,256",
    "optimizer.lr=1e-3,1e-2",
    "trainer.max_epochs=2",
    "model.width=0.5",
    "study.points=7",
    "measures=none",
    "trainer.threads=1",
)


def files(folder):
    """Content hash by path of every file of the runs."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "runs").rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(command, tmp_path_factory):
    """(folder of the experiment, the finished command) of a small flatness_interp."""
    output = tmp_path_factory.mktemp("small")
    done = command(*SMALL, output=output)
    assert done.returncode == 0, done.stderr
    return output / "flatness_interp", done


def test_it_says_where_everything_is(small):
    folder, done = small
    sweep = Sweep.read(folder)
    table = pd.read_csv(sweep.path / "interpolation.csv")
    assert (table.groupby(["optimizer.lr", "split"]).size() == 7).all() and len(table) == 2 * 2 * 7
    assert {"alpha", "split", "loss", "accuracy", "optimizer.lr", "data", "source"} <= set(table)
    assert set(table["source"]) == {"bundled"}
    for name in ("interpolation.png", "interpolation.csv", "barriers.csv", "report.html"):
        assert (sweep.path / name).stat().st_size > 0 and f"{sweep.path.name}/{name}" in done.stdout
    barriers = pd.read_csv(sweep.path / "barriers.csv").query("split == 'test'")
    assert (barriers["barrier"] >= 0).all()
    assert re.search(r"^Too short to answer: \d of 4 networks are at chance", done.stdout, re.MULTILINE)  # two epochs
    assert not any(line.startswith("barrier") for line in done.stdout.splitlines())
    assert "n = 1" in (sweep.path / "interpolation.svg").read_text()
    assert "[4/4]" in done.stdout and "left" in done.stdout


def test_the_contract_of_a_run(small):
    folder, _ = small
    for run in Sweep.read(folder).runs:
        result = run.result
        assert result["status"] == "complete" and result["key"] == run.key and result["epochs"] == 2
        assert set(result["metrics"]) == {"train/loss", "train/accuracy", "test/loss", "test/accuracy"}
        assert result["dataset"]["source"] == "bundled" and result["dataset"]["train"] == 300
        assert result["parameters"] == sum(p.numel() for p in run.net().parameters()) == len(run.theta())
        for name in (
            "metrics.csv",
            "config.yaml",
            "checkpoints/last.ckpt",
            ".hydra/config.yaml",
            ".hydra/overrides.yaml",
        ):
            assert (run.path / name).is_file()
        assert list(run.path.glob("events.out.tfevents.*")) and run.snapshots().epochs == [0, 2]
        history = run.history()
        last = history.dropna(subset=["test/loss"]).iloc[-1]
        assert last["test/loss"] == pytest.approx(result["metrics"]["test/loss"], abs=1e-6)
        assert history["step"].is_monotonic_increasing and history["train_step/loss"].notna().all()


def test_tensorboard_shows_whole_curves_and_one_row_of_hyperparameters(small):
    folder, _ = small
    for run in Sweep.read(folder).runs:
        events = EventAccumulator(str(run.path), purge_orphaned_data=True).Reload()
        history = run.history()
        for name in ("train/loss", "test/loss", "train/accuracy", "test/accuracy"):
            logged = history.dropna(subset=[name])
            points = {event.step: event.value for event in events.Scalars(name)}
            assert points == pytest.approx(dict(zip(logged["step"], logged[name], strict=True)), abs=1e-6)
        layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
        assert b"train/loss" in layout and b"test/loss" in layout
        hparams = HParamsPluginData.FromString(
            events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        ).session_start_info.hparams
        assert hparams["dataset.batch_size"].number_value == run.value("dataset.batch_size")
        assert hparams["optimizer.lr"].number_value == run.value("optimizer.lr")
    (file,) = Sweep.read(folder).path.glob("events.out.tfevents.*")
    assert EventAccumulator(str(file)).Reload().Tags()["images"] == ["figures/interpolation"]


def test_the_ends_of_the_line_are_the_runs(small):
    folder, _ = small
    sweep = Sweep.read(folder)
    table = pd.read_csv(sweep.path / "interpolation.csv").set_index(["optimizer.lr", "split", "alpha"])
    for run in sweep.runs:
        alpha = {32: 0.0, 256: 1.0}[run.value("dataset.batch_size")]
        for split in ("train", "test"):
            row = table.loc[(run.value("optimizer.lr"), split, alpha)]
            for quantity in ("loss", "accuracy"):
                assert row[quantity] == pytest.approx(run.result["metrics"][f"{split}/{quantity}"], abs=1e-6)


def test_independent_and_shared_starts(small, command):
    folder, _ = small
    starts = [run.snapshots().values[0] for run in Sweep.read(folder).runs]
    assert all(not torch.equal(starts[0], other) for other in starts[1:])
    done = command(*SMALL, "init=shared", output=folder.parent)
    assert done.returncode == 0, done.stderr
    starts = [run.snapshots().values[0] for run in Sweep.read(folder).runs]
    assert all(torch.equal(starts[0], other) for other in starts[1:])


def test_again_does_nothing(small, command):
    folder, first = small
    before, sweeps = files(folder), sorted((folder / "sweeps").iterdir())
    again = command(*SMALL, output=folder.parent)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert files(folder) == before and sorted((folder / "sweeps").iterdir()) == sweeps
    said = [line for line in first.stdout.splitlines() if line.startswith("Too short")]
    assert said and all(line in again.stdout for line in said)


def test_a_wider_sweep_trains_only_what_is_new(small, command):
    folder, _ = small
    before, measured = files(folder), set((folder / "measurements").iterdir())
    wider = [word.replace("32,256", "32,100,256") for word in SMALL]
    done = command(*wider, output=folder.parent)
    assert done.returncode == 0 and "6 runs, 2 to train" in done.stdout
    after = files(folder)
    assert {name: after[name] for name in before} == before
    assert len(set((folder / "measurements").iterdir()) - measured) == 2  # one new pair a learning rate
    table = pd.read_csv(Sweep.read(folder).path / "interpolation.csv")
    assert set(zip(table["theta_1"], table["theta_2"], strict=True)) == {(32, 100), (32, 256)}


def test_the_table_is_computed_from_the_saved_weights(small, command, tmp_path):
    shutil.copytree(small[0], tmp_path / "flatness_interp", ignore=lambda *_: ["sweeps"])
    assert command(*SMALL, output=tmp_path).returncode == 0
    sweep = Sweep.read(tmp_path / "flatness_interp")
    before = pd.read_csv(sweep.path / "interpolation.csv")
    run = sweep.select(**{"dataset.batch_size": 32, "optimizer.lr": 0.01}).runs[0]
    file = run.weights_file
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name].view(-1)[0] = -tensors[name].view(-1)[0] + 1
    save_file(tensors, file)
    files = run.result["files"] | {file.relative_to(run.path).as_posix(): sums(file.read_bytes())}
    rewrite_record(run.path / "result.json", run.result | {"files": files})  # as if it had been trained to them
    assert command(*SMALL, output=tmp_path).returncode == 0
    after = pd.read_csv(Sweep.read(tmp_path / "flatness_interp").path / "interpolation.csv")
    changed, touched = before["loss"] != after["loss"], before["optimizer.lr"] == 0.01
    assert changed[touched & (before["alpha"] == 0)].all()
    assert not changed[~touched | (before["alpha"] == 1)].any()


def test_seeds_give_mean_and_interval_also_with_two_workers(command, tmp_path):
    words = [word for word in SMALL if "lr=" not in word]
    words += ["seed=1,2,3", "optimizer.lr=1e-2", "hydra/launcher=two_workers", "trainer.max_epochs=12"]
    done = command(*words, output=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = Sweep.read(tmp_path / "flatness_interp")
    values = pd.read_csv(sweep.path / "barriers.csv").query("split == 'test'")["barrier"]
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5%
    line = next(line for line in done.stdout.splitlines() if line.startswith("barrier"))
    assert f"= {values.mean():.4g} [{values.mean() - half:.4g}, {values.mean() + half:.4g}], n = 3" in line
    assert "n = 3" in (sweep.path / "interpolation.svg").read_text()


def test_without_an_experiment_from_any_folder(command, tmp_path):
    done = command(
        "model=mlp", "dataset=digits", "trainer.max_epochs=3", "-m", output=tmp_path / "out", cwd=tmp_path, cold=True
    )
    assert done.returncode == 0, done.stderr
    (run,) = Sweep.read(tmp_path / "out" / "default").runs
    assert run.slug == "mlp_digits_max_epochs=3" and run.status == "complete"


def test_a_loss_that_is_no_number_is_contained(command, tmp_path):
    words = (
        "model=mlp",
        "model.hidden=[64,64,64,64]",
        "dataset=digits",
        "trainer.max_epochs=1",
        "optimizer.lr=1e9,1e-3",
    )
    done = command(*words, output=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    bad, good = (Sweep.read(tmp_path / "default").select(**{"optimizer.lr": lr}).runs[0] for lr in (1e9, 1e-3))
    assert good.status == "complete" and bad.status == "failed" and "NonFiniteLossError" in bad.result["traceback"]
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("planning")]
    assert bad.path.name in line and "at step " in line and "(epoch 0)" in line
    again = command(*words, output=tmp_path)
    assert again.returncode == 1 and "2 runs, 1 to train" in again.stdout


def test_two_equal_commands_at_once_train_every_run_once(background, tmp_path):
    words = ("model=mlp", "dataset=digits", "trainer.max_epochs=20", "seed=1,2,3", "logger=none")
    both = [background(*words, output=tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for run in Sweep.read(tmp_path / "default").runs:
        history = run.history()
        assert run.status == "complete" and history["step"].tolist() == list(range(20 * 23))
        assert "resuming" not in (run.path / "run.log").read_text()


def test_sigterm_interrupts_and_the_command_goes_on(background, command, tmp_path):
    words = ("model=mlp", "dataset=digits", "trainer.max_epochs=400", "trainer.checkpoint_seconds=0", "seed=1,2")
    process = background(*words, output=tmp_path)
    runs = tmp_path / "default" / "runs"
    while not list(runs.glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in stderr and "Traceback" not in stderr
    (sweep,) = (tmp_path / "default" / "sweeps").iterdir()
    assert json.loads((sweep / "sweep.json").read_text())["status"] == "interrupted"
    assert not list(runs.glob("*/result.json"))


REFUSED = {
    "unknown experiment": (["experiment=flatness"], ["experiment: got flatness", "flatness_interp"]),
    "unknown experiment, sweep": (["experiment=flatness", "seed=1,2"], ["experiment: got flatness", "flatness_interp"]),
    "misspelt key": (["optimizer.lrr=1"], ["optimizer.lrr: no such setting", "optimizer.lr?"]),
    "misspelt key in a sweep": (["optimizer.lrr=1,2"], ["optimizer.lrr: no such setting", "optimizer.lr?"]),
    "misspelt group": (["modle=mlp"], ["modle: no such setting", "model"]),
    "unknown option": (["model=mpl"], ["model: got mpl", "mlp"]),
    "swept experiment": (["experiment=flatness_interp,other"], ["experiment: cannot be swept"]),
    "name outside": (["name=../../x"], ["name: got '../../x'"]),
    "one value to pair": (["experiment=flatness_interp", "dataset.batch_size=64"], ["batch_size: got 64", "two"]),
    "grid without ends": (["experiment=flatness_interp", "study.points=20"], ["study.points: got 20", "0 or 1"]),
    "same run twice": (["seed=1,1"], ["seed=1", "twice"]),
    "negative batch": (["dataset.batch_size=-1"], ["dataset.batch_size: got -1", "positive"]),
    "negative batch of an experiment": (
        ["experiment=flatness_interp", "dataset.batch_size=-1"],
        ["dataset.batch_size: got -1, expected a positive integer"],
    ),
    "rate in words": (["optimizer.lr=fast"], ["optimizer.lr: got 'fast'", "a number"]),
    "one width of two": (["model.width=1,0"], ["model.width: got 0", "above 0"]),
    "RUN mode": (["hydra.mode=RUN"], ["hydra.mode: got RUN", "MULTIRUN"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def refused(tmp_path_factory, in_one_process):
    """{case: (exit code, stdout, stderr)}, and the folder of their outputs."""
    folder = tmp_path_factory.mktemp("refused")
    commands = {case: [*words, "dataset.source=bundled", f"output={folder}"] for case, (words, _) in REFUSED.items()}
    return in_one_process(commands), folder


def besides_planning(stderr):
    """The lines of standard error but those that say what is planned, and what takes long."""
    return [line for line in stderr.strip().splitlines() if not re.match(r"planning\b|.* \.\.\.$", line)]


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_before_anything_trains(case, refused):
    ends, folder = refused
    code, _, stderr = ends[case]
    lines = besides_planning(stderr)
    assert code == 1 and len(lines) == 1, stderr
    assert all(part in lines[0] for part in REFUSED[case][1]), lines[0]
    assert not list(folder.rglob("result.json")) and not list(folder.rglob("sweep.json"))


def test_the_traceback_on_request(command, tmp_path):
    done = command("experiment=flatness", output=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_an_output_below_a_file(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = command("model=mlp", "dataset=digits", output=tmp_path / "file" / "out")
    (line,) = besides_planning(done.stderr)
    assert done.returncode == 1 and line.startswith("error: output:") and str(tmp_path / "file") in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("source", ["auto", "full"])
def test_a_truncated_mnist_file(source, command, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, magic in (
        ("train-images", 0x803),
        ("train-labels", 0x801),
        ("t10k-images", 0x803),
        ("t10k-labels", 0x801),
    ):
        header = np.array([magic, 60000, *([28, 28] if magic == 0x803 else [])], dtype=">i4").tobytes()
        (raw / f"{name}-idx{magic % 16}-ubyte").write_bytes(header + b"\0" * 100)
    done = command(f"dataset.source={source}", f"dataset.root={tmp_path}", output=tmp_path / "out")
    (line,) = besides_planning(done.stderr)
    assert done.returncode == 1 and "truncated" in line and "train-images-idx3-ubyte" in line and "delete it" in line
    assert line.startswith("error: dataset.root:") and not (tmp_path / "out").exists()
