"""Commands in Python: what the command line does, in a process of its own, with nothing left behind in this one."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest

import hw1
from hw1 import ConfigError, Sweep, python
from hw1.lease import hold
from hw1.notebook import Live, Watch, in_notebook
from made_runs import make_run, make_sweep

WORDS = [
    "hydra/launcher=basic",
    "model=mlp",
    "model.hidden=[4]",
    "dataset=digits",
    "dataset.train_size=64",
    "trainer.max_epochs=1",
    "seed=1,2",
]


def state():
    """What a command must leave as it was."""
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "argv": list(sys.argv),
        "path": list(sys.path),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "warnings": list(warnings.filters),
        "streams": (sys.stdout, sys.stderr),
        "hydra": "hydra" in sys.modules and sys.modules["hydra"].core.global_hydra.GlobalHydra().is_initialized(),
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(sweep, what was said, states before and after, folder) of a training in an empty folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "mine.py").write_text("from hw1.models import Mlp\n\n\nclass Net(Mlp):\n    pass\n")
    said = [Lines(), Lines()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "stdout", said[0])
        patch.setattr(sys, "stderr", said[1])
        patch.setenv("MPLBACKEND", "module://no_such_backend.of_a_notebook")
        before = state()
        sweep = hw1.train(*WORDS, "model._target_=mine.Net")
        after = state()
    return sweep, ["".join(stream.parts) for stream in said], before, after, folder


class Lines:
    """A stream that is not the process's own, as a notebook's."""

    def __init__(self):
        self.parts = []

    def write(self, text):
        self.parts.append(text)

    def flush(self):
        pass


def test_a_training_is_the_command_in_the_current_folder(trained):
    sweep, (out, error), _, _, folder = trained
    assert sweep.path.parent == folder / "multirun" / "default" / "sweeps" and sweep.status == "complete"
    assert sweep.keys == ["seed"] and [run.value("seed") for run in sweep.runs] == [1, 2]
    assert sweep.runs[0].value("model._target_") == "mine.Net"
    assert "default: 2 runs, 2 to train" in out and "[2/2] " in out and "report: multirun/default/sweeps" in out
    assert error.startswith("planning: ")


def test_nothing_of_it_stays_behind(trained):
    _, _, before, after, _ = trained
    assert after == before


def test_the_same_call_again_finds_the_same_sweep(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained[-1])
    assert hw1.train(*WORDS, "model._target_=mine.Net").path == trained[0].path
    assert "default: nothing to do: 2 runs complete, measured and drawn" in capsys.readouterr().out
    hw1.plan(*WORDS[:-1], "seed=1", "model._target_=mine.Net")
    assert "default: 1 run, 1 complete, 0 to train" in capsys.readouterr().out


def test_blocks_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = hw1.train
    monkeypatch.setattr(hw1, "train", lambda *words: train(*WORDS[:4], *words), raising=False)
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    given = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, given)
    said = capsys.readouterr().out
    assert re.search(r"^Sweep\('.*'\): complete, 2 runs\nseed  test/loss  test/accuracy", said, re.MULTILINE)
    assert len(given["best"].runs) == 1 and re.search(r"^1 0\.\d+ tensor\(", said, re.MULTILINE)


def test_a_report_of_a_sweep_by_itself_or_its_folder(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained[-1])
    page = trained[0].path / "report.html"
    page.unlink()
    assert python.report(trained[0].path.parent.parent).path == trained[0].path and page.is_file()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["model=mpl"], "model: got mpl, expected one of: cnn, gpt, mlp, .* (did you mean mlp?)"),
        (["seed=1-3"], "seed: got 1-3, expected values with commas, or 'seed=range(1,4)'"),
        (["seed=-1", "model=mlp"], "seed: got -1, expected an integer of at least 0"),
        ([3], 'words: got 3, expected text, one word of the command each: "seed=1,2"'),
        (["--dry-run"], "--dry-run: got a word with which nothing is trained, expected settings; use hw1.plan"),
        (["--cfg", "job"], "--cfg: got a word with which nothing is trained"),
        (["model._target_=__main__.Net"], "model._target_: got Net of this notebook or script"),
        (["model={_target_: __main__.Net}"], "model: got Net of this notebook or script"),
    ],
)
def test_what_is_refused_is_said_in_one_line(words, problem, tmp_path):
    with pytest.raises(ConfigError) as refused:
        hw1.train(*words, f"output={tmp_path}")
    text = str(refused.value)
    start, _, end = problem.partition(".*")
    assert text.startswith(start) and end.strip() in text and "\n" not in text
    assert not list(tmp_path.iterdir())


def test_a_class_of_a_notebook_is_refused_without_its_module_too(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "MyNet", object, raising=False)
    with pytest.raises(
        ConfigError, match=r"^model\._target_: got MyNet of .* into mine\.py beside it, and write mine\."
    ):
        hw1.train("model._target_=MyNet")
    with pytest.raises(ConfigError, match=r"^model: got MyNet of this notebook"):
        hw1.train("model={_target_: MyNet, hidden: 3}")


def test_a_sweep_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"no sweep\.json in "):
        hw1.measure(tmp_path, "sharpness")


def test_a_command_that_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(python, "_told", lambda file: {})
    monkeypatch.setattr(sys, "executable", str(tmp_path / "dies"))
    (tmp_path / "dies").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "dies").chmod(0o755)
    with pytest.raises(RuntimeError, match=r"train: .* killed by SIGKILL; is there enough memory\?"):
        hw1.train("model=mlp")


CHILD = """
import sys, time
from hw1.child import _interrupted_by_the_end_of, _own_input
_interrupted_by_the_end_of(_own_input())
try:
    print("at work", flush=True)
    assert sys.stdin.read() == ""
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted; the same command goes on", flush=True)
    sys.exit(130)
