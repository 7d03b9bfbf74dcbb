import csv
import os

import pandas as pd
import pytest

from hw1.training.metrics_csv import MetricsCsv


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def header(folder):
    return (folder / "metrics.csv").read_text().splitlines()[0].split(",")


def test_values_of_one_step_are_one_row(tmp_path):
    log = MetricsCsv(tmp_path)
    log.log_metrics({"train_step/loss": 0.5}, step=0)
    log.log_metrics({"train_step/loss": 0.25}, step=1)
    log.log_metrics({"epoch": 0, "test/loss": 2.0}, step=1)
    log.log_metrics({"gradient_norm": 3.0}, step=0)  # fetched late
    log.write()
    assert rows(tmp_path) == [
        {"step": "0", "train_step/loss": "0.5", "gradient_norm": "3.0"},
        {"step": "1", "epoch": "0", "train_step/loss": "0.25", "test/loss": "2.0"},
    ]
    assert header(tmp_path)[:2] == ["epoch", "step"] and len(set(header(tmp_path))) == 5


def test_a_new_column_is_empty_in_earlier_rows(tmp_path):
    log = MetricsCsv(tmp_path)
    for step in range(3):
        log.log_metrics({"a": step}, step=step)
    log.write()
    log.log_metrics({"a": 3, "b": 30}, step=3)
    log.write()
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["a"].tolist() == [0, 1, 2, 3] and table["step"].tolist() == [0, 1, 2, 3]
    assert table["b"].isna().tolist() == [True, True, True, False] and table["b"][3] == 30


def test_numbers_are_kept_to_the_last_digit(tmp_path):
    log, values = MetricsCsv(tmp_path), [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, float("nan"), float("inf")]
    for step, value in enumerate(values):
        log.log_metrics({"a": value}, step=step)
    log.write()
    assert [float(row["a"]).hex() for row in rows(tmp_path)] == [value.hex() for value in values]


def test_nothing_is_lost_in_a_long_training(tmp_path):
    log = MetricsCsv(tmp_path)
    for step in range(4_321):
        log.log_metrics({"train_step/loss": step / 7}, step=step)
        if step % 100 == 99:  # a buffer of another callback, fetched a hundred steps late
            for late in range(step - 99, step + 1):
                log.log_metrics({"gradient_norm": late}, step=late)
    log.finalize("success")
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["step"].tolist() == list(range(4_321))
    assert [float(row["train_step/loss"]) for row in rows(tmp_path)] == [step / 7 for step in range(4_321)]
    assert table["gradient_norm"].dropna().tolist() == list(range(4_300))


def test_what_was_written_survives_the_process(tmp_path):
    log = MetricsCsv(tmp_path)
    log.log_metrics({"a": 1}, step=0)
    log.write()
    log.log_metrics({"a": 2}, step=1)  # not written: the process is killed here
    assert [row["a"] for row in rows(tmp_path)] == ["1"]


def test_a_resumed_run_drops_what_it_will_log_again(tmp_path):
    first = MetricsCsv(tmp_path)
    for step in range(6):
        first.log_metrics({"a": step, "b": -step}, step=step)
    first.write()
    second = MetricsCsv(tmp_path, first_step=4)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]
    for step in range(4, 8):
        second.log_metrics({"a": 10 * step, "c": 1}, step=step)
    second.write()
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["a"].tolist() == [0, 1, 2, 3, 40, 50, 60, 70] and list(table) == ["epoch", "step", "a", "b", "c"]


@pytest.mark.parametrize("torn", ["7,", "7,1", "7,12", "7,123", "7,1234", "7,1234,0.", "7", '"'])
def test_a_last_line_cut_off_by_a_kill(torn, tmp_path):
    """Wherever the cut is: of the step 1234 perhaps only the 1 reached the disk."""
    log = MetricsCsv(tmp_path)
    for step in (0, 1, 2, 999):
        log.log_metrics({"epoch": 0, "a": step, "b": 1}, step=step)
    log.write()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(torn)
    MetricsCsv(tmp_path, first_step=1000)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "999"]
    assert {row["epoch"] for row in rows(tmp_path)} == {"0"}


@pytest.mark.parametrize("text", ["", "epoch,st", "epoch,step"])
def test_a_file_of_less_than_a_header(text, tmp_path):
    (tmp_path / "metrics.csv").write_text(text)
    log = MetricsCsv(tmp_path, first_step=5)
    log.log_metrics({"epoch": 1, "a": 2}, step=5)
    log.write()
    assert rows(tmp_path) == [{"epoch": "1", "step": "5", "a": "2"}]


def test_a_failed_attempt_starts_anew_and_leaves_no_temporary_file(tmp_path):
    log = MetricsCsv(tmp_path)
    log.log_metrics({"a": 1}, step=3)
    log.write()
    MetricsCsv(tmp_path)
    assert rows(tmp_path) == [] and os.listdir(tmp_path) == ["metrics.csv"]


def test_without_a_step_it_is_the_first(tmp_path):
    log = MetricsCsv(tmp_path)
    log.log_metrics({"hp_metric": 1})
    log.write()
    assert rows(tmp_path) == [{"step": "0", "hp_metric": "1"}]
