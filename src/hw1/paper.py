"""What all pages share: how they are filled in, their style sheet, commands and figures inside them. No torch."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template, select_autoescape

from hw1.inside import inside
from hw1.typed import SCRIPT, TRAININGS
from hw1.words import printable


def template(package: str, file: str) -> Template:
    """The template of a page; what is filled in stands there as text, whatever it holds.

    Markup is escaped, and characters that HTML does not hold are left out. A path in an address goes through jinja's
    `urlencode`.

    Args:
        package: where the file is.
        file: its name.
    """
    made = Environment(
        autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True, finalize=_without_control
    )
    return made.from_string(files(package).joinpath(file).read_text(encoding="utf-8"))


def _without_control(value: Any) -> Any:
    """A text without control characters, its lines kept; anything else, as markup of our own, as it is."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def command(words: Iterable[object]) -> str:
    r"""A command as it can be pasted into a shell.

    Args:
        words: the program's name and its arguments, after `python`.

    Example:
        >>> command(["train.py", 'model.layers=["c3(10)",p2]', "seed=1,2"])
        'python train.py \'model.layers=["c3(10)",p2]\' seed=1,2'
    """
    return shlex.join(["python", *map(str, words)])


def command_of(record: Mapping[str, Any]) -> str:
    """The command of a sweep as it can be pasted into a shell.

    Args:
        record: of the sweep, whose `program` is one of those that train, or nothing; of what hw1 only recorded, the
            command is all there is.

    Example:
        >>> command_of({"program": "hw1 train", "command": ["seed=1,2"]})
        'hw1 train seed=1,2'
        >>> command_of({"program": "rm -r", "command": ["seed=1,2"]})
        'python train.py seed=1,2'
    """
    program = "" if record.get("recorded") else record.get("program")
    return shlex.join([*(program if program in ("", *TRAININGS) else SCRIPT).split(), *map(str, record["command"])])


def style() -> str:
    """The style sheet of all pages."""
    return files("hw1").joinpath("page.css").read_text(encoding="utf-8")


def image(folder: Path, file: str, captions: Mapping[str, str], title: str) -> dict[str, str]:
    """A figure as it stands in a page: name, caption, alt (what it is of, for those who do not see it), data, vector.

    Args:
        folder: where it is.
        file: `<name>.png`, with `<name>.svg` beside it.
        captions: how to read a figure, by the beginning of its name; the longest that fits.
        title: of what it belongs to.

    Raises:
        DamagedError: the name leads out of the folder, or to a link.
    """
    name = file.removesuffix(".png")
    start = max((start for start in captions if name.startswith(start)), key=len, default="")
    return {
        "name": name,
        "caption": captions.get(start, ""),
        "alt": f"Figure {name.replace('_', ' ')} of {title}",
        "data": base64.b64encode(inside(folder, file).read_bytes()).decode(),
        "vector": f"{name}.svg",
    }
