"""Everything that a stranger plants, on every reader: no code of his runs, nothing of the reader's is touched or shown.

pytest -n 0 -s tests/strangers/test_table.py -m "slow or not slow"    # prints the table of docs/slips.md
"""

import collections
import json
import random
import shutil

import pytest

from composed import ROOT, plain, trained
from hw1.records import make_key, write_record
from hw1.settings import RunSettings
from warm import _FORKSERVER

from .plants import PLANTS
from .readers import FAULT, READERS, REFUSED, SAME, SHOWN, read_all


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A folder with the template of a row: what was handed over, what is the victim's, and where she stands."""
    top = tmp_path_factory.mktemp("strangers")
    template = top / "template"
    make_key()
    base = template / "given" / "multirun" / "tiny"
    run = trained(RunSettings.check(plain(*SAME)), base / "runs")
    command = ["experiment=actual_task", "budget=quick"]
    record = {"format": 2, "name": "tiny", "status": "complete", "command": command, "swept": [], "study": None}
    entries = [{"key": run.key, "folder": run.path.name, "overrides": []}]
    (base / "sweeps" / "2026-01-01_00-00-00").mkdir(parents=True)
    write_record(
        base / "sweeps" / "2026-01-01_00-00-00" / "sweep.json",
        {**record, "measures": [], "runs": entries, "answer": []},
    )
    shutil.copytree(template / "given", template / "other")
    for folder in ("mine/precious", "here/conf/measures", "here/hydra_plugins/planted", "checkout"):
        (template / folder).mkdir(parents=True)
    (template / "mine" / "secret.csv").write_text("word\nprecious\n")
    (template / "mine" / "precious" / "letter.txt").write_text("precious\n")
    runs_code = (
        "from pathlib import Path\nPath(__file__).parents[DEPTH].joinpath('mine/canary').touch()\nclass Net: pass\n"
    )
    for name, depth in (("planted.py", 1), ("wandb.py", 1), ("git", 1), ("hydra_plugins/planted/__init__.py", 3)):
        (template / "here" / name).write_text(runs_code.replace("DEPTH", str(depth)))
    (template / "here" / "conf" / "measures" / "sensitivity.yaml").write_text("_target_: planted.Net\n")
    for name in ("conf", "docs"):
        shutil.copytree(ROOT / name, template / "checkout" / name, ignore=shutil.ignore_patterns("*.png", "*.ipynb"))
    return top


def rows(top, names, readers):
    """{(plant, reader): [verdict, what was said, seconds]}, each row in a process of its own."""
    found = {}
    for number, name in enumerate(names):
        own = top / f"row_{number}"
        own.mkdir()
        file = own / "found.json"
        process = _FORKSERVER.Process(target=read_all, args=(own, name, list(readers), file))
        process.start()
        process.join(900)
        if process.exitcode is None:
            process.kill()
        said = json.loads(file.read_text()) if file.exists() else {}
        for reader in readers:
            found[name, reader] = said.get(reader, [FAULT, [f"no answer: exit code {process.exitcode}"], 0])
        shutil.rmtree(own, ignore_errors=True)
    return found


def table(found):
    """Of each reader, how many rows it refused, showed as data, and got wrong."""
    counted = collections.defaultdict(collections.Counter)
    for (_, reader), (verdict, *_) in found.items():
        counted[reader][verdict] += 1
    plants = len({name for name, _ in found})
    lines = [f"| of {plants} planted things | refused | shown or ignored | wrong |", "|---|---|---|---|"]
    for reader, verdicts in counted.items():
        lines.append(f"| {reader} | {verdicts[REFUSED]} | {verdicts[SHOWN]} | {verdicts[FAULT]} |")
    return "\n".join(lines)


def wrong(found):
    return "\n".join(f"{name} on {reader}: {said}" for (name, reader), (v, said, _) in found.items() if v == FAULT)


def test_what_a_stranger_plants_on_a_few_readers(top):
    drawn = random.Random(7)
    found = rows(top, drawn.sample(sorted(PLANTS), 3), ["Run", "Sweep", "report", "list", "verify"])
    found |= rows(top, ["sweep.json: markup and escapes", "settings: trainer.threads: 1000000"], ["measure"])  # seen
    assert not wrong(found), wrong(found)


@pytest.mark.slow
def test_what_a_stranger_plants_on_every_reader(top):
    assert len(PLANTS) >= 30 + 26
    found = rows(top, PLANTS, READERS)
    print(f"\n{table(found)}")
    assert not wrong(found), wrong(found)
