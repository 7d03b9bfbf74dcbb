"""What stands in TensorBoard's event files: read by TensorBoard's own reader, without its page."""

import json
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hw1.report.tensorboard import gather
from hw1.runs import Sweep
from hw1.settings import RunSettings
from hw1.training.charts import charts
from hw1.training.hyperparameters import hyperparameters
from made_runs import make_run, make_sweep, run_settings

SMALL = (
    *("dataset=digits", "dataset.train_size=90", "model=mlp", "model.hidden=[5]", "trainer.max_epochs=2"),
    *("measures=none", "trainer.threads=1", "trainer.progress=false"),
)
BATCHES = "dataset.batch_size=30,null"  # null is all 90
GRADIENT = {"_target_": "hw1.callbacks.GradientNorm", "every_n_steps": 1, "per_layer": True}


def read(folder):
    """The events of a folder, histograms whole."""
    return EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0}).Reload()


def row(events):
    """The hyperparameters of a run, {name: number or text}."""
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory):
    """A sweep of two batch sizes, with histograms and gradient norms."""
    output = tmp_path_factory.mktemp("tensorboard")
    words = (BATCHES, "callbacks=[default,gradient_norm]", "logger.tensorboard.histograms_every_n_epochs=2")
    done = command(*SMALL, *words, output=output)
    assert done.returncode == 0, done.stderr
    return Sweep.read(output / "default")


def test_one_event_file_a_run_and_no_second_copy_of_the_settings(trained):
    for run in trained.runs:
        assert len(list(run.path.glob("events.out.tfevents.*"))) == 1
        assert not (run.path / "hparams.yaml").exists()


def test_a_row_holds_numbers_as_numbers_and_nothing_that_is_null(trained):
    rows = [row(read(run.path)) for run in trained.runs]
    assert [one["dataset.batch_size"] for one in rows] == [30.0, 90.0]
    assert all("null" not in map(str, one.values()) and one["dataset.train_size"] == 90 for one in rows)
    assert all(isinstance(one["optimizer.lr"], float) and one["model.hidden"] == "[5]" for one in rows)
    assert all(not name.startswith(("logger", "study", "about", "output")) for one in rows for name in one)
    for run in trained.runs:  # a list of columns would be one run's for all
        assert "_hparams_/experiment" not in read(run.path).summary_metadata
        end = read(run.path).summary_metadata["_hparams_/session_end_info"].plugin_data.content
        assert HParamsPluginData.FromString(end).session_end_info.status == 1  # success


def test_every_chart_of_a_question_has_its_curves(trained):
    for run in trained.runs:
        events = read(run.path)
        layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
        shown = {
            group.title: {chart.title: list(chart.multiline.tag) for chart in group.chart} for group in layout.category
        }
        assert list(shown) == ["Does it learn, and does it generalise?", "How do single steps go?"]
        assert shown["Does it learn, and does it generalise?"]["loss (nats)"] == ["train/loss$", "test/loss$"]
        for curves in (curves for group in shown.values() for curves in group.values()):
            assert all(any(re.match(curve, tag) for tag in events.Tags()["scalars"]) for curve in curves)


def test_histograms_are_those_of_the_weights(trained):
    for run in trained.runs:
        events = read(run.path)
        assert set(events.Tags()["histograms"]) == {f"weights/{name}" for name, _ in run.net().named_parameters()}
        for name, values in run.net().named_parameters():
            first, last = events.Histograms(f"weights/{name}")  # initialisation, and epoch 2
            told, values = last.histogram_value, values.detach().double()
            assert first.step == 0 and last.step == run.history()["step"].max() + 1
            assert (told.num, told.min, told.max) == (values.numel(), values.min(), values.max())
            assert told.sum == pytest.approx(float(values.sum()), abs=1e-6)


def test_what_a_run_is_does_not_depend_on_its_logger(trained, command):
    base = trained.path.parent.parent
    for words in (("logger=none",), ("logger=csv",), ("logger.tensorboard.histograms_every_n_epochs=1",)):
        done = command(*SMALL, BATCHES, "callbacks=[default,gradient_norm]", *words, output=base.parent)
        assert done.returncode == 0 and "nothing to do: 2 runs complete" in done.stdout, done.stdout
    keys = {RunSettings.check(run_settings(logger=logger)).key for logger in ({}, {"tensorboard": {"_target_": "x.y"}})}
    assert len(keys) == 1


def test_histograms_change_no_weight(trained, command, tmp_path):
    done = command(*SMALL, BATCHES, "callbacks=[default,gradient_norm]", "logger=none", output=tmp_path)
    assert done.returncode == 0, done.stderr
    for run, plain in zip(trained.runs, Sweep.read(tmp_path / "default").runs, strict=True):
        assert run.key == plain.key and torch.equal(run.theta(), plain.theta())


def test_hyperparameters_of_every_kind():
    settings = run_settings(None, lr=0.1, replicas=3, callbacks={"gradient": GRADIENT}, logger={"x": {"_target_": "y"}})
    found = hyperparameters(settings, examples=1437)
    assert found["dataset.batch_size"] == 1437 and found["replicas"] == 3 and found["model"] == "Mlp"
    assert found["callbacks.gradient.per_layer"] is True and found["optimizer.lr"] == 0.1
    assert "dataset.train_size" not in found and "dataset.seed" not in found and found["seed"] == 0
    assert all(isinstance(value, int | float | str) for value in found.values())


