"""What a user types to start hw1, as hints say it: the command that was used. Imports nothing."""

import sys
from pathlib import Path

HW1, MODULE, SCRIPT = TRAININGS = ("hw1 train", "python -m hw1 train", "python train.py")
_CHECKOUT = Path(__file__).resolve().parents[2]


def program() -> str:
    """What stands before a command on finished sweeps: `hw1`, or `python -P -m hw1` where that may not be installed.

    Without -P, Python would put the current folder first, whose modules would then stand for installed ones.
    """
    return "hw1" if _started() == "hw1" or not _in_checkout() else "python -P -m hw1"


def training() -> str:
    """What stands before the words of a training: `hw1 train`, `python -m hw1 train` or `python train.py`."""
    if _started() == "hw1":
        return HW1
    if _started() == MODULE and not Path("train.py").is_file():
        return MODULE
    return SCRIPT if _in_checkout() else HW1


def _started() -> str:
    """The name of the program that runs, without an ending; `MODULE` for `python -m hw1`."""
    path = Path(sys.argv[0] if sys.argv else "")
    return MODULE if path.parts[-2:] == ("hw1", "__main__.py") else path.stem


def _in_checkout() -> bool:
    return (_CHECKOUT / "train.py").is_file()
