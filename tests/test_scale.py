"""Nothing that looks at runs looks at them more than a fixed number of times each: what it opens is counted."""

import contextlib
import os
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest

from hw1.plots.learning_curves import bin_width
from hw1.records import FORMAT, write_record
from hw1.report import clean
from hw1.report.listing import listing
from hw1.runs import Run, Sweep
from hw1.runs.damage import passing_damage
from hw1.runs.histories import evaluated
from hw1.runs.inventory import inventory
from hw1.runs.order import count_end, counter_of, read_order, remove_orders, write_orders
from hw1.settings import RunSettings
from hw1.training import contents
from hw1.training.metrics_csv import MetricsCsv, require_recorded
from hydra_plugins.hw1_sweeper import launching
from hydra_plugins.hw1_sweeper.plan import Job
from made_runs import make_sweep, run_settings

_counts: list[Counter] = []


def _hook(event, arguments):
    if not _counts:
        return
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _counts[-1]["open"] += 1
    elif event in ("os.listdir", "os.scandir"):
        _counts[-1]["folder"] += 1


@pytest.fixture(scope="module", autouse=True)
def hooked():
    sys.addaudithook(_hook)  # there is no way to take one away: it sleeps where nothing is counted


@contextlib.contextmanager
def counting():
    """Counts the files that are opened and the folders that are listed inside, and calls of Python's functions."""
    found = Counter()
    _counts.append(found)

    def called(frame, event, argument):
        if event == "call":
            found["call"] += 1

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        yield found
    finally:
        sys.setprofile(before)
        _counts.remove(found)


