"""Two checkouts of hw1 side by side, whole commands on the whole machine: wall time, CPU time, how busy the cores were.

python benchmarks/whole_machine.py OLD NEW [--only main,sweep,busy] [--epochs N]

main: `experiment=flatness_interp`. sweep: 15 runs of flatness_sensitivity. busy: flatness_interp on the bundled digits,
quiet and beside four processes that only count, in NEW alone. One after the other; full MNIST where HW1_DATA has
it. CPU seconds are those of every process that a command started. Linux only; nothing else should run.
"""

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: what a command leaves behind is ours to wait for, and its time is counted
MAIN = ("experiment=flatness_interp",)
SWEEP = ("experiment=flatness_sensitivity",)
BUSY = ("experiment=flatness_interp", "dataset.source=bundled")


def measured(checkout: Path, words: tuple[str, ...]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of a command and all that it started."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "train.py", *words, "trainer.progress=false", f"output={output}"]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        wall = time.monotonic() - begun
        wait_for_orphans()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{checkout}: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wait_for_orphans() -> None:
    """Wait for what a command has left behind; the processes of `beside` go on."""
    others = {child.pid for child in multiprocessing.active_children()}
    while {int(pid) for pid in Path("/proc/thread-self/children").read_text().split()} - others:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)


def count() -> None:
    while True:
        pass


@contextlib.contextmanager
def beside(number: int) -> Iterator[None]:
    """So many busy processes."""
    others = [multiprocessing.Process(target=count) for _ in range(number)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def show(name: str, wall: float, cpu: float) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"  {name:28} {wall:7.1f} s, {cpu:7.1f} CPU s, cores busy {cpu / wall / cores:4.0%}", flush=True)


def compared(title: str, checkouts: dict[str, Path], words: tuple[str, ...]) -> None:
    print(f"\n{title}: python train.py {' '.join(words)}", flush=True)
    found = {}
    for name, checkout in checkouts.items():
        found[name] = measured(checkout, words)
        show(name, *found[name])
    (old, new) = found.values()
    print(f"  new / old: {new[0] / old[0]:.0%} of the wall time, {new[1] / old[1]:.0%} of the CPU time", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", default="main,sweep,busy")
    parser.add_argument("--epochs", type=int, help="fewer than the experiments' 10")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    short = (f"trainer.max_epochs={options.epochs}",) if options.epochs else ()
    checkouts = {"old": options.old.resolve(), "new": options.new.resolve()}
    which = options.only.split(",")
    if "main" in which:
        compared("the main job", checkouts, (*MAIN, *short))
    if "sweep" in which:
        compared("a sweep of 15 runs", checkouts, (*SWEEP, *short))
    if "busy" in which:
        print(f"\non a busy machine: python train.py {' '.join(BUSY)}", flush=True)
        quiet = measured(checkouts["new"], BUSY)  # the old one would take most of an hour
        show("new, quiet", *quiet)
        with beside(4):
            busy = measured(checkouts["new"], BUSY)
        show("new, beside 4 processes", *busy)
        print(f"  busy / quiet: {busy[1] / quiet[1]:.2f} of the CPU time", flush=True)


if __name__ == "__main__":
    main()
