"""CPU seconds and memory of commands on sweeps of many runs, and of a long metrics.csv; the table of docs/scale.md.

python benchmarks/scale.py [--runs 1000,10000] [--rows 1000000] [--checkout FOLDER]

Nothing is trained: see `finished_runs`. Each command is a process of its own; CPU seconds are user and system, of all
that it started, and the memory is the largest of its processes. About 5 MB of disk a hundred runs, thrown away after.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RATES = ",".join(f"{rate}e-4" for rate in range(1, 11))
SMALL = ("model=mlp_571", "dataset=digits", "logger=none")
READ = """
import sys
from hw1.runs import Sweep
sweep = Sweep.read(sys.argv[1])
one = sweep.select({"optimizer.lr": 1e-3}, seed=5)
print(len(one.runs), len(sweep.table()), repr(sweep)[:9])
"""
WRITE = """
import sys
from pathlib import Path
from hw1.training.metrics_csv import MetricsCsv
log = MetricsCsv(Path(sys.argv[1]))
for step in range(int(sys.argv[2])):
    log.log_metrics({"train_step/loss": 1 / (step + 1), "train_step/gradient_norm": 0.5}, step)
    if step % 1000 == 999:
        log.log_metrics({"epoch": step // 1000, "train/loss": 1 / (step + 1), "test/loss": 0.5}, step)
        log.write()
log.log_metrics({"test/late": 1.0}, step)  # a new column: the whole file is written again
log.write()
MetricsCsv(Path(sys.argv[1]), recorded=log.record())  # as a resumed run does
"""
HISTORY = """
import sys
from pathlib import Path
import pandas as pd
from hw1.runs import Run
run = Run(sys.argv[1])
print(len(run.history()))
"""
CURVES = """
import sys
from hw1.runs import Run
from hw1.runs.histories import evaluated
print(sum(len(table) for table in evaluated([Run(sys.argv[1])], ["train/loss", "test/loss"])))
"""


def measured(words: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """(CPU seconds, peak MB) of a command; this process is small, as a child counts what it was forked from."""
    with tempfile.TemporaryFile() as said:
        into = [(os.POSIX_SPAWN_DUP2, said.fileno(), 1), (os.POSIX_SPAWN_DUP2, said.fileno(), 2)]
        process = os.posix_spawn(sys.executable, [sys.executable, *words], environment, file_actions=into)
        _, status, used = os.wait4(process, 0)
        if os.waitstatus_to_exitcode(status):
            said.seek(0)
            sys.exit(f"{' '.join(words)[:200]}: {said.read().decode()[-2000:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def show(command: str, number: int, cost: tuple[float, float]) -> None:
    print(f"| {command} | {number:,} | {cost[0]:.1f} | {cost[1]:.0f} |", flush=True)


def sweeps(number: int, checkout: Path, folder: Path, environment: dict[str, str]) -> None:
    """The rows of a sweep of so many runs."""
    train = str(checkout / "train.py")
    words = [*SMALL, f"optimizer.lr={RATES}", f"seed=range(0,{number // 10})", "name=many"]
    at = f"output={folder / 'new'}"
    show("`--dry-run`, none complete", number, measured([train, "--dry-run", *words, at], environment))
    rates = ",".join(f"{rate}e-6" for rate in range(1, number + 1))
    rates_words = [*SMALL, f"optimizer.lr={rates}", "name=rates"]
    show("the same, as many learning rates", number, measured([train, "--dry-run", *rates_words, at], environment))
    made = folder / "made"
    measured([str(ROOT / "benchmarks" / "finished_runs.py"), str(made), *words], environment)
    at = f"output={made}"
    sweep = next((made / "many" / "sweeps").iterdir())
    show("`--dry-run`, all complete", number, measured([train, "--dry-run", *words, at], environment))
    show("`hw1 list`", number, measured(["-m", "hw1", "list", str(made / "many")], environment))
    show("`Sweep.read`, `select`, `table`, shown", number, measured(["-c", READ, str(sweep)], environment))
    show("`hw1 report`", number, measured(["-m", "hw1", "report", str(sweep)], environment))
    show("the command again: nothing to do", number, measured([train, *words, at], environment))
    page = (sweep / "report.html").stat().st_size
    print(f"| its page, {page / 1e6:.2f} MB | {number:,} | | |", flush=True)


def history(rows: int, folder: Path, environment: dict[str, str]) -> None:
    """The rows of a long metrics.csv."""
    words = [*SMALL, "seed=0,1", "name=long"]
    measured([str(ROOT / "benchmarks" / "finished_runs.py"), str(folder), *words], environment)
    run = next((folder / "long" / "runs").iterdir())
    (run / "result.json").unlink()  # it goes on: its history is none that was listed
    (run / "metrics.csv").unlink()
    show(
        "metrics.csv written, a column added, resumed", rows, measured(["-c", WRITE, str(run), str(rows)], environment)
    )
    show("`Run.history`", rows, measured(["-c", HISTORY, str(run)], environment))
    show(
        "its evaluated epochs alone, as learning curves read them",
        rows,
        measured(["-c", CURVES, str(run)], environment),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="1000,10000")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose code is timed")
    chosen = parser.parse_args()
    commit = ["git", "-C", str(chosen.checkout), "describe", "--always", "--dirty=+", "--abbrev=9", "--exclude=*"]
    print(f"commit {subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip()}\n")
    print("| command | runs or rows | CPU s | peak MB |\n|---|---|---|---|", flush=True)
    for number in map(int, chosen.runs.split(",") if chosen.runs else ()):
        with tempfile.TemporaryDirectory() as name:
            sweeps(number, chosen.checkout.resolve(), Path(name), _environment(chosen.checkout, name))
    if chosen.rows:
        with tempfile.TemporaryDirectory() as name:
            history(chosen.rows, Path(name), _environment(chosen.checkout, name))


def _environment(checkout: Path, folder: str) -> dict[str, str]:
    """Where neither the user's key nor what is remembered of data is touched."""
    own = {"XDG_CONFIG_HOME": f"{folder}/config", "HW1_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
    return {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src"), **own}


if __name__ == "__main__":
    main()
