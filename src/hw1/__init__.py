"""hw1: how neural networks optimise and why they generalise.

Importing the package stays cheap: nothing here imports torch. It only tells glibc's malloc to keep large blocks and
libgomp's threads to spin briefly, which must happen before torch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hw1._before_torch import keep_large_blocks, spin_briefly

if TYPE_CHECKING:
    from hw1.python import measure as measure
    from hw1.python import plan as plan
    from hw1.python import train as train
    from hw1.recording import record as record
    from hw1.runs import Run as Run
    from hw1.runs import Sweep as Sweep
    from hw1.settings import ConfigError as ConfigError

__version__ = "0.1.0"

# What `from hw1 import train` finds, and where; loaded when it is asked for.
_NAMES = {
    **dict.fromkeys(("train", "plan", "measure"), "hw1.python"),
    **dict.fromkeys(("Sweep", "Run"), "hw1.runs"),
    "ConfigError": "hw1.settings",
    "record": "hw1.recording",
}

keep_large_blocks()
spin_briefly()


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'hw1' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
