"""`python -m tests.distributed [CASE ...]`: each case's largest difference.

The exit code is 1 if one is above its limit, 1e-8 as a rule.
"""

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the tests share

from .cases import CASES
from .matrix import compare


def main(names):
    """The exit code."""
    wrong = 0
    print(f"{'case':44} {'processes':>9} {'steps':>5} {'parameters':>10} {'metrics':>8} {'values':>6}")
    with tempfile.TemporaryDirectory() as root:
        for name in names or CASES:
            try:
                found = compare(CASES[name], Path(root) / re.sub(r"\W+", "_", name))
            except Exception as error:  # one case says nothing about the others
                wrong += 1
                print(f"{name:44} {type(error).__name__}: {str(error).strip().splitlines()[-1]}", flush=True)
                continue
            wrong += not max(found.parameters, found.metrics) < CASES[name].limit
            print(
                f"{name:44} {CASES[name].processes:9} {found.steps:5} {found.parameters:10.1e} {found.metrics:8.1e} "
                f"{found.values:6}",
                flush=True,
            )
    print(f"{len(names or CASES)} cases: {wrong} above their limit")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
