"""The campaign's own tools, a sample of it, and, slow, five hundred faults."""

import os
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .kinds import FILES, KINDS, file_kind
from .preload import compiled, compiler
from .same import differences, fingerprint, remedy

ROOT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(compiler() is None, reason="the library that lets writes fail needs a C compiler")


def campaign(*words):
    """`python -m tests.faults words...`: (exit code, what it said)."""
    words = [sys.executable, "-m", "tests.faults", *map(str, words)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_compiler
def test_a_sample_of_faults_and_a_broken_writer_that_is_noticed(tmp_path):
    words = ("--scenarios", "replicas", "--starts", "nothing", "training", "finished", "--faults", 3, "--sabotaged", 1)
    code, said = campaign(*words, "--seed", 4, "--folder", tmp_path)
    assert code == 0, said
    assert re.search(r"^3 faults, seed 4: 0 lost or silent; .* minutes of CPU$", said, re.MULTILINE), said
    assert "with a writer that writes in place, of 1 faults 1 are noticed" in said
    assert list(tmp_path.iterdir()) == []


@needs_compiler
@pytest.mark.slow  # 20 minutes of CPU
def test_five_hundred_faults(tmp_path):
    code, said = campaign("--faults", 500, "--seed", 0, "--folder", tmp_path)
    print(said)
    assert code == 0, said


MEETING = """
import errno, os, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file
from tests.faults.preload import *
work = Path(sys.argv[1])
root = work / "root"
root.mkdir()
preload = Preload(work / "control", root)
file, other = root / "a.txt", root / "b.txt"

def met(what, ops, at=0, action=FAIL, glob="*", **more):
    preload.arm(ops, [glob], at, action, error=errno.ENOSPC, **more)
    try:
        what()
        error = 0
    except OSError as failed:
        error = failed.errno
    except Exception as failed:
        error = "os error 28" in str(failed) and errno.ENOSPC
    return error, preload.disarm()[0]

def synced():
    with file.open("ab") as opened:
        os.fsync(opened.fileno())

def wrote():
    rest = b"x" * 100
    with file.open("wb", buffering=0) as opened:  # a buffer would be written once more when it is closed
        while rest:
            rest = rest[opened.write(rest) :]

def two():
    with file.open("wb", buffering=0) as opened:
        return [opened.write(b"x" * 10), opened.write(b"y" * 10)]

full = (errno.ENOSPC, 1)
assert met(lambda: file.write_text("x"), OPEN) == full and not file.exists()
assert met(lambda: file.write_text("x"), OPEN, glob="*.csv") == (0, 0) and file.exists()
assert met(wrote, WRITE) == full and file.stat().st_size == 0
assert met(wrote, WRITE, keep=7) == (errno.ENOSPC, 2) and file.stat().st_size == 7
assert met(wrote, WRITE, action=SHORT, keep=7) == (0, 1) and file.stat().st_size == 100
assert met(two, WRITE, at=1) == full and file.stat().st_size == 10
assert met(lambda: os.replace(file, other), RENAME) == full and file.exists()
assert met(lambda: (root / "folder").mkdir(), MKDIR) == full
assert met(file.unlink, UNLINK) == full and file.exists()
assert met(synced, FSYNC) == full and met(lambda: os.truncate(os.open(file, os.O_RDWR), 1), TRUNCATE) == full
assert met(lambda: os.link(file, other), LINK) == full
assert met(lambda: save_file({"a": numpy.zeros(1000)}, file), WRITE, keep=30) == (errno.ENOSPC, 2)
assert met(lambda: (work / "outside").write_text("x"), OPEN | WRITE) == (0, 0)
preload.arm(WRITE, ["a.txt"], 0, FAIL, error=errno.ENOSPC, lasting=True)
for one in (file, other):  # the disk is full for all
    try:
        one.write_text("x")
        raise AssertionError
    except OSError:
        pass
preload.disarm()
preload.arm(WRITE, ["a.txt"], 0, SIGNAL, signal=9, keep=5)
if os.fork() == 0:
    wrote()
    os._exit(0)
assert os.wait()[1] == 9 and file.stat().st_size == 5
"""


@needs_compiler
def test_every_operation_can_be_made_to_fail(tmp_path):
    library = compiled(tmp_path)
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", MEETING, str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_compiler
@pytest.mark.slow
def test_what_torch_writes_below_python_can_be_made_to_fail(tmp_path):
    code = MEETING.split("full =")[0] + (
        "import torch\n"
        "kept = met(lambda: torch.save({'a': torch.zeros(100, 100)}, file), WRITE, keep=30)[1]\n"
        "assert kept == 2 and file.stat().st_size < 1000, (kept, file.stat().st_size)\n"
    )
    environment = {**os.environ, "LD_PRELOAD": str(compiled(tmp_path)), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_byte_anywhere_is_a_difference(tmp_path):
    """What the campaign compares by: of the files that hold results, none may change unnoticed."""
    import torch

    with zipfile.ZipFile(ROOT / "tests" / "golden" / "format_2.zip") as file:
        file.extractall(tmp_path)
    (base,) = tmp_path.iterdir()
    whole, chance, seen = fingerprint(base), random.Random(0), set()
    for file in sorted(base.rglob("*")):
        kind = file_kind(file.relative_to(base).as_posix())
        if not file.is_file() or kind in (None, "run.log", ".lock", "event files", "page", ".hydra"):
            continue
        if kind in ("figures", "caches") and file.suffix != ".png":  # what holds times; caches are seen in tables
            continue
        content = file.read_bytes()
        if kind == "sweep.json":
            changed = content.replace(b'"complete"', b'"failed"')
        elif file.suffix == ".json":  # of times a record may hold others
            changed = content.replace(b'"key": "', b'"key": "0', 1)
        elif file.suffix in (".ckpt", ".safetensors"):
            at = len(content) // 2
            if file.suffix == ".ckpt":  # between tensors there is padding, which nothing reads
                weights = torch.load(file, weights_only=True)["state_dict"]
                at = content.index(next(iter(weights.values())).numpy().tobytes()) + 5
            changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        else:
            at = chance.randrange(len(content))
            changed = content[:at] + b"7" + content[at:]
        file.write_bytes(changed)
        if kind != "caches":
            assert differences(fingerprint(base), whole), file
            seen.add(kind)
        file.write_bytes(content)
    assert differences(fingerprint(base), whole) == []
    assert seen >= {"result.json", "settings.json", "config.yaml", "metrics.csv", "last.ckpt", "snapshots", "measures"}


def test_kinds():
    assert file_kind("runs/a-1/result.json") == file_kind("runs/a-1/.result.json.123.part") == "result.json"
    assert file_kind("runs/a-1/snapshots/.tmpQ9TtEt") == "snapshots" and file_kind("runs/a-1") == "folders"
    assert file_kind("sweeps/2026/.runs.csv.x1Y_.part") == "tables" and file_kind("elsewhere.txt") is None
    assert len(KINDS) >= 20 and len(FILES) >= 10


def test_remedies_are_read_off_what_is_said(tmp_path):
    run, sweep = tmp_path / "runs" / "lr=1_a-123", tmp_path / "sweeps" / "now"
    lines = [
        f"failed: lr=1_a-123: {run}/metrics.csv is damaged: it does; delete the run's folder and run its command again",
        f"error: {run}/config.yaml is missing; delete {run}/result.json and run the run's command again",
        f"error: {run}/checkpoints/last.ckpt cannot be read (cut); delete it to train from the start",
        f"{sweep}/report.html is damaged: cut; python -m hw1 report {sweep} makes it again",
        "failed: study: KeyError",
    ]
    wanted = [("delete", run), ("delete", run / "result.json"), ("delete", run / "checkpoints" / "last.ckpt")]
    assert remedy(lines, tmp_path) == [*wanted, ("report", sweep)]
