"""`python -m tests.slurm`: the matrix of runs as jobs of Slurm, whole, against the stand-ins; prints its figures."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

if __name__ == "__main__":
    words = ["-q", "-n", "0", "--rootdir", str(HERE.parents[1]), "-m", "slow or not slow", str(HERE), *sys.argv[1:]]
    sys.exit(pytest.main(words))
