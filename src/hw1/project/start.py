"""`hw1 init`: a small project to begin from, which passes its own test."""

from __future__ import annotations

from pathlib import Path

from hw1.files import write_text
from hw1.settings import ConfigError
from hw1.trust.projects import add_project

TEMPLATE = Path(__file__).parent / "template"
_NAME = "myproject"  # in the template's README
_HIDDEN = {"gitignore": ".gitignore"}  # which git would obey where the template lies


def files() -> dict[str, str]:
    """The files of a new project: their text by their path in it, with / between folders."""
    found = {}
    for file in sorted(TEMPLATE.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            path = file.relative_to(TEMPLATE).as_posix()
            found[_HIDDEN.get(path, path)] = file.read_text(encoding="utf-8")
    return found


def start(folder: Path) -> list[str]:
    """Write a new project, and sign it as the user's.

    Args:
        folder: where; it may be there if it is empty.

    Returns:
        What to say.

    Raises:
        ConfigError: something is there already; nothing was written.
    """
    there = folder.is_symlink() or folder.exists()
    if there and not (folder.is_dir() and not any(folder.iterdir())):
        what = "a folder with files in it" if folder.is_dir() else "a file"
        raise ConfigError(f"{folder}: got {what}, expected a new or an empty folder")
    made = files()
    name = folder.resolve().name
    for path, text in made.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text.replace(_NAME, name) if path == "README.md" else text)
    lines = [*(f"  {path}" for path in made), f"{folder}: a project; its README.md says how to go on"]
    if problem := add_project(folder):
        lines.append(f"{folder} is not signed as yours: {problem}; commands that read take no code from it")
    return lines
