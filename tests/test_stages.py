"""A long stage says how far it is: a bar on a terminal, one line elsewhere, word to who draws for a worker."""

import os
import sys
import time

import numpy as np
import pytest
from PIL import Image

from hw1 import stages
from hw1.data import ImageFolder
from hw1.stages import at, bar, duration, stage, through
from hw1.words import cut
from hydra_plugins.hw1_launcher.screen import Screen, told_apart

SLUG = "batch_size=1024_lr=0.001_weight_decay=0.0001_independent_seed="


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(stages, "AFTER", 0.02)
    monkeypatch.setattr(stages, "EVERY", 0.01)


def until(seen):
    """Wait until a thread has said something; a minute at most."""
    begun = time.monotonic()
    while not seen() and time.monotonic() - begun < 60:
        time.sleep(0.005)


class Heard(list):
    """A stream that remembers what was written."""

    def __init__(self, terminal):
        super().__init__()
        self._terminal = terminal

    def write(self, text):
        self.append(text)

    def flush(self):
        pass

    def isatty(self):
        return self._terminal

    def fileno(self):
        return 2


@pytest.fixture
def heard(monkeypatch, soon):
    """heard(terminal) -> what is written to standard error from now on."""

    def listen(terminal):
        stream = Heard(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((60, 24)))
        return stream

    return listen


def test_what_is_over_soon_says_nothing(monkeypatch, heard):
    monkeypatch.setattr(stages, "AFTER", 60)
    said = heard(True)
    begun = time.monotonic()
    with stage("short"):
        assert list(through("abc", 3)) == ["a", "b", "c"]
    assert said == [] and time.monotonic() - begun < 30


def test_a_line_where_there_is_no_terminal(heard):
    said = heard(False)
    with stage("counting"):
        for number in through(range(4), 4):
            if number == 2:
                until(lambda: said)
    (line, end) = said  # one line, however long it takes
    assert end == "\n" and line.startswith("counting: 2 of 4 in 0.") and line.endswith(" s left")


def test_a_stage_that_nobody_counts(heard):
    said = heard(False)
    with stage("drawing"):
        until(lambda: said)
    assert "".join(said) == "drawing ...\n"


def test_a_bar_on_a_terminal_which_is_taken_away(heard):
    said = heard(True)
    with pytest.raises(KeyError), stage("counting"):
        at(1, 4)
        until(lambda: said)
        raise KeyError
    assert said[0].startswith("\rcounting ") and " 25%|" in said[0] and said[-1] == "\r\x1b[K"
    assert all(len(one) < 60 + len("\r\x1b[K") for one in said)


def test_the_innermost_counts_and_speaks(heard):
    said = heard(True)
    with stage("outer"):
        at(1, 2)
        until(lambda: said)
        with stage("inner"):
            at(3, 4)
            until(lambda: any("inner" in one for one in said))
        seen = len(said)
        until(lambda: any("outer" in one for one in said[seen + 1 :]))
    assert any("outer" in one and " 50%" in one for one in said[:2])
    assert any("inner" in one and " 75%" in one for one in said)
    assert any("outer" in one and " 50%" in one for one in said[seen:])  # what inner counted was its own


def test_outside_of_a_stage_nobody_hears(heard):
    said = heard(True)
    at(1, 2)
    assert list(through([1], 1)) == [1] and said == []


def test_in_a_worker_who_draws_is_told(monkeypatch, heard):
    said, told = heard(False), []
    monkeypatch.setattr(stages, "watcher", told.append)
    with stage("sharpness of it"):
        at(2, 8)
        until(lambda: told)
    assert told[0] == ("sharpness of it", 2, 8, ()) and said == []


@pytest.mark.parametrize("width", [20, 40, 79, 200])
@pytest.mark.parametrize("total", [0, 1000])
def test_a_bar_stays_readable(width, total):
    one, other = (bar(f"{SLUG}{seed}", 250, total, 10.0, width, ("test/loss=0.5", "x" * 40)) for seed in (1, 2))
    assert len(one) <= width and one != other and one.startswith("bat")
    assert width < 40 or ((" 25%|" in one and "00:10<00:30" in one) if total else "00:10" in one)
    if total:
        assert ("test/loss=0.5" in one) == (width >= 79) and ("xxx" in one) == (width == 200)


def test_a_resumed_bar_counts_its_own_time():
    assert "00:10<00:20" in bar("a", 500, 900, 10.0, 79, first=300)


def test_names_and_durations():
    assert cut("short", 5) == "short" and len(cut(SLUG, 20)) == 20
    assert cut(f"{SLUG}17", 30).endswith("seed=17") and cut(f"{SLUG}17", 30).startswith("batch_size=1024")
    assert [duration(s) for s in (0.123, 61, 7500)] == ["0.12 s", "1 min 01 s", "2 h 05 min"]


def test_a_run_that_goes_on_to_a_stage_has_a_bar_of_that_name(monkeypatch):
    stream = Heard(True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    monkeypatch.setattr("hydra_plugins.hw1_launcher.screen._EVERY", -1)
    with Screen() as screen:
        screen.told(0, ("training", 10, 10, ("test/loss=0.5",)))
        screen.told(0, ("sharpness", 1, 4, ()))
    assert "training" in stream[0] and "100%" in stream[0]
    assert "sharpness" in stream[1] and " 25%" in stream[1] and "training" not in stream[1] and "loss" not in stream[1]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["seed=1_digits_mlp_lr=0.001"], ["seed=1_digits_mlp_lr=0.001"]),
        (["seed=1_digits_mlp", "seed=2_digits_mlp"], ["seed=1", "seed=2"]),
        (["seed=1_size=5", "seed=11_size=5", "seed=2_size=5"], ["seed=1", "seed=11", "seed=2"]),
        (["a_b", "a_b"], ["a_b", "a_b"]),
        (["a_b", "c_d"], ["a_b", "c_d"]),
        (["_b", "a_b"], ["_b", "a_b"]),
    ],
)
def test_what_all_names_end_with_is_left_out(names, expected):
    assert told_apart(names) == expected


def test_decoding_is_a_stage(tmp_path, monkeypatch, heard):
    monkeypatch.setenv("HW1_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "pets" / split / name / "0.png")
    said = heard(False)
    opened = Image.open

    def slow(path, **formats):
        until(lambda: said)
        return opened(path, **formats)

    monkeypatch.setattr(Image, "open", slow)
    ImageFolder(tmp_path, "pets", size=4, channels=3).prepare()
    assert "".join(said) == "decoding the images of pets ...\n"
