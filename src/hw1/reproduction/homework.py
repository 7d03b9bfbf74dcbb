"""Every question's default, one command a question, and one page for all of them. No torch."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, select_autoescape

from hw1.files import new_folder, write_text
from hw1.records import read_record
from hw1.settings.about import experiments


@dataclass(frozen=True)
class Answer:
    """What one command came to.

    Attributes:
        name: the experiment.
        question: as its YAML asks it.
        command: words of the command.
        code: its exit code; None if it was not started.
        seconds: how long it took.
        sweep: the folder of its sweep; None if it wrote no report.
    """

    name: str
    question: str
    command: list[str]
    code: int | None = None
    seconds: float = 0.0
    sweep: Path | None = None
    record: dict[str, Any] = field(default_factory=dict)


def questions(conf: Path) -> dict[str, str]:
    """The questions in conf/experiment/, by experiment in alphabetical order; variants are in folders below."""
    return {name: about.question or name for name, about in experiments(conf).items() if "/" not in name}


def homework(checkout: Path, words: Sequence[str]) -> int:
    """Run all questions one after the other, going on after a failure, and write the page.

    Args:
        checkout: the folder of train.py and conf.
        words: what every command gets besides its experiment, as `budget=quick`.

    Returns:
        0; 1 if a command failed; 130 if one was interrupted.
    """
    asked = questions(checkout / "conf")
    output = next((Path(word.partition("=")[2]) for word in words if word.startswith("output=")), checkout / "multirun")
    answers: list[Answer] = []
    for number, (name, question) in enumerate(asked.items(), 1):
        command = ["train.py", f"experiment={name}", *words]
        answer = Answer(name, question, command)
        if not any(done.code == 130 for done in answers):
            print(f"[{number}/{len(asked)}] python {' '.join(command)}", flush=True)
            answer = _ask(answer, checkout)
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
    program, *words = answer.command
    command = [sys.executable, str(checkout / program), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(f"  {line}", end="", flush=True)
                if line.startswith("report: "):
                    report = Path(line.partition(": ")[2].strip()).absolute()
        except KeyboardInterrupt:  # the command has had the same signal, and ends by itself
            process.wait()
            return Answer(answer.name, answer.question, answer.command, 130, time.monotonic() - begun)
    sweep = report.parent if report else None
    record = read_record(sweep / "sweep.json") if sweep else {}
    seconds = time.monotonic() - begun
    return Answer(answer.name, answer.question, answer.command, process.returncode, seconds, sweep, record)


def page(answers: Iterable[Answer], folder: Path) -> str:
    """The page of a homework, to stand in `folder`: headlines, figures inside, links to the reports."""
    shown = []
    for answer in answers:
        images = [name for name in answer.record.get("files", []) if name.endswith(".png")]
        shown.append(
            {
                "name": answer.name,
                "question": answer.question,
                "command": " ".join(["python", *answer.command]),
                "status": {None: "not run", 0: "complete"}.get(answer.code, f"failed, exit code {answer.code}"),
                "seconds": round(answer.seconds),
                "budget": answer.record.get("budget", "full"),
                "headlines": answer.record.get("headlines", []),
                "failed": answer.record.get("failed", {}),
                "report": os.path.relpath(answer.sweep / "report.html", folder) if answer.sweep else None,
                "images": [base64.b64encode((answer.sweep / name).read_bytes()).decode() for name in images]
                if answer.sweep
                else [],
            }
        )
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    template = files("hw1.reproduction").joinpath("homework.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(answers=shown, time=folder.name)
