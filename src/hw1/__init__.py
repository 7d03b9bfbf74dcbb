"""hw1: how neural networks optimise and why they generalise.

Importing the package stays cheap: nothing here imports torch. It only tells glibc's malloc to keep large blocks and
libgomp's threads to spin briefly, which must happen before torch is loaded.
"""

from typing import TYPE_CHECKING

from hw1._before_torch import keep_large_blocks, spin_briefly
from hw1.on_first_use import from_homes

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
_HOMES = {
    **dict.fromkeys(("train", "plan", "measure"), "python"),
    **dict.fromkeys(("Sweep", "Run"), "runs"),
    "ConfigError": "settings",
    "record": "recording",
}

keep_large_blocks()
spin_briefly()

__getattr__, __dir__ = from_homes(__name__, _HOMES)