def test_charts_follow_the_settings():
    track = {
        "_target_": "hw1.callbacks.Track",
        "measure": {"sharpness": {"_target_": "hw1.measures.sharpness.Sharpness"}},
    }
    settings = run_settings(callbacks={"gradient": {**GRADIENT, "per_layer": False}, "track": track})
    settings["dataset"]["val_fraction"] = 0.1
    learning, steps, tracked = charts(RunSettings.check(settings)).values()
    assert learning["accuracy"] == ["train/accuracy$", "val/accuracy$", "test/accuracy$"]
    assert steps == {"loss of the batch": ["train_step/loss$"], "gradient norm": ["gradient_norm$"]}
    assert ["sharpness/trace$"] in tracked.values() and not any("error" in name for name in tracked)
    settings["dataset"] = {"_target_": "hw1.data.Function"}
    assert list(charts(RunSettings.check(settings | {"callbacks": {}}))["Does it learn, and does it generalise?"]) == [
        "loss"
    ]


def test_gathered_sweeps_are_shown_alone(tmp_path):
    folders = [make_run(tmp_path, batch_size)[0] for batch_size in (None, 16, 64)]
    one = Sweep.read(make_sweep(tmp_path, folders[:2], ["dataset.batch_size"], time="2026-01-01_00-00-00"))
    other = Sweep.read(make_sweep(tmp_path, folders[1:], ["dataset.batch_size"], time="2026-01-02_00-00-00"))
    (tmp_path / "one").mkdir()
    gather([one], tmp_path / "one")
    links = {link.name: link.resolve() for link in (tmp_path / "one").iterdir() if link.is_symlink()}
    assert links == {folder.name: folder for folder in folders[:2]} | {"figures": one.path}
    experiment = HParamsPluginData.FromString(
        read(tmp_path / "one" / "columns of hparams").summary_metadata["_hparams_/experiment"].plugin_data.content
    ).experiment
    (batch,) = [info for info in experiment.hparam_infos if info.differs]
    assert batch.name == "dataset.batch_size" and batch.type == 3  # a number
    assert (batch.domain_interval.min_value, batch.domain_interval.max_value) == (16, 1437)
    assert [info.name.tag for info in experiment.metric_infos] == ["test/accuracy", "test/loss", "train/loss"]
    gather([one, other], tmp_path / "both")
    shown = {path.relative_to(tmp_path / "both").as_posix() for path in (tmp_path / "both").glob("hand*/batch*")}
    assert shown == {f"hand {s.path.name}/{r.path.name}" for s in (one, other) for r in s.runs} and len(shown) == 4


def test_a_run_that_has_not_begun_is_linked_already(tmp_path):
    folder, _ = make_run(tmp_path, 16)
    sweep = make_sweep(tmp_path, [folder], ["dataset.batch_size"])
    record = json.loads((sweep / "sweep.json").read_text())
    record["runs"].append({"key": "0123456789", "folder": "batch_size=64-0123456789", "overrides": []})
    (sweep / "sweep.json").write_text(json.dumps(record))
    gather([Sweep.read(sweep)], tmp_path / "shown")
    link = tmp_path / "shown" / "batch_size=64-0123456789"
    assert link.is_symlink() and not link.exists()
    (folder.parent / "batch_size=64-0123456789").mkdir()
    assert link.exists()


@pytest.mark.parametrize("together", [1, 2])
def test_what_a_record_says_leads_nowhere_else(tmp_path, together):
    sweeps = []
    for number in range(together):
        root = tmp_path / "results" / str(number)
        sweep = make_sweep(root, [make_run(root)[0]], [], time=f"2026-01-0{number + 1}_00-00-00")
        record = json.loads((sweep / "sweep.json").read_text())
        strange = [{"key": "0", "folder": name, "overrides": []} for name in ("../../../up", "/nosuch/abs", "..", "")]
        told = {"name": "../../escaped", "runs": [*record["runs"], *strange]}
        (sweep / "sweep.json").write_text(json.dumps(record | told))
        sweeps.append(Sweep.read(sweep))
    assert [len(sweep.runs) for sweep in sweeps] == [1] * together
    before = set(tmp_path.rglob("*"))
    shown = tmp_path / "a" / "b" / "shown"
    gather(sweeps, shown)
    made = set(tmp_path.rglob("*")) - before - set(shown.parents)
    assert shown in made and all(path.is_relative_to(shown) for path in made)
    links = [path for path in made if path.is_symlink()]
    assert len(links) == 2 * together and all(link.resolve().is_relative_to(tmp_path / "results") for link in links)


def test_a_run_outside_is_not_read(tmp_path):
    elsewhere, _ = make_run(tmp_path / "elsewhere")
    own, _ = make_run(tmp_path / "mine", seed=1)
    sweep = make_sweep(tmp_path / "mine", [own], ["seed"])
    record = json.loads((sweep / "sweep.json").read_text())
    outside = [
        {**record["runs"][0], "folder": name}
        for name in (str(elsewhere), f"../../../elsewhere/hand/runs/{elsewhere.name}")
    ]
    (sweep / "sweep.json").write_text(json.dumps(record | {"runs": [*outside, *record["runs"]]}))
    assert [run.path for run in Sweep.read(sweep).runs] == [own]