"""


def test_an_interruption_ends_the_command_and_what_it_says_is_shown(tmp_path, capsys):
    """Ctrl-C in this process: the command is told once, and has ended behind the exception."""
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(2.0, signal.raise_signal, [signal.SIGINT]).start()
        python._forwarded([sys.executable, "-c", CHILD], tmp_path / "told.json")
    assert time.monotonic() - begun < 30
    assert capsys.readouterr().out == "at work\ninterrupted; the same command goes on\n"


def test_a_command_ends_with_who_started_it(tmp_path):
    """As a kernel that is killed: the command does not go on alone."""
    code = textwrap.dedent(f"""
        import os, sys, threading
        from pathlib import Path
        from hw1 import python
        threading.Timer(3.0, os._exit, [9]).start()
        python._forwarded([sys.executable, "-c", {CHILD!r}], Path("told.json"))
    """)
    with (tmp_path / "said").open("w") as said:
        subprocess.run([sys.executable, "-c", code], stdout=said, cwd=tmp_path, check=False)
    for _ in range(100):
        if "interrupted" in (tmp_path / "said").read_text():
            return
        time.sleep(0.1)
    raise AssertionError((tmp_path / "said").read_text())


@pytest.mark.slow
def test_an_interrupted_training_can_go_on(tmp_path, capsys):
    words = [*WORDS[:5], "trainer.max_epochs=20000", "trainer.checkpoint_seconds=1", "seed=1", f"output={tmp_path}"]

    def interrupt():
        while not list(tmp_path.glob("default/runs/*/checkpoints/last.ckpt")):
            time.sleep(0.2)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        hw1.train(*words)
    sweep = Sweep.read(tmp_path / "default")
    assert sweep.status == "interrupted" and list(sweep.runs[0].path.glob("checkpoints/last.ckpt"))
    assert "interrupted; the same command goes on" in capsys.readouterr().err


# In a notebook


class Display:
    """IPython's display: what stands in a cell's output."""

    def __init__(self):
        self.shown = []

    def HTML(self, text):
        return text

    def display(self, page, display_id):
        assert display_id
        self.shown.append(page)
        return self

    def update(self, page):
        self.shown.append(page)


@pytest.fixture
def display(monkeypatch):
    made = Display()
    monkeypatch.setitem(sys.modules, "IPython.display", made)
    return made


def test_this_is_no_notebook():
    assert not in_notebook()


def test_lines_of_runs_make_way_and_failures_stay(display):
    live = Live()
    assert not live.takes("default: 9 runs, 9 to train") and not live.takes("[1/9] seed=1: FAILED: loss is nan")
    live.draw()
    assert display.shown == []
    for number in range(9):
        assert live.takes(f"[{number + 1}/9] seed={number}: test/loss <b>\x1b[2J")
    live.draw([("seed=9", 0.25, "epoch 1 of 4")])
    page = display.shown[-1]
    assert "[4/9]" not in page and "[5/9]" in page and "&lt;b&gt;" in page and "\x1b" not in page
    assert '<progress max="1" value="0.2500"></progress> seed=9 epoch 1 of 4' in page
    live.draw()
    assert "progress" not in display.shown[-1] and len(display.shown) == 2


def test_bars_are_of_runs_at_work(tmp_path):
    folders = [make_run(tmp_path, 64, seed)[0] for seed in range(3)]
    path = make_sweep(tmp_path, folders, ["seed"])
    record = json.loads((path / "sweep.json").read_text())
    record |= {"launched": [folder.name for folder in folders], "launched_at": time.time()}
    (path / "sweep.json").write_text(json.dumps(record))
    for folder in folders[1:]:
        (folder / "result.json").unlink()
        now = time.time()
        told = {"since": now - 10, "first": 0, "time": now, "step": 25, "steps": 100, "epochs": 4}
        (folder / "progress.json").write_text(json.dumps(told))
    watch = Watch(path)
    with hold(folders[1]):  # the other is of an interrupted command: it waits
        runs, first = watch.bars()
    assert runs[0] == "runs" and runs[1] == pytest.approx((1 + 0.25) / 3) and runs[2] == "1 of 3"
    assert first[:2] == ("batch_size=64_seed=1_lr=0.001", 0.25) and first[2] == "epoch 1 of 4, about 30 s left"
