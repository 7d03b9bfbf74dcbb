"""The very text of CONTRIBUTING's blocks, which are files of `hw1 init`, run under the quick budget; the dry run."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from hw1.project.start import files, start
from hw1.runs import Sweep

ROOT = Path(__file__).parents[1]
BLOCKS = dict(
    re.findall(
        r"^```(?:python|yaml) (\S+)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
    )
)
OF_THE_FOLDER = {"README.md", ".gitignore", "pyproject.toml", "tests/test_project.py"}


@pytest.fixture
def mine(tmp_path, command):
    """mine(*words) runs train.py with CONTRIBUTING's files in a folder of the user's own."""
    start(tmp_path / "mine")
    path = os.pathsep.join([str(tmp_path / "mine"), os.environ.get("PYTHONPATH", "")])

    def run(*words):
        conf = str(tmp_path / "mine" / "conf")
        return command("--config-dir", conf, *words, output=tmp_path / "out", PYTHONPATH=path)

    return run


def test_the_blocks_are_the_files_of_a_new_project():
    assert {name: text for name, text in files().items() if name not in OF_THE_FOLDER} == BLOCKS
    assert set(files()) == {*BLOCKS, *OF_THE_FOLDER}
    assert all(len(text.splitlines()) <= 16 for name, text in BLOCKS.items() if name.endswith("yaml"))


def test_the_model_and_the_question_work_and_the_budget_is_named(mine, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "mine")
    done = mine("experiment=seed_spread", "model.hidden=8", "budget=quick", "+trainer.limit_train_batches=2")
    assert done.returncode == 0, done.stderr
    sweep = Sweep.read(tmp_path / "out" / "seed_spread")
    assert [run.value("seed") for run in sweep.runs] == [0, 1]  # of ten, by the budget's limit
    assert {run.result["epochs"] for run in sweep.runs} == {3}  # the experiment's own
    assert {run.result["parameters"] for run in sweep.runs} == {3 * 8 * 4 + 9 * 3}
    ends = pd.read_csv(sweep.path / "ends.csv")
    assert set(ends["budget"]) == {"quick"} and sweep.record["budget"] == "quick"
    assert set(pd.read_csv(sweep.path / "runs.csv")["budget"]) == {"quick"}
    (number,) = sweep.record["numbers"]
    assert number["value"] == pytest.approx(ends["test/loss"].mean()) and number["n"] == 2
    title = "budget = quick: less data, fewer steps"
    assert (
        title in (sweep.path / "ends.svg").read_text() and "budget=quick: " in (sweep.path / "report.html").read_text()
    )
    assert "budget=quick" in sweep.runs[0].slug and done.stdout.count("budget = quick") == 1
    data = sweep.runs[0].datamodule()
    x, y = data.test_tensors
    logits = next(iter(sweep.members())).net()(x)
    p = logits.softmax(1)[range(len(y)), y]
    assert ends["test/loss"][0] == pytest.approx((1 - p - p.log()).mean().item(), rel=1e-5)  # the loss of its own


def test_a_dry_run_lists_and_trains_nothing_and_the_command_line_wins(mine, tmp_path):
    words = ("budget=quick", "trainer.max_epochs=1", "seed=5,6,7", "model.hidden=4000", "--dry-run")
    done = mine("experiment=seed_spread", *words)
    assert done.returncode == 0, done.stderr
    head, *runs, estimate, last = done.stdout.splitlines()
    assert head.startswith("seed_spread: 3 runs, 0 complete, 3 to train, in ") and last == "nothing was trained"
    weights = 4 * (3 * 4000 * 4 + 4001 * 3)
    for seed, line in zip((5, 6, 7), runs, strict=True):
        found = re.fullmatch(rf"  to train  seed={seed}_.*-[0-9a-f]{{10}}: 1 epoch, about .*, ([\d.]+) MB", line)
        # two snapshots, and a checkpoint with Adam's two moments; logs of 10 steps besides
        assert 5 * weights / 1e6 <= float(found[1]) + 0.005 < 5 * weights / 1e6 + 0.02
    assert "estimate, " in estimate and "not counted: the study's figures" in estimate
    assert not (tmp_path / "out").exists()


def test_the_measure_is_in_the_table_the_figure_and_the_page_and_while_training(mine, tmp_path):
    small = ("dataset=digits", "model=mlp", "model.hidden=[6]", "dataset.train_size=120", "trainer.max_epochs=2")
    words = (*small, "experiment=flatness_sensitivity", "dataset.batch_size=20,60", "seed=0", "logger=none")
    measures = ("measures=[sensitivity,fisher]", "measures.fisher.examples=40")
    done = mine(*words, *measures)
    assert done.returncode == 0, done.stderr
    sweep = Sweep.read(tmp_path / "out" / "flatness_sensitivity")
    for member, (_, row) in zip(sweep.members(), pd.read_csv(sweep.path / "runs.csv").iterrows(), strict=True):
        x = member.run.datamodule().train_tensors[0][:40]
        exact = fisher_trace(member.net(), x)
        assert member.metrics["fisher/trace"] == pytest.approx(exact, rel=1e-4)
        assert row["fisher/trace"] == pytest.approx(exact, rel=1e-4)
    assert "trace of the Fisher information" in (sweep.path / "sharpness.svg").read_text()
    assert "Too short to answer: 2 of 2 networks are at chance" in done.stdout  # after two epochs
    assert "fisher/trace" in (sweep.path / "report.html").read_text()
    tracked = ("callbacks=[default,track]", "measures@callbacks.track.measure=fisher", "seed=0")
    done = mine(
        *small, *tracked, "callbacks.track.every_n_steps=2", "callbacks.track.every_n_epochs=null", "logger=none"
    )
    assert done.returncode == 0, done.stderr
    (run,) = Sweep.read(tmp_path / "out" / "default").runs
    logged = run.history().dropna(subset=["fisher/trace"])
    assert logged["step"].tolist() == [1, 3] and (logged["fisher/trace"] > 0).all()
    refused = mine(*words, "measures=[sensitivity,fisher]", "measures.fisher.examples=0")
    assert refused.stderr.splitlines()[-1] == "error: measures.fisher.examples: got 0, expected a positive integer"


def fisher_trace(net, x):
    """By one backward pass an example and class."""
    total = 0.0
    for one in x:
        p = net(one[None])[0].softmax(0).detach()
        for label, probability in enumerate(p):
            net.zero_grad()
            net(one[None])[0].log_softmax(0)[label].backward()
            total += probability.item() * sum(weight.grad.square().sum().item() for weight in net.parameters())
    return total / len(x)
