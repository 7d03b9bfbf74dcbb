"""`python -m hw1 report PATH` and `python -m hw1 runs PATH`: thin commands on finished sweeps."""

import argparse
import os
import sys


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hw1", description="Commands on finished sweeps; nothing is trained."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    paths = "a sweep (multirun/NAME/sweeps/TIME), or multirun/NAME for its latest one"
    report = commands.add_parser("report", help="measure and draw a sweep again, and write its page")
    report.add_argument("path", help=paths)
    runs = commands.add_parser("runs", help="print a sweep's runs, one a line")
    runs.add_argument("path", help=paths)
    runs.add_argument("metrics", nargs="*", help="metrics to show, as test/accuracy; default: all")
    chosen = parser.parse_args(words)

    from hw1.command import explain
    from hw1.runs import Sweep

    try:
        sweep = Sweep.read(chosen.path)
        if chosen.command == "report":
            from hw1.report.conclude import conclude

            print("\n".join(conclude(sweep.path)))
            failed = Sweep.read(sweep.path).record["failed"]
            for name, error in failed.items():
                print(f"failed: {name}: {error}", file=sys.stderr)
            return 1 if failed else 0
        print(sweep.table(*chosen.metrics).to_string(index=False))
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
