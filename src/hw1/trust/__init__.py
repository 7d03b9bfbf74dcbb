"""Whose results they are, and what of a stranger's is built: opening somebody's folder never runs code. No torch.

A run or sweep with the user's valid signature is hers. Of anybody else's, what the settings name is judged before
anything is called or imported; `hw1 trust FOLDER`, `trust=[my_models]` or the user's configuration folder say more.
"""

from hw1.trust.error import TrustError
from hw1.trust.judge import judge_measures, judge_settings, judge_study
from hw1.trust.owner import is_hers, keep_code, why_not_hers
from hw1.trust.reading import Reading, reading, ready

__all__ = [
    "Reading",
    "TrustError",
    "is_hers",
    "judge_measures",
    "judge_settings",
    "judge_study",
    "keep_code",
    "reading",
    "ready",
    "why_not_hers",
]
