"""Side-by-side timing: interleaved repeats in one process, medians, and their ratio."""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def interleaved(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median wall seconds of each way; the ways take turns, so that a slow minute of the machine hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():  # warm-up
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(title: str, medians: dict[str, float], ours: str, targets: dict[str, str]) -> None:
    """Print each way's median, and ours against the others with the target that stands for it."""
    print(f"\n{title}")
    for name, seconds in medians.items():
        line = f"  {name:<44} {seconds:9.3f} s"
        if name != ours:
            line += f"   {ours} takes {medians[ours] / seconds:.2f} of it ({seconds / medians[ours]:.2f}x)"
            line += f"   target: {targets[name]}" if name in targets else ""
        print(line)


def arguments(description: str, repeats: int, threads: int = 2) -> argparse.Namespace:
    """--repeats and --threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=threads)
    return parser.parse_args()


def data_root() -> Path:
    """Where MNIST/raw lies: $HW1_DATA, else data/ in the checkout."""
    return Path(os.environ.get("HW1_DATA", Path(__file__).parents[1] / "data"))
