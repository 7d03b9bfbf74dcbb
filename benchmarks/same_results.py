"""Two checkouts of hw1 side by side: do the same commands give the same weights and the same numbers?

python benchmarks/same_results.py OLD NEW [--output FOLDER] [--only min_ratio,...]

Trains every question's default and some variants at the quick budget in both checkouts, one thread each, one run of
them interrupted and resumed, and prints for each command whether the SHA-256 of all weights and every headline are
equal to the last printed digit. Sweeps that are finished below the output folder are compared as they stand. Exits
with 1 where anything differs.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

QUESTIONS = (
    *("actual_task", "flatness_interp", "flatness_sensitivity", "gradient_norm", "min_ratio"),
    *("params_vs_generalization", "random_labels", "simulate_function", "weight_trajectories"),
)
VARIANTS = ("min_ratio/cnn", "min_ratio/smooth", "flatness_sensitivity/networks", "weight_trajectories/filters")
RESUMED = "random_labels/deep"
SHARED = ("budget=quick", "trainer.threads=1", "trainer.progress=false")


def train(checkout: Path, experiment: str, output: Path) -> None:
    """One command, in a process of its own; what is finished is left alone."""
    words = [f"experiment={experiment}", *SHARED, f"output={output}"]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    if experiment == RESUMED and not any(output.glob("*/runs/*/result.json")):
        interrupted = [*words, "trainer.checkpoint_seconds=0"]
        process = subprocess.Popen([sys.executable, "train.py", *interrupted], cwd=checkout, env=environment)
        while not any(output.glob("*/runs/*/checkpoints/last.ckpt")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        print(f"  interrupted with exit code {process.wait()}", flush=True)
    log = output / "log.txt"
    output.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        command = [sys.executable, "train.py", *words]
        done = subprocess.run(command, cwd=checkout, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode:
        print(f"  exit code {done.returncode}: see {log}", flush=True)


def latest(output: Path) -> tuple[Path, dict]:
    """The folder of the command's runs, and the record of its last sweep."""
    file = sorted(output.glob("*/sweeps/*/sweep.json"))[-1]
    return file.parents[2] / "runs", json.loads(file.read_text())


def digests(runs: Path, record: dict) -> Iterator[str]:
    """SHA-256 of each run's weights at its end, in the order of the command."""
    for entry in record["runs"]:
        last = sorted((runs / entry["folder"] / "snapshots").glob("epoch=*.safetensors"))[-1]
        yield hashlib.sha256(last.read_bytes()).hexdigest()


def compare(experiment: str, outputs: list[Path]) -> bool:
    """Print what differs; whether nothing does."""
    (old_runs, old), (new_runs, new) = (latest(output) for output in outputs)
    pairs = list(zip(digests(old_runs, old), digests(new_runs, new), strict=True))
    equal = sum(one == two for one, two in pairs)
    lines = [old["headlines"], new["headlines"]]
    different = [f"    {one}\n    {two}" for one, two in zip(*lines, strict=False) if one != two]
    missing = [line for line in lines[0][len(lines[1]) :] + lines[1][len(lines[0]) :]]
    same_keys = sum(a["key"] == b["key"] for a, b in zip(old["runs"], new["runs"], strict=True))
    print(
        f"{experiment}: weights of {equal} of {len(pairs)} runs equal ({pairs[0][1][:12]}...), "
        f"{len(lines[0]) - len(different)} of {len(lines[0])} headlines equal, {same_keys} keys equal"
    )
    print("\n".join([*different, *missing]), end="\n" if different or missing else "", flush=True)
    return equal == len(pairs) and not different and not missing


def main() -> int:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--only", default="", help="experiments, with commas; default: all")
    parser.add_argument("--one-side", choices=("old", "new"), help="train this side alone, and compare nothing")
    chosen = parser.parse_args()
    output = chosen.output or Path(tempfile.mkdtemp(prefix="same_results-"))
    names = chosen.only.split(",") if chosen.only else [*QUESTIONS, *VARIANTS, RESUMED]
    sides = {"old": chosen.old.resolve(), "new": chosen.new.resolve()}
    good = True
    for name in names:
        outputs = {side: output.resolve() / side / name.replace("/", "_") for side in sides}
        for side in [chosen.one_side] if chosen.one_side else sides:
            begun = time.monotonic()
            train(sides[side], name, outputs[side])
            print(f"{name}, {side}: {time.monotonic() - begun:.0f} s", flush=True)
        if not chosen.one_side:
            good &= compare(name, list(outputs.values()))
    print("everything is equal" if good else "something differs")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
