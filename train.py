"""The command: `python train.py experiment=flatness_interp`. See `python train.py --help`."""

from pathlib import Path

from hw1.job import command


def main() -> None:
    """Run the command with this checkout's conf/."""
    command(Path(__file__).resolve().parent)


if __name__ == "__main__":
    main()
