"""The very text of CONTRIBUTING's blocks, written to files and run, under the quick budget; and the dry run."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from hw1.runs import Sweep

ROOT = Path(__file__).parents[1]
BLOCKS = dict(
    re.findall(
        r"^```(?:python|yaml) (\S+)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
    )
)


@pytest.fixture
def mine(tmp_path, command):
    """mine(*words) runs train.py with CONTRIBUTING's files in a folder of the user's own."""
    for name, text in BLOCKS.items():
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    path = os.pathsep.join([str(tmp_path / "mine"), os.environ.get("PYTHONPATH", "")])

    def run(*words):
        conf = str(tmp_path / "mine" / "conf")
        return command("--config-dir", conf, *words, output=tmp_path / "out", cold=True, PYTHONPATH=path)

    return run


def test_the_blocks_are_files():
    assert set(BLOCKS) == {
        "my_models.py",
        "conf/model/maxout.yaml",
        "my_studies.py",
        "conf/experiment/seed_spread.yaml",
    }
    assert all(len(text.splitlines()) < 15 for name, text in BLOCKS.items() if name.endswith("yaml"))


def test_the_model_and_the_question_work_and_the_budget_is_named(mine, tmp_path):
    done = mine(
        "experiment=seed_spread", "model=maxout", "model.hidden=8", "budget=quick", "+trainer.limit_train_batches=2"
    )
    assert done.returncode == 0, done.stderr
    sweep = Sweep.read(tmp_path / "out" / "seed_spread")
    assert [run.value("seed") for run in sweep.runs] == [0, 1]  # of ten, by the budget's limit
    assert {run.result["epochs"] for run in sweep.runs} == {3}  # the experiment's own
    assert {run.result["parameters"] for run in sweep.runs} == {65 * 8 * 4 + 9 * 10}
    ends = pd.read_csv(sweep.path / "ends.csv")
    assert set(ends["budget"]) == {"quick"} and sweep.record["budget"] == "quick"
    assert set(pd.read_csv(sweep.path / "runs.csv")["budget"]) == {"quick"}
    (number,) = sweep.record["numbers"]
    assert number["value"] == pytest.approx(ends["test/loss"].mean()) and number["n"] == 2
    title = "budget = quick: less data, fewer epochs"
    assert (
        title in (sweep.path / "ends.svg").read_text() and "budget = quick" in (sweep.path / "report.html").read_text()
    )
    assert "budget=quick" in sweep.runs[0].slug and done.stdout.count("budget = quick") == 1


def test_a_dry_run_lists_and_trains_nothing_and_the_command_line_wins(mine, tmp_path):
    done = mine("experiment=seed_spread", "budget=quick", "trainer.max_epochs=1", "seed=5,6,7", "--dry-run")
    assert done.returncode == 0, done.stderr
    head, *runs, estimate, last = done.stdout.splitlines()
    assert head.startswith("seed_spread: 3 runs, 0 complete, 3 to train, in ") and last == "nothing was trained"
    weights = 4 * (65 * 256 + 257 * 128 + 129 * 10)
    for seed, line in zip((5, 6, 7), runs, strict=True):
        found = re.fullmatch(rf"  to train  seed={seed}_.*-[0-9a-f]{{10}}: 1 epoch, about .*, ([\d.]+) MB", line)
        # two snapshots, and a checkpoint with Adam's two moments; logs of 23 steps besides
        assert 5 * weights / 1e6 <= float(found[1]) + 0.005 < 5 * weights / 1e6 + 0.02
    assert "estimate, " in estimate and "not counted: the study's figures" in estimate
    assert not (tmp_path / "out").exists()
