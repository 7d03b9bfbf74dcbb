"""Runs remember which data they were trained on; a file that has changed is noticed, without reading what has not."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hw1.data import TorchDataset
from hw1.data.identities import definition_of, identity_of, remembered
from hw1.runs import Run
from hw1.runs.changed import changed, refuse_changed
from hw1.settings import ConfigError
from hw1.training.contents import begin, end, note_data
from hw1.training.examples import source_node, today
from made_runs import checked

SOURCE = """
import csv, hashlib
from pathlib import Path

import torch
from hw1.data.protocol import TrainTest


class Csv:
    kind, name, source, in_shape, out_features = "values", "table", "csv", (1,), 1

    def __init__(self, file: str):
        self.file = file

    def prepare(self):
        pass

    def identity(self):
        with open(self.file, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A class of the user's that reads table.csv; its node."""
    monkeypatch.setenv("HW1_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_source.py").write_text(SOURCE)
    write(tmp_path / "table.csv", "x,y\n1,2\n")
    yield {"_target_": "my_source.Csv", "file": "table.csv", "batch_size": 8, "seed": 0}
    sys.modules.pop("my_source", None)


def write(file, text, seconds_ago=60):
    """Write a file that is not of this moment: its time can be trusted."""
    file.write_text(text)
    later = file.stat().st_mtime_ns - seconds_ago * 10**9
    os.utime(file, ns=(later, later))


def finished(base, node, seed=0):
    settings = checked(dataset={**node, "seed": seed}, seed=seed)
    folder = base / "runs" / f"seed={seed}-{settings.key}"
    folder.mkdir(parents=True)
    begin(folder, settings, [], {}, resumed=False)
    dataset = {"name": "table", "source": "csv", "train": 1, "test": 1, "sha256": today(node).identity}
    result = {
        "format": 2,
        "status": "complete",
        "key": settings.key,
        "metrics": {},
        "parameters": 1,
        "dataset": dataset,
    }
    end(folder, result)
    return Run(folder)


def test_a_changed_table_is_named_with_the_runs_and_the_remedy(mine, tmp_path):
    runs = [finished(tmp_path / "out", mine, seed) for seed in (0, 1)]
    assert changed(runs) == []
    refuse_changed(runs, "REMEDY")
    write(tmp_path / "table.csv", "x,y\n1,3\n", seconds_ago=30)  # as long as before
    for _ in range(2):  # also when it has been looked at
        with pytest.raises(ConfigError) as caught:
            refuse_changed(runs, "REMEDY")
        line = str(caught.value)
        assert line.startswith(f"dataset: table ({tmp_path / 'table.csv'}) has changed since 2 of these runs were")
        assert line.endswith(": restore it, or REMEDY") and "\n" not in line
        assert changed(runs) == runs
    write(tmp_path / "table.csv", "x,y\n1,2\n", seconds_ago=10)
    assert changed(runs) == []  # another time, the same content


def test_data_that_are_not_here_are_not_compared(mine, tmp_path):
    run = finished(tmp_path / "out", mine)
    (tmp_path / "table.csv").unlink()
    assert changed([run]) == []


def test_an_interrupted_run_does_not_go_on_with_other_data(mine, tmp_path):
    settings = checked(dataset=mine)
    folder = tmp_path / f"seed=0-{settings.key}"
    folder.mkdir()
    begin(folder, settings, [], {}, resumed=False)
    note_data(folder, today(mine).identity)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
    begin(folder, settings, [], {}, resumed=True)
    note_data(folder, today(mine).identity)  # the same
    assert changed([Run(folder)]) == []
    write(tmp_path / "table.csv", "x,y\n9,9\n", seconds_ago=30)
    assert [run.path for run in changed([Run(folder)])] == [folder]
    with pytest.raises(ValueError, match="has trained on other data than today's so far: restore them, or add --rerun"):
        note_data(folder, today(mine).identity)


def test_what_has_not_changed_is_neither_read_nor_imported(mine, tmp_path):
    today(mine)
    program = f"import sys; from hw1.training.examples import today; print(today({mine!r}).identity)"
    program += "; assert not {'torch', 'my_source', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == today(mine).identity


def test_what_was_written_a_moment_before_it_was_read_is_read_again(mine, tmp_path):
    """Two writings within a tick of the clock have the same time: see racy-git."""
    node = source_node(mine)
    (tmp_path / "table.csv").write_text("x,y\n5,6\n")
    first = today(mine).identity
    entry = remembered(definition_of(node))
    assert not entry.stands() and entry.touched() == []
    stamp = (tmp_path / "table.csv").stat().st_mtime_ns
    (tmp_path / "table.csv").write_text("x,y\n5,7\n")
    os.utime(tmp_path / "table.csv", ns=(stamp, stamp))
    assert today(mine).identity != first


def test_an_image_that_is_added_changed_or_removed_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("HW1_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    for split in ("train", "test"):
        for label in "ab":
            (tmp_path / "images" / split / label).mkdir(parents=True)
            Image.fromarray(pixels[0]).save(tmp_path / "images" / split / label / "0.png")
    node = {"_target_": "hw1.data.ImageFolder", "root": None, "folder": str(tmp_path / "images"), "size": 8}
    node |= {"channels": 1}
    seen = [today(node).identity]
    extra = tmp_path / "images" / "train" / "a" / "1.png"
    Image.fromarray(pixels[1]).save(extra)
    seen.append(today(node).identity)
    Image.fromarray(pixels[2]).save(extra)
    seen.append(today(node).identity)
    extra.unlink()
    assert len(set(seen)) == 3 and today(node).identity == seen[0]


class Labelled:
    """A torch data set that reads its labels when it is made, and its inputs when they are needed."""

    def __init__(self, folder):
        self.folder, self.labels = folder, (folder / "labels.csv").read_text().split()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, number):
        return np.load(self.folder / f"{number}.npy"), int(self.labels[number])


def test_files_that_a_torch_data_set_opens_when_it_is_made_are_among_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HW1_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "labels.csv", "0 1")
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", np.full(3, number, dtype=np.float32))
    made = functools.partial(Labelled, tmp_path)
    source = TorchDataset(made, made, kind="classes", in_shape=None, out_features=2, stream=True)
    assert source.in_shape == (3,)  # the sets are made
    identity_of(source, "labelled")
    assert {str(tmp_path / name) for name in ("labels.csv", "0.npy", "1.npy")} <= set(remembered("labelled").stamps)


def test_files_are_those_that_a_class_opens_or_lists_unless_it_says_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HW1_CACHE", str(tmp_path / "cache"))
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "one.csv", "1")

    class Parts:
        def identity(self):
            return "".join(sorted(entry.name + open(entry).read() for entry in os.scandir(tmp_path / "parts")))

    class Said(Parts):
        def files(self):
            return [tmp_path / "said.parquet"]

    identity_of(Parts(), "parts")
    assert {str(tmp_path / "parts"), str(tmp_path / "parts" / "one.csv")} <= set(remembered("parts").stamps)
    identity_of(Said(), "said")
    assert remembered("said").stamps == {str(tmp_path / "said.parquet"): []}

    class Computed:
        def identity(self):
            return "pi"

    assert identity_of(Computed(), "computed") == "pi" and remembered("computed") is None
