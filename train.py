"""The command: `python train.py experiment=flatness_interp`. See `python train.py --help`."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent


def main() -> None:
    """Run the command with this checkout's conf/ and its own code, whether or not that is installed."""
    sys.path.insert(0, str(CHECKOUT / "src"))
    from hw1.job import command
    from hw1.project import importable

    importable(CHECKOUT / "src")
    command(CHECKOUT)


if __name__ == "__main__":
    main()
