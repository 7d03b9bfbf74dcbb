"""Keys and seeds of every planned run of every experiment at both budgets, beside what they were at commit cf414ac.

tests/golden/planned_runs.csv has a row a run: its key and seed now, and its key at cf414ac. A key may differ from that
only where the run's callbacks held measures, which are no part of a key any more, or where its net is a CNN, which
trained on two threads then; a seed never does.
"""

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
with (Path(__file__).parent / "golden" / "planned_runs.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
COMMANDS = list(dict.fromkeys((row["experiment"], row["budget"]) for row in ROWS))
HELD_MEASURES = ("flatness_interp", "flatness_sensitivity", "min_ratio")

PLAN = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import train
from hydra.core.plugins import Plugins
from hw1.data import source
Plugins.instance()  # reads the sweeper's module: what is replaced below is what Hydra makes
source.choose_mnist_source = lambda root, wanted: "full" if wanted == "auto" else wanted
sweeper = sys.modules["hydra_plugins.hw1_sweeper.sweeper"].Hw1Sweeper
found = []
sweeper.sweep = lambda self, arguments: found.append(
    [[job.key, job.settings.member_seeds[0]] for job in self._plan(arguments, Path("nowhere"))[1]]
)
for experiment, budget, *words in json.loads(sys.argv[2]):
    sys.argv[1:] = [f"experiment={experiment}", f"budget={budget}", *words]
    os.environ.pop("HYDRA_FULL_ERROR", None)
    train.main()
print(json.dumps(found))
"""


def planned(commands):
    """[key, seed] of every run of each command, in order."""
    words = [sys.executable, "-c", PLAN, str(ROOT), json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(commands):
    for command, runs in zip(commands, planned(commands), strict=True):
        expected = [row for row in ROWS if (row["experiment"], row["budget"]) == command]
        assert [[row["key"], int(row["seed"])] for row in expected] == runs, command


def test_a_sample_of_the_planned_runs_is_what_it_was():
    check(random.Random(0).sample(COMMANDS, 3))


@pytest.mark.slow
def test_all_planned_runs_are_what_they_were():
    check(COMMANDS)


def check_two_threads(commands):
    """On two threads, the runs that held no measures have the keys that they had."""
    for command, runs in zip(commands, planned([(*command, "trainer.threads=2") for command in commands]), strict=True):
        rows = [row for row in ROWS if (row["experiment"], row["budget"]) == command]
        for row, (key, _) in zip(rows, runs, strict=True):
            assert row["key_at_cf414ac"] == (key if row["key"] != row["key_at_cf414ac"] else row["key"])


CHANGED = list(dict.fromkeys((r["experiment"], r["budget"]) for r in ROWS if r["key"] != r["key_at_cf414ac"]))
ONE_THREAD = [command for command in CHANGED if command[0].partition("/")[0] not in HELD_MEASURES]


def test_only_runs_that_held_measures_or_trained_on_two_threads_have_other_keys_than_before():
    check_two_threads(random.Random(0).sample(ONE_THREAD, 2))
    held = [row for row in ROWS if row["experiment"].partition("/")[0] in HELD_MEASURES]
    assert all(row["key"] != row["key_at_cf414ac"] for row in held) and len(ONE_THREAD) == 36


@pytest.mark.slow
def test_two_threads_find_all_runs_of_before():
    check_two_threads(ONE_THREAD)


def test_every_experiment_stands_there_at_both_budgets():
    folder = ROOT / "conf" / "experiment"
    names = {file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml")}
    assert {(name, budget) for name in names for budget in ("full", "quick")} == set(COMMANDS) and len(ROWS) == 664
