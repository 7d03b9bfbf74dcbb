"""Whole commands: --help against eager imports, a finished sweep again, two workers against one.

python benchmarks/commands.py [--repeats 5]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import arguments, interleaved, report

ROOT = Path(__file__).parents[1]
EAGER = "import torch, torchvision, lightning, torchmetrics, sklearn, matplotlib.pyplot, hydra, pandas"


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    options = arguments(__doc__, repeats=5)
    medians = interleaved(
        {
            "hw1 --help": lambda: command("--help"),
            "eager imports alone": lambda: subprocess.run([sys.executable, "-c", EAGER], check=True),
        },
        options.repeats,
    )
    report("python train.py --help", medians, "hw1 --help", {"eager imports alone": "8x"})

    with tempfile.TemporaryDirectory() as folder:
        small = ("model=mlp", "dataset=digits", "trainer.max_epochs=1", f"output={folder}/again")
        sweep = (*small, "seed=range(20)")
        command(*sweep)
        seconds = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            assert "nothing to do" in command(*sweep)
            seconds.append(time.perf_counter() - start)
        print(f"\na finished sweep of 20 runs again: {sorted(seconds)[len(seconds) // 2]:.2f} s   target: below 3 s")

        def workers(launcher: str, repeat: list[int]) -> None:
            repeat[0] += 1
            words = ("model=mlp", "dataset=digits", "trainer.max_epochs=300", "seed=range(8)", "logger=none")
            command(*words, f"hydra/launcher={launcher}", f"output={folder}/{launcher}{repeat[0]}")

        counts = {"basic": [0], "parallel": [0]}
        ways = {
            "two workers": lambda: workers("parallel", counts["parallel"]),
            "one": lambda: workers("basic", counts["basic"]),
        }
        medians = interleaved(ways, max(1, options.repeats // 2))
        report("a sweep of 8 small runs", medians, "two workers", {"one": "1.7x"})


if __name__ == "__main__":
    main()
