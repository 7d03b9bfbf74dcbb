"""A sweep without a study: learning curves, and the final metrics against what was swept."""

from dataclasses import replace

import pandas as pd
import pytest

from hw1.plots.final_metrics import draw_final_metrics
from hw1.records import FORMAT, write_record
from hw1.report.conclude import conclude
from hw1.runs import Run, Sweep
from hw1.runs.member import Member
from hw1.studies.overview import Overview

COMMAND = (
    *("dataset=function", "dataset.points=30", "model=mlp_571", "trainer.max_epochs=2", "logger=none", "seed=0,1"),
    *("hydra/launcher=basic", "callbacks=none", "optimizer.lr=1e-3,1e-1", "model.activation=relu,tanh"),
    *("--zip", "lr,activation", "dataset.val_fraction=0.2"),
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, in_one_process):
    output = tmp_path_factory.mktemp("overview")
    ((code, _, error),) = in_one_process({"sweep": [*COMMAND, f"output={output}"]}).values()
    assert code == 0, error
    return Sweep.read(output / "default")


def test_zipped_keys_are_swept_side_by_side(swept):
    assert swept.keys == ["seed", "optimizer.lr", "model.activation"]
    pairs = {(run.value("optimizer.lr"), run.value("model.activation")) for run in swept.runs}
    assert len(swept.runs) == 4 and pairs == {(1e-3, "relu"), (0.1, "tanh")}
    assert "hydra.sweeper.zip=[[lr,activation]]" in swept.record["command"]


def test_its_page_shows_learning_curves_and_the_keys_against_the_final_metrics(swept):
    figures = [name for name in swept.record["files"] if name.endswith(".png")]
    assert figures == ["learning_curves.png", "final_metrics.png"]
    ends = pd.read_csv(swept.path / "ends.csv")
    expected = {(run.settings.seed, run.value("optimizer.lr")): run.metrics() for run in swept.runs}
    for row in ends.to_dict("records"):
        for name in ("train/loss", "val/loss", "test/loss"):
            assert row[name] == pytest.approx(expected[row["seed"], row["optimizer.lr"]][name])
    curves = pd.read_csv(swept.path / "learning_curves.csv")
    assert set(curves["split"]) == {"train", "val", "test"} and set(curves["quantity"]) == {"loss"}
    page = (swept.path / "report.html").read_text()
    assert page.count("data:image/png") == 2 and "optimizer.lr" in page
    assert "<h1>Learning rate and activation</h1>" in page and "the other keys vary from point to point" in page
    captions = Overview().answer({}, ["seed", "optimizer.lr"], []).captions
    assert captions["final_metrics"] == "What the runs came to against the learning rate."


def test_losses_of_classes_that_are_no_cross_entropy_have_no_nats(swept):
    ends = pd.read_csv(swept.path / "ends.csv")
    assert "loss_function" not in ends
    for told, label in ((ends, "loss (nats, log scale)"), (ends.assign(loss_function="mse"), "loss (log scale)")):
        figure = draw_final_metrics(told, ["optimizer.lr"], ["train", "test"], classes=True)
        assert figure.axes[0].get_ylabel() == label
    run = swept.runs[0]
    mse = replace(run.settings, loss={"_target_": "hw1.losses.mse"})
    assert Member(Run(run.path, mse), 0, {}, {}).origin["loss_function"] == "mse"


def test_of_many_settings_no_curves_are_drawn_together(swept, monkeypatch):
    monkeypatch.setattr("hw1.studies.overview._MOST_SERIES", 1)
    assert set(Overview().measure(swept, None)) == {"ends"}


def test_a_sweep_of_which_nothing_is_complete_has_a_page_all_the_same(tmp_path):
    folder = tmp_path / "default" / "sweeps" / "now"
    folder.mkdir(parents=True)
    entries = [{"key": f"{i:010d}", "folder": f"run-{i:010d}", "overrides": [f"seed={i}"]} for i in range(2)]
    record = {"name": "default", "status": "running", "command": [], "swept": ["seed"], "study": None, "runs": entries}
    write_record(folder / "sweep.json", {"format": FORMAT, "measures": [], **record})
    assert conclude(folder)
    failed = Sweep.read(folder).record["failed"]
    assert failed == {entry["folder"]: "it never started" for entry in entries}


def test_names_stand_side_by_side_and_far_numbers_on_a_logarithmic_axis():
    rows = [{"optimizer.lr": lr, "model": model, "dataset.batch_size": size, "test/loss": 0.1 * lr, "train/loss": 0.2}
            for lr, model, size in ((1e-4, "mlp", 32), (1e-1, "cnn", 64), (1e-1, "rnn", 96))]  # fmt: skip
    points = pd.DataFrame(rows).assign(data="digits", source="bundled", n_train=100)
    figure = draw_final_metrics(points, ["optimizer.lr", "model", "dataset.batch_size"], ["train", "val", "test"], True)
    lr, model, size = figure.axes
    assert (lr.get_xscale(), model.get_xscale(), size.get_xscale()) == ("log", "linear", "linear")
    assert [text.get_text() for text in model.get_xticklabels()] == ["mlp", "cnn", "rnn"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["train set", "test set"]
    means = [line.get_ydata() for line in lr.lines if line.get_linestyle() != "None"]
    assert [list(mean) for mean in means] == [pytest.approx([0.2, 0.2]), pytest.approx([1e-5, 1e-2])]


def test_weights_that_were_evaluated_once_have_no_curves(swept):
    """As those that were trained elsewhere: single points at an epoch are no curves."""
    tables = {name: pd.read_csv(swept.path / f"{name}.csv") for name in ("learning_curves", "ends")}
    tables["learning_curves"] = tables["learning_curves"].query("epoch == 1")
    assert list(Overview().draw(tables, ["seed", "optimizer.lr"])) == ["final_metrics"]


def test_lines_join_numbers_and_not_names(swept):
    ends = pd.read_csv(swept.path / "ends.csv")
    numbers, names = draw_final_metrics(ends, ["optimizer.lr", "model.activation"], ["train"], classes=False).axes
    assert [line.get_linestyle() != "None" for line in numbers.lines] == [False, True]
    assert [line.get_linestyle() != "None" for line in names.lines] == [False, False]
    figure = draw_final_metrics(ends, ["model.activation"], ["train"], classes=False)
    assert "large mark: mean over all" in figure.get_suptitle()
