"""Whole commands in pieces, killed in the middle and given again, under several launchers: what is left; the bits."""

import contextlib
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORK = ("model=mlp", "model.hidden=[16]", "dataset=digits", "trainer.max_epochs=1", "seed=0", "logger=none")
QUIET = ("trainer.progress=false",)
SPECTRUM = ("spectrum", "spectrum.examples=800", "spectrum.probes=8", "spectrum.steps=40")
LAUNCHERS = {
    "parallel, 2 workers": ("hydra.launcher.workers=2",),
    "joblib, 2 workers": ("hydra/launcher=joblib", "hydra.launcher.workers=2"),
    "basic, pieces=3": ("hydra/launcher=basic", "pieces=3"),
    "one process": ("pieces=false",),
}
OPTIONAL = {"submitit_local": ("hydra/launcher=submitit_local", "pieces=4"), "ray": ("hydra/launcher=ray", "pieces=4")}


@dataclass(frozen=True)
class Met:
    """What became of a command that was killed, and given again.

    Attributes:
        pieces: of the measurement.
        left: whole ones when it was killed.
        again: those that the second command found lacking; None where it did not say.
        digest: of what came out.
        seconds: of CPU, both commands.
    """

    pieces: int
    left: int
    again: int | None
    digest: str
    seconds: float


def began(words, folder):
    """The command, begun in a process group of its own; what it says goes to `folder/said`."""
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=said, stderr=said, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip


def ended(words, folder):
    """The command's end, which must be a good one."""
    process = began(words, folder)
    assert process.wait(600) == 0, (folder / "said").read_text()[-3000:]


def there(base):
    """The pieces that are whole below a folder: each has its name in one step."""
    while True:
        try:
            return {str(file) for folder in base.rglob(".*.pieces") for file in folder.glob("*/piece.json")}
        except FileNotFoundError:  # a temporary folder that has just gone
            continue


def killed(words, base, folder, after):
    """Begin a command, and kill it with all that it has started once so many pieces are there; those that are left."""
    process, last = began(words, folder), time.monotonic() + 300
    while process.poll() is None and len(there(base)) < after and time.monotonic() < last:
        time.sleep(0.02)
    assert process.poll() is None, (folder / "said").read_text()[-3000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found, before = there(base), None
    while found != before:  # a cluster's workers end by themselves, behind what they were at
        time.sleep(2)
        found, before = there(base), found
    return found


def trained(output, *words):
    """Train the network, under words of its own; the folder of its experiment."""
    output.mkdir(parents=True)
    ended(["train.py", *NETWORK, *QUIET, *words, f"output={output}"], output)
    return output / "default"


def spectrum(base, launcher, after=None):
    """Measure it, killed behind so many pieces if any is said."""
    for file in base.glob("runs/*/measures/*"):
        file.unlink()
    before = _cpu()
    words = ["-m", "hw1", "measure", str(base), *SPECTRUM, *launcher]
    left = killed(words, base, base.parent, after) if after is not None else set()
    (base.parent / "said").unlink(missing_ok=True)
    ended(words, base.parent)
    said = re.search(r"(\d+) pieces? to measure", (base.parent / "said").read_text())
    assert not there(base), "pieces are taken away"
    digest = hashlib.sha256()
    for file in sorted(base.glob("runs/*/measures/*")):
        content = file.read_bytes()
        if file.suffix == ".json" and "." not in file.stem:
            record = json.loads(content)
            content = json.dumps([record["values"], record["files"]]).encode()
        digest.update(file.name.encode() + content)
    return Met(8, len(left), int(said[1]) if said else None, digest.hexdigest()[:16], _cpu() - before)


def segment(output, points, launcher, after=None):
    """The points between two networks, killed behind so many pieces if any is said."""
    words = [
        "train.py", "experiment=flatness_interp", *NETWORK[:-2], "logger=none", *QUIET, "optimizer.lr=0.01", "seed=0",
        "dataset.batch_size=64,256", f"study.points={points}", "measures=none", f"output={output}", *launcher,
    ]  # fmt: skip
    base = output / "flatness_interp"
    before = _cpu()
    left = killed(words, base, output, after) if after is not None else set()
    (output / "said").unlink(missing_ok=True)
    kept = {file: os.stat(file).st_mtime_ns for file in left}
    process, changed = began(words, output), set()
    while process.poll() is None:  # a piece that is computed again is written again
        for file, stamp in kept.items():
            with contextlib.suppress(FileNotFoundError):  # the table is whole
                changed |= {file} if os.stat(file).st_mtime_ns != stamp else set()
        time.sleep(0.05)
    assert process.returncode == 0, (output / "said").read_text()[-3000:]
    assert not there(base)
    (table,) = base.glob("measurements/*.csv")
    digest = hashlib.sha256(table.read_bytes()).hexdigest()[:16]
    return Met(0, len(left), len(changed), digest, _cpu() - before)


def _cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
