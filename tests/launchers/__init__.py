"""Every launcher does the same: trains, skips, resumes, survives, fails and measures, with equal weights.

`python -m tests.launchers` prints the matrix; `python -m tests.launchers kill --launcher joblib` kills again and again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as under pytest, for `warm`
