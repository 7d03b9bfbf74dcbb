"""TensorBoard's own page in a headless browser: the rows and curves that a person sees of a sweep."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import browser
from hw1.runs import Sweep
from made_runs import make_run

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = browser.needed

ROOT = Path(__file__).parents[1]
SMALL = (
    *("dataset=digits", "dataset.train_size=90", "model=mlp", "model.hidden=[5]", "trainer.max_epochs=2"),
    *("measures=none", "trainer.threads=1", "trainer.progress=false", "optimizer.lr=1e-3,1e-2"),
    *("dataset.batch_size=30,null", "callbacks=[default,gradient_norm]", "init=shared"),
)
SECONDS = 120  # until a page is drawn, on a machine that does much else


@pytest.fixture(scope="module")
def board(command, tmp_path_factory):
    """The address of `python -m hw1 tensorboard` on one sweep of four runs, beside another in the same folder."""
    output = tmp_path_factory.mktemp("board")
    done = command(*SMALL, output=output)
    assert done.returncode == 0, done.stderr
    make_run(output, 16)
    done = command(*SMALL, "seed=7", "dataset.batch_size=30", output=output)
    assert done.returncode == 0, done.stderr
    first = sorted((output / "default" / "sweeps").iterdir())[0]
    assert len(Sweep.read(first).runs) == 4 and len(list((output / "default" / "runs").iterdir())) == 6
    words = [sys.executable, "-m", "hw1", "tensorboard", str(first), "--host=127.0.0.1", "--port=0"]
    pipe = subprocess.PIPE
    (links := output / "links").mkdir()
    environment = {**os.environ, "TMPDIR": str(links)}
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=pipe, text=True, start_new_session=True
    )
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    address = next((found[0] for line in process.stderr if (found := re.search(r"http://\S+", line))), None)
    timer.cancel()
    assert address, "TensorBoard did not start"
    threading.Thread(target=process.stderr.read, daemon=True).start()
    until = time.monotonic() + SECONDS
    while loaded(address) < 4 and time.monotonic() < until:  # a page that is opened before shows what there is by then
        time.sleep(0.5)
    yield address
    os.killpg(process.pid, signal.SIGINT)
    process.wait(SECONDS)
    assert not list(links.glob("hw1-*"))


def loaded(address):
    """How many runs TensorBoard has read so far."""
    with urllib.request.urlopen(f"{address.rstrip('/')}/data/runs", timeout=SECONDS) as answer:
        return sum("lr=" in name for name in json.load(answer))


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as one:
        yield one


@pytest.fixture
def seen(board, chromium):
    """`seen(tab)` -> a page of TensorBoard, wide enough for all columns."""
    with browser.opened(chromium, board, viewport={"width": 2400, "height": 3000}) as page:
        page.set_default_timeout(SECONDS * 1000)

        def open_tab(name):
            page.goto(f"{board}#{name}")
            page.reload()
            return page

        yield open_tab


def test_hparams_has_a_row_a_run_and_the_swept_settings_first(seen):
    page = seen("hparams")
    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content")
    cells.filter(has_text="lr=").nth(3).wait_for(state="attached")
    texts = [text.strip() for text in cells.all_inner_texts() if text.strip()]
    head = texts[: next(i for i, text in enumerate(texts) if "lr=" in text)]
    assert head[:4] == ["Trial ID", "Show Metrics", "dataset.batch_size", "optimizer.lr"]
    assert head[-4:] == ["test/accuracy", "test/loss", "train/accuracy", "train/loss"]
    names = [at for at, text in enumerate(texts) if "lr=" in text]
    assert len(names) == 4
    rows = {(float(texts[at + 1]), float(texts[at + 2])) for at in names}
    assert rows == {(30.0, 0.001), (30.0, 0.01), (90.0, 0.001), (90.0, 0.01)}


def test_every_chart_has_the_curves_of_every_run(seen):
    page = seen("custom_scalars")
    cards = page.locator("tf-custom-scalar-multi-line-chart-card")
    for at, curves in enumerate((8, 8, 4, 4, 8)):  # train and test, of 4 runs each; steps; two layers
        playwright.expect(cards.nth(at).locator(".match-list-entry")).to_have_count(curves, timeout=SECONDS * 1000)
    assert cards.count() == 5


def test_only_this_sweep_is_listed(seen):
    page = seen("timeseries")
    names = page.locator("runs-data-table tb-data-table-content-row")
    names.first.wait_for()
    runs = {text.strip() for text in names.all_inner_texts() if "lr=" in text}
    assert len(runs) == 4 and not any("seed=7" in run for run in runs)
