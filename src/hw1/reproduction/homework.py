"""Every question's default, one command a question, and one page for all of them. No torch."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw1.files import new_folder, write_text
from hw1.paper import command as in_shell
from hw1.paper import image, style, template
from hw1.records import read_record
from hw1.settings.about import About, experiments


@dataclass(frozen=True)
class Answer:
    """What one command came to.

    Attributes:
        name: the experiment.
        about: what its YAML says of it.
        command: words of the command.
        code: its exit code; None if it was not started.
        seconds: how long it took.
        sweep: the folder of its sweep; None if it wrote no report.
    """

    name: str
    about: About
    command: list[str]
    code: int | None = None
    seconds: float = 0.0
    sweep: Path | None = None
    record: dict[str, Any] = field(default_factory=dict)


def questions(conf: Path) -> dict[str, About]:
    """The questions in conf/experiment/, by experiment, in the reports' order; variants are in folders below."""
    found = {name: about for name, about in experiments(conf).items() if "/" not in name}
    return dict(sorted(found.items(), key=lambda item: (section(item[1].question), item[0])))


def section(question: str) -> float:
    """The section of the reports that a question names; infinite where it names none.

    Example:
        >>> section("What path do the weights take? (report 002, section 3)")
        3.0
    """
    match = re.search(r"\bsection (\d+)", question)
    return float(match[1]) if match else math.inf


def homework(checkout: Path, words: Sequence[str]) -> int:
    """Run all questions one after the other, going on after a failure, and write the page.

    Args:
        checkout: the folder of conf/, and of train.py; where there is none, hw1 is installed, and results go to the
            current folder.
        words: what every command gets besides its experiment, as `budget=quick`.

    Returns:
        0; 1 if a command failed; 130 if one was interrupted.
    """
    asked = questions(checkout / "conf")
    script = (checkout / "train.py").is_file()
    program = ["train.py"] if script else ["-m", "hw1", "train"]
    base = checkout if script else Path.cwd()
    output = next((Path(word.partition("=")[2]) for word in words if word.startswith("output=")), base / "multirun")
    answers: list[Answer] = []
    for number, (name, about) in enumerate(asked.items(), 1):
        command = [*program, f"experiment={name}", *words]
        answer = Answer(name, about, command)
        if not any(done.code == 130 for done in answers):
            print(f"[{number}/{len(asked)}] {in_shell(command)}", flush=True)
            there = set((output / name).glob("sweeps/*"))
            answer = _ask(answer, checkout)
            said = [word for word in words if not word.startswith("output=")]
            if number == 1 and said and answer.code == 1 and there == set((output / name).glob("sweeps/*")):
                return 1  # the words were refused, in a line; the other commands would say it again
        answers.append(answer)
    codes = {answer.code for answer in answers}
    if "--dry-run" not in words:
        folder = new_folder(output / "homework")
        write_text(folder / "index.html", page(answers, folder))
        print(f"page: {folder / 'index.html'}")
    for answer in answers:
        if answer.code:
            print(f"failed: {answer.name}: exit code {answer.code}", file=sys.stderr)
    return 130 if 130 in codes else int(codes != {0})


def _ask(answer: Answer, checkout: Path) -> Answer:
    """Run one command, show what it says, and find its report by the line that names it."""
    begun, report = time.monotonic(), None
    first, *words = answer.command
    command = [sys.executable, first if first == "-m" else str(checkout / first), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(f"  {line}", end="", flush=True)
                if line.startswith("report: "):
                    report = Path(line.partition(": ")[2].strip()).absolute()
        except KeyboardInterrupt:  # the command has had the same signal, and ends by itself
            process.wait()
            return Answer(answer.name, answer.about, answer.command, 130, time.monotonic() - begun)
    sweep = report.parent if report else None
    record = read_record(sweep / "sweep.json") if sweep else {}
    seconds = time.monotonic() - begun
    return Answer(answer.name, answer.about, answer.command, process.returncode, seconds, sweep, record)


def page(answers: Iterable[Answer], folder: Path) -> str:
    """The page of a homework, to stand in `folder`: headlines, figures inside, links to the reports."""
    shown = []
    for answer in answers:
        title = answer.about.title or answer.name
        record, sweep = answer.record, answer.sweep
        shown.append(
            {
                "name": answer.name,
                "title": title,
                "question": answer.about.question,
                "expect": answer.about.expect,
                "command": in_shell(answer.command),
                "status": {None: "not run", 0: "complete"}.get(answer.code, f"failed, exit code {answer.code}"),
                "seconds": round(answer.seconds),
                "budget": record.get("budget", "full"),
                "lines": record.get("answer", []),
                "headlines": record.get("headlines", []),
                "failed": record.get("failed", {}),
                "report": os.path.relpath(sweep / "report.html", folder) if sweep else None,
                "images": [
                    image(sweep, name, record.get("captions", {}), title)
                    for name in record.get("files", [])
                    if sweep and name.endswith(".png")
                ],
            }
        )
    made = template("hw1.reproduction", "homework.html.j2")
    return made.render(answers=shown, time=folder.name, style=style())