def write_run(root, seed):
    """The folder of a finished run, with records as they are written today."""
    settings = RunSettings.check(run_settings(seed=seed))
    folder = root / "hand" / "runs" / f"seed={seed}-{settings.key}"
    folder.mkdir(parents=True)
    begun = contents.begin(folder, settings, [f"seed={seed}"], {}, resumed=False)
    lines = ["epoch,step,train_step/loss,train/loss,test/loss"]
    lines += [f"{epoch},{epoch},0.5,{1 / (epoch + seed + 1)!r},{0.1 * seed!r}" for epoch in range(3)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    result = {name: begun[name] for name in ("format", "key", "name", "overrides", "settings", "code")}
    result |= {"status": "complete", "seed": seed, "epochs": 3, "seconds": 1.0, "parameters": 9, "replicas": 1}
    (folder / "snapshots").mkdir()
    for epoch in range(4):
        (folder / "snapshots" / f"epoch={epoch:06d}.safetensors").touch()
    result |= {"dataset": {"name": "digits", "source": "made", "train": 5, "test": 5, "sha256": "0"}}
    contents.end(folder, result | {"metrics": {"train/loss": 1.0, "test/loss": 0.5}, "versions": {}, "git": None})
    return folder


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """{number of runs: the folder of their sweep}, of n and 2n."""
    found = {}
    for number in (15, 30):
        root = tmp_path_factory.mktemp(f"of{number}")
        folders = [write_run(root, seed) for seed in range(number)]
        words = [[f"seed={seed}"] for seed in range(number)]
        found[number] = make_sweep(root, folders, ["seed"], overrides=words)
    return found


def listed(sweep):
    listing(sweep.parent.parent, [], None)


def tabled(sweep):
    read = Sweep.read(sweep)
    read.table()
    repr(read)
    read.select(seed=3)


def curves(sweep):
    read = Sweep.read(sweep)
    assert sum(len(table) for table in evaluated(read.complete().runs, ["test/loss"])) == 3 * len(read.runs)


def passed(sweep):
    for folder in sorted((sweep.parent.parent / "runs").iterdir()):
        assert passing_damage(folder) == []


@pytest.mark.parametrize("reader", [listed, tabled, curves, passed])
def test_twice_the_runs_are_twice_the_work(sweeps, reader):
    reader(sweeps[15])  # what is done once a process
    found = {}
    for number, sweep in sweeps.items():
        with counting() as found[number]:
            reader(sweep)
    for what in ("open", "folder", "call"):
        assert found[30][what] <= 2.1 * found[15][what], what
    assert found[15]["open"] > 15


def test_a_sweep_s_record_is_judged_once_however_many_runs_are_thinned(sweeps, monkeypatch):
    judged = []
    why = clean.why_not_own_record
    monkeypatch.setattr(clean, "why_not_own_record", lambda file: judged.append(file) or why(file))
    assert len(clean.plan(sweeps[30].parent.parent, [], clean.Level(keep=2)).removals) == 30
    assert judged == [sweeps[30] / "sweep.json"]


def test_as_many_sweeps_as_runs_are_listed_in_their_own_time(tmp_path):
    folders = [write_run(tmp_path, seed) for seed in range(16)]
    for number, folder in enumerate(folders):
        make_sweep(tmp_path, [folder], [], overrides=[["seed=1"]], time=f"2026-01-01_00-00-{number:02d}")
    found = {number: hashed_for_all_sweeps(tmp_path / "hand", number, folders) for number in (8, 16)}
    assert found[16] <= 2.1 * found[8]


def hashed_for_all_sweeps(base, number, folders):
    """How often a run's folder is hashed to say which runs each of so many sweeps of one run has."""
    hashed = []

    class Hashed(type(base)):
        def __hash__(self):
            hashed.append(self)
            return super().__hash__()

    (whole,) = inventory(base)
    runs = [replace(run, folder=Hashed(run.folder)) for run in whole.runs[:number]]
    part = replace(whole, runs=runs, sweeps=whole.sweeps[:number])
    assert [[run.folder.name for run in part.of(sweep)] for sweep in part.sweeps] == [
        [f.name] for f in folders[:number]
    ]
    return len(hashed)


class Launcher:
    """Does each job's part that depends on the command: reads its order, counts its end."""

    def __init__(self, folders):
        self.opened, self.folders, self.seen = [], folders, []

    def launch(self, batch, initial_job_idx):
        results = []
        for words, folder in zip(batch, self.folders, strict=True):
            file = words[-1].removeprefix("sweep='").removesuffix("'")
            with counting() as found:
                order = read_order(launching.Path(file))
                self.seen.append((order.trains, count_end(order.counter), order.launched, order.runs))
            self.opened.append((found["open"], found["folder"], os.path.getsize(file)))
            write_record(folder / "result.json", {"format": FORMAT, "status": "failed", "error": "x"})
            results.append(type("Return", (), {"_return_value": None})())
        return results


def test_a_job_reads_as_much_of_its_command_whatever_the_others_are(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "fetch", lambda jobs: None)  # these have no data
    opened = {}
    for number in (5, 50):
        base = tmp_path / str(number)
        jobs = [
            Job([], RunSettings.check(run_settings(seed=seed)), base / "runs" / f"a-{seed}") for seed in range(number)
        ]
        for job in jobs:
            job.folder.mkdir(parents=True)
        sweep = base / "sweeps" / "now"
        sweep.mkdir(parents=True)
        names = [job.folder.name for job in jobs]
        record = {"runs": [{"folder": name} for name in names], "launched": names, "trained": names[1:]}
        record |= {"launched_at": 0.0, "measures": [], "measuring_threads": 1}
        launcher = Launcher([job.folder for job in jobs])
        launching.launch(launcher, jobs, sweep / "sweep.json", record)
        opened[number] = launcher.opened
        assert launcher.seen == [(i > 0, i + 1, number, number) for i in range(number)]
        assert list(sweep.iterdir()) == []  # nothing of it stays
    assert max(files for files, _, _ in opened[50]) <= max(files for files, _, _ in opened[5]) <= 3
    assert not any(folders for _, folders, _ in opened[50])
    assert max(size for _, _, size in opened[50]) - max(size for _, _, size in opened[5]) < 20


def test_orders_of_a_command_that_was_interrupted_are_begun_anew(tmp_path):
    for _ in range(2):
        orders = write_orders(tmp_path / "sweep.json", {"measures": []}, 3)
        assert [count_end(counter_of(orders[trains])) for trains in (True, False)] == [1, 2]
    remove_orders(orders.values())
    assert list(tmp_path.iterdir()) == []


def test_evaluated_epochs_are_those_of_each_history(sweeps, tmp_path):
    runs = Sweep.read(sweeps[15]).runs
    other = Run(write_run(tmp_path, 99))  # of other columns, so in a table of its own
    text = "epoch,step,member,test/loss\n,0,0,\n0,1,0,0.25\n0,1,1,0.5\n"
    (other.path / "metrics.csv").write_text(text)
    record = other.result
    record["files"]["metrics.csv"] = contents.file_sums(other.path / "metrics.csv")
    write_record(other.path / "result.json", record)
    tables = list(evaluated([*runs, other], ["test/loss", "val/loss"]))
    assert [sorted(table["run"].unique()) for table in tables] == [list(range(15)), [15]]
    for number, run in enumerate(runs):
        own = tables[0][tables[0]["run"] == number]
        assert (
            own[["epoch", "test/loss"]].to_numpy().tolist() == run.history()[["epoch", "test/loss"]].to_numpy().tolist()
        )
    assert tables[1][["epoch", "member", "test/loss"]].to_numpy().tolist() == [[0, 0, 0.25], [0, 1, 0.5]]


def test_a_long_history_is_read_as_a_short_one(sweeps, monkeypatch):
    from hw1.runs import histories

    runs = Sweep.read(sweeps[15]).runs[:3]
    together = pd.concat(evaluated(runs, ["train/loss"]), ignore_index=True)
    monkeypatch.setattr(histories, "_AT_ONCE", 10)
    monkeypatch.setattr(histories, "_ROWS", 2)
    assert pd.concat(evaluated(runs, ["train/loss"]), ignore_index=True).equals(together)


def rows_logged(folder, rows):
    log = MetricsCsv(folder)
    for step in range(rows):
        log.log_metrics({"train_step/loss": 1 / (step + 1)}, step)
    log.write()
    return log


def peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_new_column_and_a_resumed_run_hold_a_part_of_metrics_csv_only(tmp_path):
    log = rows_logged(tmp_path, 12_000)
    before = (tmp_path / "metrics.csv").read_text()
    recorded = log.record()
    log.log_metrics({"test/late": 0.5}, 12_000)
    assert peak(log.write) < 2.5e6  # the cells of 12,000 rows are more than that
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [line.removesuffix(",") for line in lines[1:12_001]] == before.splitlines()[1:]
    assert lines[0].endswith(",test/late") and lines[-1] == ",12000,,0.5"
    assert peak(lambda: require_recorded(tmp_path / "metrics.csv", recorded)) < 2.5e6
    assert peak(lambda: MetricsCsv(tmp_path, recorded=recorded)) < 2.5e6
    assert (tmp_path / "metrics.csv").read_text() == before


@pytest.mark.slow
def test_a_million_rows_are_logged_and_read_in_bounded_memory(tmp_path):
    def logged():
        log = rows_logged(tmp_path, 1_000_000)
        log.log_metrics({"test/late": 0.5}, 1_000_000)
        log.write()
        MetricsCsv(tmp_path, recorded=log.record())

    assert peak(logged) < 2e7
    assert sum(1 for _ in (tmp_path / "metrics.csv").open()) == 1_000_002


def test_a_long_learning_curve_is_drawn_in_bins():
    from hw1.plots.learning_curves import draw_learning_curves

    number = 3 * 2_500
    rows = pd.DataFrame({"epoch": range(1, number + 1), "value": [1 / epoch for epoch in range(1, number + 1)]})
    rows = rows.assign(series="a", seed=0, split="train", quantity="loss", data="digits", source="made", n_train=5)
    figure = draw_learning_curves(rows, ["loss"], "")
    line = figure.axes[0].lines[0]
    assert bin_width(number) == 8 and len(line.get_xdata()) == -(-number // 8)
    assert line.get_xdata()[0] == 4.5 and line.get_ydata()[0] == pytest.approx(sum(1 / e for e in range(1, 9)) / 8)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == 1.0 and band[:, 1].min() == pytest.approx(1 / number)
    assert "mean and range of 8 evaluations" in figure.get_suptitle()


def test_many_values_and_failures_are_folded_on_a_page(sweeps):
    from hw1.report.page import page
    from hw1.studies.answers import Answer

    sweep = Sweep.read(sweeps[15])
    several = Sweep(sweep.path, sweep.record, sweep.runs * 1)
    failed = {f"run-{number}": "it fell over" for number in range(1000)}
    made = page(several, Answer(), {"runs": several.table()}, [], [], failed)
    assert made.count("it fell over") == 40 and "and 960 more" in made and len(made) < 100_000
