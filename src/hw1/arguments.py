"""The words of `hw1` and `python -m hw1`: its commands, what each takes, and their help."""

import argparse
import os
import re
from pathlib import Path
from typing import NoReturn

from hw1.help import version_text
from hw1.typed import program, training


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all of hw1's."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the words, and leave with exit code 1, as after every refusal."""
        lacking = message.removeprefix("the following arguments are required: ")
        said = f"got no {lacking}, expected some" if lacking != message else message
        self.exit(1, f"error: {self.prog}: {said}; {self.prog} --help says more\n")


def parser() -> argparse.ArgumentParser:
    """What reads the words of a command."""
    made = _Parser(
        prog=program(),
        description="Commands on experiments and finished sweeps; only train and homework train. Results are those of "
        "the current folder's multirun/.",
    )
    made.add_argument("--version", action="version", version=version_text())
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("train", help=f"train, measure and draw what an experiment asks; {training()} --help says more")
    begun = commands.add_parser("init", help="begin a project of your own, with a model, data, a measure, a test")
    begun.add_argument("folder", type=Path, help="a new or an empty one")
    signed = commands.add_parser("trust", help="sign results, or a project, as yours, after a look at what they import")
    signed.add_argument("folder", type=Path, help="of results, at any depth, or a project")
    signed.add_argument("--yes", action="store_true", help="sign without asking")
    paths = "a sweep (multirun/NAME/sweeps/TIME), or multirun/NAME for its latest one"
    below = "a run, a sweep, multirun/NAME, or a folder of those (default: multirun)"
    report = commands.add_parser("report", help="measure and draw a sweep again, and write its page")
    report.add_argument("path", help=paths)
    keep = "take runs as they are whose model or other code of your own has changed since they were trained"
    report.add_argument("--keep", action="store_true", help=keep)
    runs = commands.add_parser("runs", help="print a sweep's runs, one a line")
    runs.add_argument("path", help=paths)
    runs.add_argument("metrics", nargs="*", help="metrics to show, as test/accuracy; default: all")
    listed = commands.add_parser(
        "list", help="experiments, sweeps and runs: waiting, running, failed and why, complete"
    )
    listed.add_argument("words", nargs="*", help=f"{below}; filters, as status=failed optimizer.lr=0.1,0.01")
    listed.add_argument("--watch", action="store_true", help="show it anew every two seconds, until nothing is at work")
    compared = commands.add_parser(
        "compare", help="two sweeps side by side: settings, differences with intervals, a page"
    )
    compared.add_argument("a", help=paths)
    compared.add_argument("b", help="another one; differences are B minus A")
    compared.add_argument("metrics", nargs="*", help="metrics to compare, as test/accuracy; default: all")
    compared.add_argument("-o", "--output", type=Path, help="where the page goes; default: into the folder of B")
    exported = commands.add_parser(
        "export", help="all runs as one tidy table: settings, metrics, measures; CSV, Parquet"
    )
    exported.add_argument("words", nargs="*", help=f"{below}; filters, as for list")
    exported.add_argument(
        "-o", "--output", help="FILE.csv, FILE.parquet or - for the terminal; default: export.* there"
    )
    clean = commands.add_parser(
        "clean", help="free disk: what belongs to nothing, or weights, or results; says what, and asks"
    )
    clean.add_argument("words", nargs="*", help=f"{below}; filters, as for list")
    freed = clean.add_mutually_exclusive_group()
    freed.add_argument("--checkpoints", action="store_true", help="of complete runs whose end is in a snapshot too")
    freed.add_argument(
        "--snapshots", type=int, metavar="N", help="complete runs keep N, evenly spaced, and what measures need"
    )
    freed.add_argument("--weights", action="store_true", help="all weights of complete runs; their results stay")
    freed.add_argument("--results", action="store_true", help="whole runs, complete ones too, and their sweeps")
    clean.add_argument("--yes", action="store_true", help="remove without asking")
    measure = commands.add_parser("measure", help="take measures of a sweep's finished runs, without training")
    measure.add_argument("path", help=paths)
    measure.add_argument("words", nargs="+", help="measures and settings, as sharpness sharpness.examples=2048")
    measure.add_argument("--config-dir", help="a folder of settings of your own, as for a training")
    measure.add_argument("--dry-run", action="store_true", help="say how many runs would be measured, and stop")
    measure.add_argument("--keep", action="store_true", help=keep)
    measure.add_argument("--detach", action="store_true", help="leave when all is in a cluster's queue")
    commands.add_parser("node", help="make this machine another one of runs that train on several (trainer.num_nodes)")
    adopt = commands.add_parser("adopt", help="make finished runs of weights that were trained elsewhere")
    adopt.add_argument(
        "words", nargs="+", help="weights='runs/*.pt' model=... dataset=... name=mine, and all that train.py takes"
    )
    adopt.add_argument("--config-dir", help="a folder of your own beside conf/, as for train.py")
    adopt.add_argument("--dry-run", action="store_true", help="say which runs would be made, and stop")
    check = commands.add_parser("verify", help="read and hash runs and sweeps, and name every damage")
    check.add_argument("path", type=Path, help="a run, a sweep, multirun/NAME, or multirun")
    again = commands.add_parser("rekey", help="give what an earlier version trained today's keys and format")
    again.add_argument("path", type=Path, help="the folder of an experiment, as multirun/NAME")
    board = commands.add_parser(
        "tensorboard", help="show the runs of some sweeps alone; its flags go on to TensorBoard"
    )
    board.add_argument("paths", nargs="+", help=paths)
    homework = commands.add_parser("homework", help="run every question's default, and write one page")
    homework.add_argument("words", nargs="*", help="for every command, as budget=quick or --dry-run")
    for name, text in (
        ("results", "fill docs/results.csv and docs/results.md from finished sweeps"),
        ("claims", "fill docs/claims.md and docs/claims.csv from finished sweeps"),
    ):
        table = commands.add_parser(name, help=text)
        table.add_argument("output", nargs="?", type=Path, help="where the sweeps are; default: multirun/")
    return made


def completing(words: list[str]) -> list[str]:
    """What is to be run where the shell asks `hw1 -sc query=bash`, of a line that begins with `hw1 train`, say.

    The command itself is completed here; its words are those of a training, and Hydra's to complete.
    """
    line = os.environ.get("COMP_LINE", "")
    typed = line.split(" ")
    if len(typed) == 2 and words[1:] != ["install=bash"]:
        known = re.search(r"\{([a-z,]+)\}", parser().format_usage())
        print(*(one for one in (known[1].split(",") if known else ()) if one.startswith(typed[1])))
        return []
    if typed[1:2] == ["train"]:
        rest = " ".join([typed[0], *typed[2:]])
        point = int(os.environ.get("COMP_POINT") or len(line)) - len(line) + len(rest)
        os.environ |= {"COMP_LINE": rest, "COMP_POINT": str(point)}
    return ["train", *words]
